"""One stack of an IGLOO layer: a feature map and the patches of it."""

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from seqmem.layers.igloo.feature_map import SLOPE, FeatureMap
from seqmem.layers.igloo.patches import Patches


class Stack(nn.Module):
    """A feature map, and the global and local patches of it.

    Args:
        features: the feature map.
        global_patches: those of each lighthouse, or of the whole sequence.
        local_patches: those of each step with an output; None for none.
        residual: linear map of that step's features; None for none.
        stretch: s, steps between two lighthouses.
        blocks: slices of the steps that are computed one at a time.
    """

    def __init__(
        self,
        features: FeatureMap,
        global_patches: Patches,
        local_patches: Patches | None,
        residual: nn.Linear | None,
        stretch: int,
        blocks: list[slice],
    ):
        super().__init__()
        self.features = features
        self.global_patches, self.local_patches, self.residual = global_patches, local_patches, residual
        self.stretch, self.blocks = stretch, blocks

    def forward(self, features: Tensor, block: int) -> Tensor:
        """Compute the outputs of the n steps in a block: features (T, K, B) -> (B, n, M) with M patches."""
        steps = self.blocks[block]
        outputs = self.global_patches(features, block)
        if self.stretch > 1:  # the patches of a lighthouse hold until the next one
            outputs = outputs.repeat_interleave(self.stretch, 0)[steps.start - steps.stop :]
        outputs = outputs.permute(2, 0, 1)
        if self.local_patches is not None:
            outputs = torch.cat([outputs, self.local_patches(features, block).permute(2, 0, 1)], -1)
        if self.residual is None:
            return outputs
        # As a matrix: with more dimensions, torch adds the bias in a second copy.
        own = features[steps].permute(2, 0, 1)
        mapped = leaky_relu(self.residual(own.flatten(0, 1)), SLOPE, inplace=True)
        return leaky_relu(outputs + mapped.unflatten(0, own.shape[:2]), SLOPE, inplace=True)
