"""The HiPPO network in chunks on CPU tensors, which run its plain kernels, or its Triton kernels in the interpreter."""

from typing import Any

import torch

from seqmem.cells import LMUT, LagT, LagTS, LegS, LegSN, LegST, LegT, LegTS, LMUPlain, positions
from seqmem.ops import implementations
from seqmem.ops.gpu import memory_chunks, memory_chunks_layout
from seqmem.ops.implementations import Implementation
from tests.ops.sequences import assert_same, run

ALL = {"memory_size": 2, "memory_output": True, "architecture": {"um": True}}

CELLS: dict[str, tuple[Any, dict[str, Any]]] = {
    "legs": (LegS, {}),
    "legs order": (LegS, {"memory_order": 19}),
    "legs all on": (LegS, {**ALL, "memory_activation": "tanh"}),
    "legs many memories": (LegS, {"memory_size": 9, "memory_order": 3, "architecture": {"um": True}}),
    "legs ungated": (LegS, {"gate": "N", "architecture": {"uh": False, "hx": False}}),
    "legs input only": (LegS, {"architecture": {"uh": False, "hm": False, "bias": False}}),
    "legs output only": (LegS, {"memory_output": True, "architecture": {"hm": False}}),
    "legs memory feeds itself": (LegS, {"architecture": {"ux": False, "uh": False, "um": True}}),
    "legs no input": (LegS, {"architecture": {"ux": False, "hx": False, "bias": False}}),
    "legs forward": (LegS, {"discretization": "forward", "memory_order": 3, "init_t": 4, "memory_activation": "sigmoid"}),
    "legs backward": (LegS, {"discretization": "backward", "max_length": 5, "memory_activation": "relu"}),
    "legs relu": (LegS, {"hidden_activation": "relu", "init_t": 2}),
    "legs sigmoid": (LegS, {"hidden_activation": "sigmoid", "gate": "N", "memory_size": 3}),
    "legs id": (LegS, {"hidden_activation": "id", "memory_size": 4}),
    "legs alpha": (LegS, {"discretization": 0.3, "memory_order": 18}),
    "legs zoh": (LegS, {**ALL, "discretization": "zoh"}),
    "legts": (LegTS, ALL),
    "legts backward": (LegTS, {"discretization": "backward", "init_t": 3, "memory_order": 17}),
    "legts forward": (LegTS, {"discretization": "forward", "init_t": 9, "memory_order": 4}),
    "legts zoh": (LegTS, {"discretization": "zoh", "max_length": 6}),
    "lagts": (LagTS, {"measure_args": {"beta": 0.5}, "memory_size": 2}),
    "lagts zoh": (LagTS, {"discretization": "zoh", "init_t": 2}),
    "legt": (LegT, {**ALL, "memory_order": 9}),
    "legt ungated": (LegT, {"gate": "N", "memory_activation": "tanh", "architecture": {"um": True, "uh": False}}),
    "lmut": (LMUT, {"dt": 0.1, "discretization": "bilinear", "gate": "N"}),
    "lagt": (LagT, {"measure_args": {"beta": 2.0}, "memory_order": 5, "memory_size": 9}),
    "legst": (LegST, {"discretization": "forward", "memory_order": 6}),
    "legsn": (LegSN, {"discretization": "backward"}),
    "lmu_plain": (LMUPlain, {"theta": 9.0, "architecture": {"hh": False}}),
}
"""Cells of every measure, with all connections, activations and discretizations between them."""


def use_on_cpu(monkeypatch: Any, kernels: Any = None, group_bytes: int = 4000) -> None:
    """Make the table choose the sequence in chunks for CPU tensors.

    Args:
        monkeypatch: the fixture.
        kernels: the module of the kernels; None for the plain ones.
        group_bytes: upper limit of a group of chunks, small for several groups in a short sequence.
    """
    row = Implementation("chunks", "cpu", memory_chunks.fallback_reason, memory_chunks.memory_network_chunks)
    monkeypatch.setitem(implementations.TABLE, "memory_network", (row,))
    monkeypatch.setattr(positions, "kept_on_host", lambda tensor: True)
    monkeypatch.setattr(memory_chunks_layout, "GROUP_BYTES", group_bytes)
    if kernels is not None:
        monkeypatch.setattr(memory_chunks, "kernels_for", lambda inputs: kernels)


def make(name: str, channels: int, size: int, dtype: torch.dtype = torch.float64, **changes: Any) -> Any:
    """Return a cell of CELLS with random weights."""
    torch.manual_seed(0)
    kind, arguments = CELLS[name]
    cell = kind(channels, hidden_size=size, **{**arguments, **changes}).to(dtype)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.normal_(std=0.5 / parameter.shape[-1] ** 0.5)
    return cell


def assert_equals_the_loop(
    cell: Any, batch: int, steps: int, lengths: list[int] | None = None, state: Any = None, relative: float = 1e-10
) -> int:
    """Compare values and gradients with the time loop; padding holds NaN. Return how many numbers were compared."""
    inputs = torch.randn(batch, steps, cell.input_size, dtype=torch.float64)
    expected = run(cell, inputs, None if lengths is None else torch.tensor(lengths), state, loop=True)
    if lengths is None:
        found = run(cell, inputs, None, state)
    else:
        padded = torch.arange(steps) >= torch.tensor(lengths)[:, None]
        found = run(cell, inputs.masked_fill(padded[..., None], torch.nan), torch.tensor(lengths), state)
        assert not found["outputs"][padded].any()
    assert_same(found, expected, relative)
    return sum(value.numel() for value in expected.values())
