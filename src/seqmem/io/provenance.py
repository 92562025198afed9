"""Provenance of a result: commit of the code, versions of packages, and machine."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_no_sources = ("benchmarks/results", "README.md", "docs")
_packages = ("seqmem", "torch", "pytorch-lightning", "torchmetrics", "hydra-core", "numpy", "scikit-learn", "torchvision")


@cache
def provenance() -> dict[str, Any]:
    """Return versions, git commit and machine, as values that JSON can hold.

    The commit ends in ``-dirty`` if tracked files were changed other than pages and kept results, which no measurement
    depends on. It is None outside of a repository.
    """
    return {
        "commit": _commit(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _packages},
        "machine": {
            "processor": _processor(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "system": platform.platform(),
        },
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit(folder: Path = Path(__file__).parent) -> str | None:
    sources = [":/", *(f":(top,exclude){path}" for path in _no_sources)]
    try:
        commit = _git(folder, "rev-parse", "--verify", "HEAD").stdout.strip()
        is_dirty = _git(folder, "diff", "--quiet", "--no-ext-diff", "HEAD", "--", *sources).returncode == 1
    except (OSError, subprocess.TimeoutExpired):
        return None
    return f"{commit}{'-dirty' if is_dirty else ''}" if commit else None


def _git(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
