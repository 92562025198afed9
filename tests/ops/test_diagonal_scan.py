"""The diagonal scan: parallel, exported and step by step, in value and gradient."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from seqmem.errors import UserError
from seqmem.ops import extension
from seqmem.ops.diagonal_scan import diagonal_scan, diagonal_scan_exported, diagonal_scan_parallel, diagonal_scan_reference
from tests import successors

SCANS = [diagonal_scan_reference, diagonal_scan_parallel, *([] if extension.REASON else [diagonal_scan])]


def sample(constant: bool, dtype: torch.dtype, steps: int = 13) -> list[torch.Tensor]:
    torch.manual_seed(0)
    b = torch.randn(3, steps, 5, dtype=dtype)
    a = torch.randn(5 if constant else (3, steps, 5), dtype=dtype)
    return [(a / (1 + a.abs())).requires_grad_(), b.requires_grad_(), torch.randn(3, 5, dtype=dtype).requires_grad_()]


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])
@pytest.mark.parametrize("constant", [True, False], ids=["constant", "varying"])
def test_the_parallel_scan_agrees_with_the_reference(dtype, constant):
    for reverse, lengths in product((False, True), (None, torch.tensor([13, 4, 0]))):
        results = []
        for scan in (diagonal_scan_reference, diagonal_scan_parallel):
            given = sample(constant, dtype)
            states, last = scan(*given, lengths, reverse)
            weighted = states * torch.linspace(-1, 1, states.numel()).view_as(states)
            loss = weighted.abs().square().sum() + last.abs().square().sum()
            results.append((states, last, *torch.autograd.grad(loss, given)))
        assert_close(*results)


@pytest.mark.parametrize("name", successors.names("scan"))
@pytest.mark.parametrize("scan", SCANS)
def test_golden_vectors(scan, name):
    case = successors.case(name)
    given = {part: case[part].requires_grad_() for part in ("a", "b", "h0") if part in case.arrays}
    h, final = scan(given["a"], given["b"], given.get("h0"), reverse=case.settings["reverse"])
    successors.assert_near(h, case["outputs"])
    successors.assert_near(final, case["state_final"])
    for prefix, result, cotangent in (("grad", h, "cotangent"), ("grad_final", final, "cotangent_final")):
        gradients = torch.autograd.grad(result, list(given.values()), case[cotangent], retain_graph=True, allow_unused=True)
        for part, gradient in zip(given, gradients, strict=True):
            found = torch.zeros_like(given[part]) if gradient is None else gradient
            successors.assert_near(found, case[f"{prefix}.{part}"])


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "varying"])
def test_pairs_are_complex_numbers(constant):
    for reverse, lengths in product((False, True), (None, torch.tensor([13, 4, 0]))):
        given = [tensor.detach() for tensor in sample(constant, torch.complex128)]
        expected = diagonal_scan_reference(*given, lengths, reverse)
        pairs = [torch.view_as_real(tensor) for tensor in given]
        for scan in (diagonal_scan_reference, diagonal_scan_parallel, diagonal_scan_exported):
            assert_close(scan(*pairs, lengths, reverse), tuple(torch.view_as_real(result) for result in expected))
    halves = [tensor.bfloat16() for tensor in pairs[:2]]
    assert diagonal_scan_parallel(*halves)[0].dtype == torch.bfloat16


def test_the_recurrence_by_hand():
    a, b = torch.tensor([0.5]), torch.tensor([[[1.0], [2.0], [3.0]]])
    assert diagonal_scan_reference(a, b)[0].flatten().tolist() == [1, 2.5, 4.25]
    assert diagonal_scan_reference(a, b, reverse=True)[0].flatten().tolist() == [2.75, 3.5, 3]
    assert diagonal_scan_reference(a, b, torch.tensor([[8.0]]), torch.tensor([2]))[1].item() == 4.5


def test_short_sequences():
    for steps in (0, 1, 2):
        given = sample(False, torch.float64, steps)
        assert_close(diagonal_scan_parallel(*given), diagonal_scan_reference(*given))


@pytest.mark.parametrize(
    ("dtype", "reverse", "pairs"),
    [(torch.float32, True, False), (torch.complex64, False, False), (torch.complex64, True, True)],
    ids=["real, reverse", "complex", "pairs, reverse"],
)
def test_an_exported_scan_accepts_any_length(dtype, reverse, pairs):
    class Scan(nn.Module):
        def forward(self, a, b, initial, lengths):
            return diagonal_scan_exported(a, b, initial, lengths, reverse)

    lengths = torch.tensor([13, 4, 0])
    given = [tensor.detach() for tensor in sample(True, dtype)]
    given = [*(map(torch.view_as_real, given) if pairs else given), lengths]
    dynamic = (None, {1: torch.export.Dim.DYNAMIC}, None, None)
    program = torch.export.export(Scan(), tuple(given), dynamic_shapes=dynamic, strict=False).module()
    longer = [given[0], torch.cat([given[1], given[1]], 1), given[2], 2 * lengths]
    assert_close(program(*longer), diagonal_scan_reference(*longer, reverse))


def test_shapes_that_do_not_match_are_named():
    given = sample(False, torch.float64)
    for changes, message in (
        ({0: torch.zeros(4)}, r"got a of shape \(4,\) and b of shape \(3, 13, 5\), expected"),
        ({2: torch.zeros(3, 4)}, r"got initial of shape \(3, 4\), expected \(3, 5\)"),
        ({1: torch.zeros(3, 13, 5, 2)}, r"got a of shape \(3, 13, 5\) and b of shape \(3, 13, 5, 2\), expected"),
        ({0: torch.zeros(5, 3), 1: torch.zeros(3, 13, 5, 3)}, r"expected .* or b \(B, T, N, 2\)"),
    ):
        with pytest.raises(UserError, match=message):
            diagonal_scan_parallel(*(changes.get(k, tensor) for k, tensor in enumerate(given)))
