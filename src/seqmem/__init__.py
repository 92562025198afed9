"""seqmem: models that remember long sequences.

Nothing in this package needs Hydra or ``train.py``: cells, models and operators can be imported into any PyTorch program.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("seqmem")
except PackageNotFoundError:
    __version__ = "0+source"
