"""seqmem: models that remember long sequences.

Cells, models and operators can be imported into any PyTorch program, without Hydra or the command line. :func:`train` trains
what ``seqmem train`` trains, and :func:`load` returns the trained model. The names of the original packages (``from seqmem
import HMLSTMNetwork``) are those of :mod:`seqmem.compat`. Each of these names is imported on first use.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqmem.cli.program import train
    from seqmem.compat.hmlstm import (
        HMLSTMNetwork,
        convert_to_batches,
        get_text,
        plot_indicators,
        prepare_inputs,
        viz_char_boundaries,
    )
    from seqmem.compat.quick_train import quick_train
    from seqmem.training.checkpoints.trained import load

try:
    __version__ = version("seqmem")
except PackageNotFoundError:
    __version__ = "0+source"

__all__ = [
    "HMLSTMNetwork",
    "convert_to_batches",
    "get_text",
    "load",
    "plot_indicators",
    "prepare_inputs",
    "quick_train",
    "train",
    "viz_char_boundaries",
]

_modules = dict.fromkeys(__all__, "compat.hmlstm") | {
    "load": "training.checkpoints.trained",
    "quick_train": "compat.quick_train",
    "train": "cli.program",
}


def __getattr__(name: str) -> Any:
    if name not in _modules:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_modules[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
