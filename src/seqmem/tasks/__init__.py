"""What is learned: loss and metrics of each kind of task."""

from seqmem.data.spec import DataSpec
from seqmem.tasks.base import Task
from seqmem.tasks.classification import Classification
from seqmem.tasks.forecasting import Forecasting
from seqmem.tasks.language_modelling import LanguageModelling
from seqmem.tasks.reconstruction import Reconstruction
from seqmem.tasks.regression import Regression

__all__ = ["Classification", "Forecasting", "LanguageModelling", "Reconstruction", "Regression", "Task", "task_for"]

_kinds: dict[str, type[Task]] = {
    "classification": Classification,
    "forecasting": Forecasting,
    "language_modelling": LanguageModelling,
    "reconstruction": Reconstruction,
    "regression": Regression,
}


def task_for(spec: DataSpec) -> Task:
    """The task of a data set."""
    return _kinds[spec.task](spec)
