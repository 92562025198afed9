"""The IGLOO layer: its uses and arguments against the formula, causality, padding, gradients, memory, and saving."""

import io
import os
import random
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.functional import conv1d, leaky_relu, max_pool1d, pad
from torch.testing import assert_close

from seqmem.errors import UserError
from seqmem.models import IGLOO1D
from seqmem.models.igloo import layer as module

USES = {
    "whole": {"return_sequences": False},
    "whole, pooled": {"return_sequences": False, "max_pooling_kernel": 3, "nb_stacks": 2},
    "whole, no backbone": {"return_sequences": False, "build_backbone": False, "patch_size": 3},
    "each step": {"return_sequences": True},
    "stretched": {"return_sequences": True, "stretch_factor": 6, "nb_stacks": 3, "psy": 0.5},
    "no residual": {"return_sequences": True, "add_residual": False, "build_backbone": True},
    "no local": {"return_sequences": True, "psy": 0.0, "stretch_factor": 3},
    "last steps": {"return_sequences": True, "nb_sequences": 10},
    "last steps, stretched": {"return_sequences": True, "nb_sequences": 7, "stretch_factor": 6, "conv1d_kernel": 1},
    "one-step patches": {"return_sequences": True, "patch_size": 1, "nb_stacks": 2},
    "many taps": {"return_sequences": False, "conv1d_kernel": 6, "nb_stacks": 2},
    "same": {"return_sequences": True, "padding_style": "same", "conv1d_kernel": 4, "nb_stacks": 2},
}
CAUSAL = {name: use for name, use in USES.items() if use["return_sequences"] and use.get("padding_style") != "same"}
STEPS = 42

every_use = pytest.mark.parametrize("use", USES.values(), ids=USES)


def make(use, steps=STEPS, **changes):
    torch.manual_seed(0)
    return IGLOO1D((steps, 2), **{"nb_patches": 20, "nb_filters_conv1d": 3, **use, **changes}).double()


