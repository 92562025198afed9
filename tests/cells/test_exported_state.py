"""Exported cells continue a sequence: two halves through one program, with the state that it returns, are the whole."""

import pytest
import torch
from torch.export import Dim
from torch.testing import assert_close

from seqmem import cells
from seqmem.ops import extension
from seqmem.ops.states import mapped, parts
from tests.cells.test_battery import make, sample

QUICK = ("legs", "lstm", "tlsi")
"""A position, a plain state and a time; the others are slow together."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in cells.names()]
)
def test_two_halves_through_a_program_are_the_whole_sequence(name):
    cell, inputs = make(name).requires_grad_(False), sample(name, 4, 13)
    start = cell.initial_state(4)
    free = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}, mapped(lambda part: {0: Dim.DYNAMIC}, start)
    with extension.reference_only("torch's own operators"):
        exported = torch.export.export(cell, (inputs[:, :6], start), dynamic_shapes=free, strict=False)
    program = exported.module()
    expected, last = cell(inputs)
    first, state = program(inputs[:, :6], start)
    second, after = program(inputs[:, 6:], state)
    assert_close(torch.cat([first, second], 1), expected)
    assert_close(parts(after), parts(last))
