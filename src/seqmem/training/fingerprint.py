"""A checksum of the code that a result depends on."""

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from seqmem.training.backend import library

_root = "seqmem"
_entry = "seqmem.training.loop.trial"
_without_influence = ("seqmem.results",)  # records and tables change no number


def fingerprint(model: nn.Module, data: object, task: object) -> str:
    """Return a short checksum of the code that trains ``model`` on ``data``.

    It covers torch's version, the compiled operators that are loaded, and the modules that the training needs, of this package
    and of the data set's. The operators count by the sources from which the library was built, whatever csrc/ holds now.
    Comments and docstrings have no influence. Nor has a cell, model, task or data set that is not used, so that adding one
    leaves the results of the others valid.

    Args:
        model: the classes of its modules count.
        data: its class counts.
        task: its class counts.
    """
    classes = {type(module) for module in model.modules()} | {type(data), type(task)}
    used = {ancestor.__module__ for owner in classes for ancestor in owner.__mro__}
    packages = (_root, type(data).__module__.partition(".")[0])
    digest = hashlib.sha256(torch.__version__.encode())
    for name in sorted(_needed([_entry, *used], packages)):
        digest.update(f"{name} {_source(name)[0]}\n".encode())
    digest.update(_operators().encode())
    return digest.hexdigest()[:12]


def _needed(modules: Iterable[str], packages: tuple[str, ...]) -> set[str]:
    """Return the modules and all that they import, directly or not, of the given packages."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        inside = name.partition(".")[0] in packages and not name.startswith(_without_influence)
        if name in found or not inside or _path(name) is None:
            continue
        found.add(name)
        waiting += _source(name)[1]
    return found


@cache
def _source(name: str) -> tuple[str, tuple[str, ...]]:
    """Return a checksum of a module's code, and the names that it imports, which need not be modules."""
    path = _path(name)
    assert path is not None
    tree = ast.parse(path.read_bytes())
    imported: list[str] = []
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
            node.body[:1] = [] if len(node.body) > 1 else [ast.Pass()]
    # A registry imports all its modules; the ones in use are found through the classes of model, data and task.
    registry = any(name.startswith("pkgutil") for name in imported)
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), () if registry else tuple(imported)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a module or statement and all statements within, but those for type checkers.

    Expressions, ten times as many, are left out.
    """
    yield node
    is_for_types = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    for field in ("orelse",) if is_for_types else ("body", "orelse", "finalbody", "handlers", "cases"):
        for inner in getattr(node, field, ()):
            yield from _statements(inner)


@cache
def _path(name: str) -> Path | None:
    """Return the file of a module of Python code; None if no such module exists."""
    loaded = sys.modules.get(name)
    if loaded is not None:
        file = getattr(loaded, "__file__", None)
    else:
        try:
            spec = find_spec(name)
        except (ImportError, ValueError, AttributeError):
            return None
        file = spec.origin if spec else None
    return Path(file) if file and file.endswith(".py") else None


def _operators() -> str:
    """Return the checksum of the loaded operators: of their sources, or of the file if it does not hold that."""
    loaded = library()
    return "reference" if loaded is None else loaded["sources"] or loaded["sha256"]
