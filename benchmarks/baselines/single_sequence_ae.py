"""LSTM_AE as sequitur trains it: one sequence at a time through torch.nn.LSTM, with an update after each."""

import torch
from torch import Tensor, nn

from seqmem.models import LSTM_AE


class SingleSequenceAE(nn.Module):
    """The same function as ``model`` for one sequence (T, C), with its weights."""

    def __init__(self, model: LSTM_AE):
        super().__init__()
        self.model = model
        self.encoder, self.decoder = (nn.ModuleList(map(_torch_lstm, part.layers)) for part in (model.encoder, model.decoder))

    def forward(self, inputs: Tensor) -> Tensor:
        """(T, C) -> (T, C)."""
        outputs, (hidden, _) = self.encoder[0](inputs)
        for layer in self.encoder[1:]:
            outputs, (hidden, _) = layer(torch.sigmoid(outputs))
        outputs, _ = self.decoder[0](torch.tanh(hidden).expand(len(inputs), -1))
        for layer in self.decoder[1:]:
            outputs, _ = layer(torch.sigmoid(outputs))
        return outputs @ self.model.decoder.dense_matrix


def _torch_lstm(layer: nn.Module) -> nn.LSTM:
    lstm = nn.LSTM(layer.input_size, layer.output_size)
    for name, parameter in layer.named_parameters():
        setattr(lstm, f"{name}_l0", parameter)
    return lstm
