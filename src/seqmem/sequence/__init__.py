"""The contract of sequence layers, shared by cells, parallel layers and wrappers.

``layer.py`` holds the contract and the registry of names. The table in ``seqmem/ops/implementations.py`` chooses the
implementation that computes a whole sequence.
``cuda_graph.py`` captures the time loop of a recurrence on a GPU.
"""

from seqmem.sequence.layer import SequenceLayer, get, names

__all__ = ["SequenceLayer", "get", "names"]
