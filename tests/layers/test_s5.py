"""S5: golden vectors in one direction and in both, initialisation, and its settings for an optimiser."""

import math

import pytest
import torch
from torch.testing import assert_close

from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.layers import S5, BidirectionalS5
from seqmem.layers.s5 import initial_modes
from seqmem.models import StackNetwork
from seqmem.ops.transition import transition
from seqmem.training.optimisation.groups import parameter_groups
from tests.layers.golden import assert_golden, assert_steps_agree
from tests.successors import assert_near, case

SPEC = DataSpec("made", 1, 10, "classification", output_steps=0, max_length=784)
CORES = ["s5_zoh", "s5_bilinear", "s5_zoh_bidirectional", "s5_bilinear_bidirectional"]


def renamed(arrays):
    """Arrays of an original layer by the names of this project; C of the backward direction follows that of the forward."""
    outputs = [arrays[name] for name in ("C", "C1", "C2") if name in arrays]
    return {
        "real": arrays["Lambda_re"],
        "imaginary": arrays["Lambda_im"],
        "log_step": arrays["log_step"].squeeze(-1),
        "weight_in": arrays["B"],
        "weight_out": torch.cat(outputs, 1),
        "weight_skip": arrays["D"],
    }


def renamed_block(arrays):
    mixer = renamed({name.removeprefix("seq."): array for name, array in arrays.items() if name.startswith("seq.")})
    return {f"mixer.{name}": array for name, array in mixer.items()} | {
        "norm.norm.weight": arrays["norm.scale"],
        "norm.norm.bias": arrays["norm.bias"],
        "mixing.weight": arrays["out2.kernel"].T,
        "mixing.bias": arrays["out2.bias"],
    }


@pytest.mark.parametrize("name", CORES)
def test_it_is_the_original(name):
    golden = case(name)
    kind = BidirectionalS5 if golden.settings["bidirectional"] else S5
    layer = kind(4, 4, state_size=8, blocks=1, discretization=golden.settings["discretization"]).double()
    state = assert_golden(layer, golden, renamed, layer)
    if layer.causal:
        assert_near(state.modes, golden["state_final.s"])
        assert_steps_agree(layer, golden["x"].detach())
    else:
        with pytest.raises(UserError, match="BidirectionalS5 has no step form"):
            layer.step(golden["x"][:, 0].detach())


def test_its_block_is_the_original():
    golden = case("s5_block")
    settings = {"norm": "layer", "norm_eps": 1e-6, "gelu_form": "tanh", "feed_forward": "half_glu1"}
    arguments = {"state_size": 8, "blocks": 1}
    model = StackNetwork(SPEC, "s5", arguments, model_size=5, num_layers=1, **settings).double().eval()
    block = model.blocks[0]
    assert_golden(block, golden, renamed_block, lambda inputs: block(inputs, None, None, None))


def test_a_bidirectional_stack_has_the_layers_own_form():
    model = StackNetwork(SPEC, "s5", {"state_size": 8, "blocks": 2}, model_size=6, num_layers=1, bidirectional=True)
    mixer = model.blocks[0].mixer
    assert isinstance(mixer, BidirectionalS5)
    assert mixer.weight_out.shape == (6, 8, 2)
    assert isinstance(model.blocks[0].project, torch.nn.Identity)


def test_the_backward_direction_starts_at_the_last_valid_step():
    torch.manual_seed(0)
    layer = BidirectionalS5(3, 4, state_size=8, blocks=2).double()
    inputs = torch.randn(2, 9, 3, dtype=torch.float64)
    outputs, state = layer(inputs, lengths=torch.tensor([9, 4]), rate=0.5)
    assert state is None
    assert_close(outputs[1:, :4], layer(inputs[1:, :4], rate=0.5)[0])
    assert not outputs[1, 4:].any()


@pytest.mark.parametrize("size", ["P8_J1", "P8_J2", "P64_J1", "P64_J4"])
def test_the_initial_eigenvalues_are_the_originals(size):
    order, blocks = (int(part[1:]) for part in size.split("_"))
    layer = S5(3, 3, state_size=order, blocks=blocks)
    expected = case("s5_init")[f"{size}/Lambda"]
    assert_close(torch.stack([layer.real, layer.imaginary], -1).double(), expected, rtol=1e-6, atol=1e-6)


def test_the_initial_modes_diagonalise_legs():
    golden = case("s5_init")
    eigenvalues, vectors = initial_modes(8, conjugate=True)
    assert_near(eigenvalues, golden["P8_J1/Lambda"], 1e-9)
    factors = torch.einsum("pm,pm->m", torch.view_as_complex(golden["P8_J1/V"]).conj(), vectors)
    assert_close(factors.abs(), torch.ones(4, dtype=torch.float64))  # equal up to a unit factor
    eigenvalues, vectors = initial_modes(8, conjugate=False)
    normal = vectors @ torch.diag(torch.view_as_complex(eigenvalues)) @ vectors.mH
    p = (torch.arange(8, dtype=torch.float64) + 0.5).sqrt()
    assert_close(normal.real, golden["P8_J1/A"] + torch.outer(p, p), rtol=1e-6, atol=1e-6)
    assert normal.imag.abs().max() < 1e-12


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_all_initial_modes_diagonalise_legs_of_any_order(order):
    """An odd order has a real mode, which is its own conjugate."""
    eigenvalues, vectors = initial_modes(order, conjugate=False)
    a, b = transition("legs", order)
    normal = vectors @ torch.diag(torch.view_as_complex(eigenvalues)) @ vectors.mH
    assert_close(normal, (a + torch.outer(b, b) / 2).to(normal.dtype))
    assert_close(vectors.mH @ vectors, torch.eye(order, dtype=normal.dtype))


