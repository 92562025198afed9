"""The selective scan: golden vectors, gradients, states, padding and exported programs."""

import math
from itertools import product

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from seqmem.errors import UserError
from seqmem.ops import extension, selective_scan
from seqmem.ops.gpu.selective_scan import selective_scan_kernel
from seqmem.ops.selective_scan import (
    selective_scan_blocks,
    selective_scan_compiled,
    selective_scan_exported,
    selective_scan_reference,
)
from tests.ops.sequences import needs_compiled
from tests.successors import assert_near, case

IMPLEMENTATIONS = {"reference": selective_scan_reference, "blocks": selective_scan_blocks}
if not extension.REASON:
    IMPLEMENTATIONS["compiled"] = selective_scan_compiled
OPTIONAL = ("skip", "gate", "delta_bias", "initial")

every_implementation = pytest.mark.parametrize("run", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch):
    """Makes short sequences have several blocks."""
    monkeypatch.setattr(selective_scan, "BLOCK_STEPS", 3)


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


@every_implementation
@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (2, 0, 2, 2), (2, 3, 0, 2), (2, 3, 2, 0), (1, 1, 1, 1)], ids=str)
def test_empty_and_single_sizes(run, shape):
    given = sample(*shape)
    found = results(run, given)
    assert found["outputs"].shape == shape[:3]
    if shape[1] == 0:
        assert torch.equal(found["final"], given["initial"])


@every_implementation
def test_gradients_are_those_of_differences(run):
    for without, softplus in product([(), OPTIONAL], [True, False]):
        given = sample(2, 3, 2, 2, without)
        names = [name for name, tensor in given.items() if tensor is not None]

        def scan(*tensors, names=names, softplus=softplus):
            lengths = torch.tensor([3, 2])
            return run(**dict(zip(names, tensors, strict=True)), lengths=lengths, softplus=softplus)

        assert torch.autograd.gradcheck(scan, [given[name] for name in names])


@every_implementation
def test_half_precision_is_computed_in_float32(run):
    given = {name: tensor.detach().float() for name, tensor in sample().items()}
    half = given | {name: given[name].bfloat16() for name in ("inputs", "gate", "b", "c")}
    rounded = half | {name: half[name].float() for name in ("inputs", "gate", "b", "c")}
    outputs, final = run(**half, softplus=True)
    expected, last = run(**rounded, softplus=True)
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


@pytest.mark.parametrize("name", ["a", "b", "initial"])
@pytest.mark.parametrize("run", [*IMPLEMENTATIONS.values(), selective_scan_exported, selective_scan_kernel])
def test_complex_numbers_are_refused(run, name):
    """The authors' code computes 2 Re of complex states; here the imaginary parts were dropped."""
    given = {key: tensor.detach() for key, tensor in sample().items()}
    given[name] = given[name] + 0.5j
    with pytest.raises(UserError, match=f"selective_scan: got {name} of torch.complex128, expected real numbers"):
        run(**given)


