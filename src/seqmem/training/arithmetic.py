"""The arithmetic of a trial: its device and operators, whose rounding differs by more than the order of sums."""

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

from seqmem.io.provenance import provenance
from seqmem.ops import extension
from seqmem.training.config import RayConfig, RunnerConfig, runner_config


def arithmetic(config: Mapping[str, Any]) -> str:
    """Return the device kind and the operators that a trial uses on this machine, for example ``cpu compiled``.

    It is part of a trial's identity, like settings, code and data. The number of threads, the instruction set and the name of
    the GPU are not: they change the order of sums alone, and :func:`computed_by` records them.

    Args:
        config: a resolved, checked config; its runner is used.

    Returns:
        ``cpu``, ``cuda`` or ``mps``; then ``compiled`` or ``reference``, the path of the operators; then, unless torch
        multiplies float32 matrices in full precision, ``tf32`` or ``bf16``.
    """
    device = device_kind(runner_config(config["runner"]))
    products = {"highest": [], "high": ["tf32"]}.get(torch.get_float32_matmul_precision(), ["bf16"])
    return " ".join([device, operators_path(device), *products])


def requested(config: Mapping[str, Any]) -> str:
    """Return the part of the arithmetic that a command chooses, the same on all machines; empty for the defaults."""
    accelerator = config["runner"]["accelerator"]
    return " ".join([*([accelerator] if accelerator != "auto" else []), *(["reference"] if extension.FORCED else [])])


def device_kind(runner: RunnerConfig) -> str:
    """Return the device type that a runner's trials use, as torch names it; Lightning chooses likewise."""
    if runner.accelerator == "cpu":
        return "cpu"
    if isinstance(runner, RayConfig):  # a worker has the GPUs that Ray reserves for it, and no others
        return "cuda" if runner.gpus else "cpu"
    if torch.backends.mps.is_available():
        return "mps"
    return "cuda" if torch.cuda.is_available() else "cpu"


def operators_path(device: str) -> str:
    """Return the path of the operators for tensors on a device type: ``compiled`` or ``reference``."""
    available = {"cpu": True, "cuda": extension.ON_GPU}.get(device, False)
    return "compiled" if available and not extension.REASON else "reference"


def computed_by(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the machine and the library that compute a trial in this process, as values that JSON can hold.

    Returns:
        ``machine``, with the ``machine`` of :func:`seqmem.io.provenance.provenance`, ``devices`` (names of the GPUs in use,
        empty on the CPU) and ``instructions`` (sets of torch and of the compiled operators); ``library``, see :func:`library`.
    """
    runner = runner_config(config["runner"])
    count = runner.devices if device_kind(runner) == "cuda" and torch.cuda.is_available() else 0
    machine = {
        **provenance()["machine"],
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(k) for k in range(count)],
        "instructions": {
            "torch": torch.backends.cpu.get_cpu_capability(),
            "operators": None if extension.REASON else torch.ops.seqmem.instruction_set(),
        },
    }
    return {"machine": machine, "library": library()}


def library() -> dict[str, str] | None:
    """Return the checksums of the loaded library of compiled operators; None if the reference is in use.

    Returns:
        ``sources``, that of the sources and build flags from which it was built, empty if the library does not hold it;
        ``sha256``, that of the file.
    """
    return None if extension.REASON else _checksums(Path(extension.LIBRARY))


@cache
def _checksums(path: Path) -> dict[str, str]:
    return {"sources": extension.built_from(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
