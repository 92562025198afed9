"""The contract of sequence layers: what cells, parallel layers and wrappers have in common.

``layer.py`` holds the contract and the registry of names. Which
implementation computes a whole sequence is looked up in one table, ``seqmem/ops/implementations.py``.
"""

from seqmem.sequence.layer import SequenceLayer, get, names

__all__ = ["SequenceLayer", "get", "names"]