def assert_agrees_with_the_reference(shape: tuple[int, ...], chunk: int):
    """In both precisions, with every argument and with those alone that are required, with and without padding."""
    for dtype, without in product((torch.float64, torch.float32), ((), OPTIONAL)):
        drawn = sample(*shape, without=without).items()
        given = {name: None if part is None else part.detach().to(dtype).requires_grad_() for name, part in drawn}
        for lengths in (None, torch.tensor([shape[1], shape[1] // 2, 0] * shape[0])[: shape[0]]):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(selective_scan, "CHUNK_STEPS", chunk)
                found, expected = (results(run, given, lengths) for run in (selective_scan_compiled, selective_scan_reference))
            for name, value in expected.items():
                assert_near(found[name], value, 1e-12 if dtype == torch.float64 else 4e-6)


@needs_compiled
@pytest.mark.parametrize("shape", [(3, 7, 5, 4), (2, 37, 40, 16), (1, 5, 300, 3), (2, 9, 130, 17), (17, 3, 300, 2)], ids=str)
def test_the_compiled_scan_agrees_with_the_reference(shape):
    """In chunks of several sizes, with whole and partial vectors, and groups of channels."""
    for chunk in (1, 3, 32):
        assert_agrees_with_the_reference(shape, chunk)


@needs_compiled
def test_results_do_not_depend_on_the_number_of_threads():
    given, threads = {name: tensor.float() for name, tensor in sample(5, 40, 200, 3).items()}, torch.get_num_threads()
    given = {name: tensor.detach().requires_grad_() for name, tensor in given.items()}
    try:
        found = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(results(selective_scan_compiled, given, torch.tensor([40, 3, 0, 17, 40])))
    finally:
        torch.set_num_threads(threads)
    for name in found[0]:
        assert torch.equal(found[1][name], found[0][name]), name
        assert torch.equal(found[2][name], found[0][name]), name


@needs_compiled
def test_extreme_step_sizes_and_values():
    """Factors that overflow, vanish or are one, in float32 and in one lane alone."""
    given = {name: tensor.detach().float() for name, tensor in sample(1, 4, 19, 2).items()}
    for value in (0.0, 1e-30, 1e4, 1e15, 1e30, -1e4, math.inf, -math.inf, math.nan):
        changed = given | {"delta": given["delta"].clone(), "inputs": given["inputs"].clone()}
        changed["delta"][0, 1, 7] = value
        changed["inputs"][0, 1, 7] = 0 if math.isinf(value) else 1e-25
        for softplus in (True, False):
            found = selective_scan_compiled(**changed, softplus=softplus)
            expected = selective_scan_reference(**changed, softplus=softplus)
            assert_close(found, expected, equal_nan=True, rtol=1e-4, atol=1e-5)


@needs_compiled
def test_factors_are_precise_and_slow_decays_without_bias():
    for low, high, bias in ((-8.0, 8.0, 1e-7), (1e-3, 1e-2, 2e-9), (1e-4, 1e-3, 2e-9)):
        delta = torch.linspace(low, high, 20_000).view(1, 1, -1)
        zeros, ones = torch.zeros(1, 1, 1), torch.ones(1, delta.numel(), 1)
        _, factors = selective_scan_compiled(torch.zeros_like(delta), delta, -ones[0], zeros, zeros, initial=ones)
        errors = factors.flatten().double() * delta.flatten().double().exp() - 1
        assert errors.abs().max() < 1.5e-7 + 1e-7 * max(-low, high)
        assert errors.mean().abs() < bias


@needs_compiled
def test_softplus_and_silu_are_precise():
    """To a few units in the last place of float32. SiLU's derivative has a difference of numbers near 1, times x."""
    x = torch.cat([torch.linspace(-80, 25, 20_000), torch.linspace(-4, 4, 20_000)]).view(1, 1, -1).requires_grad_()
    size, wide, exact = x.numel(), torch.ones_like(x.detach()), x.detach().double()
    zeros, ones, rates, skip = torch.zeros(1, 1, 1), torch.ones(1, 1, 1), torch.zeros(size, 1), torch.ones(size)
    sigmoid = exact.sigmoid()
    softplus, _ = selective_scan_compiled(wide, x, rates, ones, ones, softplus=True)
    silu, _ = selective_scan_compiled(wide, wide, rates, zeros, zeros, skip=skip, gate=x)
    for found, expected, slope in (
        (softplus, (-exact.abs()).exp().log1p() + exact.clamp_min(0), sigmoid),
        (silu, exact * sigmoid, sigmoid * (1 + exact * (1 - sigmoid))),
    ):
        (derivative,) = torch.autograd.grad(found.sum(), x)
        assert_close(found.double(), expected, rtol=4e-7, atol=0)
        assert_close(derivative.double(), slope, rtol=4e-7, atol=1.5e-6)


@needs_compiled
def test_views_of_a_projection_are_not_copied_wrongly():
    given = {name: tensor.detach() for name, tensor in sample().items()}
    wide = torch.cat([given["inputs"], given["gate"]], -1)
    views = dict(zip(("inputs", "gate"), wide.split(5, -1), strict=True))
    joined = torch.cat([given["b"], given["c"]], -1)
    views |= dict(zip(("b", "c"), joined.split(4, -1), strict=True))
    assert not any(view.is_contiguous() for view in views.values())
    assert_close(selective_scan_compiled(**given | views), selective_scan_compiled(**given))


@needs_compiled
@pytest.mark.slow
def test_float32_over_many_steps():
    """Of large results, which are stored past the caches, with decays close to one."""
    steps = 100_000
    given = {name: tensor.detach().float() for name, tensor in sample(1, steps, 32, 2).items()}
    given["a"] = given["a"] * 1e-3
    found, final = selective_scan_compiled(**given, softplus=True)
    exact, last = selective_scan_reference(**{name: tensor.double() for name, tensor in given.items()}, softplus=True)
    assert_near(found.double(), exact, 1e-5)
    assert_near(final.double(), last, 1e-5)


@needs_compiled
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # from opcheck
def test_the_operator_is_well_formed():
    for without in ((), OPTIONAL):
        given = sample(2, 5, 16, 4, without)
        torch.library.opcheck(torch.ops.seqmem.selective_scan.default, (*given.values(), torch.tensor([5, 2]), True, 3))


@needs_compiled
def test_wrong_arguments_of_the_operator_are_named():
    given = [tensor.detach() for tensor in sample().values()]
    for changes, message in (
        ({0: torch.zeros(3, 7)}, r"inputs: got shape \[3, 7\], expected \(B, T, D\)"),
        ({0: torch.zeros(3, 7, 5).half()}, "inputs: got float16, expected float32 or float64"),
        ({1: torch.zeros(3, 7, 5)}, "delta: got float32, expected float64"),
        ({3: torch.zeros(3, 7, 5).double()}, r"b: got shape \[3, 7, 5\], expected \[3, 7, 4\]"),
        ({8: torch.zeros(3, 4, 5).double()}, r"initial: got shape \[3, 4, 5\], expected \[3, 5, 4\]"),
        ({9: torch.tensor([7, 8, 0])}, "lengths: got 8 in row 1, expected 0 to T = 7"),
        ({11: -1}, "chunk_steps: got -1, expected 0 to 1024"),
    ):
        arguments = [*given, None, True, 32]
        with pytest.raises(ValueError, match=message):
            torch.ops.seqmem.selective_scan(*(changes.get(k, value) for k, value in enumerate(arguments)))
