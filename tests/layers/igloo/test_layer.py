"""The IGLOO layer: its uses against the formula, causality, padding, gradients, and saving."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from seqmem.errors import UserError
from seqmem.layers.igloo.patches import Patches
from seqmem.models import IGLOO1D
from tests.layers.igloo.uses import STEPS, USES, by_hand, data, every_use, make

CAUSAL = ["stretched", "no residual", "last steps"]
RELOADED = ["whole, pooled", "stretched", "last steps, stretched"]
PADDED = ["whole, pooled", "stretched", "last steps, stretched", "no local", "same"]


def first_output(layer):
    """The step of the first output: the last n outputs start later than step 0."""
    return 0 if not layer.aligns_ends else STEPS - layer(data(1)).shape[1]


@every_use
def test_it_is_the_specification(use):
    """Values of padded rows by hand, full rows without lengths, and a gradient for every parameter."""
    layer, lengths = make(use), torch.tensor([STEPS, 37, 5, 20, 1])
    outputs = layer(data(), lengths)
    assert_close(outputs, by_hand(layer, data(), lengths, use.get("padding_style") == "same"))
    assert outputs.shape[-1] == layer.output_size
    whole = layer(data())
    assert_close(whole[0], outputs[0])
    assert_close(layer(data(), torch.full((5,), STEPS)), whole)
    whole.square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert (parameter.grad != 0).all(), name


@pytest.mark.parametrize("name", CAUSAL)
def test_no_future_input_reaches_an_output(name):
    layer, inputs = make(USES[name]), data(1)
    first = first_output(layer)
    outputs = layer(inputs)
    for t in range(first, STEPS - 1):
        changed = inputs.clone()
        changed[:, t + 1 :] = 100 * torch.randn_like(changed[:, t + 1 :])
        found = layer(changed)
        assert torch.equal(found[:, : t + 1 - first], outputs[:, : t + 1 - first])
        assert not torch.equal(found[:, t + 1 - first], outputs[:, t + 1 - first])


def test_same_padding_sees_the_steps_to_come():
    layer, inputs = make(USES["same"]), data(1)
    changed = inputs.clone()
    changed[:, 20:] += 1
    assert not torch.equal(layer(changed)[:, 19], layer(inputs)[:, 19])


def test_the_backbone_lets_every_step_reach_the_representation():
    for pool in (1, 3):
        layer = make({"return_sequences": False}, nb_patches=14, max_pooling_kernel=pool)
        inputs = data(1).requires_grad_()
        layer(inputs).sum().backward()
        kept = inputs.grad[0].abs().sum(1) > 0
        assert kept.all() if pool == 1 else kept.view(-1, 3).any(1).all()


@pytest.mark.parametrize("name", RELOADED)
def test_a_reloaded_layer_gives_the_same_bits(name):
    layer, file = make(USES[name], seed=3), io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = make(USES[name], seed=4)
    assert not torch.equal(other(data()), layer(data()))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(data()), layer(data()))
    gradients = []
    for one in (layer, other):
        inputs = data().requires_grad_()
        one(inputs).sum().backward()
        gradients.append(inputs.grad)
    assert torch.equal(*gradients)


def test_patches_depend_on_the_seed_alone():
    def patches(seed):
        return [p.indices for p in IGLOO1D((STEPS, 2), 20, 3, True, nb_stacks=2, seed=seed).patches()]

    torch.manual_seed(1)
    one = patches(3)
    torch.manual_seed(2)
    again, other = patches(3), patches(4)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(one[0], one[2])  # each stack has different patches


@pytest.mark.parametrize("name", PADDED)
def test_padding_and_other_rows_never_change_a_row(name):
    layer, lengths = make(USES[name]), torch.tensor([1, 37, 5, 36, 20])
    by_step = USES[name]["return_sequences"]
    for steps in (STEPS, 37):
        inputs = data(steps=steps)
        padded = inputs.clone()
        for row, length in zip(padded, lengths, strict=True):
            row[length:] = torch.nan
        outputs = layer(padded, lengths)
        for k, length in enumerate(lengths.tolist()):
            alone = layer(inputs[k : k + 1, :length])[0]
            assert_close(outputs[k, : len(alone)] if by_step else outputs[k], alone)
            if by_step and not layer.aligns_ends:
                assert alone.shape[0] == length
                assert not outputs[k, length:].any()
            elif by_step:
                assert not outputs[k, : max(outputs.shape[1] - length, 0)].any()
        assert outputs.shape[1] == steps or not (by_step and not layer.aligns_ends)


def test_a_short_row_ends_where_a_long_one_does():
    """Its last step is the layer's last, as in a row whose first features are zero."""
    for name in ("whole", "last steps"):
        layer = make(USES[name], conv1d_kernel=1)
        with torch.no_grad():
            layer.stacks[0].features.bias.zero_()
        inputs = data()
        whole = inputs.clone()
        whole[:, :30] = 0
        assert_close(layer(inputs[:, 30:])[..., :20], layer(whole)[..., :20])


