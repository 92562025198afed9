"""Mamba: golden vectors, initialisation, states, and its settings for an optimiser."""

import math

import pytest
import torch
from torch.nn.functional import softplus
from torch.testing import assert_close

from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.layers import Mamba
from seqmem.layers.mamba import MambaState
from seqmem.models import StackNetwork
from seqmem.ops import extension
from seqmem.training.optimisation.groups import parameter_groups
from tests.layers.golden import assert_golden, assert_steps_agree
from tests.successors import assert_near, case

SPEC = DataSpec("made", 1, 10, "classification", output_steps=0, max_length=784)
NAMES = {
    "in_proj.weight": "weight_in",
    "conv1d.weight": "weight_conv",
    "conv1d.bias": "bias_conv",
    "x_proj.weight": "weight_select",
    "dt_proj.weight": "weight_step",
    "dt_proj.bias": "bias_step",
    "A_log": "log_rate",
    "D": "weight_skip",
    "out_proj.weight": "weight_out",
}


def renamed(arrays):
    """Arrays of the original by the names of this project."""
    return {NAMES[name]: array.squeeze(1) if name == "conv1d.weight" else array for name, array in arrays.items()}


def state_of(arrays):
    """The state of the original keeps k inputs, of which the oldest is not used."""
    return MambaState(arrays["conv"][..., 1:].transpose(1, 2), arrays["ssm"])


def original():
    return Mamba(6, 6, state_size=4).double()


def test_it_is_the_original():
    golden, layer = case("mamba"), original()
    last = assert_golden(layer, golden, renamed, layer)
    for part, expected in zip(last, state_of(golden.named("state_final")), strict=True):
        assert_near(part, expected)
    state, steps = None, []
    for item in golden["x"].unbind(1):
        output, state = layer.step(item, state)
        steps.append(output)
    assert_near(torch.stack(steps, 1), golden["outputs_step"])
    assert_steps_agree(layer, golden["x"])


def test_a_given_state_is_that_of_the_original():
    golden, layer = case("mamba_state"), original()
    state = MambaState(*(part.contiguous().requires_grad_() for part in state_of(golden.named("state0"))))
    last = assert_golden(layer, golden, renamed, lambda inputs: layer(inputs, state))
    for part, expected in zip(last, state_of(golden.named("state_final")), strict=True):
        assert_near(part, expected)
    outputs, _ = layer(golden["x"], state)
    gradients = torch.autograd.grad((outputs * golden["cotangent"]).sum(), state)
    for gradient, expected in zip(gradients, state_of(golden.named("grad_state0")), strict=True):
        assert_near(gradient, expected, 1e-9)


def test_the_final_state_has_a_gradient():
    layer, inputs = original(), torch.randn(2, 9, 6, dtype=torch.float64, requires_grad=True)
    last = layer(inputs)[1]
    assert torch.autograd.grad(last.ssm.sum(), inputs, retain_graph=True)[0].any()
    assert torch.autograd.grad(last.conv.sum(), inputs)[0][:, -3:].any()


def test_the_initial_values():
    torch.manual_seed(0)
    layer = Mamba(8, 400, state_size=5, kernel_size=4)
    assert_close(layer.log_rate, torch.tensor([1.0, 2, 3, 4, 5]).log().expand(800, 5))
    assert layer.weight_skip.eq(1).all()
    steps = softplus(layer.bias_step)
    assert 1e-3 <= steps.min() < 1.1e-3
    assert 0.09 < steps.max() <= 0.1 + 1e-6
    assert_close(steps.log().mean().item(), math.log(1e-2), atol=0.1, rtol=0)
    assert softplus(Mamba(2, 50, dt_min=1e-6, dt_max=1e-5).bias_step).allclose(torch.tensor(1e-4))  # the floor
    for weight, fan_in in (
        (layer.weight_in, 8),
        (layer.weight_conv, 4),
        (layer.bias_conv, 4),
        (layer.weight_select, 800),
        (layer.weight_step, 25),
        (layer.weight_out, 800),
    ):
        assert_close(weight.abs().max().item(), fan_in**-0.5, rtol=0.03, atol=0)
        assert_close(weight.std().item(), (3 * fan_in) ** -0.5, rtol=0.06, atol=0)


def test_a_stack_scales_the_outputs_by_its_depth():
    blocks = StackNetwork(SPEC, "mamba", {}, model_size=32, num_layers=4).blocks
    assert_close([block.mixer.weight_out.abs().max().item() for block in blocks], [0.5 * 64**-0.5] * 4, rtol=0.03, atol=0)


def test_biases_are_optional():
    with_biases = Mamba(4, 6, bias=True)
    assert {name for name, _ in with_biases.named_parameters()} == {*NAMES.values(), "bias_in", "bias_out"}
    assert not with_biases.bias_in.any()
    without = Mamba(4, 6, conv_bias=False)
    assert {name for name, _ in without.named_parameters()} == {*NAMES.values()} - {"bias_conv"}
    for layer in (with_biases, without):
        assert_steps_agree(layer.double(), torch.randn(2, 9, 4, dtype=torch.float64))


def test_an_optimiser_has_two_groups():
    layer = Mamba(4, 6)
    free, decayed = sorted(parameter_groups(layer, 0.01), key=lambda group: "weight_decay" not in group)
    assert (free["weight_decay"], len(free["params"])) == (0.0, 2)
    assert len(decayed["params"]) == len(list(layer.parameters())) - 2


def test_the_number_of_parameters():
    d, inner, rank, states = 48, 96, 3, 16
    expected = 2 * d * inner + 5 * inner + inner * (rank + 2 * states) + inner * (rank + 1) + states * inner + inner + d * inner
    assert sum(parameter.numel() for parameter in Mamba(d, d).parameters()) == expected


def test_states_are_in_float32_under_autocast():
    layer, inputs = Mamba(6, 8), torch.randn(2, 30, 6)
    outputs, state = layer(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        found, after = layer(inputs)
    assert {part.dtype for part in after} == {torch.float32}
    assert_close(found.float(), outputs, atol=0.02, rtol=0.05)
    assert_close(after.ssm, state.ssm, atol=0.02, rtol=0.05)
    if not extension.REASON:
        assert layer.path == "one compiled call"


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"dt_min: got 0\.1, expected at most dt_max=0\.01"):
        Mamba(4, 6, dt_min=0.1, dt_max=0.01)
