"""A layer in both directions of time."""

from typing import Any

import torch
from torch import Tensor

from seqmem.data.masks import masked
from seqmem.errors import UserError
from seqmem.sequence import SequenceLayer


class Bidirectional(SequenceLayer[None]):
    """Two copies of a layer, one over the steps as they are and one over them reversed; outputs are concatenated.

    It has no step form and carries no state. The reversed copy begins at each row's last valid step.

    Args:
        layer: class of a causal cell or layer.
        input_size: C.
        arguments: the layer's other arguments.

    Raises:
        UserError: the layer uses the times of its steps, which would decrease, or is not causal.
    """

    causal = False

    def __init__(self, layer: type[SequenceLayer], input_size: int, **arguments: Any):
        super().__init__()
        if layer.timed or not layer.causal:
            reason = "uses the times of its steps" if layer.timed else "is not causal"
            raise UserError(f"bidirectional: got {layer.name}, which {reason}, expected a causal layer without times")
        self.forward_layer = layer(input_size=input_size, **arguments)
        self.backward_layer = layer(input_size=input_size, **arguments)
        self.input_size, self.output_size = input_size, 2 * self.forward_layer.output_size

    def initial_state(self, batch_size: int) -> None:
        """Return None."""
        return

    def whole_sequence(self, inputs: Tensor, state: None, lengths: Tensor | None, fresh: bool) -> tuple[Tensor, None]:
        """Compute both directions."""
        inputs = masked(inputs, lengths)
        first, _ = self.forward_layer(inputs, lengths=lengths)
        second, _ = self.backward_layer(_reversed(inputs, lengths), lengths=lengths)
        self.path = self.forward_layer.path
        return torch.cat([first, _reversed(second, lengths)], -1), None


def _reversed(values: Tensor, lengths: Tensor | None) -> Tensor:
    """Reverse the valid steps of values (B, T, C); padding stays in its place."""
    if lengths is None:
        return values.flip(1)
    steps = torch.arange(values.shape[1], device=values.device)
    source = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    return values.gather(1, source[..., None].expand_as(values))
