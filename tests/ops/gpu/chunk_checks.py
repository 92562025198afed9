"""Checks of the kernels of the HiPPO network in chunks, for ``tests/ops/gpu/interpreted.py``."""

import pytest
import torch
from torch.testing import assert_close

from seqmem.ops.gpu import memory_chunks_launch, memory_chunks_layout, memory_chunks_plain
from seqmem.ops.transition import generators
from tests.ops.gpu.chunks import CELLS, assert_equals_the_loop, make, use_on_cpu
from tests.ops.sequences import assert_same, random_state, run


def check_chunks(size: str) -> int:
    """Compare values and gradients with the time loop in float64, for cells of each kind of transition."""
    torch.use_deterministic_algorithms(True)  # fresh memory is NaN
    with pytest.MonkeyPatch.context() as patch:
        use_on_cpu(patch, memory_chunks_launch)
        if size == "all":
            compared = sum(_check_cell(name) for name in CELLS) + sum(
                map(_check_types, ("legs", "legts", "legt", "legs all on"))
            )
        else:
            patch.setattr(memory_chunks_layout, "MAX_CHUNK", 2)
            cell = make("legs", 1, 3, memory_order=3, architecture={"um": True})
            compared = assert_equals_the_loop(cell, 2, 3, [3, 1], random_state(cell, 2, together=True))
            compared += assert_equals_the_loop(make("legt ungated", 5, 2, memory_order=2), 1, 3)
    torch.use_deterministic_algorithms(False)
    return compared


def check_elimination(size: str) -> int:
    """Compare the elimination of a sequence's steps with that of the loop over the coefficients, in float64."""
    compared = 0
    for order in (1, 33) if size == "sample" else (1, 2, 33, 512):
        rows = generators("legt", order)
        dt = torch.tensor([0.0, 1e-4, 0.3, 1.0, 30.0], dtype=torch.float64)
        sizes = torch.stack([dt, 0.5 * dt, torch.zeros_like(dt)], 1)
        expected = memory_chunks_plain.eliminate(rows, sizes)
        assert_close(memory_chunks_launch.eliminate(rows, sizes), expected, rtol=1e-11, atol=1e-13)
        compared += expected.numel()
    return compared


def _check_cell(name: str) -> int:
    compared = 0
    for batch, steps, size, channels in ((2, 17, 7, 2), (1, 1, 33, 1), (1, 9, 33, 5)):
        compared += assert_equals_the_loop(make(name, channels, size), batch, steps)
    cell = make(name, 2, 7)
    return compared + assert_equals_the_loop(cell, 5, 11, [11, 0, 4, 8, 9], random_state(cell, 5, together=True))


def check_lengths_and_borders(size: str) -> int:
    """Compare with the time loop at H 96, N 33 and M 2, with lengths and T around the borders of chunks of 4 steps."""
    if size == "sample":
        return 0
    compared = 0
    with pytest.MonkeyPatch.context() as patch:
        use_on_cpu(patch, memory_chunks_launch)
        for name, lengths in (
            ("legs", [17, 12, 9, 8, 5, 1, 0]),
            ("legt", [17, 16, 13, 4, 3, 1, 0]),
            ("legts", [9, 5, 4, 0]),
            ("legs zoh", [9, 8, 7, 1]),
        ):
            cell = make(name, 3, 96, memory_order=33, memory_size=2)
            state = random_state(cell, len(lengths), together=True)
            compared += assert_equals_the_loop(cell, len(lengths), lengths[0], lengths, state)
            compared += assert_equals_the_loop(cell, 1, 1)
    return compared


def _check_types(name: str) -> int:
    inputs = torch.randn(2, 19, 3, dtype=torch.float64)
    expected = run(make(name, 3, 33), inputs, loop=True)
    assert_same(run(make(name, 3, 33).float(), inputs.float()), expected, 2e-5)
    with torch.autocast("cpu", torch.bfloat16):
        given = run(make(name, 3, 33).float(), inputs.float())
    assert_same(given, expected, 0.05)
    return 2 * sum(value.numel() for value in expected.values())
