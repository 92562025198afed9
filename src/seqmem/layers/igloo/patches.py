"""Patches of an IGLOO layer: a weighted sum of a few steps each."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from seqmem.errors import UserError
from seqmem.layers.igloo.feature_map import SLOPE
from seqmem.ops.patches import PatchIndex, SharedBackward, patch_index, patch_products, weights_by_step


class Patches(nn.Module):
    """phi(<W, patch> + b) of L patches for each of S steps, each patch with its own W and b.

    phi is a leaky ReLU. W and b start normal, with the variances of Glorot's rule for the original's arrays (1, S, L, p K) and
    (1, S, L).

    Args:
        indices: (S, L, p) int32, the steps in each patch.
        ends: (S,) the last step that the patches of each step may hold.
        length: T, steps of the feature map.
        filters: K, channels.
        blocks: slices of the S steps that are computed one at a time.
    """

    indices: Tensor
    rows: Tensor
    order: Tensor
    starts: Tensor

    def __init__(self, indices: np.ndarray, ends: np.ndarray, length: int, filters: int, blocks: list[slice]):
        super().__init__()
        steps, count, size = indices.shape
        self.ends, self.length, self.blocks = ends, length, blocks
        self.register_buffer("indices", torch.from_numpy(indices))
        self.weight = nn.Parameter(torch.empty(steps, count, size, filters))
        self.bias = nn.Parameter(torch.empty(steps, count))
        nn.init.normal_(self.weight, std=(2 / (steps * (count + size * filters))) ** 0.5)
        nn.init.normal_(self.bias, std=(2 / (steps + count)) ** 0.5)
        self._shared: SharedBackward | None = None
        self._update_index()

    def forward(self, features: Tensor, block: int) -> Tensor:
        """Compute the patches of the S' steps in a block: features (T, K, B) -> (S', L, B)."""
        steps = self.blocks[block]
        weight, bias = self.weight[steps], self.bias[steps]
        products = patch_products(
            features.to(weight.dtype), self._index(block), weight.flatten(0, 1), bias.flatten(), self._shared
        )
        return leaky_relu(products, SLOPE, inplace=True).unflatten(0, bias.shape)

    @contextmanager
    def sharing_backward(self, block: int, totals: Mapping[Tensor, Tensor], several: bool) -> Iterator[None]:
        """Share work between the backward passes of a block, while the weights do not change.

        Args:
            block: number of the block.
            totals: a gradient for each of some leaves; every backward pass adds its part to that of the weights. Autograd
                returns the gradient of weights that are not among them.
            several: whether more than one backward pass follows, which makes sorting the weights in advance worthwhile.
        """
        steps, gradient = self.blocks[block], totals.get(self.weight)
        by_step = None
        if several:
            weight, index = self.weight[steps].detach().flatten(0, 1), self._index(block)
            by_step = weight.new_empty(weight.shape[-1], len(index.order))
            for channel, weights in enumerate(by_step):
                weights.copy_(weights_by_step(weight, index, channel))
        self._shared = SharedBackward(by_step, None if gradient is None else gradient[steps].flatten(0, 1))
        try:
            yield
        finally:
            self._shared = None

    def extra_repr(self) -> str:
        """Return the numbers of steps, patches per step and steps per patch for ``print``."""
        steps, count, size = self.indices.shape
        return f"steps={steps}, patches={count}, patch_size={size}"

    def check_indices(self, saved: Tensor, name: str) -> None:
        """Check indices from a state dict: no patch may hold a step after its own.

        Args:
            saved: the indices.
            name: their key in the state dict, for the message.

        Raises:
            UserError: a wrong type or shape, or a step outside 0 to the patch's own.
        """
        if saved.is_floating_point() or saved.is_complex():
            raise UserError(f"{name}: got {saved.dtype}, expected whole numbers")
        if saved.shape != self.indices.shape:
            raise UserError(f"{name}: got shape {tuple(saved.shape)}, expected {tuple(self.indices.shape)}")
        ends = torch.from_numpy(self.ends).to(saved.device)[:, None, None].expand_as(saved)
        wrong = (saved < 0) | (saved > ends)
        if wrong.any():
            step, end = int(saved[wrong][0]), int(ends[wrong][0])
            raise UserError(f"{name}: got step {step} in a patch of step {end}, expected steps from 0 to {end}")

    def _index(self, block: int) -> PatchIndex:
        steps, places = self.blocks[block], self.indices[0].numel()
        return PatchIndex(
            self.indices[steps].flatten(0, 1),
            self.rows[steps].flatten(0, 1),
            self.order[places * steps.start : places * steps.stop],
            self.starts[block],
        )

    def _update_index(self) -> None:
        """Compute the buffers that follow from ``indices``."""
        indexes = [patch_index(self.indices[steps].flatten(0, 1), self.length, self.weight.shape[-1]) for steps in self.blocks]
        rows = torch.cat([index.rows for index in indexes]).unflatten(0, self.indices.shape[:2])
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("order", torch.cat([index.order for index in indexes]), persistent=False)
        self.register_buffer("starts", torch.stack([index.starts for index in indexes]), persistent=False)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        self._update_index()
