"""Forced oscillators: parallel, exported and step by step, in value and gradient."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from seqmem.errors import UserError
from seqmem.ops import extension
from seqmem.ops.oscillators import (
    oscillator_scan,
    oscillator_scan_exported,
    oscillator_scan_parallel,
    oscillator_scan_reference,
)
from tests import successors

METHODS = ("im", "imex")
SCANS = [oscillator_scan_reference, oscillator_scan_parallel, *([] if extension.REASON else [oscillator_scan])]
every_scan = pytest.mark.parametrize("scan", SCANS)
every_method = pytest.mark.parametrize("method", METHODS)


def sample(steps: int = 11, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Arguments, one oscillator of which is free (A = 0)."""
    torch.manual_seed(0)
    stiffness, step = torch.rand(5, dtype=dtype), torch.rand(5, dtype=dtype)
    stiffness[2] = 0
    given = [stiffness, step, torch.randn(3, steps, 5, 2, dtype=dtype), torch.randn(3, 2, 5, 2, dtype=dtype)]
    return [tensor.requires_grad_() for tensor in given]


def results(scan, given, lengths, method):
    """Positions, the final state, and the gradients of a weighted sum of both."""
    positions, final = scan(*given, lengths, method)
    weights = torch.linspace(-1, 1, positions.numel(), dtype=positions.dtype).view_as(positions)
    loss = (positions * weights).sum() + final.square().sum()
    return positions, final, *torch.autograd.grad(loss, given)


@every_method
@pytest.mark.parametrize("lengths", [None, [11, 4, 0]], ids=["full", "padded"])
def test_the_parallel_scan_agrees_with_the_reference(method, lengths):
    given, lengths = sample(), None if lengths is None else torch.tensor(lengths)
    expected = results(oscillator_scan_reference, given, lengths, method)
    assert_close(results(oscillator_scan_parallel, given, lengths, method), expected)
    for steps in (0, 1, 2):
        given = sample(steps)[:3]
        assert_close(oscillator_scan_parallel(*given, method=method), oscillator_scan_reference(*given, method=method))


@pytest.mark.parametrize("name", successors.names("linoss"))
@every_scan
def test_golden_vectors(scan, name):
    """Between the linear maps of the original layer, which clamps A and takes the sigmoid of the steps."""
    case = successors.case(name)
    leaves = {key: leaf.requires_grad_() for key, leaf in ({"x": case["x"]} | case.named("param")).items()}
    driven = torch.einsum("phc,bth->btpc", leaves["B"], leaves["x"])
    method = case.settings["discretization"].lower()
    positions, final = scan(leaves["A_diag"].relu(), leaves["steps"].sigmoid(), driven, None, None, method)
    real, imaginary = leaves["C"].unbind(-1)
    outputs = positions[..., 0] @ real.T - positions[..., 1] @ imaginary.T + leaves["D"] * leaves["x"]
    successors.assert_near(outputs, case["outputs"])
    successors.assert_near(final.flatten(1, 2), case["state_final.zy"])
    gradients = torch.autograd.grad(outputs, list(leaves.values()), case["cotangent"])
    expected = {"x": case["grad_x"]} | case.named("grad")
    for key, gradient in zip(leaves, gradients, strict=True):
        successors.assert_near(gradient, expected[key])


@every_method
def test_padding_has_no_influence(method):
    given, lengths = sample(), torch.tensor([11, 4, 0])
    expected = results(oscillator_scan_parallel, given, lengths, method)
    with torch.no_grad():
        given[2][1, 4:] = given[2][2] = torch.nan
    assert_close(results(oscillator_scan_parallel, given, lengths, method), expected)


def test_the_energy_of_a_free_oscillation_is_kept_by_imex():
    given = [tensor.detach() for tensor in sample(2000)]
    positions, _ = oscillator_scan_parallel(torch.full((5,), 0.5), given[1], 0 * given[2], given[3], None, "imex")
    decaying, _ = oscillator_scan_parallel(torch.full((5,), 0.5), given[1], 0 * given[2], given[3], None, "im")
    assert_close(positions[:, -1000:].abs().amax((1, 3)), positions.abs().amax((1, 3)), rtol=0.1, atol=0)
    assert (decaying[:, -1].abs() < 1e-3).all()


@every_method
def test_an_exported_scan_accepts_any_length(method):
    class Scan(nn.Module):
        def forward(self, *given):
            return oscillator_scan_exported(*given, method)

    lengths = torch.tensor([11, 4, 0])
    given = [*(tensor.detach() for tensor in sample()), lengths]
    dynamic = (None, None, {1: torch.export.Dim.DYNAMIC}, None, None)
    program = torch.export.export(Scan(), tuple(given), dynamic_shapes=(dynamic,), strict=False).module()
    longer = [*given[:2], torch.cat([given[2], given[2]], 1), given[3], 2 * lengths]
    assert_close(program(*longer), oscillator_scan_reference(*longer, method))


def test_shapes_that_do_not_match_are_named():
    given = sample()
    for changes, message in (
        ({0: torch.zeros(4)}, r"got stiffness, step and driven of shapes \(4,\), \(5,\), \(3, 11, 5, 2\), expected"),
        ({2: torch.zeros(3, 11, 5)}, r"expected \(P,\), \(P,\) and \(B, T, P, 2\)"),
        ({3: torch.zeros(3, 2, 5)}, r"got initial of shape \(3, 2, 5\), expected \(3, 2, 5, 2\)"),
    ):
        with pytest.raises(UserError, match=message):
            oscillator_scan_parallel(*(changes.get(k, tensor) for k, tensor in enumerate(given)))
