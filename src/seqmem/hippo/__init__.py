"""HiPPO without a network: project signals onto coefficients and reconstruct them. ``python -m seqmem.hippo`` draws the errors.

``measures.py`` defines what the coefficients of each measure mean, ``projection.py`` has the online projection,
``reconstruction.py`` the reconstruction and the least-squares projection to compare with, ``approximation.py`` the reading and
reconstruction of whole signals (table 3 of the paper, which ``table.py`` prints).
"""

from seqmem.hippo.measures import Memory
from seqmem.hippo.projection import OnlineProjection, project
from seqmem.hippo.reconstruction import least_squares, reconstruct

__all__ = ["Memory", "OnlineProjection", "least_squares", "project", "reconstruct"]
