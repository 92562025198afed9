"""IGLOO: patches over very long sequences. ``layer.py`` is usable alone, ``network.py`` builds it for a data set."""

from seqmem.models.igloo.layer import IGLOO1D
from seqmem.models.igloo.network import IGLOONetwork

__all__ = ["IGLOO1D", "IGLOONetwork"]
