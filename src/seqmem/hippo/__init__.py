"""HiPPO without a network: projection of signals onto coefficients, and reconstruction.

``measures.py`` has the functions that the coefficients of each measure multiply, ``projection.py`` the online projection,
``reconstruction.py`` the reconstruction and the least-squares projection, ``approximation.py`` the reading and reconstruction
of whole signals. ``python -m seqmem.hippo`` draws errors (``experiment.py``) and prints table 3 of the paper (``table.py``).
"""

from seqmem.hippo.measures import Memory
from seqmem.hippo.projection import OnlineProjection, project
from seqmem.hippo.reconstruction import least_squares, reconstruct

__all__ = ["Memory", "OnlineProjection", "least_squares", "project", "reconstruct"]
