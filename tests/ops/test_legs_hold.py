"""The projection by zero-order hold over whole pieces of a signal, against the loop over its samples and exact integrals."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqmem.ops import legs_hold as module
from seqmem.ops.legs_hold import legs_hold
from seqmem.ops.legs_projection import HOLD_NUMBERS, legs_projection, legs_projection_reference

PIECES = (
    (1, 1, 0, 1),
    (1, 3, 0, 1),
    (5, 3, 0, 0),
    (6, 50, 0, 4),
    (7, 40, 1, 7),
    (6, 37, 1000, 1),
    (9, 60, 30, 25),
    (9, 60, 30, 500),
)


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("pairs", [8, 100, 2**14])
def test_equals_the_loop(pairs, monkeypatch):
    """For groups of one or several results, and pieces of an interval."""
    monkeypatch.setattr(module, "HOST_PAIRS", pairs)
    for order, length, start, every in PIECES:
        leaves = [random(2, length).requires_grad_(), random(2, order, seed=1).requires_grad_()]
        results = []
        for run in (legs_hold, lambda *given: legs_projection_reference(*given[:3], "zoh", given[3])):
            kept, after = run(*leaves, start, every)
            loss = (kept * random(*kept.shape)).sum() + (after * random(*after.shape)).sum()
            gradients = torch.autograd.grad(loss, leaves, materialize_grads=True, allow_unused=True)
            results.append((kept, after, *gradients))
        for given, exact in zip(*results, strict=True):
            assert_close(given, exact, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_values_that_are_not_finite_stay_behind_earlier_results(value):
    """Of one row, in the signal and in the gradients of results; several results share a product."""
    for order, length, start, every in ((4, 20, 10, 1), (33, 200, 7, 9), (5, 12, 0, 0), (5, 30, 0, 4)):
        signal, memory = random(2, length), random(2, order, seed=1)
        bad = length // 2
        signal[1, bad] = value
        leaves = [signal.requires_grad_(), memory.requires_grad_()]
        results = legs_hold(*leaves, start, every)
        exact = legs_projection_reference(*leaves, start, "zoh", every)
        for given, expected in zip(results, exact, strict=True):
            assert torch.equal(given.isfinite(), expected.isfinite())
            assert_close(given[given.isfinite()], expected[given.isfinite()], rtol=1e-9, atol=1e-11)
        for k in range(2):
            incoming = [random(*part.shape) for part in results]
            if incoming[k].numel() == 0:
                continue
            incoming[k][1].flatten()[incoming[k][1].numel() // 2] = value
            kept = slice(0 if every > 0 else 1, None)  # the reference keeps none without a graph
            given, expected = (
                torch.autograd.grad(found[kept], leaves, incoming[kept], materialize_grads=True, retain_graph=True)
                for found in (results, exact)
            )
            for one, other in zip(given, expected, strict=True):
                assert torch.equal(one.isfinite(), other.isfinite())
                assert_close(one[one.isfinite()], other[one.isfinite()], rtol=1e-9, atol=1e-11)


def test_long_pieces_take_it_and_are_exact():
    """The integrals of Legendre polynomials in extended precision; a signal in pieces of any size; float32."""
    order, length = 12, 30_000
    assert order * length > HOLD_NUMBERS
    signal = random(1, length)
    z = 2 * np.arange(length + 1, dtype=np.longdouble) / length - 1
    before, value, exact = np.zeros_like(z), np.ones_like(z), []
    for n in range(order):
        after = ((2 * n + 1) * z * value - n * before) / (n + 1)
        exact.append((signal[0].numpy() * np.diff(after - before)).sum() / (2 * np.sqrt(np.longdouble(2 * n + 1))))
        before, value = value, after
    expected = torch.from_numpy(np.array(exact, np.float64))[None]
    scale = expected.abs().max().item()
    memory = torch.full((1, order), torch.nan, dtype=torch.float64)  # unused at the first sample
    assert_close(legs_projection(signal, memory, 0, "zoh")[1], expected, rtol=0, atol=1e-11 * scale)
    start = 0
    for size in (1, 7, 20_000, 9_992):
        memory = legs_projection(signal[:, start : start + size], memory, start, "zoh")[1]
        start += size
    assert_close(memory, expected, rtol=0, atol=1e-9 * scale)
    rounded = legs_projection(signal.float(), memory.float(), 0, "zoh")[1]
    assert rounded.dtype == torch.float32
    assert_close(rounded.double(), expected, rtol=0, atol=1e-6 * scale)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_is_well_formed():
    utilities = ("test_schema", "test_autograd_registration", "test_faketensor")
    signal, memory = random(2, 9).requires_grad_(), random(2, 4).requires_grad_()
    torch.use_deterministic_algorithms(False)
    torch.library.opcheck(torch.ops.seqmem.legs_hold.default, (signal, memory, 3, 4), test_utils=utilities)
    transposed = (random(2, 3, 4).requires_grad_(), memory, 9, 3, 4)
    torch.library.opcheck(torch.ops.seqmem.legs_hold_adjoint.default, transposed, test_utils=utilities)
    short = random(1, 3).requires_grad_(), random(1, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda *leaves: legs_hold(*leaves, 2, 2), short)


def test_wrong_arguments_are_named():
    signal, memory = random(2, 9000), random(2, 4)
    for given, message in (
        ((signal[0], memory, 0), r"signal: got \(9000,\) .*, expected \(B, T\)"),
        ((signal, memory[:1], 0), r"memory: got \(1, 4\) .*, expected \(B, N\) with N > 0 for a signal \(2, 9000\)"),
        ((signal, memory.float(), 0), r"memory: got torch\.float32 on cpu, expected torch\.float64"),
        ((signal, memory, -1), "got -1 and 0, expected 0 or above"),
    ):
        with pytest.raises(ValueError, match=message):
            legs_projection(*given, "zoh")
