"""Numerical operators: the HiPPO transitions and the memory updates, without any nn.Module.

``transition.py`` has the matrices and ``reference.py`` the updates as the papers write them; ``memory.py`` chooses between that
and the compiled twin in ``csrc/``, which ``extension.py`` loads. ``sequence.py`` runs a whole recurrence in one compiled call,
where it covers the cell's settings. ``python -m seqmem.ops`` prints which is in use and why.
"""

from seqmem.ops.discretization import (
    DISCRETIZATIONS,
    Discretization,
    DiscretizationName,
    canonical_discretization,
    discretize,
)
from seqmem.ops.memory import legs_function_approximation, legs_update, legt_update, memory_update, paths
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
