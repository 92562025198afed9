"""The sLSTM layer and block: golden vectors, states, initial values and sizes."""

import pytest
import torch
from torch.testing import assert_close

from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.layers import by_head
from seqmem.layers.slstm import SLSTM, SLSTMState
from seqmem.models.stack import StackNetwork
from seqmem.training.optimisation.groups import parameter_groups
from tests.successors import Case, assert_near, case

MAPS = ("fgate", "igate", "zgate", "ogate")  # of the gates i, f, z, o: the original map named fgate feeds i


def arrays(found: dict[str, torch.Tensor], prefix: str = "") -> dict[str, torch.Tensor]:
    """Parameters of the layer, or their gradients, from those of the original one."""
    return {
        "weight_conv": found[f"{prefix}conv1d.conv.weight"].squeeze(1),
        "bias_conv": found[f"{prefix}conv1d.conv.bias"],
        "weight_gates": torch.stack([found[f"{prefix}{name}.weight"] for name in MAPS]),
        "weight_hh": found[f"{prefix}slstm_cell._recurrent_kernel_"],
        "bias": found[f"{prefix}slstm_cell._bias_"],
        "norm_scale": found[f"{prefix}group_norm.weight"],
    }


def layer_of(golden: Case, prefix: str = "") -> SLSTM:
    sizes = {name: golden.settings[name] for name in ("input_size", "hidden_size")}
    layer = SLSTM(**sizes, num_heads=golden.settings["heads"], kernel_size=golden.settings["conv_kernel"]).double()
    values = arrays(golden.named("param"), prefix)
    layer.load_state_dict(values | {"norm_scale": 1 + values["norm_scale"]})
    return layer


def state_of(found: dict[str, torch.Tensor]) -> SLSTMState | None:
    return SLSTMState(*(found[name] for name in ("y", "c", "n", "m", "conv"))) if found else None


@pytest.mark.parametrize("dense_channels", [0, 8])
@pytest.mark.parametrize("name", ["slstm_layer", "slstm_layer_state"])
def test_the_layer_is_the_original_one(monkeypatch, name, dense_channels):
    monkeypatch.setattr(by_head, "DENSE_CHANNELS", dense_channels)
    golden = case(name)
    layer, inputs = layer_of(golden), golden["x"].requires_grad_()
    initial = {key: part.requires_grad_() for key, part in golden.named("state0").items()}
    outputs, state = layer(inputs, state_of(initial))
    assert_near(outputs, golden["outputs"], 1e-9)
    for part, expected in zip(state, state_of(golden.named("state_final")), strict=True):
        assert_near(part, expected, 1e-9)
    (outputs * golden["cotangent"]).sum().backward()
    assert_near(inputs.grad, golden["grad_x"], 1e-9)
    for key, expected in arrays(golden.named("grad")).items():
        assert_near(layer.get_parameter(key).grad, expected, 1e-9)
    for key, part in initial.items():
        assert_near(part.grad, golden[f"grad_state0.{key}"], 1e-9)


@pytest.mark.parametrize("name", ["slstm_layer", "slstm_layer_state"])
def test_steps_are_the_original_ones(name):
    golden = case(name)
    layer, state, outputs = layer_of(golden).requires_grad_(False), state_of(golden.named("state0")), []
    for inputs in golden["x"].unbind(1):
        output, state = layer.step(inputs, state)
        outputs.append(output)
    assert_near(torch.stack(outputs, 1), golden["outputs_step"], 1e-9)


def test_the_block_is_the_original_one():
    golden = case("slstm_block")
    spec = DataSpec("made", 8, 4, "classification", output_steps=None, max_length=13)
    arguments = {"norm_shift": False, "feed_forward": "gated_mlp", "expansion": 1.3, "expansion_multiple": 64}
    mixer = {"num_heads": 2}
    network = StackNetwork(spec, "slstm", mixer, model_size=8, num_layers=1, mlp_bias=False, **arguments).double()
    [block] = network.blocks
    block.mixer.load_state_dict(layer_of(golden, "xlstm.").state_dict())
    ours = {
        "norm.norm.weight": "xlstm_norm.weight",
        "second_norm.norm.weight": "ffn_norm.weight",
        "mlp.0.weight": "ffn.proj_up.weight",
        "mlp.1.weight": "ffn.proj_down.weight",
    }
    with torch.no_grad():
        for name, theirs in ours.items():
            block.get_parameter(name).copy_(golden[f"param.{theirs}"] + ("norm" in name))  # the original's scale is 1 + weight
    inputs = golden["x"].requires_grad_()
    outputs, _ = block(inputs, block.mixer.initial_state(2), None, None, 1.0)
    assert_near(outputs, golden["outputs"], 1e-9)
    (outputs * golden["cotangent"]).sum().backward()
    assert_near(inputs.grad, golden["grad_x"], 1e-9)
    for name, theirs in ours.items():
        assert_near(block.get_parameter(name).grad, golden[f"grad.{theirs}"], 1e-9)
    for name, expected in arrays(golden.named("grad"), "xlstm.").items():
        assert_near(block.mixer.get_parameter(name).grad, expected, 1e-9)


