"""What every test on a device runs under."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def strict_float32() -> Iterator[None]:
    """Multiply float32 in full precision; torch lets cuDNN use TF32 by default."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.fixture(autouse=True)
def errors_of_the_device(device: torch.device) -> Iterator[None]:
    """Report an error of the device in the test that caused it."""
    yield
    if device.type == "cuda":
        torch.cuda.synchronize(device)
