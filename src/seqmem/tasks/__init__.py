"""Tasks: loss, metrics, masks and predictions.

To add a task, write a module here with a subclass of ``Task`` that has a ``name``: every module of this package is imported, so
nothing else has to be edited. A data set selects it by the ``task`` of its spec.
"""

from importlib import import_module
from pkgutil import iter_modules

from seqmem.data.batch import IGNORE_INDEX
from seqmem.tasks.base import Task, get, names, task_for
from seqmem.tasks.classification import Classification
from seqmem.tasks.forecasting import Forecasting
from seqmem.tasks.language_modelling import LanguageModelling
from seqmem.tasks.next_symbol import NextSymbol
from seqmem.tasks.reconstruction import Reconstruction
from seqmem.tasks.regression import Regression

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "IGNORE_INDEX",
    "Classification",
    "Forecasting",
    "LanguageModelling",
    "NextSymbol",
    "Reconstruction",
    "Regression",
    "Task",
    "get",
    "names",
    "task_for",
]
