"""Linear maps of each head's channels: products with block-diagonal matrices."""

import torch
from torch import Tensor
from torch.nn.functional import linear

DENSE_CHANNELS = 96
"""Up to so many channels, one dense map takes less time than a map of each head, whose results are permuted."""


def mapped_by_head(inputs: Tensor, weight: Tensor) -> Tensor:
    """Map the channels of each head (B, T, K*I) by the weights (G, K, O, I) of each gate and head, to (B, T, G*K*O)."""
    heads = weight.shape[1]
    if inputs.shape[2] > DENSE_CHANNELS:
        return torch.einsum("btki,gkoi->btgko", inputs.unflatten(-1, (heads, -1)), weight).flatten(2)
    blocks = weight[:, :, :, None] * torch.eye(heads, dtype=weight.dtype, device=weight.device)[:, None, :, None]
    return linear(inputs, blocks.flatten(3).flatten(0, 2))
