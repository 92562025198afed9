"""The sLSTM: golden vectors, gradients, states, padding and exported programs."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from seqmem.errors import UserError
from seqmem.ops import extension
from seqmem.ops.slstm import slstm_exported, slstm_reference, slstm_sequence
from tests.ops.sequences import needs_compiled
from tests.successors import assert_near, case

IMPLEMENTATIONS = {"reference": slstm_reference}
if not extension.REASON:
    IMPLEMENTATIONS["compiled"] = slstm_sequence
STATE = ("hidden", "memory", "normalizer", "stabilizer")
LENGTHS = torch.tensor([7, 3, 0])

every_implementation = pytest.mark.parametrize("run", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)


def sample(batch: int = 3, steps: int = 7, heads: int = 2, size: int = 3, fresh: bool = False) -> dict:
    """Random arguments by name, in float64; the first row of the state, or all of it, is zero as at a start."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, dtype=torch.float64, generator=random)

    given = {"projected": 2 * normal(batch, steps, 4 * heads * size)}
    given |= {name: normal(batch, heads * size) for name in STATE}
    given["normalizer"] = given["normalizer"].abs() + 0.5
    for name in STATE:
        given[name][: None if fresh else 1] = 0
    given["weight_hh"] = normal(heads, 4 * size, size)
    return {name: tensor.requires_grad_() for name, tensor in given.items()}


def results(run, given: dict, lengths: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """Outputs, the final state, and the gradients of a sum of all with fixed weights."""
    found = dict(zip(("outputs", *(f"final {name}" for name in STATE)), run(**given, lengths=lengths), strict=True))
    total = sum((part * torch.linspace(-1, 2, part.numel()).view_as(part).to(part)).sum() for part in found.values())
    gradients = torch.autograd.grad(total, list(given.values()), materialize_grads=True)
    return found | dict(zip(given, gradients, strict=True))


def golden_arguments(name: str) -> dict:
    golden = case(name)
    state = golden.named("state0") or dict.fromkeys(
        "ycnm", torch.zeros(len(golden["x"]), golden.settings["hidden_size"]).double()
    )
    given = {"projected": golden["x"] + golden["param._bias_"], "weight_hh": golden["param._recurrent_kernel_"]}
    given |= {ours: state[theirs].clone() for ours, theirs in zip(STATE, "ycnm", strict=True)}
    return {name: tensor.requires_grad_() for name, tensor in given.items()}


@every_implementation
@pytest.mark.parametrize("name", ["slstm_cell", "slstm_cell_state"])
def test_golden_vectors(run, name):
    golden, given = case(name), golden_arguments(name)
    outputs, *final = run(**given, lengths=None)
    assert_near(outputs, golden["outputs"])
    for part, theirs in zip(final, "ycnm", strict=True):
        assert_near(part, golden[f"state_final.{theirs}"])
    (outputs * golden["cotangent"]).sum().backward()
    assert_near(given["projected"].grad, golden["grad_x"])
    assert_near(given["projected"].grad.sum((0, 1)), golden["grad._bias_"])
    assert_near(given["weight_hh"].grad, golden["grad._recurrent_kernel_"])
    for ours, theirs in zip(STATE, "ycnm", strict=True):
        if f"grad_state0.{theirs}" in golden.arrays:
            assert_near(given[ours].grad, golden[f"grad_state0.{theirs}"])


@needs_compiled
def test_backward_keeps_five_numbers_for_each_unit_and_step():
    """The output and four of the saved ones, and two more for every 16 steps; not the four projected inputs."""
    given, kept = sample(batch=2, steps=64, heads=2, size=16), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        results = slstm_sequence(**given, lengths=None)
    units = 2 * 2 * 16
    small = given["weight_hh"].numel() + 4 * units  # and the state at the beginning
    assert sum(tensor.numel() for tensor in kept) == units * 64 * 5 + units * 64 // 16 * 2 + small
    torch.autograd.grad(results[0].sum(), list(given.values()))


@every_implementation
def test_the_recurrence_by_hand(run):
    """Without a stabiliser, y = sigmoid(o) c / n with plain exponential gates."""
    gates = torch.tensor([[0.5, -1.0, 0.3, 2.0], [1.5, 0.2, -0.8, 0.1]])
    zeros = torch.zeros(1, 1)
    outputs, hidden, memory, normalizer, stabilizer = run(gates[None], zeros, zeros, zeros, zeros, None, torch.zeros(1, 4, 1))
    i, f, z, o = gates.unbind(-1)
    c = torch.exp(i[0]) * torch.tanh(z[0])
    expected = [torch.sigmoid(o[0]) * c / torch.exp(i[0])]
    c = torch.sigmoid(f[1]) * c + torch.exp(i[1]) * torch.tanh(z[1])
    n = torch.sigmoid(f[1]) * torch.exp(i[0]) + torch.exp(i[1])
    expected.append(torch.sigmoid(o[1]) * c / n)
    assert_close(outputs.flatten(), torch.stack(expected))
    assert_close(hidden.flatten(), expected[-1][None])
    assert_close((memory * stabilizer.exp()).flatten(), c[None])
    assert_close((normalizer * stabilizer.exp()).flatten(), n[None])


@every_implementation
def test_the_stabilizer_has_no_influence(run):
    """States that differ in m alone, with c exp(m) and n exp(m) unchanged, give the same outputs."""
    given = {name: tensor.detach() for name, tensor in sample().items()}
    shift = torch.linspace(-3, 3, given["memory"].numel()).double().view_as(given["memory"])
    shifted = given | {"stabilizer": given["stabilizer"] + shift}
    shifted |= {name: given[name] * torch.exp(-shift) for name in ("memory", "normalizer")}
    assert_close(run(**shifted, lengths=None)[0], run(**given, lengths=None)[0])


@every_implementation
def test_halves_and_padding(run):
    given = sample()
    whole, *last = run(**given, lengths=None)
    first, *state = run(**given | {"projected": given["projected"][:, :3]}, lengths=None)
    rest = given | dict(zip(STATE, state, strict=True)) | {"projected": given["projected"][:, 3:]}
    second, *final = run(**rest, lengths=None)
    assert_close(torch.cat([first, second], 1), whole)
    assert_close(final, last)
    padded = given["projected"].detach().clone()
    padded[1, 3:] = padded[2] = torch.nan
    expected = results(run, given, LENGTHS)
    found = results(run, given | {"projected": padded.requires_grad_()}, LENGTHS)
    assert_close(found, expected)
    assert_close(found["outputs"][1, :3], whole[1, :3])
    assert_close(found["final memory"][1], state[1][1])
    assert torch.equal(found["final memory"][2], given["memory"][2])
    assert not found["outputs"][1, 3:].any()


@every_implementation
@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (2, 0, 2, 2), (2, 3, 0, 2), (2, 3, 2, 0), (1, 1, 1, 1)], ids=str)
def test_empty_and_single_sizes(run, shape):
    given = sample(*shape)
    found = results(run, given)
    assert found["outputs"].shape == (*shape[:2], shape[2] * shape[3])
    if shape[1] == 0:
        assert torch.equal(found["final memory"], given["memory"])


