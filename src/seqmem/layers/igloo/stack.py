"""What an IGLOO layer is made of: the feature map of the inputs, the patches that take their steps from it, both as a stack."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu, pad

from seqmem.errors import UserError
from seqmem.ops.patches import PatchIndex, WaysBack, patch_index, patch_products, weights_by_step

SLOPE = 0.1
"""Of the leaky ReLU below 0."""

DILATION = 3
"""Of the convolutions of the further stacks."""

FEW_TAPS = 4
"""Up to so many taps a convolution takes less time and memory as one product for each."""


class FeatureMap(nn.Module):
    """A convolution over time, its leaky ReLU, and dropout of whole channels; the batch is the last dimension.

    Weights start Glorot-uniform, biases zero.

    Args:
        channels: C.
        filters: K.
        kernel: taps.
        dilation: steps between two taps.
        style: "causal" or "same".
        dropout: probability with which a channel is dropped for a whole sequence.
    """

    def __init__(self, channels: int, filters: int, kernel: int, dilation: int, style: str, dropout: float):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(filters, channels, kernel))
        self.bias = nn.Parameter(torch.zeros(filters))
        nn.init.xavier_uniform_(self.weight)
        self.dilation, self.dropout = dilation, dropout
        span = dilation * (kernel - 1)
        self.before = span if style == "causal" else span // 2
        self.after = span - self.before

    def forward(self, inputs: Tensor, valid: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """(T, C, B) -> (T, K, B), zero where ``valid`` (T, B) is not; drops nothing without a generator."""
        padded = pad(inputs.transpose(0, 1), (0, 0, self.before, self.after))
        convolve = self._by_taps if self.weight.shape[-1] <= FEW_TAPS else self._at_once
        # All channels of a step side by side, before the activation, which keeps its result for the way back.
        features = leaky_relu(convolve(padded).transpose(0, 1).contiguous(), SLOPE, inplace=True)
        features = dropped(features, self.dropout, generator, shared=0)
        return features if valid is None else features.where(valid[:, None], 0)

    def _by_taps(self, padded: Tensor) -> Tensor:
        # Time is the slow dimension, so a tap is a product with one stretch of the inputs as they lie in memory.
        rows, steps = padded.shape[2], padded.shape[1] - self.before - self.after
        columns, features = padded.flatten(1), self.bias[:, None]
        for tap, weight in enumerate(self.weight.unbind(-1)):
            features = torch.addmm(features, weight, columns.narrow(1, tap * self.dilation * rows, steps * rows))
        return features.unflatten(1, (steps, rows))

    def _at_once(self, padded: Tensor) -> Tensor:
        # One image whose columns are the rows of the batch.
        return conv2d(padded[None], self.weight[..., None], self.bias, dilation=(self.dilation, 1))[0]


class Patches(nn.Module):
    """Answers phi(<W, patch> + b) of patches, each with weights of its own.

    The weights start normal, with the variances of Glorot's rule for the original's arrays (1, S, L, p K) and (1, S, L).

    Args:
        indices: (S, L, p) int32, the steps that each of L patches of S steps takes.
        ends: (S,) those S steps, which no patch looks beyond.
        length: steps that there are.
        filters: K, channels.
        blocks: of the S steps, which are answered at a time.
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
        self.shared: WaysBack | None = None
        self._sort()

    def forward(self, features: Tensor, number: int) -> Tensor:
        """(T, K, B) -> (S', L, B) of a block of S' steps."""
        weight, bias = self.weight[self.blocks[number]], self.bias[self.blocks[number]]
        answers = patch_products(
            features.to(weight.dtype), self._index(number), weight.flatten(0, 1), bias.flatten(), self.shared
        )
        return leaky_relu(answers, SLOPE, inplace=True).unflatten(0, bias.shape)

    @contextmanager
    def unchanged(self, number: int, total: Tensor | None, several: bool) -> Iterator[None]:
        """The weights stay as they are: ways back from a block add to ``total`` and, if several, share what they can."""
        steps = self.blocks[number]
        by_step = None
        if several:
            weight, index = self.weight[steps].detach().flatten(0, 1), self._index(number)
            by_step = weight.new_empty(weight.shape[-1], len(index.order))
            for channel, weights in enumerate(by_step):
                weights.copy_(weights_by_step(weight, index, channel))
        self.shared = WaysBack(by_step, None if total is None else total[steps].flatten(0, 1))
        try:
            yield
        finally:
            self.shared = None

    def check_indices(self, saved: Tensor, name: str) -> None:
        """Refuse indices that a state dict has under some name, unless each patch takes whole steps from 0 to its own.

        Raises:
            UserError: it states what one of the patches takes.
        """
        if saved.is_floating_point() or saved.is_complex():
            raise UserError(f"{name}: got {saved.dtype}, expected whole numbers")
        if saved.shape != self.indices.shape:
            raise UserError(f"{name}: got shape {tuple(saved.shape)}, expected {tuple(self.indices.shape)}")
        ends = torch.from_numpy(self.ends).to(saved.device)[:, None, None].expand_as(saved)
        wrong = (saved < 0) | (saved > ends)
        if wrong.any():
            step, end = int(saved[wrong][0]), int(ends[wrong][0])
            raise UserError(f"{name}: got a patch of step {end} that takes step {step}, expected steps from 0 to {end}")

    def _index(self, number: int) -> PatchIndex:
        steps, places = self.blocks[number], self.indices[0].numel()
        return PatchIndex(
            self.indices[steps].flatten(0, 1),
            self.rows[steps].flatten(0, 1),
            self.order[places * steps.start : places * steps.stop],
            self.starts[number],
        )

    def _sort(self) -> None:
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
        self._sort()


class Stack(nn.Module):
    """A feature map, and the patches that take their steps from it.

    Args:
        features: makes the map.
        global_patches: of each lighthouse, or of the sequence.
        local_patches: of each wanted step, or None.
        residual: of each wanted step's features, or None.
        stretch: distance of two lighthouses.
        blocks: of the steps, which are answered at a time.
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

    def forward(self, features: Tensor, number: int) -> Tensor:
        """A map (T, K, B) -> outputs (B, n, M) of a block of n steps."""
        steps = self.blocks[number]
        outputs = self.global_patches(features, number)
        if self.stretch > 1:
            outputs = outputs.repeat_interleave(self.stretch, 0)[steps.start - steps.stop :]
        outputs = outputs.permute(2, 0, 1)
        if self.local_patches is not None:
            outputs = torch.cat([outputs, self.local_patches(features, number).permute(2, 0, 1)], -1)
        if self.residual is None:
            return outputs
        # Rows of a matrix: with more dimensions the bias would be added in a second copy.
        near = features[steps].permute(2, 0, 1)
        mapped = leaky_relu(self.residual(near.flatten(0, 1)), SLOPE, inplace=True)
        return leaky_relu(outputs + mapped.unflatten(0, near.shape[:2]), SLOPE, inplace=True)


def dropped(values: Tensor, probability: float, generator: torch.Generator | None, shared: int | None = None) -> Tensor:
    """Each value, or all along the dimension ``shared`` together, becomes 0 with a probability; the others make up for it."""
    if generator is None:
        return values
    like = values if shared is None else values.narrow(shared, 0, 1)
    return values * torch.empty_like(like).bernoulli_(1 - probability, generator=generator).div_(1 - probability)
