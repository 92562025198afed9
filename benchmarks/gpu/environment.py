"""The part "environment": card, driver, versions, commit and settings of this machine, as JSON."""

import json
import os
import platform
import shutil
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks.gpu.rows import ENVIRONMENT
from benchmarks.gpu.session import Session

PACKAGES = ("torch", "triton", "numpy", "pytorch-lightning", "torchmetrics", "hydra-core", "pydantic", "pytest", "pytest-xdist")

VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "SEQMEM_REFERENCE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "TRITON_INTERPRET",
)
"""Variables of the environment that change what is computed or how fast."""


def main() -> None:
    """Write the environment, and print it."""
    session = Session("environment")
    path = session.folder / ENVIRONMENT
    found = json.loads(path.read_text()) if path.exists() else {}
    # In steps: what is known is kept if the next step fails.
    for step in (_versions, _torch, _operators):
        found.update(step(session.device))
        path.write_text(json.dumps(found, indent=1) + "\n")
    print(path.read_text())


def card(device: str) -> str:
    """Return the name of the first card, or of the processor."""
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    from seqmem.io.provenance import provenance

    return provenance()["machine"]["processor"]


def _versions(device: str) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "date": time.strftime("%Y-%m-%d"),
        "processors": os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
        "triton": _version("triton"),
        "driver": _driver(),
        "variables": {key: os.environ[key] for key in VARIABLES if key in os.environ},
        "compiler": shutil.which("c++") is not None,
    }


def _torch(device: str) -> dict[str, Any]:
    import torch

    cuda = device == "cuda"
    found: dict[str, Any] = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "device": card(device),
        "tf32": {
            "torch.get_float32_matmul_precision()": torch.get_float32_matmul_precision(),
            "torch.backends.cudnn.allow_tf32": torch.backends.cudnn.allow_tf32,
        },
    }
    if cuda:
        properties = torch.cuda.get_device_properties(0)
        found["card"] = {
            "capability": list(torch.cuda.get_device_capability()),
            "memory_mib": properties.total_memory // 2**20,
            "processors": properties.multi_processor_count,
            "cards": torch.cuda.device_count(),
        }
    return found


def _operators(device: str) -> dict[str, Any]:
    from seqmem.io.provenance import provenance
    from seqmem.ops import extension, implementations

    commit = provenance()["commit"]
    return {
        **({"commit": commit} if commit else {}),
        "library": extension.CHECKSUMS or extension.REASON.replace(f"{extension.LIBRARY.parent}{os.sep}", ""),
        "implementations": implementations.describe(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else None


if __name__ == "__main__":
    main()
