"""Sequence layers of stacks of residual blocks, under the contract that cells share. One file per layer.

    >>> import torch
    >>> from seqmem.layers import EMA
    >>> layer = EMA(input_size=3, hidden_size=16)
    >>> outputs, state = layer(torch.randn(8, 100, 3))               # (B, T, C) -> (B, T, H)
    >>> output, state = layer.step(torch.randn(8, 3), state)         # one more step
    >>> output.shape
    torch.Size([8, 16])

To add a layer, write a module in this package with a subclass of ``SequenceLayer`` that has a ``name``, and a
``cfg/model/NAME.yaml`` with ``network: stack`` and ``mixer: NAME``. All modules of the package are imported, so that no other
file changes.
"""

from importlib import import_module
from pkgutil import iter_modules

from seqmem.layers.bidirectional import Bidirectional
from seqmem.layers.ema import EMA
from seqmem.layers.linoss import LinOSS
from seqmem.layers.lru import LRU
from seqmem.layers.mamba import Mamba
from seqmem.layers.mingru import MinGRU
from seqmem.layers.minlstm import MinLSTM
from seqmem.layers.rglru import RGLRU
from seqmem.layers.s4d import S4D
from seqmem.layers.s5 import S5, BidirectionalS5
from seqmem.layers.slstm import SLSTM

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "EMA",
    "LRU",
    "RGLRU",
    "S4D",
    "S5",
    "SLSTM",
    "Bidirectional",
    "BidirectionalS5",
    "LinOSS",
    "Mamba",
    "MinGRU",
    "MinLSTM",
]
