"""Numerical operators without any nn.Module: HiPPO transitions, memory updates and whole sequences.

``transition.py`` holds the matrices and ``reference.py`` the memory updates as in the papers. ``memory.py`` chooses between
these and their compiled counterparts in ``csrc/``, which ``extension.py`` loads. Each sequence operator has a file with its
formula, its reference and its implementations (``lstm.py``, ``memory_network.py``, ``diagonal_scan.py``, ...), and
``implementations.py`` is the table that chooses among them. ``python -m seqmem.ops`` prints which paths are in use and why.
"""

from seqmem.ops.discretization import (
    DISCRETIZATIONS,
    Discretization,
    DiscretizationName,
    canonical_discretization,
    discretize,
)
from seqmem.ops.legs_projection import legs_function_approximation
from seqmem.ops.memory import legs_update, legt_update, memory_update, paths
from seqmem.ops.transition import generators, transition

__all__ = [
    "DISCRETIZATIONS",
    "Discretization",
    "DiscretizationName",
    "canonical_discretization",
    "discretize",
    "generators",
    "legs_function_approximation",
    "legs_update",
    "legt_update",
    "memory_update",
    "paths",
    "transition",
]
