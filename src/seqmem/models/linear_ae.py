"""An autoencoder of fully connected layers, for sequences of numbers of one length (sequitur's LINEAR_AE)."""

from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise

from pydantic import PositiveInt
from torch import Tensor, nn

from seqmem.arguments import checked
from seqmem.errors import UserError
from seqmem.models.sequitur_names import also_load


class LINEAR_AE(nn.Module):
    """Linear layers down to the encoding and back up, with activations between them.

        >>> import torch
        >>> model = LINEAR_AE(input_dim=10, encoding_dim=4, h_dims=[8, 6])
        >>> code = model.encoder(torch.randn(10))  # (4,)
        >>> model.decoder(code).shape
        torch.Size([10])

    Args:
        input_dim: L, numbers in a sequence.
        encoding_dim: E.
        h_dims: widths of the encoder's hidden layers; the decoder's are the same in reverse.
        h_activ: after each hidden layer; None for none.
        out_activ: of the encoding; None for none. The reconstruction has none.

    Raises:
        UserError: an argument of the wrong type or range.
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
        self.encoder = Chain([input_dim, *h_dims, encoding_dim], h_activ, out_activ)
        self.decoder = Chain([encoding_dim, *reversed(h_dims), input_dim], h_activ, None)

    def forward(self, inputs: Tensor) -> Tensor:
        """Sequences (..., L) -> their reconstructions (..., L)."""
        return self.decoder(self.encoder(inputs))


class Chain(nn.Module):
    """Linear layers of the given widths: ``h_activ`` between them, ``out_activ`` at the end. Either may be None."""

    def __init__(self, widths: Sequence[int], h_activ: nn.Module | None, out_activ: nn.Module | None):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairwise(widths))
        self.h_activ, self.out_activ = own(h_activ), own(out_activ)
        also_load(self, r"nn\.(?P<index>\d+)\.(?P<rest>\w+)", "layers.{index}.{rest}")

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., first width) -> (..., last width).

        Raises:
            UserError: another width.
        """
        *hidden, last = self.layers
        width = self.layers[0].in_features
        if inputs.dim() == 0 or inputs.shape[-1] != width:
            raise UserError(f"got a tensor of shape {tuple(inputs.shape)}, expected ({width},) or (B, {width})")
        for layer in hidden:
            inputs = self.h_activ(layer(inputs))
        return self.out_activ(last(inputs))


def own(activation: nn.Module | None) -> nn.Module:
    """A copy for one half of a model alone: training one, or learning its parameters, is not to change another's."""
    return nn.Identity() if activation is None else deepcopy(activation)
