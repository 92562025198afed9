"""What every test of the operators runs under."""

import pytest
import torch

from seqmem.ops import compiled_sequence


@pytest.fixture(autouse=True)
def nan_in_fresh_memory():
    """Fills all memory that is asked for with NaN, so that a number that is read before it was written shows."""
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(1).isnan()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def short_chunks(monkeypatch):
    """Make short sequences have several checkpoints."""
    monkeypatch.setattr(compiled_sequence, "_CHUNK_ROWS", 7)
