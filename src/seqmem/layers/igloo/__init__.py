"""IGLOO: weighted patches over very long sequences."""

from seqmem.layers.igloo.layer import IGLOO1D

__all__ = ["IGLOO1D"]
