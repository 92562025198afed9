"""What every test on a device runs under."""

import os
from collections.abc import Iterator

import pytest
import torch

from tests.gpu.rows import use_rows_for_cuda


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
def errors_of_the_device() -> Iterator[None]:
    """Report an error of the device in the test that caused it."""
    yield
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


@pytest.fixture(autouse=True)
def implementations_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """With SEQMEM_TEST_IMPLEMENTATIONS=cuda and the CPU as the device, let the table choose as it does on a GPU."""
    if os.environ.get("SEQMEM_TEST_IMPLEMENTATIONS") == "cuda":
        use_rows_for_cuda(monkeypatch)
