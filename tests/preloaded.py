"""Imports and checksums of the process that forks commands (tests/program.py), so that commands start with them."""

import gc
import sys
from contextlib import suppress
from importlib import import_module
from pkgutil import walk_packages

import jinja2  # noqa: F401
import matplotlib.pyplot  # noqa: F401

from seqmem import cli, datasets, results, training
from seqmem.cli import commandline
from seqmem.training import fingerprint

for package in (cli, results, training):
    for module in walk_packages(package.__path__, f"{package.__name__}."):
        if module.name != "seqmem.cli.defaults":  # which is run with -m: Python warns of one that has been imported before
            with suppress(ImportError):  # of an extra that is not installed
                import_module(module.name)
commandline.compose()  # Hydra looks for its plugins, and its parsers learn
datasets.load({"name": "digits"})
for name in [name for name in sys.modules if name.startswith("seqmem.") and fingerprint._path(name)]:
    fingerprint._source(name)
gc.collect()
gc.freeze()  # or the first collections of each command visit all of it
