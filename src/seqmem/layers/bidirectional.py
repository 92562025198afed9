"""A layer in both directions of time."""

from typing import Any

import torch
from torch import Tensor

from seqmem.data.masks import masked, reversed_steps
from seqmem.errors import UserError
from seqmem.sequence import SequenceLayer


class Bidirectional(SequenceLayer[None]):
    """Two copies of a layer, one in each direction of time, with concatenated outputs.

    It has no step form and carries no state. The backward copy starts at each row's last valid step.

    Args:
        layer: class of a causal cell or layer.
        input_size: C.
        arguments: the layer's other arguments.

    Raises:
        UserError: ``layer`` is not a class, or cannot run backward, see :func:`unsupported_reason`.
    """

    causal = False

    def __init__(self, layer: type[SequenceLayer], input_size: int, **arguments: Any):
        super().__init__()
        if not (isinstance(layer, type) and issubclass(layer, SequenceLayer)):
            found = f"'{layer}'" if isinstance(layer, str) else type(layer).__name__
            raise UserError(f"bidirectional: got {found}, expected a class of layers, as seqmem.layers.LRU")
        reason = unsupported_reason(layer)
        if reason:
            raise UserError(f"bidirectional: got {layer.__name__}, which {reason}, expected a causal layer without times")
        self.forward_layer = layer(input_size=input_size, **arguments)
        self.backward_layer = layer(input_size=input_size, **arguments)
        self.input_size, self.output_size = input_size, 2 * self.forward_layer.output_size
        self.rescales = layer.rescales

    def on_depth(self, block: int, blocks: int) -> None:
        """Pass the place in a stack on to both directions."""
        self.forward_layer.on_depth(block, blocks)
        self.backward_layer.on_depth(block, blocks)

    def initial_state(self, batch_size: int) -> None:
        """Return None."""
        return

    def whole_sequence(
        self, inputs: Tensor, state: None, lengths: Tensor | None, fresh: bool, rate: float = 1.0
    ) -> tuple[Tensor, None]:
        """Compute both directions and concatenate them."""
        inputs, rescaling = masked(inputs, lengths), self._rescaling(rate)
        forward, _ = self.forward_layer(inputs, lengths=lengths, **rescaling)
        backward, _ = self.backward_layer(reversed_steps(inputs, lengths), lengths=lengths, **rescaling)
        self.path = self.forward_layer.path
        return torch.cat([forward, reversed_steps(backward, lengths)], -1), None


def unsupported_reason(layer: type[SequenceLayer]) -> str:
    """Return why a layer cannot run in both directions, or an empty string."""
    if layer.timed:
        return "uses the times of its steps"  # which would decrease
    return "" if layer.causal else "is not causal"
