"""IGLOO as in the original code: all patches gathered into one tensor (B, patches, p K)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, leaky_relu, pad

from seqmem.models import IGLOO1D


class GatheredPatches(nn.Module):
    """The same function as a causal layer of one stack for the last n steps, with its parameters."""

    def __init__(self, layer: IGLOO1D):
        super().__init__()
        [self.stack] = layer.stacks

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, T, C) -> (B, n, L + L')."""
        stem = self.stack.features
        padded = pad(inputs.mT, (stem.before, 0))
        features = leaky_relu(conv1d(padded, stem.weight, stem.bias), 0.1).mT
        outputs = []
        for patches in (self.stack.global_patches, self.stack.local_patches):
            gathered = features[:, patches.indices.flatten().long()].unflatten(1, patches.indices.shape).flatten(-2)
            outputs.append(leaky_relu((gathered * patches.weight.flatten(-2)).sum(-1) + patches.bias, 0.1))
        joined = torch.cat(outputs, -1)
        return leaky_relu(joined + leaky_relu(self.stack.residual(features[:, -joined.shape[1] :]), 0.1), 0.1)
