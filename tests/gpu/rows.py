"""The implementations for a GPU on CPU tensors, where they can run."""

import pytest

from seqmem.cells import positions
from seqmem.ops import implementations
from seqmem.ops.gpu.captures import Graphs
from seqmem.sequence import cuda_graph
from tests.fake_graphs import Recomputed


def use_rows_for_cuda(monkeypatch: pytest.MonkeyPatch) -> Recomputed:
    """Let the tables of implementations and loops choose on any device as they do on a GPU.

    Positions of carried states are kept on the host, as there.

    Returns:
        The stand-in for CUDA graphs, which counts those that it has made and replayed.
    """
    for operator, rows in implementations.TABLE.items():
        others = tuple(row._replace(device="") for row in rows if row.device in ("", "cuda"))
        monkeypatch.setitem(implementations.TABLE, operator, others)
    monkeypatch.setattr(positions, "kept_on_host", lambda tensor: True)
    loops = tuple(
        loop._replace(fallback_reason=_graph_reason) if loop.method == "captured_forward" else loop
        for loop in implementations.LOOPS
    )
    monkeypatch.setattr(implementations, "LOOPS", loops)
    monkeypatch.setattr(positions, "kept_on_host", lambda tensor: True)
    graphs = Recomputed()
    shared = Graphs(graphs)
    monkeypatch.setattr(cuda_graph, "device_graphs", lambda device: shared)
    return graphs


def _graph_reason(inputs, capturable: bool) -> str:
    return "" if capturable else "the loop cannot be captured"
