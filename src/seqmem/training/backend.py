"""The backend of a trial: its device and operators, whose rounding differs by more than the order of sums."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from seqmem.io.provenance import provenance
from seqmem.ops import extension
from seqmem.ops.gpu import support
from seqmem.training.config import RayConfig, RunnerConfig, runner_config

_CHOOSING_KERNELS = (
    "CUBLAS_WORKSPACE_CONFIG",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
)
"""Environment variables by which the libraries below torch choose other kernels, and so other last digits."""


def backend(config: Mapping[str, Any]) -> str:
    """Return the device kind and the operators that a trial uses on this machine, for example ``cpu compiled``.

    It is part of a trial's identity, like settings, code and data. The number of threads, the instruction set and the name of
    the GPU are not: in float32 and float64 they change the order of sums alone, and :func:`computed_by` records them.

    Args:
        config: a resolved, checked config; its runner and its precision are used.

    Returns:
        ``cpu``, ``cuda`` or ``mps``; then ``compiled`` or ``reference``, the path of the operators; then, unless torch
        multiplies float32 matrices in full precision, ``tf32`` or ``bf16``; then, for ``train.precision=bf16-mixed`` on the
        CPU, how sequences multiply in bfloat16: ``tiles``, ``vectors`` or ``rounded`` operands of the compiled operators,
        else ``eager``.
    """
    device = device_kind(runner_config(config["runner"]))
    return _named(config, device, operators_path(device))


def planned(config: Mapping[str, Any]) -> str:
    """Return the backend that a config's trials must have, in the process that starts them.

    It is that of this machine, except for trials with GPUs of a Ray cluster that are started from a machine without a GPU.
    Each trial compares its own with it.
    """
    runner = runner_config(config["runner"])
    if isinstance(runner, RayConfig) and runner.gpus and runner.accelerator != "cpu" and not torch.cuda.is_available():
        return _named(config, "cuda", "reference" if extension.FORCED else "compiled")
    return backend(config)


def _named(config: Mapping[str, Any], device: str, path: str) -> str:
    products = {"highest": [], "high": ["tf32"]}.get(torch.get_float32_matmul_precision(), ["bf16"])
    if device == "cpu" and str(config.get("train", {}).get("precision", "")).startswith("bf16"):
        products.append("eager" if extension.REASON else torch.ops.seqmem.bfloat16_products())
    return " ".join([device, path, *products])


def requested(config: Mapping[str, Any]) -> str:
    """Return the part of the backend that a command chooses, the same on all machines; empty for the defaults."""
    accelerator = config["runner"]["accelerator"]
    return " ".join([*([accelerator] if accelerator != "auto" else []), *(["reference"] if extension.FORCED else [])])


def device_kind(runner: RunnerConfig) -> str:
    """Return the device type that a runner's trials use, as torch names it; Lightning chooses likewise."""
    if runner.accelerator == "cpu":
        return "cpu"
    if isinstance(runner, RayConfig):  # a worker has the GPUs that Ray reserves for it, and no others
        return "cuda" if runner.gpus and torch.cuda.is_available() else "cpu"
    if torch.backends.mps.is_available():
        return "mps"
    return "cuda" if torch.cuda.is_available() else "cpu"


def operators_path(device: str) -> str:
    """Return the path of the operators for tensors on a device type: ``compiled`` or ``reference``."""
    reasons = {"cpu": extension.REASON, "cuda": support.fallback_reason()}
    return "compiled" if reasons.get(device) == "" else "reference"


def computed_by(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the machine and the library that compute a trial in this process, as values that JSON can hold.

    Returns:
        ``machine``, with the ``machine`` of :func:`seqmem.io.provenance.provenance`, ``devices`` (names of the GPUs in use,
        empty on the CPU), ``cuda`` (with a GPU: :func:`cuda_settings`), ``workers`` (trials at a time on this machine, if
        several), ``instructions`` (sets of torch and of the compiled operators) and ``variables`` (NAME=VALUE of those in the
        environment that choose other kernels of MKL, oneDNN and cuBLAS, if one is set); ``library``, see :func:`library`.
    """
    runner = runner_config(config["runner"])
    count = runner.devices if device_kind(runner) == "cuda" and torch.cuda.is_available() else 0
    variables = [f"{name}={value}" for name in _CHOOSING_KERNELS if (value := os.environ.get(name))]
    several = isinstance(runner.workers, int) and runner.workers > 1 and not isinstance(runner, RayConfig)
    machine = {
        **provenance()["machine"],
        **({"workers": runner.workers} if several else {}),
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(k) for k in range(count)],
        **({"cuda": cuda_settings(count)} if count else {}),
        "instructions": {
            "torch": torch.backends.cpu.get_cpu_capability(),
            "operators": None if extension.REASON else torch.ops.seqmem.instruction_set(),
        },
        **({"variables": variables} if variables else {}),
    }
    return {"machine": machine, "library": library()}


def cuda_settings(count: int) -> dict[str, Any]:
    """Return what decides on the rounding of the first ``count`` GPUs beside their names.

    Returns:
        ``capability`` of each (9.0 for an H100), ``version`` of CUDA, ``cudnn``, ``matmul`` and ``tf32`` (how torch and cuDNN
        multiply float32), and ``deterministic`` (whether torch refuses operations that are not repeatable).
    """
    return {
        "capability": [".".join(map(str, torch.cuda.get_device_capability(k))) for k in range(count)],
        "version": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "matmul": torch.get_float32_matmul_precision(),
        "tf32": cudnn_tf32(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def cudnn_tf32() -> bool | None:
    """Return whether cuDNN rounds float32 products to TF32; None if a program has set its parts differently."""
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return None


@contextmanager
def cudnn_as_matmul() -> Iterator[None]:
    """Let cuDNN's recurrences and convolutions multiply float32 in the precision of torch's other products.

    By default torch lets cuDNN alone use TF32, whose products have 10 bits of mantissa. A program that has set cuDNN's parts
    differently keeps its settings.
    """
    before = cudnn_tf32()
    if before is None:
        yield
        return
    torch.backends.cudnn.allow_tf32 = torch.get_float32_matmul_precision() != "highest"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def library() -> dict[str, str] | None:
    """Return the checksums of the loaded library of compiled operators; None if the reference is in use.

    Returns:
        ``sources``, that of the sources and build flags from which it was built, empty if the library does not hold it;
        ``sha256``, that of the file.
    """
    return None if extension.REASON else dict(extension.CHECKSUMS)
