"""The contract of sequence layers, shared by cells, parallel layers and wrappers.

``layer.py`` holds the contract and the registry of names. The table in ``seqmem/ops/implementations.py`` chooses the
implementation that computes a whole sequence. On a GPU ``time_chunks.py`` cuts the time loop of a recurrence into chunks, which
``cuda_graph.py`` captures.
"""

from seqmem.sequence.layer import SequenceLayer, get, names

__all__ = ["SequenceLayer", "get", "names"]
