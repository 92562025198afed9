"""Names of tasks, models and metrics in papers, with our data sets, models and settings.

A paper or one of its tables may give a name a meaning of its own. It comes before the meaning that the name has without one.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

Meaning = tuple[str, Mapping[str, Any]]
"""A data set or a model, and the settings that the name requires."""
Meanings = Mapping[str, Sequence[Meaning]]

_kept_in_steps = {"dataset.train_uniform": True, "dataset.eval_uniform": True}
_missing = {
    "dataset.train_hz": 1.0,
    "dataset.eval_hz": 1.0,
    "dataset.train_uniform": False,
    "dataset.eval_uniform": False,
    "dataset.timestamp": True,
}

TASKS: Meanings = {
    "permuted MNIST": [("mnist", {"dataset.permute": True})],
    "CharacterTrajectories 100Hz to 200Hz": [("ct", {**_kept_in_steps, "dataset.train_hz": 0.5, "dataset.eval_hz": 1.0})],
    "CharacterTrajectories 200Hz to 100Hz": [("ct", {**_kept_in_steps, "dataset.train_hz": 1.0, "dataset.eval_hz": 0.5})],
    "CharacterTrajectories missing values upsample": [("ct", {**_missing, "dataset.train_ts": 0.5, "dataset.eval_ts": 1.0})],
    "CharacterTrajectories missing values downsample": [("ct", {**_missing, "dataset.train_ts": 1.0, "dataset.eval_ts": 0.5})],
    "function approximation, 10^6 steps, order 256": [("white_noise", {"dataset.length": 1_000_000, "model.order": 256})],
    "Mackey-Glass, 15 steps ahead": [("mackey_glass", {"dataset.horizon": 15})],
}
"""Data set and settings by the name of a task in papers."""

MODELS: Meanings = {
    "legt_theta20": [("legt", {"model.cell_args.dt": 0.05})],
    "legt_theta200": [("legt", {"model.cell_args.dt": 0.005})],
    "rand": [("legsn", {})],
    "hybrid": [("lmu_plain_lstm", {})],
    "legs (tlsi where times are given)": [("legs", {"dataset.timestamp": False}), ("tlsi", {"dataset.timestamp": True})],
    "hmlstm": [("hmlstm", {"model.cell_args.layer_norm": False})],
    "hmlstm with layer norm": [("hmlstm", {"model.cell_args.layer_norm": True})],
}
"""Models and settings by the name of a model in papers."""

_bit_reversal: Meanings = {"permuted MNIST": [("mnist", {"dataset.permute": True, "dataset.permutation": "bitreversal"})]}
_of_the_nru: Meanings = {"permuted MNIST": [("mnist", {"dataset.permute": True, "dataset.permutation": "nru"})]}
_without_gate: Sequence[Meaning] = [(name, {"model.cell_args.gate": "N"}) for name in ("lmu_plain", "lmu")]
_with_gate: Sequence[Meaning] = [("lmu", {"model.cell_args.gate": "G"})]

TASKS_OF: Mapping[tuple[str, str], Meanings] = {
    ("HiPPO", ""): _bit_reversal,
    ("IGLOO", ""): _of_the_nru,
    ("LMU", ""): _of_the_nru,
}
"""The same by a paper and its table; an empty table for all of them."""

MODELS_OF: Mapping[tuple[str, str], Meanings] = {
    ("HiPPO", "1"): {"lmu": _without_gate},
    ("HiPPO", "2"): {"gru": [("mgu", {})], "lmu": _with_gate},  # its GRU is the minimal gated unit of HiPPO's code
    ("HiPPO", "appendix"): {"lmu": _with_gate},
    ("LMU", ""): {"lmu": _without_gate},
}
"""The same by a paper and its table; an empty table for all of them."""

METRICS = {
    "accuracy": "accuracy",
    "bits per character": "bpc",
    "mean squared error": "mse",
    "normalised RMSE": "nrmse",
}
"""Names of our metrics by their names in papers."""


def plain(name: str) -> str:
    """Return a name without case, blanks and punctuation."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def is_task(paper: str, table: str, name: str, dataset: str, settings: Mapping[str, Any]) -> bool:
    """Return whether a data set with these settings is the task of a paper's table.

    Args:
        paper: its name, with or without a source in parentheses; empty if it is not known.
        table: its name, such as "2".
        name: of the task, in the paper or here.
        dataset: its name here.
        settings: the flat config.
    """
    return _is(_meanings("task", paper, table, name), dataset, settings)


def is_model(paper: str, table: str, name: str, model: str, settings: Mapping[str, Any]) -> bool:
    """Return whether a model with these settings is that of a paper's table; see :func:`is_task`."""
    return _is(_meanings("model", paper, table, name), model, settings)


@cache
def _meanings(kind: Literal["task", "model"], paper: str, table: str, name: str) -> Sequence[Meaning]:
    """Return the meanings of a name in a table, else in its paper, else in all papers, else itself."""
    common, of_tables = (TASKS, TASKS_OF) if kind == "task" else (MODELS, MODELS_OF)
    given = plain(paper.partition("(")[0]), plain(table).removeprefix("table")
    tables = {(plain(paper), plain(table)): names for (paper, table), names in of_tables.items()}
    for names in (tables.get(given, {}), tables.get((given[0], ""), {}), common):
        for known, meanings in names.items():
            if plain(known) == plain(name):
                return meanings
    return [(name, {})]


def _is(meanings: Sequence[Meaning], ours: str, settings: Mapping[str, Any]) -> bool:
    return any(
        plain(ours) == plain(name) and all(key in settings and settings[key] == value for key, value in required.items())
        for name, required in meanings
    )
