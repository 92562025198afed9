"""Whole sequences with products in bfloat16: no worse than the loop, and rounded in their operands alone."""

import pytest
import torch
from torch.overrides import TorchFunctionMode

from seqmem.cells import LSTM
from seqmem.ops import compiled_sequence
from tests.ops.sequences import CELLS, error, families, make, needs_compiled, run

pytestmark = needs_compiled

IN_FULL_PRECISION = ("exprnn", "orthogonal")
"""Cells whose products are in float32 also under autocast, in which Q is orthogonal."""


def assert_bfloat16_is_no_worse(name, size):
    batch, steps, channels, hidden = size
    cell = make(name, channels, hidden, torch.float32)
    inputs = torch.randn(batch, steps, channels)
    lengths = torch.randint(0, steps + 1, (batch,))
    exact = run(cell, inputs, lengths, loop=True)
    exact.pop("step", None)
    with torch.autocast("cpu", torch.float16):
        assert "torch.float16" in compiled_sequence.fallback_reason(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert not compiled_sequence.fallback_reason(inputs)
        assert not LSTM(3, 4).fallback_reason(inputs.bfloat16())  # the type of the weights matters
        assert "torch.bfloat16" in LSTM(3, 4).bfloat16().fallback_reason(inputs)
        given, loop = run(cell, inputs, lengths), run(cell, inputs, lengths, loop=True)
    assert given["outputs"].dtype == torch.float32
    ours, theirs = error(given, exact), error(loop, exact)
    for result, value in ours.items():
        assert value < max(0.05, 2 * theirs[result]), (name, result)  # a sum that all but cancels is known no better
    assert sum(ours.values()) <= 1.2 * sum(theirs.values())
    assert sum(ours.values()) > 1e-6 or name in IN_FULL_PRECISION


BFLOAT16_SIZES = [(3, 7, 2, 7), (37, 9, 40, 33), (50, 5, 1, 64)]


@families
def test_bfloat16_products_are_no_worse_than_those_of_the_loop(names, short_chunks):
    for k, name in enumerate(names):
        assert_bfloat16_is_no_worse(name, BFLOAT16_SIZES[k % 3])


@pytest.mark.slow
def test_bfloat16_products_of_every_cell_and_size(short_chunks):
    for name in CELLS:
        for size in BFLOAT16_SIZES:
            assert_bfloat16_is_no_worse(name, size)


class RoundedLinear(torch.autograd.Function):
    """x W^T with operands rounded to bfloat16, in forward (if ``deep``) and in backward."""

    @staticmethod
    def forward(ctx, x, weight, deep):
        ctx.save_for_backward(x, weight)
        return nearest(x) @ nearest(weight).T if deep else x @ weight.T

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad = nearest(grad)
        return grad @ nearest(weight), grad.flatten(0, -2).T @ nearest(x).flatten(0, -2), None


class RoundedGradient(torch.autograd.Function):
    """The identity; its gradient is rounded to bfloat16, as that of a bias."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return nearest(grad)


def nearest(x):
    return x.bfloat16().to(x.dtype)


class RoundedOperands(TorchFunctionMode):
    """The products of the gates as the operators compute them, in the type of the operands.

    The memory inputs are not rounded, nor are inputs with fewer than 32 channels in forward.
    """

    def __init__(self, channels, memories):
        super().__init__()
        self.channels, self.memories = channels, memories

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not torch.nn.functional.linear or len(args[1]) == self.memories:
            return func(*args, **kwargs or {})
        x, weight, *bias = args
        exact = self.memories if x.shape[-1] == self.channels else 0
        deep = x.shape[-1] != self.channels or self.channels >= 32
        terms = [x @ weight[:exact].T, RoundedLinear.apply(x, weight[exact:], deep)]
        if bias and bias[0] is not None:
            rounded = RoundedGradient.apply(bias[0].expand(*x.shape[:-1], -1)[..., exact:])
            terms = [terms[0] + bias[0][:exact], terms[1] + rounded]
        return torch.cat(terms, -1)


def assert_bfloat16_rounds_the_operands(name, size):
    batch, steps, channels, hidden = size
    cell = make(name, channels, hidden, torch.float32)
    inputs = torch.randn(batch, steps, channels)
    lengths = torch.randint(0, steps + 1, (batch,))
    with torch.autocast("cpu", torch.bfloat16):
        given = run(cell, inputs, lengths)
    cell, inputs = cell.double(), inputs.double()
    memories = cell.initial_state(1).memory.shape[1] if name.startswith("l") and name[:4] != "lstm" else 0
    exact = run(cell, inputs, lengths, loop=True)
    with RoundedOperands(channels, memories):
        rounded = run(cell, inputs, lengths, loop=True)
    for result in (exact, rounded):
        result.pop("step", None)
    ours, rounding = error(given, rounded), error(exact, rounded)
    # A sum of float32 and one of float64 may round to different neighbours, rarely.
    assert all(value <= 0.1 * rounding[result] + 3e-4 for result, value in ours.items()), (ours, rounding)
    assert sum(ours.values()) <= 0.05 * sum(rounding.values())


BFLOAT16_CELLS = ["legs", "legs all on", "legs ungated", "legt", "lstm", "gru", "gru resets before"]


@pytest.mark.parametrize("name", BFLOAT16_CELLS)
def test_bfloat16_products_round_the_operands(name, short_chunks):
    for size in ((5, 7, 3, 40), (19, 4, 37, 50)):
        assert_bfloat16_rounds_the_operands(name, size)
