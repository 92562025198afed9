"""Provenance of a result: commit of the code, versions of packages, and machine."""

import platform
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from seqmem.io import built, mkl
from seqmem.io.machine import processor_fields

_packages = ("seqmem", "torch", "pytorch-lightning", "torchmetrics", "hydra-core", "numpy", "scikit-learn", "torchvision")


@cache
def provenance() -> dict[str, Any]:
    """Return versions, git commit and machine, as values that JSON can hold.

    ``commit`` is that of :func:`seqmem.io.built.commit`; for an installed package that of :func:`seqmem.io.built.read`, which
    also gives ``sources``, a hash of its files. In a checkout, the commit stands for them, and ``sources`` is None.
    """
    return {
        **_origin(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _packages},
        "machine": {
            "processor": _processor(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "system": platform.platform(),
        },
    }


def now() -> str:
    """Return the time in UTC, as records have it: 2024-01-31T12:30:00+0000."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime(time.time()))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _origin(package: Path = Path(__file__).parents[1]) -> dict[str, str | None]:
    if (package / "cfg").is_dir():  # the build puts the configs there
        return built.read(package)
    return {"commit": built.commit(package), "sources": None}


def _processor(root: Path = Path("/")) -> str:
    fields = processor_fields(root)
    name = fields.get("model name", platform.processor())
    if not any(letter.isdigit() for letter in name) and "cpu family" in fields:
        # Virtual machines hide the number of the product, so that generations of different speed share a name.
        name = f"{name}, family {fields['cpu family']} model {fields['model']}"
    uses_avx512 = mkl.kernels(root) == "AVX-512" and torch.backends.mkl.is_available()
    return f"{name}, MKL with AVX-512" if uses_avx512 else name