def assert_agrees_with_the_reference(shape: tuple[int, ...]) -> None:
    """Compare the compiled sequence in value and gradient, in float64 and to rounding in float32."""
    steps = shape[1]
    for lengths in (None, torch.arange(shape[0]) * 5 % (steps + 1)):
        given = sample(*shape)
        expected = results(slstm_reference, given, lengths)
        single = {name: tensor.detach().float().requires_grad_() for name, tensor in given.items()}
        for found, relative in (
            (results(slstm_sequence, given, lengths), 1e-12),
            (results(slstm_sequence, single, lengths), 1e-4),
        ):
            for name, value in found.items():
                assert_near(value.double(), expected[name], relative)


@needs_compiled
@pytest.mark.parametrize("shape", [(5, 13, 3, 17), (130, 5, 1, 40), (2, 90, 2, 16), (30, 48, 1, 5)], ids=str)
def test_the_compiled_sequence_agrees_with_the_reference(shape):
    assert_agrees_with_the_reference(shape)


@every_implementation
@pytest.mark.parametrize("fresh", [False, True])
def test_gradients_are_those_of_differences(run, fresh):
    """At a zero state the outputs are not continuous in n, so that its gradient is that of the branch n = 0."""
    given = sample(2, 4, 2, 2, fresh)
    fixed = {name: tensor.detach() for name, tensor in given.items() if name in STATE} if fresh else {}
    if not fresh:
        given["normalizer"] = (given["normalizer"].detach() + 0.5).requires_grad_()
    names = [name for name in given if name not in fixed]

    def call(*tensors):
        return run(**fixed, **dict(zip(names, tensors, strict=True)), lengths=torch.tensor([4, 3]))

    assert torch.autograd.gradcheck(call, [given[name] for name in names])


@every_implementation
def test_large_gates_do_not_overflow(run):
    given = {name: tensor.detach().float() for name, tensor in sample().items()}
    given["projected"] = given["projected"] * 1e4
    found = results(run, {name: tensor.requires_grad_() for name, tensor in given.items()})
    assert all(tensor.isfinite().all() for tensor in found.values())


def test_half_precision_is_computed_in_float32():
    given = {name: tensor.detach().float() for name, tensor in sample().items()}
    half = given | {"projected": given["projected"].bfloat16()}
    found, expected = (
        slstm_reference(**half, lengths=None),
        slstm_reference(**half | {"projected": half["projected"].float()}, lengths=None),
    )
    assert_close(found, expected, rtol=0, atol=0)


