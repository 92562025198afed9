"""S4D: golden vectors of the original code, initial values, impulse responses and rates."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, glu, linear
from torch.testing import assert_close

from seqmem.errors import UserError
from seqmem.layers.s4d import S4D, initial_modes
from seqmem.ops import transition
from seqmem.ops.diagonal_ssm import diagonal_ssm_reference
from seqmem.training.optimisation.groups import parameter_groups
from tests.successors import Case, assert_near, case

SHORT = {
    "D": "weight_skip",
    "kernel.C": "weight_out",
    "kernel.log_dt": "log_step",
    "kernel.log_A_real": "log_decay",
    "kernel.A_imag": "frequency",
}
FULL = {
    "D": "weight_skip",
    "kernel.C": "weight_out",
    "kernel.inv_dt": "log_step",
    "kernel.A_real": "log_decay",
    "kernel.A_imag": "frequency",
    "kernel.B": "weight_in",
}


def loaded(found: Case) -> S4D:
    """The layer of a case, in float64."""
    is_full = "param.kernel.B" in found.arrays
    rule = found.settings["discretization"]
    layer = S4D(5, 5, found.settings["state_size"], discretization=rule, train_b=is_full).double()
    with torch.no_grad():
        for name, own in (FULL if is_full else SHORT).items():
            layer.get_parameter(own).copy_(ours(found, own, found[f"param.{name}"]))
    return layer


def ours(found: Case, own: str, values: Tensor) -> Tensor:
    """A parameter or gradient of a case as the layer has it.

    A of the full version has the other sign of the frequency, so that B, C and its states are conjugates of the layer's.
    """
    if "param.kernel.B" not in found.arrays:
        return values
    values = values.flatten() if own in ("log_step", "weight_skip") else values
    return conjugated(values[0]) if own in ("weight_in", "weight_out") else values


def conjugated(values: Tensor) -> Tensor:
    return values * torch.tensor([1.0, -1.0], dtype=values.dtype)


def check_gradients(layer: S4D, found: Case) -> None:
    for name, own in (FULL if "param.kernel.B" in found.arrays else SHORT).items():
        assert_near(layer.get_parameter(own).grad, ours(found, own, found[f"grad.{name}"]), 1e-9)


@pytest.mark.parametrize("name", ["s4d_lin", "s4d_perturbed"])
def test_the_short_version(name):
    found = case(name)
    layer, x = loaded(found), found["x"].requires_grad_()
    outputs, _ = layer(x)
    assert_near(outputs, found["outputs"])
    (outputs * found["cotangent"]).sum().backward()
    assert_near(x.grad, found["grad_x"], 1e-9)
    check_gradients(layer, found)


def test_the_layer_of_the_short_version():
    """With the GELU and the gated linear unit that the block of the stack has."""
    found = case("s4d_layer")
    layer, x = loaded(found), found["x"].requires_grad_()
    weight, bias = found["param.output_linear.0.weight"].squeeze(-1), found["param.output_linear.0.bias"]
    outputs = glu(linear(gelu(layer(x)[0]), weight, bias), -1)
    assert_near(outputs, found["outputs"])
    (outputs * found["cotangent"]).sum().backward()
    assert_near(x.grad, found["grad_x"], 1e-9)
    check_gradients(layer, found)


@pytest.mark.parametrize("name", ["s4d_full_zoh", "s4d_full_bilinear"])
def test_the_full_version(name):
    found = case(name)
    layer, x = loaded(found), found["x"].requires_grad_()
    before = conjugated(found["state0.s"]).requires_grad_()
    outputs, after = layer(x, (before,))
    assert_near(outputs, found["outputs"])
    assert_near(conjugated(after.modes), found["state_final.s"])
    (outputs * found["cotangent"]).sum().backward()
    assert_near(x.grad, found["grad_x"], 1e-9)
    assert_near(conjugated(before.grad), found["grad_state0.s"], 1e-9)
    check_gradients(layer, found)
    state, steps = (before,), []
    for inputs in x.unbind(1):
        output, state = layer.step(inputs, state)
        steps.append(output)
    assert_near(torch.stack(steps, 1), found["outputs_step"])


def test_the_backward_direction_of_the_original_begins_at_the_next_input():
    """Two layers of a bidirectional stack include x_t twice; the operator computes the original's form too."""
    found = case("s4d_full_bidirectional")
    layer, x = loaded(found), found["x"]
    a, b = layer.discretized()
    backward = conjugated(found["param.kernel.C"][1])
    later = torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1)
    outputs = layer(x)[0] + diagonal_ssm_reference(later, a, b, 2 * backward, reverse=True)[0]
    assert_near(outputs, found["outputs"])


@pytest.mark.parametrize("size", [8, 64])
@pytest.mark.parametrize("init", ["lin", "inv", "quad", "legs", "real"])
def test_initial_modes(init, size):
    found = case("s4d_init")
    decays, frequencies, driven = initial_modes(init, size)
    order = frequencies.argsort() if init != "real" else decays.argsort()
    real, imaginary = found[f"{init}_{size}/A_re"], found[f"{init}_{size}/A_im"]
    theirs = (-imaginary).argsort() if init != "real" else (-real).argsort()
    assert_near(-decays[order], real[theirs], 1e-9)
    assert_close(frequencies[order], -imaginary[theirs], rtol=1e-9, atol=1e-9)
    if init == "legs":
        expected = torch.hypot(found[f"legs_{size}/B_unclipped_re"], found[f"legs_{size}/B_unclipped_im"])
        assert_near(driven[order].norm(dim=-1), expected[theirs], 1e-9)


