"""The diagonal scan: parallel, exported and step by step, in value and gradient."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from seqmem.errors import UserError
from seqmem.ops.diagonal_scan import diagonal_scan_exported, diagonal_scan_parallel, diagonal_scan_reference


def sample(constant: bool, dtype: torch.dtype, steps: int = 13) -> list[torch.Tensor]:
    torch.manual_seed(0)
    b = torch.randn(3, steps, 5, dtype=dtype)
    a = torch.randn(5 if constant else (3, steps, 5), dtype=dtype)
    return [(a / (1 + a.abs())).requires_grad_(), b.requires_grad_(), torch.randn(3, 5, dtype=dtype).requires_grad_()]


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])
@pytest.mark.parametrize("constant", [True, False], ids=["constant", "varying"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("lengths", [None, [13, 4, 0]], ids=["whole", "lengths"])
def test_the_parallel_scan_agrees_with_the_reference(dtype, constant, reverse, lengths):
    lengths = None if lengths is None else torch.tensor(lengths)
    results = []
    for scan in (diagonal_scan_reference, diagonal_scan_parallel):
        given = sample(constant, dtype)
        states, last = scan(*given, lengths, reverse)
        loss = (states * torch.linspace(-1, 1, states.numel()).view_as(states)).abs().square().sum() + last.abs().square().sum()
        results.append((states, last, *torch.autograd.grad(loss, given)))
    for fast, slow in zip(*results, strict=True):
        assert_close(fast, slow)


def test_the_recurrence_by_hand():
    a, b = torch.tensor([0.5]), torch.tensor([[[1.0], [2.0], [3.0]]])
    assert diagonal_scan_reference(a, b)[0].flatten().tolist() == [1, 2.5, 4.25]
    assert diagonal_scan_reference(a, b, reverse=True)[0].flatten().tolist() == [2.75, 3.5, 3]
    assert diagonal_scan_reference(a, b, torch.tensor([[8.0]]), torch.tensor([2]))[1].item() == 4.5


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_short_sequences(steps):
    given = sample(False, torch.float64, steps)
    for one, other in zip(diagonal_scan_parallel(*given), diagonal_scan_reference(*given), strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=["real", "complex"])
def test_an_exported_scan_takes_any_length(dtype):
    class Scan(nn.Module):
        def forward(self, a, b, initial):
            return diagonal_scan_exported(a, b, initial)

    given = [tensor.detach() for tensor in sample(True, dtype)]
    dynamic = (None, {1: torch.export.Dim.DYNAMIC}, None)
    program = torch.export.export(Scan(), tuple(given), dynamic_shapes=dynamic, strict=False).module()
    longer = [given[0], torch.cat([given[1], given[1]], 1), given[2]]
    for one, other in zip(program(*longer), diagonal_scan_reference(*longer), strict=True):
        assert_close(one, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({0: torch.zeros(4)}, r"got a of shape \(4,\) and b of shape \(3, 13, 5\)"),
        ({2: torch.zeros(3, 4)}, r"got initial of shape \(3, 4\), expected \(3, 5\)"),
    ],
    ids=["a", "initial"],
)
def test_shapes_that_do_not_match_are_named(changes, message):
    given = sample(False, torch.float64)
    with pytest.raises(UserError, match=message):
        diagonal_scan_parallel(*(changes.get(k, tensor) for k, tensor in enumerate(given)))
