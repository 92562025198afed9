"""Sequence models, built from a data set's spec and called on its batches; importing the package registers all of them."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from seqmem.layers.igloo import IGLOO1D
from seqmem.models.base import SequenceModel, as_declared, build, check, label
from seqmem.models.conv_lstm_ae import CONV_LSTM_AE
from seqmem.models.hmlstm import MultiscaleNetwork
from seqmem.models.linear_ae import LINEAR_AE
from seqmem.models.lstm_ae import LSTM_AE
from seqmem.models.recurrent import RecurrentNetwork
from seqmem.models.stack import StackNetwork

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "CONV_LSTM_AE",
    "IGLOO1D",
    "LINEAR_AE",
    "LSTM_AE",
    "MultiscaleNetwork",
    "NDS2SAEFactory",
    "RecurrentNetwork",
    "SequenceModel",
    "StackNetwork",
    "as_declared",
    "build",
    "check",
    "label",
]

# compat/ is above this package; the original's programs import this name from here.
_lazy = {"NDS2SAEFactory": "seqmem.compat.seq2seq"}


def __getattr__(name: str) -> Any:
    if name not in _lazy:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_lazy[name]), name)