def test_the_state_of_a_layer_for_a_different_length_is_refused():
    for name, steps in (("whole", 30), ("whole, no backbone", 54), ("each step", 54), ("last steps", 30)):
        layer, other = make(USES[name]), make(USES[name], steps=steps)
        model = nn.ModuleDict({"igloo": layer})
        before = copy.deepcopy(layer.state_dict())
        with pytest.raises(UserError, match=f"^igloo.steps: got a state for sequences of {steps} steps, expected 42$"):
            model.load_state_dict({f"igloo.{key}": value for key, value in other.state_dict().items()})
        assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


def test_a_state_with_impossible_patches_is_refused():
    for change, message in (
        (lambda i: i.index_fill(0, torch.tensor(3), 4), "got step 4 in a patch of step 3, expected steps from 0 to 3"),
        (lambda i: i - 1, "got step -1 in a patch of step 0, expected steps from 0 to 0"),
        (lambda i: i.double(), "got torch.float64, expected whole numbers"),
        (lambda i: i[:, :5], r"got shape \(42, 5, 4\), expected \(42, 20, 4\)"),
    ):
        layer = make(USES["each step"])
        state = layer.state_dict()
        state["stacks.0.global_patches.indices"] = change(state["stacks.0.global_patches.indices"])
        with pytest.raises(UserError, match=f"^stacks.0.global_patches.indices: {message}"):
            layer.load_state_dict(state)


def test_dropout_keeps_the_mean_of_a_representation():
    layer = make({"return_sequences": False, "DR": 0.25}, nb_patches=4000, build_backbone=False)
    exact = layer.eval()(data())
    layer.train()
    layer.stacks[0].features.dropout = 0.0
    made = layer(data())
    assert 0.2 < (made == 0).float().mean() < 0.3
    assert_close(made[made != 0] * 0.75, exact[made != 0])


def test_the_penalty_is_the_sum_of_squares_of_the_patches():
    layer = make(USES["stretched"], l2reg=0.25)
    patches = [m for m in layer.modules() if isinstance(m, Patches)]
    assert len(patches) == 6
    expected = 0.25 * sum(m.weight.square().sum() + m.bias.square().sum() for m in patches)
    assert_close(layer.penalty(), expected)
    layer.penalty().backward()
    for m in patches:
        assert_close(m.weight.grad, 0.5 * m.weight)
    assert layer.stacks[0].residual.weight.grad is None
    assert_close(make(USES["whole"], l2_reg=0.5).penalty(), 0.5e5 * make(USES["whole"]).penalty())


def test_weights_start_as_the_originals():
    torch.manual_seed(0)
    layer = IGLOO1D((1000, 1), 620, 5, True, nb_sequences=10, psy=0.1)
    patches = layer.stacks[0].global_patches
    assert patches.weight.shape == (10, 620, 4, 5)
    assert patches.weight.std().item() == pytest.approx((2 / (10 * 620 + 10 * 20)) ** 0.5, rel=0.02)
    assert patches.bias.std().item() == pytest.approx((2 / (10 + 620)) ** 0.5, rel=0.05)
    whole = IGLOO1D((1000, 1), 6200, 5, False).stacks[0].global_patches
    assert whole.weight.std().item() == pytest.approx((2 / (6200 + 20)) ** 0.5, rel=0.02)
    features = IGLOO1D((9, 7), 5, 400, False).stacks[0].features
    bound = (6 / (7 * 3 + 400 * 3)) ** 0.5
    assert 0.98 * bound < features.weight.abs().max() <= bound
    assert not features.bias.any()


def test_the_copy_example_has_the_parameters_of_the_original():
    """20 of the convolution, 1,240,000 + 62,000 global, 124,000 + 6,200 local, and those of the residual."""
    layer = IGLOO1D((10_020, 1), 6200, 5, True, nb_sequences=10, psy=0.1)
    assert sum(p.numel() for p in layer.parameters()) == 20 + 1_302_000 + 130_200 + 6 * 6820
    plain = IGLOO1D((10_020, 1), 6200, 5, True, nb_sequences=10, psy=0.1, add_residual=False)
    assert sum(p.numel() for p in plain.parameters()) == 20 + 1_302_000 + 130_200


def test_it_composes_with_torch():
    """As one layer of a compiled model."""
    model = nn.Sequential(make(USES["whole"]).float(), nn.Linear(20, 3))
    inputs = data().float()
    assert_close(torch.compile(model, backend="eager")(inputs), model(inputs))


def test_no_rows_have_outputs_and_gradients_of_the_same_shapes():
    blocks = {"return_sequences": True, "nb_patches": 70, "nb_filters_conv1d": 2}
    for use in (*USES.values(), blocks):
        layer = make(use, DR=0.5)
        for lengths in (None, torch.tensor([3, 9])):
            inputs = data(2, 9).requires_grad_()
            whole, none = layer(inputs, lengths), layer(inputs[:0], None if lengths is None else lengths[:0])
            assert none.shape == (0, *whole.shape[1:])
            gradients = torch.autograd.grad(none.sum(), [inputs, *layer.parameters()])
            assert not any(gradient.any() for gradient in gradients)
