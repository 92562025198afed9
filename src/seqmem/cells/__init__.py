"""Recurrent cells, defined by one time step. One file per family.

    >>> import torch
    >>> from seqmem.cells import LegS
    >>> cell = LegS(input_size=3, hidden_size=16)
    >>> outputs, state = cell(torch.randn(8, 100, 3))                 # (B, T, C) -> (B, T, H)
    >>> outputs, state = cell(torch.randn(8, 50, 3), state)           # continued
    >>> output, state = cell.step(torch.randn(8, 3), state)           # one more step
    >>> output.shape
    torch.Size([8, 16])

To add a cell, write a module in this package with a subclass of ``Recurrence`` that has a ``name``, and a
``cfg/model/NAME.yaml`` that lists its arguments. All modules of the package are imported, so that no other file changes.
"""

from importlib import import_module
from pkgutil import iter_modules

from seqmem.cells.base import Recurrence, get, names
from seqmem.cells.gru import GRU
from seqmem.cells.grus import GRUS
from seqmem.cells.hmlstm import HMLSTM
from seqmem.cells.lstm import LSTM
from seqmem.cells.mgu import MGU
from seqmem.cells.minimal_rnn import MinimalRNN
from seqmem.cells.orthogonal import ExpRNN, Orthogonal
from seqmem.cells.rnn import RNN
from seqmem.cells.scale_invariant import LagTS, LegS, LegTS
from seqmem.cells.time_invariant import LMU, LMUT, LagT, LegSN, LegST, LegT, LMUPlain
from seqmem.cells.timestamped import TLSI, TLTI

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "GRU",
    "GRUS",
    "HMLSTM",
    "LMU",
    "LMUT",
    "LSTM",
    "MGU",
    "RNN",
    "TLSI",
    "TLTI",
    "ExpRNN",
    "LMUPlain",
    "LagT",
    "LagTS",
    "LegS",
    "LegSN",
    "LegST",
    "LegT",
    "LegTS",
    "MinimalRNN",
    "Orthogonal",
    "Recurrence",
    "get",
    "names",
]
