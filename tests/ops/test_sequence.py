"""Whole sequences in one compiled call against the loop of the same cell, in value and in every gradient.

The default tests sample the grids of cells, sizes and types; the slow ones cover them.
"""

from itertools import chain, product

import pytest
import torch
from torch.testing import assert_close

from seqmem.cells import TLSI, TLTI, LegS
from tests.cells.paths import fused, stepwise
from tests.ops.sequences import (
    CELLS,
    OPERATORS,
    SIZES,
    assert_equals_the_loop,
    assert_float32_to_rounding,
    assert_same,
    every_cell,
    every_operator,
    families,
    make,
    needs_compiled,
    random_state,
    run,
)

pytestmark = needs_compiled


@every_cell
def test_equals_the_loop(cell, short_chunks):
    """Of two sizes, and from a state, with rows that are at the same step or not."""
    assert_equals_the_loop(cell, "tails")
    assert_equals_the_loop(cell, list(SIZES)[list(CELLS).index(cell) % len(SIZES)])
    made = make(cell, 3, 10)
    inputs = torch.randn(6, 9, 3, dtype=torch.float64)
    lengths = torch.tensor([9, 0, 4, 1, 9, 8])
    for together in (False, True):
        state = random_state(made, 6, together)
        assert_same(run(made, inputs, lengths, state), run(made, inputs, lengths, state, loop=True))


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_every_cell_equals_the_loop(size):
    for name in CELLS:
        assert_equals_the_loop(name, size)


