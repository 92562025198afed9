"""Diagnostics of a trained memory: how far its gradient reaches, and which past inputs a linear map reads from its state.

    >>> import torch
    >>> from seqmem.cells import LSTM
    >>> from seqmem.diagnostics import effective_memory_length, gradient_norms, inputs_at_lags, read_out_r2
    >>> cell, inputs = LSTM(input_size=1, hidden_size=8), torch.randn(200, 50, 1)
    >>> norms = gradient_norms(lambda inputs: cell(inputs)[1], inputs).mean(0)     # (T,), by lag
    >>> effective_memory_length(norms) < 20
    True
    >>> states = cell(inputs)[1].hidden.detach()                                   # (B, H)
    >>> past = inputs_at_lags(inputs, torch.arange(20))                            # (B, 20, 1)
    >>> read_out_r2(states, past, fitted=torch.arange(200) < 100).shape
    torch.Size([20])

``gradients.py`` and ``read_out.py`` have the measures, for any function that returns a state, and ``reconstruction.py`` has
that of HiPPO memories. ``curves.py`` measures a sequence model over a ``Sample`` of sequences, as ``seqmem memory`` does for a
finished trial.
"""

from seqmem.diagnostics.curves import Curves, carried_layers, closed_forms, measure
from seqmem.diagnostics.gradients import effective_memory_length, gradient_norms, parts_left
from seqmem.diagnostics.read_out import read_out_r2
from seqmem.diagnostics.reconstruction import closed_form, reconstruction_r2
from seqmem.diagnostics.sample import Sample, drawn
from seqmem.diagnostics.states import flat_state, inputs_at_lags

__all__ = [
    "Curves",
    "Sample",
    "carried_layers",
    "closed_form",
    "closed_forms",
    "drawn",
    "effective_memory_length",
    "flat_state",
    "gradient_norms",
    "inputs_at_lags",
    "measure",
    "parts_left",
    "read_out_r2",
    "reconstruction_r2",
]
