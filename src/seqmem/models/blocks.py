"""A residual block around a sequence layer."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from seqmem.sequence import SequenceLayer

FeedForward = Literal["none", "gelu", "glu", "half_glu", "half_glu1", "mlp", "gated_mlp"]

DropoutMask = Literal["sequence", "step"]


class MLPSettings(NamedTuple):
    """Settings of the feed-forward networks with a branch of their own.

    Attributes:
        width: that of the hidden layer.
        bias: the maps have biases.
        std: standard deviations of the initial weights of the maps to and from the hidden layer; None for torch's defaults.
    """

    width: int
    bias: bool
    std: tuple[float, float] | None


class BlockSettings(NamedTuple):
    """Settings that the blocks of a stack share.

    Attributes:
        size: D.
        make_norm: creates a norm over D channels.
        norm_first: the norm precedes the branch; else it follows the skip.
        feed_forward: see :class:`seqmem.models.stack.StackNetwork`.
        mlp: settings of the second branch.
        activation: GELU.
        dropout: probability of dropping a channel.
        dropout_mask: see :class:`seqmem.models.stack.StackNetwork`.
    """

    size: int
    make_norm: Callable[[], nn.Module]
    norm_first: bool
    feed_forward: FeedForward
    mlp: MLPSettings
    activation: Callable[[Tensor], Tensor]
    dropout: float
    dropout_mask: DropoutMask


class Block(nn.Module):
    """A residual branch with the mixer, and for ``mlp`` and ``gated_mlp`` a second one.

    A part that the mixer releases, such as the convolution of a minGRU, precedes both
    (:meth:`seqmem.sequence.SequenceLayer.release_first`). The state of such a block is a pair, that of this part and that
    of the mixer, else the mixer's.

    Args:
        mixer: the sequence layer.
        settings: those of all blocks.
    """

    def __init__(self, mixer: SequenceLayer, settings: BlockSettings):
        super().__init__()
        size, feed_forward = settings.size, settings.feed_forward
        self.norm_first, self.feed_forward, self.activation = settings.norm_first, feed_forward, settings.activation
        self.first = mixer.release_first()
        self.norm, self.mixer = settings.make_norm(), mixer
        self.project = nn.Linear(mixer.output_size, size) if mixer.output_size != size else nn.Identity()
        self.dropout = (SequenceDropout if settings.dropout_mask == "sequence" else nn.Dropout)(settings.dropout)
        self.mixing = nn.Linear(size, 2 * size if feed_forward == "glu" else size) if "glu" in feed_forward else None
        self.second_norm, self.mlp = None, None
        if feed_forward in ("mlp", "gated_mlp"):
            self.second_norm = settings.make_norm()
            self.mlp = make_mlp(size, feed_forward == "gated_mlp", settings.mlp)

    def initial_state(self, batch_size: int) -> Any:
        """Return the state before the first step."""
        state = self.mixer.initial_state(batch_size)
        return state if self.first is None else (self.first.initial_state(batch_size), state)

    def forward(
        self, inputs: Tensor, state: Any, lengths: Tensor | None, times: Tensor | None, rate: float = 1.0
    ) -> tuple[Tensor, Any]:
        """Compute outputs (B, T, D) and the block's state, from inputs (B, T, D) and the state before.

        A mixer without a step size does not get the rate.
        """
        first = None
        if self.first is not None:
            before, state = (None, None) if state is None else state
            inputs, first = self.first(inputs, before, lengths)
        mixed, state = self.mixer(
            self.norm(inputs, lengths) if self.norm_first else inputs,
            state,
            lengths=lengths,
            times=times if self.mixer.timed else None,
            **({"rate": rate} if self.mixer.rescales else {}),
        )
        outputs = inputs + self.dropout(self._activated(self.project(mixed)))
        outputs = outputs if self.norm_first else self.norm(outputs, lengths)
        if self.mlp is not None and self.second_norm is not None:
            hidden = self.second_norm(outputs, lengths) if self.norm_first else outputs
            hidden = self.mlp[1](self.dropout(self._hidden(self.mlp[0](hidden))))
            outputs = outputs + self.dropout(hidden)
            outputs = outputs if self.norm_first else self.second_norm(outputs, lengths)
        return outputs, state if self.first is None else (first, state)

    def _hidden(self, mapped: Tensor) -> Tensor:
        """Compute the hidden layer of the second branch."""
        if self.feed_forward == "mlp":
            return self.activation(mapped)
        value, gate = mapped.chunk(2, -1)
        return self.activation(value) * gate

    def _activated(self, outputs: Tensor) -> Tensor:
        """Apply the part of ``feed_forward`` that lies within the mixer's branch."""
        if self.feed_forward in ("none", "mlp", "gated_mlp"):
            return outputs
        activated = self.activation(outputs)
        if self.mixing is None:
            return activated
        dropped = self.dropout(activated)
        if self.feed_forward in ("half_glu", "half_glu1"):
            return (outputs if self.feed_forward == "half_glu" else dropped) * torch.sigmoid(self.mixing(dropped))
        value, gate = self.mixing(dropped).chunk(2, -1)
        return value * torch.sigmoid(gate)


def make_mlp(size: int, gated: bool, settings: MLPSettings) -> nn.ModuleList:
    """Build the map from D channels to the hidden layer, twice as wide with a gate, and the map back."""
    width, bias = settings.width, settings.bias
    maps = [nn.Linear(size, 2 * width if gated else width, bias), nn.Linear(width, size, bias)]
    for layer, std in zip(maps, settings.std or (), strict=False):
        nn.init.normal_(layer.weight, std=std)
        if bias:
            nn.init.zeros_(layer.bias)
    return nn.ModuleList(maps)


class SequenceDropout(nn.Module):
    """Dropout with one mask for all steps of a sequence."""

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, values: Tensor) -> Tensor:
        """Drop channels of values (B, T, D) in training, and scale the others."""
        if not self.training or self.probability == 0:
            return values
        kept = 1 - self.probability
        return values * (torch.empty_like(values[:, :1]).bernoulli_(kept) / kept)
