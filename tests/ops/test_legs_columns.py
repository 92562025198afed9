"""The projection coefficient by coefficient, for where the compiled operators cannot run, against the loop over the samples."""

import pytest
import torch
from torch.testing import assert_close

from seqmem.ops import extension, legs_columns, legs_function_approximation, reference
from seqmem.ops.legs_projection import legs_projection, legs_projection_reference


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("alpha", [0.5, 0.0, 1.0, 0.3])
def test_equals_the_loop(alpha, monkeypatch):
    """In one piece or in several, of which an order limits the length."""
    for order, length, start, every, piece in ((1, 5, 2, 1, 3), (7, 40, 9, 3, 16), (5, 33, 6, 50, 100), (3, 9, 10**9, 0, 4)):
        monkeypatch.setattr(legs_columns, "PIECE", piece)
        leaves = [random(2, length).requires_grad_(), random(2, order, seed=1).requires_grad_()]
        results = []
        for run in (legs_columns.legs_columns, legs_projection_reference):
            kept, after = run(*leaves, start, alpha, every)
            loss = (kept * random(*kept.shape)).sum() + (after * random(*after.shape)).sum()
            results.append((kept, after, *torch.autograd.grad(loss, leaves)))
        for given, exact in zip(*results, strict=True):
            assert_close(given, exact, rtol=1e-9, atol=1e-11)


@pytest.mark.skipif(bool(extension.REASON), reason="the loop of dense steps takes too long")
def test_a_high_order_does_not_underflow():
    """The products of a piece, from the earliest step on. Forward Euler itself grows here."""
    for order, length in ((300, 600), (1500, 150)):
        signal, memory = random(1, length), random(1, order, seed=1)
        for alpha in (0.5, 1.0):
            exact = legs_projection(signal, memory, order + 1, alpha, 7)
            for given, expected in zip(legs_columns.legs_columns(signal, memory, order + 1, alpha, 7), exact, strict=True):
                assert_close(given, expected, rtol=1e-9, atol=1e-11)


def test_is_used_without_the_library(monkeypatch):
    """From the first sample on; the reference is still the loop."""
    signal = random(2, 60)
    expected = legs_projection_reference(signal, random(2, 6), 0, 0.3, 4)
    with extension.reference_only("a test"):
        for given, exact in zip(legs_projection(signal, random(2, 6), 0, 0.3, 4), expected, strict=True):
            assert_close(given, exact, rtol=1e-12, atol=1e-13)
    monkeypatch.setattr(extension, "REASON", "a test")
    monkeypatch.setattr(extension, "FORCED", False)
    monkeypatch.setattr(extension, "STALE", "")
    monkeypatch.setattr(extension, "_warned", True)
    monkeypatch.setattr(legs_columns, "PIECE", 10**9)
    steps = []
    monkeypatch.setattr("seqmem.ops.reference.update", lambda *given, run=reference.update: steps.append(0) or run(*given))
    for given, exact in zip(legs_projection(signal, random(2, 6), 0, 0.3, 4), expected, strict=True):
        assert_close(given, exact, rtol=1e-9, atol=1e-11)
    assert len(steps) == 6
    assert_close(legs_function_approximation(signal, 6), legs_projection(signal, random(2, 6), 0)[1], rtol=0, atol=0)
