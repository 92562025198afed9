"""The gates of minGRU and minLSTM: parallel, exported and step by step, in value and gradient."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import linear
from torch.testing import assert_close

from seqmem.errors import UserError
from seqmem.ops import extension
from seqmem.ops.minimal_gates import (
    candidate_activation,
    minimal_gates_exported,
    minimal_gates_parallel,
    minimal_gates_reference,
    minimal_gates_scan,
)
from tests import successors

GATES = ("gru", "lstm", "lstm_raw")
SCANS = [minimal_gates_reference, minimal_gates_parallel, *([] if extension.REASON else [minimal_gates_scan])]
every_scan = pytest.mark.parametrize("scan", SCANS)
every_gates = pytest.mark.parametrize("gates", GATES)


def sample(gates: str, steps: int = 11, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    torch.manual_seed(0)
    projected = 3 * torch.randn(3, steps, 5 * (2 if gates == "gru" else 3), dtype=dtype)
    return [projected.requires_grad_(), torch.rand(3, 5, dtype=dtype).requires_grad_()]


def results(scan, given, lengths, gates):
    """States, the final one, and the gradients of a weighted sum of both."""
    h, final = scan(*given, lengths, gates)
    loss = (h * torch.linspace(-1, 1, h.numel(), dtype=h.dtype).view_as(h)).sum() + final.square().sum()
    return h, final, *torch.autograd.grad(loss, given)


@every_gates
@pytest.mark.parametrize("lengths", [None, [11, 4, 0]], ids=["full", "padded"])
def test_the_parallel_scan_agrees_with_the_reference(gates, lengths):
    given, lengths = sample(gates), None if lengths is None else torch.tensor(lengths)
    expected = results(minimal_gates_reference, given, lengths, gates)
    assert_close(results(minimal_gates_parallel, given, lengths, gates), expected)


@pytest.mark.parametrize("name", successors.names("mingru", "minlstm"))
@every_scan
def test_golden_vectors(scan, name):
    """Between the linear maps of the original layer: h enters the output map, if there is one."""
    case = successors.case(name)
    leaves = {"x": case["x"]} | case.named("param") | case.named("state0")
    weights = {key: leaf.requires_grad_() for key, leaf in leaves.items()}
    inward = next(key.removesuffix(".weight") for key in weights if key.startswith("to_hidden"))
    projected = linear(weights["x"], weights[f"{inward}.weight"], weights.get(f"{inward}.bias"))
    gates = "gru" if "gru" in name else "lstm" if case.settings.get("normalized", True) else "lstm_raw"
    initial = weights["h"].squeeze(1) if "h" in weights else None
    if "init_hidden_state" in weights:
        initial = candidate_activation(weights["init_hidden_state"]).expand(len(projected), -1)
    h, final = scan(projected, initial, None, gates)
    outputs = linear(h, weights["to_out.weight"], weights.get("to_out.bias")) if "to_out.weight" in weights else h
    successors.assert_near(outputs, case["outputs"])
    successors.assert_near(final, case["state_final.h"].squeeze(1))
    gradients = dict(zip(weights, torch.autograd.grad(outputs, list(weights.values()), case["cotangent"]), strict=True))
    expected = {"x": case["grad_x"]} | case.named("grad") | case.named("grad_state0")
    assert gradients.keys() == expected.keys()
    for key, gradient in gradients.items():
        successors.assert_near(gradient, expected[key])


def test_the_gates_by_hand():
    k_h, k_f, k_i = 1.0, 0.3, -2.0
    f, i = (1 / (1 + math.exp(-k)) for k in (k_f, k_i))
    for gates, projected, expected in (
        ("gru", (k_h, k_i), (1 - i) * 4 + i * 1.5),
        ("lstm", (k_h, k_f, k_i), (f * 4 + i * 1.5) / (f + i)),
        ("lstm_raw", (k_h, k_f, k_i), f * 4 + i * 1.5),
    ):
        h, final = minimal_gates_reference(torch.tensor([[projected]]), torch.tensor([[4.0]]), None, gates)
        assert_close(h.squeeze(), torch.tensor(expected))
        assert_close(final, h[:, 0])


@every_scan
@pytest.mark.parametrize(("k_f", "k_i"), [(-20.00001, -19.99999), (-19.99999, -20.00001), (-30.0, -31.0), (25.0, 40.0)])
def test_closed_gates_keep_all_digits(scan, k_f, k_i):
    """torch's softplus is its input beyond 20, which changes ln(i / f) there by 2e-9."""
    results = []
    for by_scan in (True, False):
        projected = torch.tensor([0.5, k_f, k_i], dtype=torch.float64, requires_grad=True)
        initial = torch.tensor([100.0], dtype=torch.float64, requires_grad=True)
        if by_scan:
            h = scan(projected.view(1, 1, 3), initial.view(1, 1), None, "lstm")[1].sum()
        else:
            f, i = torch.sigmoid(projected[1]), torch.sigmoid(projected[2])
            h = (f * initial[0] + i * (projected[0] + 0.5)) / (f + i)
        results.append((h, *torch.autograd.grad(h, (projected, initial))))
    assert_close(*results, rtol=1e-12, atol=1e-12)


def test_the_slope_at_zero_is_one():
    k = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    assert_close(candidate_activation(k), torch.tensor([1 / (1 + math.e), 0.5, 1.5]))
    assert torch.autograd.grad(candidate_activation(k).sum(), k)[0][1:].tolist() == [1, 1]


@every_gates
def test_padding_has_no_influence(gates):
    given, lengths = sample(gates), torch.tensor([11, 4, 0])
    expected = results(minimal_gates_parallel, given, lengths, gates)
    with torch.no_grad():
        given[0][1, 4:] = given[0][2] = torch.nan
    assert_close(results(minimal_gates_parallel, given, lengths, gates), expected)


def test_an_exported_scan_accepts_any_length():
    class Scan(nn.Module):
        def forward(self, projected, initial, lengths):
            return minimal_gates_exported(projected, initial, lengths, "lstm")

    lengths = torch.tensor([11, 4, 0])
    projected, initial = (tensor.detach() for tensor in sample("lstm"))
    dynamic = ({1: torch.export.Dim.DYNAMIC}, None, None)
    program = torch.export.export(Scan(), (projected, initial, lengths), dynamic_shapes=dynamic, strict=False).module()
    longer = (torch.cat([projected, projected], 1), initial, 2 * lengths)
    assert_close(program(*longer), minimal_gates_reference(*longer, "lstm"))


def test_half_precision_is_computed_in_float32():
    [projected, _] = sample("gru", dtype=torch.bfloat16)
    h, final = minimal_gates_parallel(projected)
    assert (h.dtype, final.dtype) == (torch.bfloat16, torch.float32)
    assert_close(h, minimal_gates_reference(projected.float())[0].bfloat16())


def test_shapes_that_do_not_match_are_named():
    with pytest.raises(UserError, match=r"minimal_gates: got projected of shape \(2, 3, 7\), expected \(B, T, 3 E\)"):
        minimal_gates_parallel(torch.zeros(2, 3, 7), None, None, "lstm")
    with pytest.raises(UserError, match=r"minimal_gates: got initial of shape \(2, 4\), expected \(2, 3\)"):
        minimal_gates_parallel(torch.zeros(2, 3, 6), torch.zeros(2, 4))