def test_an_exported_sequence_accepts_any_length():
    class Sequence(nn.Module):
        def forward(self, given, lengths):
            return slstm_exported(**given, lengths=lengths)

    given = {name: tensor.detach() for name, tensor in sample().items()}
    dynamic = {name: {1: torch.export.Dim.DYNAMIC} if name == "projected" else None for name in given}
    program = torch.export.export(Sequence(), (given, LENGTHS), dynamic_shapes=(dynamic, None), strict=False).module()
    longer = given | {"projected": torch.cat([given["projected"]] * 2, 1)}
    assert_close(program(longer, 2 * LENGTHS), slstm_reference(**longer, lengths=2 * LENGTHS))


@every_implementation
def test_shapes_that_do_not_match_are_named(run):
    for changes, message in (
        ({"weight_hh": torch.zeros(2, 9, 3)}, r"got projected of shape \(3, 7, 24\) and weight_hh of shape \(2, 9, 3\)"),
        ({"projected": torch.zeros(3, 7, 20)}, r"got projected of shape \(3, 7, 20\), expected \(3, 7, 24\)"),
        ({"memory": torch.zeros(3, 5)}, r"got memory of shape \(3, 5\), expected \(3, 6\)"),
    ):
        with pytest.raises(UserError, match=message):
            run(**sample() | changes, lengths=None)


@needs_compiled
def test_views_and_half_precision():
    given = {name: tensor.detach() for name, tensor in sample().items()}
    views = {name: torch.stack([tensor, tensor], -1)[..., 1] for name, tensor in given.items()}
    assert_close(slstm_sequence(**views, lengths=LENGTHS), slstm_sequence(**given, lengths=LENGTHS))
    single = {name: tensor.float() for name, tensor in given.items()}
    half = single | {"projected": single["projected"].bfloat16()}
    assert_close(slstm_sequence(**half, lengths=None), slstm_reference(**half, lengths=None))


@every_implementation
def test_mixed_types_are_converted_to_the_widest(run):
    given = {name: tensor.detach() for name, tensor in sample().items()}
    single = {name: tensor.float() for name, tensor in given.items()}
    for name in given:
        mixed = single | {name: given[name]}
        assert_close(
            run(**mixed, lengths=LENGTHS),
            slstm_reference(**{name: tensor.double() for name, tensor in mixed.items()}, lengths=LENGTHS),
        )
    half = {name: tensor.bfloat16() for name, tensor in given.items()}
    assert_close(run(**half, lengths=None), slstm_reference(**half, lengths=None))


@needs_compiled
def test_float32_over_many_steps():
    """Of results that are stored past the caches, with forget gates near one."""
    given = {name: tensor.detach().float() for name, tensor in sample(1, 100_000, 1, 16).items()}
    given["projected"][..., 16:32] += 8
    given["weight_hh"] *= 0.1
    found = slstm_sequence(**given, lengths=None)
    expected = slstm_sequence(**{name: tensor.double() for name, tensor in given.items()}, lengths=None)
    assert_near(found[0].double(), expected[0], 1e-4)
    assert_near(found[4].double(), expected[4], 1e-5)


@needs_compiled
def test_gradients_of_results_past_the_caches():
    """Forward and backward store large results around the caches."""
    given = {name: tensor.detach().float().requires_grad_() for name, tensor in sample(8, 1100, 2, 32).items()}
    given["weight_hh"] = (given["weight_hh"].detach() * 0.1).requires_grad_()
    found = results(slstm_sequence, given)
    expected = results(slstm_sequence, {name: tensor.detach().double().requires_grad_() for name, tensor in given.items()})
    for name, value in found.items():
        assert_near(value.double(), expected[name], 1e-4)


@needs_compiled
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # from opcheck
def test_the_operator_is_well_formed():
    given = sample(2, 5, 2, 16)  # sizes with which no saved number is undefined
    arguments = (*(given[name] for name in ("projected", *STATE)), torch.tensor([5, 5]), given["weight_hh"], 3)
    torch.library.opcheck(torch.ops.seqmem.slstm_sequence.default, arguments)


@needs_compiled
def test_wrong_arguments_of_the_operator_are_named():
    given = {name: tensor.detach() for name, tensor in sample().items()} | {"lengths": None, "chunk_steps": 3}
    for changes, message in (
        ({"projected": torch.zeros(3, 7)}, r"projected: got shape \[3, 7\], expected \(B, T, 4H\)"),
        ({"projected": torch.zeros(3, 7, 24).half()}, "projected: got float16, expected float32 or float64"),
        ({"weight_hh": torch.zeros(2, 9, 3).double()}, r"weight_hh: got shape \[2, 9, 3\], expected \(K, 4H/K, H/K\)"),
        ({"normalizer": torch.zeros(3, 5).double()}, r"normalizer: got shape \[3, 5\], expected \[3, 6\]"),
        ({"stabilizer": torch.zeros(3, 6)}, "stabilizer: got float32, expected float64"),
        ({"lengths": torch.tensor([7, 8, 0])}, "lengths: got 8 in row 1, expected 0 to T = 7"),
    ):
        with pytest.raises(ValueError, match=message):
            torch.ops.seqmem.slstm_sequence(**(given | changes))