def test_legs_frequencies_are_those_of_the_transition():
    """Of A + p p^T with A of HiPPO-LegS, by a general eigenvalue solver."""
    a, b = transition("legs", 16)
    values = torch.linalg.eigvals(a + torch.outer(b, b) / 2)
    assert_close(values.real, torch.full((16,), -0.5, dtype=torch.float64))
    expected = values.imag[values.imag > 0].sort()[0]
    layer = S4D(4, 4, 16, init="legs", n_ssm=2)
    assert_close(layer.frequency.double(), expected.expand(2, 8), rtol=1e-6, atol=1e-6)


def test_initial_parameters():
    torch.manual_seed(0)
    layer = S4D(3, 4000, 4, init="quad", dt_min=0.01, dt_max=0.5, n_ssm=2, train_b=True)
    assert_close(layer.frequency, torch.tensor([[1.0, 9.0]] * 2) / math.pi)
    assert_close(layer.log_decay, torch.full((2, 2), math.log(0.5)))
    assert_close(layer.weight_in, torch.tensor([1.0, 0.0]).expand(2, 2, 2))
    steps = layer.log_step.exp()
    assert steps.min() >= 0.01
    assert steps.max() <= 0.5
    assert layer.log_step.mean().item() == pytest.approx(math.log(0.01 * 0.5) / 2, abs=0.1)
    assert layer.weight_out.var().item() == pytest.approx(0.5, abs=0.03)
    assert layer.weight_skip.std().item() == pytest.approx(1, abs=0.05)
    clamped, free = (S4D(2, 2, 8, init="legs", train_b=True, clamp_b=limit).weight_in for limit in (2.0, None))
    assert clamped[..., 1].abs().max() == 2
    assert_close(clamped, torch.stack([free[..., 0], free[..., 1].clamp(-2, 2)], -1))


@pytest.mark.parametrize("init", ["lin", "legs", "real"])
@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
def test_the_impulse_response_is_a_sum_of_powers(init, discretization):
    torch.manual_seed(0)
    layer = S4D(3, 3, 8, init=init, discretization=discretization, n_ssm=1, train_b=True).double()
    impulse = torch.zeros(1, 50, 3, dtype=torch.float64)
    impulse[:, 0] = 1
    a, b = layer.discretized()
    c = layer.weight_out
    if init != "real":
        a, b, c = (torch.view_as_complex(part) for part in (a, b, c))
    expected = torch.stack([2 * (c * b * a**k).sum(-1).real for k in range(50)])
    expected[0] += layer.weight_skip
    assert_close(layer(impulse)[0][0], expected, rtol=1e-11, atol=1e-11)


def test_steps_down_to_the_limit_have_exact_gradients():
    """exp(z) - 1 by subtraction loses half of the digits at dt = 1e-8."""
    layer = S4D(2, 2, 4).double()
    torch.nn.init.constant_(layer.log_step, math.log(1e-8))
    _, b = layer.discretized()
    z = 1e-8 * torch.complex(-layer.log_decay.exp(), layer.frequency)
    assert_close(torch.view_as_complex(b), 1e-8 * (1 + z / 2 + z * z / 6), rtol=1e-14, atol=0)


@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
def test_the_rate_rescales_time(discretization):
    """A constant input held for twice as many steps of half the size leads to the same outputs."""
    torch.manual_seed(0)
    fine, coarse = (S4D(3, 3, 8, discretization=discretization, rate=rate).double() for rate in (0.5, 1.0))
    coarse.load_state_dict(fine.state_dict())
    x = torch.randn(2, 40, 3, dtype=torch.float64)
    outputs = fine(x.repeat_interleave(2, 1))[0][:, 1::2]
    assert torch.equal(coarse(x.repeat_interleave(2, 1), rate=0.5)[0][:, 1::2], outputs)
    if discretization == "zoh":
        assert_close(outputs, coarse(x)[0], rtol=1e-10, atol=1e-10)
    else:
        assert (outputs - coarse(x)[0]).norm() < 0.05 * outputs.norm()


def test_the_number_of_parameters():
    assert sum(parameter.numel() for parameter in S4D(6, 6, 8).parameters()) == 6 * (2 * 8 + 2)
    assert sum(parameter.numel() for parameter in S4D(6, 6, 8, init="real").parameters()) == 6 * (8 + 2)
    shared = S4D(6, 6, 8, n_ssm=2, train_b=True)
    assert sum(parameter.numel() for parameter in shared.parameters()) == 2 * 16 + 6 * (8 + 2)


def test_dynamics_have_a_learning_rate_of_their_own_and_no_decay():
    for given, expected in ((0.01, 0.001), (0.0001, 0.0001)):
        layer = S4D(4, 4, 8, train_b=True)
        groups = parameter_groups(layer, given)
        special = {layer.log_step, layer.log_decay, layer.frequency, layer.weight_in}
        for group in groups:
            is_special = bool(special & set(group["params"]))
            assert group["lr"] == (expected if is_special else given)
            assert ("weight_decay" in group) == is_special
    [free] = [group for group in parameter_groups(S4D(4, 4, 8, max_lr=None), 0.01) if "weight_decay" in group]
    assert free["lr"] == 0.01


def test_mistakes_are_named():
    for arguments, message in (
        ({"state_size": 7}, "state_size: got 7, expected an even number"),
        ({"dt_min": 0.2}, "dt_min: got 0.2, expected at most dt_max=0.1"),
        ({"n_ssm": 4}, "n_ssm: got 4, expected a divisor of hidden_size=6"),
        ({"init": "legt"}, "init: got 'legt'"),
        ({"init": "legs", "clamp_b": 2.0}, "clamp_b: got 2.0, expected None unless init is legs and train_b is true"),
    ):
        with pytest.raises(UserError, match=message):
            S4D(6, 6, **arguments)
