"""An LSTM_AE as sequitur trains it: one sequence after the other through torch.nn.LSTM, with an update after each."""

import torch
from torch import Tensor, nn

from seqmem.models import LSTM_AE


class OneByOne(nn.Module):
    """The network that ``model`` is, of its weights, for one sequence (T, C)."""

    def __init__(self, model: LSTM_AE):
        super().__init__()
        self.model = model
        self.encoder, self.decoder = (nn.ModuleList(map(_twin, half.layers)) for half in (model.encoder, model.decoder))

    def forward(self, inputs: Tensor) -> Tensor:
        """(T, C) -> (T, C)."""
        outputs, (hidden, _) = self.encoder[0](inputs)
        for layer in self.encoder[1:]:
            outputs, (hidden, _) = layer(torch.sigmoid(outputs))
        outputs, _ = self.decoder[0](torch.tanh(hidden).expand(len(inputs), -1))
        for layer in self.decoder[1:]:
            outputs, _ = layer(torch.sigmoid(outputs))
        return outputs @ self.model.decoder.dense_matrix


def _twin(layer: nn.Module) -> nn.LSTM:
    twin = nn.LSTM(layer.input_size, layer.output_size)
    for name, parameter in layer.named_parameters():
        setattr(twin, f"{name}_l0", parameter)
    return twin