@pytest.mark.parametrize(("heads", "size", "block", "blocks"), [(2, 8, 0, 1), (2, 8, 1, 2), (1, 12, 1, 3)])
def test_initial_biases_are_the_original_ones(heads, size, block, blocks):
    layer = SLSTM(size, size, num_heads=heads)
    layer.on_depth(block, blocks)
    expected = case("slstm_init")[f"bias_H{size}_heads{heads}_block{block}of{blocks}"]
    assert_near(layer.bias.detach().double(), expected.double().transpose(0, 1).flatten(), 1e-6)


def test_a_stack_sets_the_forget_biases_of_its_blocks():
    spec = DataSpec("made", 3, 4, "classification", output_steps=0, max_length=9)
    network = StackNetwork(spec, "slstm", {"num_heads": 2}, model_size=8, num_layers=3, bidirectional=True)
    for k, block in enumerate(network.blocks):
        for layer in (block.mixer.forward_layer, block.mixer.backward_layer):
            expected = 5 - 12 * torch.linspace(0, 1, 4) ** (0.3 + 1.3 * k / 2)
            assert_close(layer.bias.detach().view(4, 2, 4)[1], expected.expand(2, 4))


def test_initial_values():
    torch.manual_seed(0)
    layer = SLSTM(64, 128, num_heads=4, forget_bias="linear")
    assert not layer.weight_hh.any()
    assert layer.norm_scale.eq(1).all()
    bias = layer.bias.detach().view(4, 4, 32)
    assert_close(bias[1], torch.linspace(3, 6, 32).expand(4, 32))
    assert not bias[[0, 2, 3]].any()
    assert_close(layer.weight_gates.var().item(), 2 / (5 * 64), rtol=0.05, atol=0)
    assert layer.weight_conv.abs().max() <= 0.5
    assert SLSTM(6, 9).weight_hh.shape == (1, 36, 9)


def test_parameters_and_their_decay():
    layer = SLSTM(16, 16, num_heads=4)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 8 * 16**2 // 4 + 10 * 16
    decayed, free = parameter_groups(layer, 1e-3)
    assert {len(group["params"]) for group in (decayed, free)} == {2, 4}
    assert free["weight_decay"] == 0
    assert any(parameter is layer.weight_conv for parameter in decayed["params"])


def test_heads_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="num_heads: got 3, expected a divisor of 6 inputs and 8 units: 1, 2"):
        SLSTM(6, 8, num_heads=3)
    with pytest.raises(UserError, match="num_heads: got 4, expected fewer than 4 units: the norm of one unit is zero"):
        SLSTM(4, 4, num_heads=4)
    with pytest.raises(UserError, match="hidden_size: got 1, expected greater than or equal to 2"):
        SLSTM(4, 1)


@pytest.mark.parametrize(("size", "heads"), [(2, 1), (4, 1), (6, 1), (8, 2), (9, 1), (12, 2), (16, 4)])
def test_a_head_has_four_units_where_it_can(size, heads):
    torch.manual_seed(0)
    layer = SLSTM(size, size)
    assert len(layer.weight_hh) == heads
    assert layer(torch.randn(2, 5, size))[0].any()


def test_gradients_under_autocast_are_near_those_in_float32():
    """With two units a head, the norm is nearly a sign, and the gradients differ by their own size."""
    torch.manual_seed(0)
    layer, inputs = SLSTM(8, 8), torch.randn(8, 20, 8)
    with torch.no_grad():
        layer.weight_hh.normal_(0, 0.3)
    weights = torch.randn(8, 20, 8)
    expected = torch.autograd.grad((layer(inputs)[0] * weights).sum(), [*layer.parameters()])
    with torch.autocast("cpu", torch.bfloat16):
        outputs, state = layer(inputs)
    assert {part.dtype for part in state} == {torch.float32}
    found = torch.autograd.grad((outputs * weights).sum(), [*layer.parameters()])
    largest = max(gradient.norm() for gradient in expected)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() < 0.04 * max(other.norm(), 0.01 * largest)
