"""The selective scan: golden vectors, gradients, states, padding and exported programs."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from seqmem.errors import UserError
from seqmem.ops.selective_scan import selective_scan_exported, selective_scan_reference
from tests.successors import assert_near, case

IMPLEMENTATIONS = {"reference": selective_scan_reference}
OPTIONAL = ("skip", "gate", "delta_bias", "initial")

every_implementation = pytest.mark.parametrize("run", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)


def sample(batch: int = 3, steps: int = 7, channels: int = 5, states: int = 4, without: tuple[str, ...] = ()) -> dict:
    """Random arguments by name, in float64."""
    shapes = {
        "inputs": (batch, steps, channels),
        "delta": (batch, steps, channels),
        "a": (channels, states),
        "b": (batch, steps, states),
        "c": (batch, steps, states),
        "skip": (channels,),
        "gate": (batch, steps, channels),
        "delta_bias": (channels,),
        "initial": (batch, channels, states),
    }
    random = torch.Generator().manual_seed(0)
    given = {name: torch.randn(shape, dtype=torch.float64, generator=random) for name, shape in shapes.items()}
    given["a"] = -given["a"].abs()
    return {name: None if name in without else tensor.requires_grad_() for name, tensor in given.items()}


def results(run, given: dict, lengths: torch.Tensor | None = None, softplus: bool = True) -> dict[str, torch.Tensor]:
    """Outputs, the final state, and the gradients of a sum of both with fixed weights."""
    outputs, final = run(**given, lengths=lengths, softplus=softplus)
    total = sum((part * torch.linspace(-1, 2, part.numel()).view_as(part).to(part)).sum() for part in (outputs, final))
    named = {name: tensor for name, tensor in given.items() if tensor is not None}
    gradients = torch.autograd.grad(total, list(named.values()), materialize_grads=True)
    return {"outputs": outputs, "final": final} | dict(zip(named, gradients, strict=True))


@every_implementation
def test_golden_vectors(run):
    golden = case("selective_scan")
    names = {"A": "a", "B": "b", "C": "c", "D": "skip", "z": "gate", "delta": "delta", "delta_bias": "delta_bias"}
    given = {names[name]: tensor.requires_grad_() for name, tensor in golden.named("param").items()}
    given["inputs"] = golden["x"].requires_grad_()
    outputs, final = run(**given, softplus=True)
    assert_near(outputs, golden["outputs"])
    assert_near(final, golden["state_final.ssm"])
    gradients = torch.autograd.grad((outputs * golden["cotangent"]).sum(), list(given.values()))
    expected = {names[name]: tensor for name, tensor in golden.named("grad").items()} | {"inputs": golden["grad_x"]}
    for name, gradient in zip(given, gradients, strict=True):
        assert_near(gradient, expected[name])


@every_implementation
def test_the_recurrence_by_hand(run):
    ones = torch.ones(1, 2, 1)
    a, initial = torch.tensor([[-2.0]]), torch.tensor([[[8.0]]])
    outputs, final = run(3 * ones, ones, a, ones, 2 * ones, torch.tensor([10.0]), initial=initial)
    decay = torch.tensor(-2.0).exp()
    first = 8 * decay + 3
    assert_close(outputs.flatten(), torch.stack([2 * first + 30, 2 * (first * decay + 3) + 30]))
    assert_close(final.flatten(), (first * decay + 3)[None])


@every_implementation
def test_halves_and_padding(run):
    given, lengths = sample(), torch.tensor([7, 3, 0])
    parameters = ("a", "skip", "delta_bias", "initial")
    whole, last = run(**given, softplus=True)
    first, state = run(**{k: v if k in parameters else v[:, :3] for k, v in given.items()}, softplus=True)
    rest = {k: v if k in parameters else v[:, 3:] for k, v in given.items()} | {"initial": state}
    second, final = run(**rest, softplus=True)
    assert_close(torch.cat([first, second], 1), whole)
    assert_close(final, last)
    padded = {k: v.detach().clone() for k, v in given.items()}
    for name in set(padded) - set(parameters):
        padded[name][1, 3:], padded[name][2] = torch.nan, torch.nan
    padded = {name: tensor.requires_grad_() for name, tensor in padded.items()}
    found, expected = (results(run, arguments, lengths) for arguments in (padded, given))
    assert_close(found, expected)
    assert_close(found["outputs"][1, :3], whole[1, :3])
    assert_close(found["final"][1], state[1])
    assert torch.equal(found["final"][2], given["initial"][2])
    assert not found["outputs"][1, 3:].any()


@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (2, 0, 2, 2), (2, 3, 0, 2), (2, 3, 2, 0), (1, 1, 1, 1)], ids=str)
def test_empty_and_single_sizes(shape):
    given = sample(*shape)
    found = results(selective_scan_reference, given)
    assert found["outputs"].shape == shape[:3]
    if shape[1] == 0:
        assert torch.equal(found["final"], given["initial"])


def test_gradients_are_those_of_differences():
    for without, softplus in product([(), OPTIONAL], [True, False]):
        given = sample(2, 3, 2, 2, without)
        names = [name for name, tensor in given.items() if tensor is not None]

        def run(*tensors, names=names, softplus=softplus):
            lengths = torch.tensor([3, 2])
            return selective_scan_reference(**dict(zip(names, tensors, strict=True)), lengths=lengths, softplus=softplus)

        assert torch.autograd.gradcheck(run, [given[name] for name in names])


def test_half_precision_is_computed_in_float32():
    given = {name: tensor.detach().float() for name, tensor in sample().items()}
    half = given | {name: given[name].bfloat16() for name in ("inputs", "gate", "b", "c")}
    rounded = half | {name: half[name].float() for name in ("inputs", "gate", "b", "c")}
    outputs, final = selective_scan_reference(**half, softplus=True)
    expected, last = selective_scan_reference(**rounded, softplus=True)
    assert outputs.dtype == torch.bfloat16
    assert final.dtype == torch.float32
    assert torch.equal(final, last)
    assert torch.equal(outputs, expected.bfloat16())


def test_an_exported_scan_accepts_any_length():
    class Scan(nn.Module):
        def forward(self, given, lengths):
            return selective_scan_exported(**given, lengths=lengths, softplus=True)

    given = {name: tensor.detach() for name, tensor in sample().items()}
    parameters = ("a", "skip", "delta_bias", "initial")
    dynamic = {name: None if name in parameters else {1: torch.export.Dim.DYNAMIC} for name in given}
    lengths = torch.tensor([7, 3, 0])
    program = torch.export.export(Scan(), (given, lengths), dynamic_shapes=(dynamic, None), strict=False).module()
    longer = {name: v if name in parameters else torch.cat([v, v], 1) for name, v in given.items()}
    assert_close(program(longer, 2 * lengths), selective_scan_reference(**longer, lengths=2 * lengths, softplus=True))


def test_shapes_that_do_not_match_are_named():
    for changes, message in (
        ({"inputs": torch.zeros(3, 7)}, r"got inputs of shape \(3, 7\) and a of shape \(5, 4\), expected \(B, T, D\)"),
        ({"b": torch.zeros(3, 7, 5)}, r"got b of shape \(3, 7, 5\), expected \(3, 7, 4\)"),
        ({"initial": torch.zeros(5, 4)}, r"got initial of shape \(5, 4\), expected \(3, 5, 4\)"),
    ):
        with pytest.raises(UserError, match=message):
            selective_scan_reference(**sample() | changes)
