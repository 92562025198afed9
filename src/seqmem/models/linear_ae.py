"""Autoencoder of fully connected layers, for sequences of numbers of one length (sequitur's LINEAR_AE)."""

from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise

from pydantic import PositiveInt
from torch import Tensor, nn

from seqmem.arguments import checked
from seqmem.errors import UserError
from seqmem.models.sequitur_state_dict import accept_sequitur_names


class LINEAR_AE(nn.Module):
    """Fully connected encoder and decoder.

        >>> import torch
        >>> model = LINEAR_AE(input_dim=10, encoding_dim=4, h_dims=[8, 6])
        >>> code = model.encoder(torch.randn(10))  # (4,)
        >>> model.decoder(code).shape
        torch.Size([10])

    Args:
        input_dim: L, numbers in a sequence.
        encoding_dim: E.
        h_dims: widths of the encoder's hidden layers; the decoder has the same widths in reverse.
        h_activ: activation after each hidden layer; None for none.
        out_activ: activation of the encoding; None for none. The reconstruction has none.

    Raises:
        UserError: an argument has the wrong type or range.
    """

    @checked
    def __init__(
        self,
        input_dim: PositiveInt,
        encoding_dim: PositiveInt,
        h_dims: list[PositiveInt] = [],  # noqa: B006
        h_activ: nn.Module | None = nn.Sigmoid(),  # noqa: B008
        out_activ: nn.Module | None = nn.Tanh(),  # noqa: B008
    ):
        super().__init__()
        self.encoder = MLP([input_dim, *h_dims, encoding_dim], h_activ, out_activ)
        self.decoder = MLP([encoding_dim, *reversed(h_dims), input_dim], h_activ, None)

    def forward(self, inputs: Tensor) -> Tensor:
        """Reconstruct sequences (..., L)."""
        return self.decoder(self.encoder(inputs))


class MLP(nn.Module):
    """Linear layers with an activation between them and one at the end.

    Args:
        widths: of the input and of each layer's output.
        h_activ: activation between layers; None for none.
        out_activ: activation of the last layer's output; None for none.
    """

    def __init__(self, widths: Sequence[int], h_activ: nn.Module | None, out_activ: nn.Module | None):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairwise(widths))
        self.h_activ, self.out_activ = copy_activation(h_activ), copy_activation(out_activ)
        accept_sequitur_names(self, r"nn\.(?P<index>\d+)\.(?P<rest>\w+)", "layers.{index}.{rest}")

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (..., first width) to (..., last width).

        Raises:
            UserError: the inputs have a different width.
        """
        *hidden, last = self.layers
        width = self.layers[0].in_features
        if inputs.dim() == 0 or inputs.shape[-1] != width:
            raise UserError(f"got a tensor of shape {tuple(inputs.shape)}, expected ({width},) or (B, {width})")
        for layer in hidden:
            inputs = self.h_activ(layer(inputs))
        return self.out_activ(last(inputs))


def copy_activation(activation: nn.Module | None) -> nn.Module:
    """Copy an activation, so that neither its mode nor its parameters are shared; None becomes the identity."""
    return nn.Identity() if activation is None else deepcopy(activation)
