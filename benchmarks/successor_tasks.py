"""The tasks of the table of models of equal size, and which trials belong to it."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from benchmarks import other_rates
from benchmarks.entries import Entry
from seqmem import models, sequence
from seqmem.cli import choices
from seqmem.training.config import model_arguments

HERTZ = 200
"""Sampling rate of CharacterTrajectories."""

TASKS = {
    "pmnist": "permuted MNIST",
    "ct_100to200": "CharacterTrajectories, 100 Hz to 200 Hz",
    "ct_200to100": "CharacterTrajectories, 200 Hz to 100 Hz",
}
"""Tasks by the beginnings of their experiments' names."""


def has(config: Mapping[str, Any]) -> bool:
    """Return whether a trial's config is that of the experiment of its task and model."""
    name = experiment(task(config["dataset"]), models.label(model_arguments(config)))
    return name in choices.names("experiment") and _entry(name).has(config)


def experiment(task: str, model: str) -> str:
    """Return the name of the experiment of a task, as the table names it, and a model; empty if there is no such task."""
    return next((f"successors/{begin}_{model}" for begin, name in TASKS.items() if name == task), "")


def waiting(trials: Iterable[Mapping[str, str]]) -> list[str]:
    """Return the names of the table's experiments that none of its rows belongs to."""
    found = {experiment(trial["task"], trial["model"]) for trial in trials}
    begins = tuple(f"successors/{begin}_" for begin in TASKS)
    return [name for name in choices.names("experiment") if name.startswith(begins) and name not in found]


def task(dataset: Mapping[str, Any]) -> str:
    """Return the task of a data set's settings, as the table names it; empty for other data sets."""
    if dataset["name"] == "mnist" and dataset["permute"]:
        return "permuted MNIST"
    if dataset["name"] == "ct" and not dataset["timestamp"]:
        rates = [f"{dataset[key] * HERTZ:g} Hz" for key in ("train_hz", "eval_hz")]
        return f"CharacterTrajectories, {' to '.join(rates)}"
    return ""


def step_size(config: Mapping[str, Any]) -> str:
    """Return whether the model's step size follows the sampling rate of the test, "rescaled", or is "as trained"."""
    model = config["model"]
    rescales = model.get("rescale", False) and sequence.get(model["mixer"]).rescales
    return "rescaled" if other_rates.is_shifted(config) and rescales else "as trained"


@cache
def _entry(experiment: str) -> Entry:
    return Entry(experiment)
