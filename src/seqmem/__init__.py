"""seqmem: models that remember long sequences.

Nothing in this package needs Hydra or ``train.py``: cells, models and operators can be imported into any PyTorch program.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqmem.compat.quick_train import quick_train

try:
    __version__ = version("seqmem")
except PackageNotFoundError:
    __version__ = "0+source"

__all__ = ["quick_train"]

# Faces that train, imported when first asked for.
_faces = {"quick_train": "seqmem.compat.quick_train"}


def __getattr__(name: str) -> Any:
    if name not in _faces:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_faces[name]), name)
