"""Checks of Triton kernels in its interpreter on the CPU, in a process of their own without the compiled library.

Triton reads TRITON_INTERPRET when it is imported. ``python -m tests.ops.gpu.interpreted all|sample`` runs the functions
``check_*`` of :data:`MODULES`, and prints how many numbers each compared.
"""

import importlib
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.ops.gpu.compiled import interpreter_reason

MODULES = tuple(f"tests.ops.gpu.{name}_checks" for name in ("update", "projection", "chunk", "scan"))


@cache
def checked(size: str) -> dict[str, int]:
    """Run all checks once, and return how many numbers each compared.

    Args:
        size: ``sample`` for a few sizes, or ``all``.
    """
    if interpreter_reason():
        pytest.skip(interpreter_reason())
    done = subprocess.run(
        [sys.executable, "-m", "tests.ops.gpu.interpreted", size],
        capture_output=True,
        text=True,
        timeout=3 * 3600,  # also on a busy machine
        cwd=Path(__file__).parents[3],
        env={**os.environ, "TRITON_INTERPRET": "1", "SEQMEM_EXTENSION": "no library here", "SEQMEM_REFERENCE": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = {}
    for line in done.stdout.splitlines():
        name, compared = line.split()
        found[name] = int(compared)
    return found


def main(size: str) -> None:
    """Run the checks; each is a function of ``size`` that returns how many numbers it compared."""
    import torch

    import seqmem.ops

    assert not any("triton" in vars(module) for name, module in sys.modules.items() if name.startswith(seqmem.ops.__name__))
    for module in MODULES:
        for name, check in vars(importlib.import_module(module)).items():
            if name.startswith("check_"):
                torch.manual_seed(0)
                print(name.removeprefix("check_"), check(size))


if __name__ == "__main__":
    main(*sys.argv[1:])