def data(rows=5, steps=STEPS):
    return torch.randn(rows, steps, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def steps_before(layer):
    """The outputs that a row's first step has to be: n of the last ones start here."""
    return 0 if not layer.aligns_ends else STEPS - layer(data(1)).shape[1]


def by_hand(layer, inputs, same):
    """The specification, patch by patch, with torch's own convolutions."""

    def phi(x):
        return leaky_relu(x, 0.1)

    def answers(patches, features, s):
        rows = []
        for l in range(patches.weight.shape[1]):  # noqa: E741
            vector = features[:, patches.indices[s, l].long()]
            rows.append(phi((vector * patches.weight[s, l]).sum((1, 2)) + patches.bias[s, l]))
        return torch.stack(rows, 1)

    outputs, below = [], inputs
    for number, stack in enumerate(layer.stacks):
        conv = stack.features
        span = (1 if number == 0 else 3) * (conv.weight.shape[-1] - 1)
        left = span // 2 if same else span
        padded = pad(below.mT, (left, span - left))
        features = phi(conv1d(padded, conv.weight, conv.bias, dilation=1 if number == 0 else 3))
        if number == 0 and layer.pool > 1:
            features = max_pool1d(features, layer.pool)
        features = features.mT
        if not layer.return_sequences:
            outputs.append(answers(stack.global_patches, features, 0))
            below = features
            continue
        made = []
        first = STEPS - (stack.blocks[-1].stop - stack.blocks[0].start)
        for t in range(first, STEPS):
            parts = [answers(stack.global_patches, features, t // stack.stretch - first // stack.stretch)]
            if stack.local_patches is not None:
                parts.append(answers(stack.local_patches, features, t - first))
            made.append(torch.cat(parts, 1))
            if stack.residual is not None:
                made[-1] = phi(made[-1] + phi(stack.residual(features[:, t])))
        outputs.append(torch.stack(made, 1))
    return torch.cat(outputs, -1)


@every_use
def test_it_is_the_specification(use):
    layer = make(use)
    assert_close(layer(data()), by_hand(layer, data(), use.get("padding_style") == "same"))
    assert layer(data()).shape[-1] == layer.output_size


@pytest.mark.parametrize("use", CAUSAL.values(), ids=CAUSAL)
def test_no_future_input_reaches_an_output(use):
    layer, inputs = make(use), data(1)
    first = steps_before(layer)
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


@pytest.mark.parametrize("pool", [1, 3])
def test_the_backbone_lets_every_step_reach_the_representation(pool):
    layer = make({"return_sequences": False}, nb_patches=14, max_pooling_kernel=pool)
    inputs = data(1).requires_grad_()
    layer(inputs).sum().backward()
    kept = inputs.grad[0].abs().sum(1) > 0
    assert kept.all() if pool == 1 else kept.view(-1, 3).any(1).all()


@every_use
def test_every_parameter_receives_gradient(use):
    layer = make(use)
    layer(data()).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert (parameter.grad != 0).all(), name


@every_use
def test_a_reloaded_layer_gives_the_same_bits(use):
    layer, file = make(use, seed=3), io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = make(use, seed=4)
    assert not torch.equal(other(data()), layer(data()))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(data()), layer(data()))
    gradients = []
    for one in (layer, other):
        inputs = data().requires_grad_()
        one(inputs).sum().backward()
        gradients.append(inputs.grad)
    assert torch.equal(*gradients)


def test_patches_hang_on_the_seed_alone():
    def patches(seed):
        return [p.indices for p in IGLOO1D((STEPS, 2), 20, 3, True, nb_stacks=2, seed=seed).patches()]

    torch.manual_seed(1)
    one = patches(3)
    torch.manual_seed(2)
    again, other = patches(3), patches(4)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(one[0], one[2])  # those of the second stack are its own


@every_use
@pytest.mark.parametrize("given", [STEPS, 37])
def test_padding_and_batch_mates_never_change_a_row(use, given):
    layer, lengths = make(use), torch.tensor([1, 37, 5, 36, 20])
    inputs = data(steps=given)
    padded = inputs.clone()
    for row, length in zip(padded, lengths, strict=True):
        row[length:] = torch.nan
    outputs = layer(padded, lengths)
    for k, length in enumerate(lengths.tolist()):
        alone = layer(inputs[k : k + 1, :length])[0]
        assert_close(outputs[k, : len(alone)] if use["return_sequences"] else outputs[k], alone)
        if use["return_sequences"] and not layer.aligns_ends:
            assert alone.shape[0] == length
            assert not outputs[k, length:].any()
        elif use["return_sequences"]:
            assert not outputs[k, : max(outputs.shape[1] - length, 0)].any()
    assert outputs.shape[1] == given or not (use["return_sequences"] and not layer.aligns_ends)


@every_use
def test_full_rows_need_no_lengths(use):
    layer = make(use)
    assert_close(layer(data(), torch.full((5,), STEPS)), layer(data()))


@pytest.mark.parametrize("use", [USES["whole"], USES["last steps"]], ids=["whole", "last steps"])
def test_a_short_row_ends_where_a_long_one_does(use):
    """Its last step is the layer's last: as the last steps of a row whose first features are zero."""
    layer = make(use, conv1d_kernel=1)
    with torch.no_grad():
        layer.stacks[0].features.bias.zero_()
    inputs = data()
    whole = inputs.clone()
    whole[:, :30] = 0
    assert_close(layer(inputs[:, 30:])[..., :20], layer(whole)[..., :20])


@every_use
@pytest.mark.parametrize("with_lengths", [False, True])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_few_rows_at_a_time_are_the_batch(use, rows, with_lengths):
    """Values and gradients of inputs and parameters."""
    layer = make(use)
    lengths = torch.tensor([9, 37, 5, 42, 20]) if with_lengths else None
    found = []
    for at_a_time in (rows, 5):
        layer._rows = at_a_time
        inputs = data().requires_grad_()
        outputs = layer(inputs, lengths)
        gradients = torch.autograd.grad(outputs.sin().sum(), [inputs, *layer.parameters()])
        found.append([outputs.detach(), *gradients])
    for one, other in zip(*found, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize(
    "use",
    [{}, {"stretch_factor": 6, "nb_stacks": 2}, {"stretch_factor": 6, "nb_sequences": 38}, {"psy": 0.0, "patch_size": 90}],
    ids=["each step", "stretched", "last steps, stretched", "patches longer than the sequence"],
)
@pytest.mark.parametrize("given", [STEPS, 17])
def test_a_block_of_steps_at_a_time_is_the_sequence(use, given):
    """Values and gradients, of layers whose many patches make blocks of them, against the formula."""
    layer = make({"return_sequences": True, "nb_patches": 70, "nb_filters_conv1d": 2, "DR": 0.0, **use})
    assert len(layer._wanted) > 2
    found = []
    for answer in (layer, lambda x, lengths: whole_at_once(layer, x, lengths)):
        inputs, lengths = data(steps=given).requires_grad_(), torch.tensor([9, given, 5, given - 1, 12])
        outputs = answer(inputs, lengths)
        gradients = torch.autograd.grad(outputs.sin().sum(), [inputs, *layer.parameters()])
        found.append([outputs.detach(), *gradients])
    for one, other in zip(*found, strict=True):
        assert_close(one, other)


def whole_at_once(layer, inputs, lengths):
    """Blocks joined by torch's own way back."""
    return torch.cat([layer.represent(inputs, lengths, None, block) for block in range(len(layer._wanted))], 1)


def test_blocks_are_the_specification():
    layer = make({"return_sequences": True, "nb_patches": 70, "stretch_factor": 3, "nb_sequences": 40, "nb_stacks": 2})
    assert len(layer._wanted) > 2
    assert_close(layer(data()), by_hand(layer, data(), same=False))


def test_patches_of_longer_sequences_are_refused():
    shorter, longer = make(USES["whole"], steps=30), make(USES["whole"])
    with pytest.raises(RuntimeError, match=r"global_patches\.indices: got patches up to step 41, wanted steps below 30"):
        shorter.load_state_dict(longer.state_dict())


def test_an_update_between_two_ways_back_counts():
    layer = make(USES["stretched"])
    found = []
    for rows in (2, 100):
        torch.manual_seed(0)
        layer._rows = rows
        for seed in range(2):
            with torch.no_grad():
                layer.stacks[0].global_patches.weight.data.normal_(generator=torch.Generator().manual_seed(seed))
            inputs = data().requires_grad_()
            layer(inputs).sin().sum().backward()
        found.append(inputs.grad)
    assert_close(*found)


def test_frozen_parameters_and_constant_inputs_get_no_gradient_a_few_rows_at_a_time():
    layer = make(USES["each step"])
    layer._rows = 2
    layer.stacks[0].local_patches.requires_grad_(False)
    layer(data()).sum().backward()
    assert [name for name, p in layer.named_parameters() if p.grad is None] == [
        "stacks.0.local_patches.weight",
        "stacks.0.local_patches.bias",
    ]


@pytest.mark.parametrize("use", [USES["whole"], USES["stretched"]], ids=["whole", "stretched"])
def test_gradients_are_those_of_finite_differences(use):
    layer = make(use)
    layer._rows = 2
    lengths = torch.tensor([42, 11, 30])
    weights = dict(layer.named_parameters())
    some = [weights["stacks.0.features.weight"], weights["stacks.0.global_patches.bias"]]
    assert torch.autograd.gradcheck(lambda x, *_: layer(x, lengths), (data(3).requires_grad_(), *some), fast_mode=True)


@pytest.mark.parametrize("rows", [2, 100])
def test_dropout_drops_channels_for_a_whole_sequence_and_alike_on_the_way_back(rows):
    layer = make(USES["each step"], steps=12, DR=0.5, nb_filters_conv1d=50, add_residual=False)
    layer._rows = rows
    inputs = torch.ones(5, 12, 2, dtype=torch.float64)
    seen = []
    layer.stacks[0].features.register_forward_hook(lambda _, __, features: seen.append(features.detach()))
    torch.manual_seed(0)
    layer(inputs).sum().backward()
    one_pass = len(seen) // (2 if rows < 5 else 1)
    kept = torch.cat([features != 0 for features in seen[:one_pass]], -1)  # (K, T, B)
    assert (kept == kept[:, :1]).all()
    assert 0.3 < kept[:, 0].float().mean() < 0.7
    assert len(kept[:, 0].T.unique(dim=0)) == 5
    if rows < 5:
        assert all(torch.equal(a, b) for a, b in zip(seen[:one_pass], seen[one_pass:], strict=True))
    layer.eval()
    assert torch.equal(layer(inputs), layer(inputs))


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
    patches = [m for m in layer.modules() if isinstance(m, module.Patches)]
    assert len(patches) == 6
    wanted = 0.25 * sum(m.weight.square().sum() + m.bias.square().sum() for m in patches)
    assert_close(layer.penalty(), wanted)
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
    """20 of the convolution, 1,240,000 + 62,000 global, 124,000 + 6,200 local; the residual is there now."""
    layer = IGLOO1D((10_020, 1), 6200, 5, True, nb_sequences=10, psy=0.1)
    assert sum(p.numel() for p in layer.parameters()) == 20 + 1_302_000 + 130_200 + 6 * 6820
    plain = IGLOO1D((10_020, 1), 6200, 5, True, nb_sequences=10, psy=0.1, add_residual=False)
    assert sum(p.numel() for p in plain.parameters()) == 20 + 1_302_000 + 130_200


@pytest.mark.parametrize("trial", range(40))
def test_random_combinations_of_arguments(trial):
    draw = random.Random(trial)
    stretch, size = draw.choice([1, 2, 3, 6]), draw.choice([1, 2, 4, 5])
    steps = stretch * draw.randint(1, 12)
    use = {
        "return_sequences": draw.random() < 0.6,
        "patch_size": size,
        "padding_style": draw.choice(["causal", "same"]),
        "nb_stacks": draw.randint(1, 3),
        "conv1d_kernel": draw.randint(1, 5),
        "DR": draw.choice([0.0, 0.3]),
        "add_residual": draw.random() < 0.5,
        "build_backbone": draw.choice([None, True, False]),
        "psy": draw.choice([0.0, 0.15, 1.0]),
        draw.choice(["l2reg", "l2_reg"]): 0.01,
    }
    if use["return_sequences"]:
        use |= {"stretch_factor": stretch, "nb_sequences": draw.choice([-1, draw.randint(1, steps)])}
    else:
        use |= {"max_pooling_kernel": draw.randint(1, min(steps, 3))}
    torch.manual_seed(trial)
    layer = IGLOO1D((steps, 2), nb_patches=steps + draw.randint(0, 5), nb_filters_conv1d=draw.randint(1, 4), **use)
    outputs = layer(torch.randn(3, steps, 2))
    wanted = steps if use.get("nb_sequences", -1) == -1 else use["nb_sequences"]
    assert outputs.shape == ((3, wanted, layer.output_size) if use["return_sequences"] else (3, layer.output_size))
    (outputs.sum() + layer.penalty()).backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())
    layer.eval()
    inputs, lengths = torch.randn(3, steps, 2), torch.tensor([steps, 1, draw.randint(1, steps)])
    together = layer(inputs, lengths)
    for k, length in enumerate(lengths):
        alone = layer(inputs[k : k + 1], lengths[k : k + 1])[0]
        assert_close(together[k], alone)
        assert_close(layer(inputs[k : k + 1, :length])[0], alone[:length] if not layer.aligns_ends else alone)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"return_sequences": True, "stretch_factor": 4}, "stretch_factor: got 4, wanted a divisor of the 42 steps"),
        ({"return_sequences": False, "nb_patches": 13}, "nb_patches: got 13, wanted at least 14"),
        ({"return_sequences": True, "nb_patches": 13, "build_backbone": True}, "nb_patches: got 13, wanted at least 14"),
        ({"return_sequences": True, "nb_sequences": 43}, "nb_sequences: got 43, wanted -1 for all steps, or 1 to 42"),
        ({"return_sequences": True, "nb_sequences": 0}, "nb_sequences: got 0"),
        ({"return_sequences": True, "max_pooling_kernel": 2}, "max_pooling_kernel: got 2, wanted 1"),
        ({"return_sequences": False, "max_pooling_kernel": 43}, "max_pooling_kernel: got 43, wanted at most 42"),
        ({"return_sequences": False, "stretch_factor": 2}, "stretch_factor: got 2, wanted 1"),
        ({"return_sequences": False, "nb_sequences": 10}, "nb_sequences: got 10, wanted -1"),
        ({"return_sequences": False, "l2reg": 0.1, "l2_reg": 0.2}, "l2reg and l2_reg mean the same, got 0.1 and 0.2"),
        ({"return_sequences": False, "padding_style": "casual"}, "did you mean 'causal'"),
        ({"return_sequences": False, "DR": 1.0}, "DR: got 1.0"),
        ({"return_sequences": False, "nb_patch": 3}, "did you mean 'nb_patches'"),
        ({"return_sequences": False, "patch_size": 0}, "patch_size: got 0"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        make(changes)


@pytest.mark.parametrize(
    ("inputs", "lengths", "message"),
    [
        (torch.zeros(3, 43, 2), None, r"inputs of shape \(3, 43, 2\), wanted \(B, at most 42, 2\)"),
        (torch.zeros(3, 42, 1), None, r"inputs of shape \(3, 42, 1\)"),
        (torch.zeros(3, 42), None, r"inputs of shape \(3, 42\)"),
        (torch.zeros(3, 42, 2), torch.ones(2), r"lengths of shape \(2,\), wanted \(3,\)"),
    ],
)
def test_inputs_that_do_not_fit_are_named(inputs, lengths, message):
    with pytest.raises(UserError, match=message):
        make(USES["whole"])(inputs, lengths)


def test_bfloat16_autocast_is_near_float32():
    layer = make(USES["stretched"]).float()
    for rows in (2, 100):
        layer._rows = rows
        inputs = data().float().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            outputs = layer(inputs)
        outputs.sum().backward()
        half = inputs.grad.clone()
        inputs.grad = None
        exact = layer(inputs)
        exact.sum().backward()
        assert_close(outputs.float(), exact, rtol=0.05, atol=0.05)
        assert (half - inputs.grad).norm() < 0.05 * inputs.grad.norm()


# Sequences, rows and a use; in one process, since to start one takes longer than all of these.
LEAN = {
    "copy memory": (10_020, 128, {"nb_patches": 6200, "return_sequences": True, "nb_sequences": 10, "psy": 0.1}),
    "whole": (10_020, 128, {"nb_patches": 3400, "return_sequences": False}),
    "each step, stretched": (2_520, 128, {"nb_patches": 50, "return_sequences": True, "stretch_factor": 20}),
    "each step": (2_511, 128, {"nb_patches": 50, "return_sequences": True}),
}


@pytest.fixture(scope="module")
def growth():
    """Memory of a training step in parts of the sum of inputs, feature map, parameters and outputs."""
    program = f"""
import gc, torch
from pathlib import Path
from seqmem.models import IGLOO1D

def resident(kind):
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind)]
    return 1024 * int(line.split()[1])

for name, (steps, rows, use) in {LEAN!r}.items():
    layer = IGLOO1D((steps, 1), nb_filters_conv1d=5, **use)
    inputs = torch.randn(rows, steps, 1)
    layer(inputs[:2, :500]).sum().backward()
    layer.zero_grad(set_to_none=True)
    gc.collect()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    outputs = layer(inputs)
    outputs.backward(torch.ones_like(outputs))
    grown = resident("VmHWM") - before
    numbers = inputs.numel() * (1 + 5) + outputs.numel() + sum(p.numel() for p in layer.parameters())
    print(name, grown / (4 * numbers), sep=":")
    del layer, inputs, outputs
"""
    # Blocks of memory that are freed go back to the system, so that what is counted is what is in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return {name: float(part) for name, part in (line.split(":") for line in done.stdout.splitlines())}


@pytest.mark.parametrize("name", LEAN)
def test_a_training_step_of_long_sequences_is_lean(growth, name):
    """Memory grows by at most twice the sum; a gather of all patches takes far more."""
    assert 0.2 < growth[name] <= 2


def test_it_composes_with_torch(tmp_path):
    """As one layer of a model of one's own, and compiled with the rest of it."""
    model = nn.Sequential(make(USES["whole"]).float(), nn.Linear(20, 3))
    inputs = data().float()
    assert_close(torch.compile(model, backend="eager")(inputs), model(inputs))
