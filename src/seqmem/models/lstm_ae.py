"""Autoencoder of stacked LSTMs, for sequences of vectors of any length (sequitur's LSTM_AE)."""

from itertools import pairwise

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from seqmem.arguments import checked
from seqmem.cells import LSTM
from seqmem.errors import UserError
from seqmem.models.linear_ae import copy_activation
from seqmem.models.sequitur_state_dict import accept_sequitur_names


class LSTM_AE(nn.Module):
    """LSTM encoder, whose last hidden state is the encoding, and LSTM decoder, whose input at every step is the encoding.

        >>> import torch
        >>> model = LSTM_AE(input_dim=3, encoding_dim=7, h_dims=[64])
        >>> code = model.encoder(torch.randn(10, 3))  # (7,)
        >>> model.decoder(code, seq_len=12).shape
        torch.Size([12, 3])
        >>> model(torch.randn(5, 10, 3), lengths=torch.tensor([10, 4, 9, 1, 7])).shape  # a padded batch
        torch.Size([5, 10, 3])

    Input weights start Glorot-uniform, recurrent weights orthogonal, biases zero except those of the forget gates, which are 1.
    The input weights after an activation are scaled so that to first order the activation has no effect at the start.
    Otherwise a sigmoid leaves a quarter of every signal, shifted by a half. With torch's own initialisation the encodings of
    different sequences are nearly the same.

    Args:
        input_dim: C, the size of a step.
        encoding_dim: E.
        h_dims: widths of the encoder's layers before the last. The decoder has the same widths in reverse, the last one
            repeated. Empty for one layer of width E in each.
        h_activ: activation of the sequences between two layers; None for none.
        out_activ: activation of the encoding; None for none.

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
        length = EncodedLength()
        self.encoder = LSTMEncoder(input_dim, encoding_dim, h_dims, h_activ, out_activ, length)
        self.decoder = LSTMDecoder(encoding_dim, input_dim, h_dims, h_activ, length)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Reconstruct sequences.

        Args:
            inputs: (T, C), or a batch (B, T, C).
            lengths: (B,) int64 valid steps of each row of a batch; None if all T are valid. Padding changes no output, and
                its reconstruction is 0.

        Returns:
            The shape of ``inputs``.
        """
        return self.decoder(self.encoder(inputs, lengths), inputs.shape[-2], lengths)


class EncodedLength:
    """Length of the sequences encoded last, the decoder's default; encoder and decoder share one instance.

    Attributes:
        steps: None before the first encoding.
    """

    steps: int | None = None

    def resolve(self, seq_len: int | None) -> int:
        """Return ``seq_len``, or the length of the sequences encoded last if it is None.

        Raises:
            UserError: ``seq_len`` is not positive, or is None before the first encoding.
        """
        if seq_len is None:
            seq_len = self.steps
        if seq_len is None:
            raise UserError("decoder: got seq_len=None, expected a number of steps, since nothing is encoded yet")
        if seq_len < 1:
            raise UserError(f"decoder: got seq_len={seq_len}, expected at least 1")
        return seq_len


