"""HiPPO without a network: signals onto coefficients and back. ``python -m seqmem.hippo`` draws what that looks like.

``measures.py`` says what the coefficients of each measure stand for, ``projection.py`` has the online projection,
``reconstruction.py`` the way back and the least-squares projector that it can be held against.
"""

from seqmem.hippo.measures import Memory
from seqmem.hippo.projection import OnlineProjection, project
from seqmem.hippo.reconstruction import least_squares, reconstruct

__all__ = ["Memory", "OnlineProjection", "least_squares", "project", "reconstruct"]
