"""Fixtures of the time loop by CUDA graphs, with stand-ins for the graphs."""

import pytest
import torch

from seqmem.cells import LMU
from seqmem.ops import extension, implementations
from seqmem.ops.gpu.captures import Graphs
from seqmem.sequence import cuda_graph, watch
from tests.fake_graphs import Recomputed


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch, request):
    monkeypatch.setattr(cuda_graph, "SIZES", (4, 2, 1))
    # The reference of the updates solves a linear system, which reads values on the host; no kernel does.
    if extension.REASON and "reason" not in request.fixturenames:
        monkeypatch.setattr(watch, "_READS", frozenset())


@pytest.fixture
def capture():
    return Recomputed()


@pytest.fixture
def cell():
    torch.manual_seed(0)
    return LMU(3, 5).double()


@pytest.fixture
def on_cuda(monkeypatch, capture):
    """The CPU takes the way of CUDA tensors: graphs, and no compiled sequence."""
    graphs = Graphs(capture)
    monkeypatch.setattr(cuda_graph, "device_graphs", lambda device: graphs)
    monkeypatch.setattr(implementations, "TABLE", {})
    rows = [row._replace(fallback_reason=lambda *given: "") for row in implementations.LOOPS if "captured" in row.method]
    monkeypatch.setattr(implementations, "LOOPS", rows)
    return graphs