class LSTMEncoder(nn.Module):
    """Stacked LSTMs of widths ``h_dims`` and E; the encoding is ``out_activ`` of the last layer's last hidden state."""

    def __init__(
        self,
        input_dim: int,
        encoding_dim: int,
        h_dims: list[int],
        h_activ: nn.Module | None,
        out_activ: nn.Module | None,
        length: EncodedLength,
    ):
        super().__init__()
        self.layers = nn.ModuleList(LSTM(*widths) for widths in pairwise([input_dim, *h_dims, encoding_dim]))
        self.h_activ, self.out_activ = copy_activation(h_activ), copy_activation(out_activ)
        self.length = length
        _initialize(self.layers, self.h_activ)
        _accept_torch_names(self)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encode a sequence (T, C) -> (E,), or a batch (B, T, C) with ``lengths`` (B,) -> (B, E).

        Raises:
            UserError: the inputs have a different shape.
        """
        first, *others = self.layers
        if inputs.dim() not in (2, 3) or inputs.shape[-1] != first.input_size or inputs.shape[-2] == 0:
            shape = f"(T, {first.input_size})"
            hint = "; CONV_LSTM_AE takes sequences of frames" if inputs.dim() > 3 else ""
            raise UserError(f"LSTM_AE: got a tensor of shape {tuple(inputs.shape)}, expected {shape} or (B, {shape[1:]}{hint}")
        self.length.steps = inputs.shape[-2]
        outputs, state = first(inputs if inputs.dim() == 3 else inputs[None], lengths=lengths)
        for layer in others:
            outputs, state = layer(self.h_activ(outputs), lengths=lengths)
        encodings = self.out_activ(state.hidden)
        return encodings if inputs.dim() == 3 else encodings[0]


class LSTMDecoder(nn.Module):
    """Stacked LSTMs with the encoding as input at every step, and a linear map to C without bias."""

    def __init__(self, encoding_dim: int, output_dim: int, h_dims: list[int], h_activ: nn.Module | None, length: EncodedLength):
        super().__init__()
        widths = [encoding_dim, *reversed(h_dims)]
        self.layers = nn.ModuleList(LSTM(*sizes) for sizes in pairwise([*widths, widths[-1]]))
        self.h_activ = copy_activation(h_activ)
        self.dense_matrix = nn.Parameter(torch.empty(widths[-1], output_dim))
        nn.init.xavier_uniform_(self.dense_matrix)
        self.length = length
        _initialize(self.layers, self.h_activ)
        _accept_torch_names(self)

    def forward(self, encodings: Tensor, seq_len: int | None = None, lengths: Tensor | None = None) -> Tensor:
        """Decode one encoding (E,) -> (T, C), or a batch (B, E) -> (B, T, C).

        Args:
            encodings: (E,) or (B, E).
            seq_len: T; None for the length of the sequences encoded last.
            lengths: (B,) int64 steps of each row, at most T; outputs after them are 0. None for all T.

        Raises:
            UserError: the encodings have a different shape, or no length is known.
        """
        first, *others = self.layers
        if encodings.dim() not in (1, 2) or encodings.shape[-1] != first.input_size:
            shape = f"({first.input_size},) or (B, {first.input_size})"
            raise UserError(f"decoder: got encodings of shape {tuple(encodings.shape)}, expected {shape}")
        steps = self.length.resolve(seq_len)
        outputs, _ = first(encodings.reshape(-1, 1, encodings.shape[-1]).expand(-1, steps, -1), lengths=lengths)
        for layer in others:
            outputs, _ = layer(self.h_activ(outputs), lengths=lengths)
        outputs = outputs @ self.dense_matrix
        return outputs if encodings.dim() == 2 else outputs[0]


def _accept_torch_names(module: nn.Module) -> None:
    accept_sequitur_names(module, r"layers\.(?P<index>\d+)\.(?P<rest>(weight|bias)_(ih|hh))_l0", "layers.{index}.{rest}")


@torch.no_grad()
def _initialize(layers: nn.ModuleList, h_activ: nn.Module) -> None:
    """Initialise stacked LSTMs with ``h_activ`` between them."""
    for k, layer in enumerate(layers):
        assert isinstance(layer, LSTM)
        assert layer.bias_ih is not None
        assert layer.bias_hh is not None
        for weight_ih, weight_hh in zip(layer.weight_ih.chunk(4), layer.weight_hh.chunk(4), strict=True):
            nn.init.xavier_uniform_(weight_ih)
            nn.init.orthogonal_(weight_hh)
        bias = torch.zeros_like(layer.bias_ih)
        bias[layer.output_size : 2 * layer.output_size] = 1
        if k > 0:
            offset, slope = _linearize(h_activ, layer.weight_ih.new_zeros(layer.input_size))
            layer.weight_ih.div_(slope)
            bias -= layer.weight_ih @ offset
        layer.bias_ih.copy_(bias)
        layer.bias_hh.zero_()


def _linearize(activation: nn.Module, zeros: Tensor) -> tuple[Tensor, Tensor]:
    """Return each channel's value at 0 and mean slope from -0.1 to 0.1; a slope below 0.1 is replaced by 1."""
    below, centre, above = (activation(zeros + x) for x in (-0.1, 0.0, 0.1))
    slope = (above - below) / 0.2
    return centre, slope.where(slope.abs() > 0.1, 1)
