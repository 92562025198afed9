"""Arguments and inputs of the IGLOO layer: any valid combination works, any other is named."""

import random

import pytest
import torch
from torch.testing import assert_close

from seqmem.errors import UserError
from seqmem.models import IGLOO1D
from tests.layers.igloo.uses import USES, make


def random_arguments(draw):
    """Steps, and arguments that fit them."""
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
    return steps, use


def check_random_arguments(trial):
    draw = random.Random(trial)
    steps, use = random_arguments(draw)
    torch.manual_seed(trial)
    layer = IGLOO1D((steps, 2), nb_patches=steps + draw.randint(0, 5), nb_filters_conv1d=draw.randint(1, 4), **use)
    outputs = layer(torch.randn(3, steps, 2))
    expected = steps if use.get("nb_sequences", -1) == -1 else use["nb_sequences"]
    assert outputs.shape == ((3, expected, layer.output_size) if use["return_sequences"] else (3, layer.output_size))
    (outputs.sum() + layer.penalty()).backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())
    layer.eval()
    inputs, lengths = torch.randn(3, steps, 2), torch.tensor([steps, 1, draw.randint(1, steps)])
    together = layer(inputs, lengths)
    for k, length in enumerate(lengths):
        alone = layer(inputs[k : k + 1], lengths[k : k + 1])[0]
        assert_close(together[k], alone)
        assert_close(layer(inputs[k : k + 1, :length])[0], alone[:length] if not layer.aligns_ends else alone)


@pytest.mark.parametrize("trial", range(4))
def test_random_combinations_of_arguments(trial):
    check_random_arguments(trial)


@pytest.mark.slow
def test_many_random_combinations_of_arguments():
    for trial in range(4, 200):
        check_random_arguments(trial)


WRONG_ARGUMENTS = [
    ({"return_sequences": True, "stretch_factor": 4}, "stretch_factor: got 4, expected a divisor of the 42 steps; .* mean 3"),
    ({"return_sequences": False, "nb_patches": 13}, "nb_patches: got 13, expected at least 14"),
    ({"return_sequences": True, "nb_patches": 13, "build_backbone": True}, "nb_patches: got 13, expected at least 14"),
    ({"return_sequences": True, "nb_sequences": 43}, "nb_sequences: got 43, expected -1 for all steps, or 1 to 42"),
    ({"return_sequences": True, "nb_sequences": 0}, "nb_sequences: got 0"),
    ({"return_sequences": True, "max_pooling_kernel": 2}, "max_pooling_kernel: got 2, expected 1"),
    ({"return_sequences": False, "max_pooling_kernel": 43}, "max_pooling_kernel: got 43, expected at most 42"),
    ({"return_sequences": False, "stretch_factor": 2}, "stretch_factor: got 2, expected 1"),
    ({"return_sequences": False, "nb_sequences": 10}, "nb_sequences: got 10, expected -1"),
    ({"return_sequences": False, "l2reg": 0.1, "l2_reg": 0.2}, "l2_reg: got 0.2, expected 0.1, the value of its alias l2reg"),
    ({"return_sequences": False, "padding_style": "casual"}, "did you mean 'causal'"),
    ({"return_sequences": False, "DR": 1.0}, "DR: got 1.0"),
    ({"return_sequences": False, "nb_patch": 3}, "did you mean 'nb_patches'"),
    ({"return_sequences": False, "patch_size": 0}, "patch_size: got 0"),
]


def test_wrong_arguments_are_named():
    for changes, message in WRONG_ARGUMENTS:
        with pytest.raises(UserError, match=message):
            make(changes)


def test_a_call_in_the_style_of_the_original_names_what_is_missing():
    with pytest.raises(UserError, match=r"^return_sequences: a value is required$"):
        IGLOO1D((42, 2), nb_patches=20, nb_filters_conv1d=3)
    with pytest.raises(UserError, match=r"^shape: got tensor.{,80}, expected a valid tuple$"):
        IGLOO1D(torch.zeros(5, 42, 2), 20, 3, False)


def test_inputs_that_do_not_fit_are_named():
    layer = make(USES["whole"])
    for inputs, lengths, message in (
        (torch.zeros(3, 43, 2), None, r"inputs of shape \(3, 43, 2\), expected \(B, at most 42, 2\)"),
        (torch.zeros(3, 42, 1), None, r"inputs of shape \(3, 42, 1\)"),
        (torch.zeros(3, 42), None, r"inputs of shape \(3, 42\)"),
        (torch.zeros(3, 42, 2), torch.ones(2), r"lengths of shape \(2,\), expected \(3,\)"),
        (torch.zeros(2, 30, 2), torch.tensor([30, 31]), r"lengths \[31\], expected each between 0 and T=30"),
        (torch.zeros(1, 42, 2), torch.tensor([-1]), r"lengths \[-1\], expected each between 0 and T=42"),
    ):
        with pytest.raises(UserError, match=message):
            layer(inputs.double(), lengths)
