"""IGLOO the original's way: all patches gathered into one tensor, (B, patches, p K)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, leaky_relu, pad

from seqmem.models import IGLOO1D


class GatheredPatches(nn.Module):
    """The parameters of a causal layer of one stack for the last n steps, and its result."""

    def __init__(self, layer: IGLOO1D):
        super().__init__()
        [self.stack] = layer.stacks

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, T, C) -> (B, n, L + L')."""
        stem = self.stack.features
        padded = pad(inputs.mT, (stem.before, 0))
        features = leaky_relu(conv1d(padded, stem.weight, stem.bias), 0.1).mT
        answers = []
        for patches in (self.stack.global_patches, self.stack.local_patches):
            taken = features[:, patches.indices.flatten().long()].unflatten(1, patches.indices.shape).flatten(-2)
            answers.append(leaky_relu((taken * patches.weight.flatten(-2)).sum(-1) + patches.bias, 0.1))
        outputs = torch.cat(answers, -1)
        return leaky_relu(outputs + leaky_relu(self.stack.residual(features[:, -outputs.shape[1] :]), 0.1), 0.1)