@every_operator
def test_steps_that_no_row_reaches(names, short_chunks):
    for cell in (make(name, 2, 5) for name in names):
        inputs = torch.randn(3, 9, 2, dtype=torch.float64)
        for longest in (0, 1, 5):
            lengths = torch.tensor([longest, 0, longest // 2])
            assert_same(run(cell, inputs, lengths), run(cell, inputs, lengths, loop=True))


@pytest.mark.parametrize(
    ("kind", "arguments", "measure"),
    [(TLSI, {}, "legs"), (TLTI, {"dt": 0.3}, "lmu"), (TLSI, {"memory_size": 2, "gate": "N"}, "tlagt")],
)
def test_every_row_has_its_own_times(kind, arguments, measure, short_chunks):
    torch.manual_seed(0)
    cell = kind(3, 10, memory_order=17, measure=measure, **arguments).double()
    inputs = torch.randn(19, 9, 3, dtype=torch.float64)
    inputs[..., 0] = torch.rand(19, 9, dtype=torch.float64).cumsum(1)
    inputs[3, :4, 0] = 0  # starts again and again
    inputs[5, 2:6, 0] = inputs[5, 2:3, 0]  # time does not advance
    lengths = torch.randint(0, 10, (19,))
    results = []
    for loop in (fused, stepwise):
        state = cell.initial_state(19)
        outputs, final = loop(cell, inputs, state, lengths, True)
        loss = (outputs * torch.linspace(-1, 1, outputs.numel(), dtype=torch.float64).view_as(outputs)).sum()
        gradients = torch.autograd.grad(loss + final.memory.square().sum() + final.hidden.sum(), list(cell.parameters()))
        results.append((outputs, *final, *gradients))
    for given, expected in zip(*results, strict=True):
        assert_close(given, expected, rtol=1e-9, atol=1e-10 * expected.abs().max().item())


@every_operator
def test_more_rows_than_a_group(names):
    """Groups of rows are of unequal sizes, and threads compute unequal numbers of groups."""
    for cell in (make(name, 2, 5) for name in names):
        for batch, steps in ((501, 3), (37, 31), (201, 9)):
            inputs = torch.randn(batch, steps, 2, dtype=torch.float64)
            lengths = torch.randint(0, steps + 1, (batch,)) if batch == 501 else None
            assert_same(run(cell, inputs, lengths), run(cell, inputs, lengths, loop=True))


@every_operator
def test_no_rows_or_no_steps(names):
    for cell in (make(name, 3, 5) for name in names):
        for shape in ((0, 4, 3), (4, 0, 3)):
            inputs, state = torch.zeros(shape, dtype=torch.float64), random_state(cell, shape[0])
            assert_same(run(cell, inputs, None, state), run(cell, inputs, None, state, loop=True))


@families
def test_float32_to_rounding(names, short_chunks):
    for name in names:
        assert_float32_to_rounding(name)


@every_operator
def test_gradients_that_vanish_in_backward(names, short_chunks):
    """Steps that no gradient reaches are skipped; inputs before ``first`` are so large that the gates saturate."""
    for name, first in product(names, (0, 5, 19)):
        cell = make(name, 3, 10)
        inputs = torch.randn(4, 20, 3, dtype=torch.float64)
        inputs[:, :first] *= 1e4
        inputs.requires_grad_()
        gradients = []
        for loop in (fused, stepwise):
            outputs, _ = loop(cell, inputs, cell.initial_state(4), None, True)
            leaves = [inputs, *cell.parameters()]
            found = torch.autograd.grad(outputs[:, -1].sum(), leaves, materialize_grads=True, allow_unused=True)
            gradients.append(found)
        for given, expected in zip(*gradients, strict=True):
            assert_close(given, expected, rtol=0, atol=1e-10 * expected.abs().max().item())


def assert_large_equals_small(name, size, dtype, padded):
    """From 16 MiB of outputs and intermediate values on these are stored past the caches; eighths of a sequence are not."""
    cell = make(name, 1, size, dtype)
    inputs = torch.randn(32, 1000, 1, dtype=dtype)
    lengths = torch.randint(1, 1001, (32,)).scatter(0, torch.tensor([5]), 1000) if padded else None
    outputs, state = cell(inputs, lengths=lengths)
    cotangents = torch.randn_like(outputs).split(125, 1)
    gradients = torch.autograd.grad(outputs, list(cell.parameters()), torch.cat(cotangents, 1))
    eighths, carried = [], None
    for k, part in enumerate(inputs.split(125, 1)):
        output, carried = cell(part, carried, lengths=None if lengths is None else (lengths - 125 * k).clamp(0, 125))
        eighths.append(output)
    rounding = 1e-5 if padded else 0
    assert_close(torch.cat(eighths, 1), outputs, rtol=rounding, atol=rounding)
    assert_close(carried, state, rtol=rounding, atol=rounding)
    assert_close(torch.autograd.grad(eighths, list(cell.parameters()), cotangents), gradients, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("cell", "size", "dtype", "padded"),
    [
        ("legs all on", 101, torch.float32, True),
        ("legts", 56, torch.float64, False),
        ("legt", 112, torch.float32, False),
        ("lstm", 101, torch.float32, False),
        ("gru", 56, torch.float64, True),
        ("gru resets before", 112, torch.float32, False),
        ("exprnn", 56, torch.float64, False),
    ],
    ids=str,
)
def test_sequences_that_are_stored_past_the_caches(cell, size, dtype, padded):
    assert_large_equals_small(cell, size, dtype, padded)


@pytest.mark.slow
@every_operator
def test_every_sequence_that_is_stored_past_the_caches(names):
    sizes = ((112, torch.float32), (101, torch.float32), (56, torch.float64))
    for name, (size, dtype), padded in product(names, sizes, (False, True)):
        if name != "exprnn" or dtype == torch.float64:  # rounding in float32 grows over its steps
            assert_large_equals_small(name, size, dtype, padded)


def test_threads_agree():
    threads = torch.get_num_threads()
    for name in chain(*OPERATORS.values()):
        cell, inputs = make(name, 3, 12), torch.randn(11, 8, 3, dtype=torch.float64)
        try:
            torch.set_num_threads(1)
            one = run(cell, inputs)
            torch.set_num_threads(2)
            two = run(cell, inputs)
        finally:
            torch.set_num_threads(threads)
        assert torch.equal(one["outputs"], two["outputs"])
        assert_same(two, one, relative=1e-14)


@every_operator
def test_padding_and_strides_do_not_matter(names):
    for cell in (make(name, 3, 6) for name in names):
        inputs = torch.randn(3, 4, 5, dtype=torch.float64).permute(2, 1, 0)
        assert not inputs.is_contiguous()
        assert_same(run(cell, inputs), run(cell, inputs.contiguous()))
        lengths = torch.tensor([4, 2, 0, 4, 1])
        padded = inputs.clone()
        padded[1, 2:] = torch.nan
        assert_same(run(cell, padded, lengths), run(cell, inputs, lengths))


@every_operator
def test_gradients_of_a_single_result(names):
    for cell in (make(name, 3, 6) for name in names):
        inputs = torch.randn(2, 9, 3, dtype=torch.float64)
        leaf = next(cell.parameters())
        for pick in (lambda outputs, state: outputs[:, -1], lambda outputs, state: state.hidden):
            given, expected = (
                torch.autograd.grad(pick(*loop(cell, inputs, cell.initial_state(2), None, True)).sum(), leaf)[0]
                for loop in (fused, stepwise)
            )
            assert_close(given, expected)


def test_activations_to_a_few_units_in_the_last_place():
    small = torch.logspace(-30, 1.9, 4000, dtype=torch.float64)
    limits = torch.tensor([0.0, 200.0, -80.0])
    exact = torch.cat([small, -small, torch.linspace(-30, 30, 4001, dtype=torch.float64), limits])
    switches = {"uh": False, "hm": False, "bias": False}
    for reference, (dtype, units) in product((torch.tanh, torch.sigmoid), ((torch.float32, 4), (torch.float64, 6))):
        name = reference.__name__
        cell = LegS(1, hidden_size=1, gate="N", hidden_activation=name, architecture=switches).to(dtype)
        torch.nn.init.ones_(cell.weight_hx)
        x = exact.to(dtype)
        y = cell(x.view(-1, 1, 1))[0].view(-1)
        tolerance = {"rtol": units * torch.finfo(dtype).eps, "atol": torch.finfo(dtype).tiny}
        assert_close(y.double(), reference(x.double()), **tolerance, msg=lambda text, name=name: f"{name}: {text}")
        assert cell(torch.full((1, 1, 1), torch.nan, dtype=dtype))[0].isnan().all()
