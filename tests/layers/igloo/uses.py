"""Arguments of IGLOO layers in every use, small data, and the specification patch by patch."""

import pytest
import torch
from torch.nn.functional import conv1d, leaky_relu, max_pool1d, pad

from seqmem.models import IGLOO1D

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
STEPS = 42

every_use = pytest.mark.parametrize("use", USES.values(), ids=USES)


def make(use, steps=STEPS, **changes):
    """A layer whose convolutions have biases: with the initial zeros, padding has zero features without a mask."""
    torch.manual_seed(0)
    layer = IGLOO1D((steps, 2), **{"nb_patches": 20, "nb_filters_conv1d": 3, **use, **changes}).double()
    for stack in layer.stacks:
        torch.nn.init.normal_(stack.features.bias)
    return layer


def data(rows=5, steps=STEPS):
    return torch.randn(rows, steps, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_hand(layer, inputs, lengths, same):
    """The specification, patch by patch, with torch's own convolutions; padding is zero in inputs and features."""
    valid = torch.zeros(len(inputs), STEPS, 1, dtype=torch.float64)
    aligned = torch.zeros_like(inputs)
    for row, length in enumerate(lengths.tolist()):
        steps = slice(STEPS - length, STEPS) if layer.aligns_ends else slice(length)
        aligned[row, steps], valid[row, steps] = inputs[row, :length], 1
    inputs = aligned

    def phi(x):
        return leaky_relu(x, 0.1)

    def responses(patches, features, s):
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
        features = phi(conv1d(padded, conv.weight, conv.bias, dilation=1 if number == 0 else 3)) * valid.mT
        if number == 0 and layer.pool > 1:
            features, valid = max_pool1d(features, layer.pool), max_pool1d(valid.mT, layer.pool).mT
        features = features.mT
        if not layer.return_sequences:
            outputs.append(responses(stack.global_patches, features, 0))
            below = features
            continue
        made = []
        first = STEPS - (stack.blocks[-1].stop - stack.blocks[0].start)
        for t in range(first, STEPS):
            parts = [responses(stack.global_patches, features, t // stack.stretch - first // stack.stretch)]
            if stack.local_patches is not None:
                parts.append(responses(stack.local_patches, features, t - first))
            made.append(torch.cat(parts, 1))
            if stack.residual is not None:
                made[-1] = phi(made[-1] + phi(stack.residual(features[:, t])))
        outputs.append(torch.stack(made, 1) * valid[:, first:])
    return torch.cat(outputs, -1)