@pytest.mark.parametrize("kind", [S5, BidirectionalS5])
@pytest.mark.parametrize(("order", "blocks"), [(3, 1), (9, 3), (2, 2)])
def test_all_modes_may_be_odd_in_number(kind, order, blocks):
    torch.manual_seed(0)
    layer = kind(3, 4, state_size=order, blocks=blocks, conjugate=False).double()
    assert layer.weight_in.shape == (order, 4, 2)
    inputs = torch.randn(2, 9, 3, dtype=torch.float64)
    if layer.causal:
        assert_steps_agree(layer, inputs)
    else:
        assert layer(inputs)[0].isfinite().all()


def test_the_initial_weights_have_their_variances():
    torch.manual_seed(0)

    def deviation(c_init):
        return S5(300, 300, state_size=40, blocks=2, c_init=c_init).weight_out.std().item()

    # A rotation by the orthonormal columns of V keeps the variance of |B0| and of the parts of C0.
    weight_in = S5(300, 300, state_size=40, blocks=2).weight_in
    assert_close(weight_in.square().sum(-1).mean().item(), 1 / 40, rtol=0.05, atol=0)
    assert_close(deviation("trunc_standard_normal"), 40**-0.5, rtol=0.05, atol=0)
    assert_close(deviation("lecun_normal"), (40 * 300) ** -0.5, rtol=0.05, atol=0)
    assert_close(deviation("complex_normal"), 0.5**0.5, rtol=0.05, atol=0)
    steps = S5(1, 1, state_size=20_000, blocks=5000).log_step
    assert math.log(1e-3) <= steps.min() < math.log(1.1e-3)
    assert math.log(0.09) < steps.max() <= math.log(0.1) + 1e-6
    assert_close(steps.mean().item(), math.log(1e-2), atol=0.05, rtol=0)


def test_all_modes_compute_what_the_kept_half_does():
    """With conjugate modes, weights and steps the outputs are equal."""
    torch.manual_seed(0)
    half, whole = S5(3, 4, state_size=8, blocks=1).double(), S5(3, 4, state_size=8, blocks=1, conjugate=False).double()
    mirror = torch.tensor([1.0, -1.0], dtype=torch.float64)
    with torch.no_grad():
        whole.real.copy_(half.real.repeat(2))
        whole.imaginary.copy_(torch.cat([half.imaginary, -half.imaginary]))
        whole.log_step.copy_(half.log_step.repeat(2))
        whole.weight_in.copy_(torch.cat([half.weight_in, half.weight_in * mirror]))
        whole.weight_out.copy_(torch.cat([half.weight_out, half.weight_out * mirror], 1))
        whole.weight_skip.copy_(half.weight_skip)
        whole.projection.copy_(half.projection)
    inputs = torch.randn(2, 9, 3, dtype=torch.float64)
    assert_close(whole(inputs)[0], half(inputs)[0])


def test_half_the_rate_takes_twice_the_steps():
    torch.manual_seed(0)
    layer, inputs = S5(3, 4, state_size=8, blocks=2).double(), torch.randn(2, 9, 3, dtype=torch.float64)
    outputs, last = layer(inputs)
    twice, after = layer(inputs.repeat_interleave(2, 1), rate=0.5)
    assert_close(twice[:, 1::2], outputs)
    assert_close(after, last)
    assert_steps_agree(layer, inputs, {"rate": 0.5})


def test_the_real_part_may_be_clipped():
    for clip in (False, True):
        layer = S5(3, 4, state_size=8, blocks=1, clip=clip).double()
        with torch.no_grad():
            layer.real.fill_(0.1)
        modulus = layer.recurrence()[0].square().sum(-1)
        assert (modulus < 1).all() == clip


def test_an_optimiser_has_two_groups():
    special, others = parameter_groups(S5(4, 4, state_size=8, blocks=1), 0.004)
    assert (special["lr"], special["weight_decay"], len(special["params"])) == (0.001, 0.0, 4)
    assert (others["lr"], len(others["params"])) == (0.004, 2)
    assert {group["lr"] for group in parameter_groups(S5(4, 4, state_size=8, blocks=1, max_lr=None), 0.004)} == {0.004}


@pytest.mark.parametrize(("kind", "more"), [(S5, 0), (BidirectionalS5, 8 * 5)])
def test_the_number_of_parameters(kind, more):
    count = sum(parameter.numel() for parameter in kind(5, 5, state_size=8, blocks=2).parameters())
    assert count == 12 + 2 * 8 * 5 + 5 + more  # 1.5 P + 2 P H + H, and P H


def test_mistakes_are_named():
    for arguments, message in (
        ({"state_size": 12, "blocks": 4}, r"state_size: got 12, expected a multiple of 2 \* blocks = 8"),
        ({"state_size": 3, "blocks": 1}, r"state_size: got 3, expected a multiple of 2 \* blocks = 2"),
        ({"state_size": 3, "blocks": 2, "conjugate": False}, r"state_size: got 3, expected a multiple of blocks = 2"),
        ({"dt_min": 0.2}, r"dt_min: got 0\.2, expected at most dt_max=0\.1"),
    ):
        with pytest.raises(UserError, match=message):
            S5(4, 4, **arguments)
