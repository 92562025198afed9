"""Picture of the tests of memory: what each model remembers, at a length of its training and at a longer one."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from benchmarks import memory_tasks
from benchmarks.pages.results import MEMORY
from benchmarks.pages.trials import Column

_YEARS = {
    "lstm": 1997,
    "gru": 2014,
    "lmu_plain": 2019,
    "legs": 2020,
    "s4d": 2022,
    "s5": 2022,
    "lru": 2023,
    "mamba": 2023,
    "slstm": 2024,
    "mingru": 2024,
}
_COLOURS = LinearSegmentedColormap.from_list("accuracy", ["white", "C0"])


@dataclass(frozen=True)
class _Pair:
    """Two columns of the picture.

    Attributes:
        task: the name of the file of its trials.
        label: in two lines.
        columns: a column of the file by its label: as in training, and then harder.
    """

    task: str
    label: str
    columns: dict[str, str]


_LENGTHS = {"40": "at_40", "256": "at_256"}
_WORDS = {"20": "at_20", "40": "at_40"}
_PAIRS = (
    _Pair("selective_copying", "selective\ncopying", {"64": "at_64", "256": "at_256"}),
    _Pair("induction", "induction\nheads", {"64": "at_64", "1,024": "at_1024"}),
    _Pair("mqar", "recall of\n4, 16 keys", {"4": "at_64", "16": "test_accuracy"}),
    _Pair("flip_flop", "flip-\nflop", {"p 0.8": "test_accuracy", "0.98": "p_0.98"}),
    _Pair("even_pairs", "even\npairs", _LENGTHS),
    _Pair("parity", "\nparity", _LENGTHS),
    _Pair("cycle_navigation", "cycle\nnavigation", _LENGTHS),
    _Pair("modular_arithmetic", "arithmetic\nmodulo 5", _LENGTHS),
    _Pair("group_words_z60", "words\nof Z60", _WORDS),
    _Pair("group_words_a5", "words\nof A5", _WORDS),
)


_CHANCE = {task.name: task.chance for task in memory_tasks.MEMORY}


def memory_tests(figure: Figure) -> None:
    """Draw the mean accuracy of each model and task as a cell, white at chance, models by the year of their papers."""
    figure.set_size_inches(7.2, 3.2)
    axes = figure.subplots()
    models, labels = list(_YEARS), [label for pair in _PAIRS for label in pair.columns]
    shares = np.full((len(models), len(labels)), np.nan)
    for place, pair in enumerate(_PAIRS):
        axes.text(2 * place + 0.5, -1.3, pair.label, ha="center", va="bottom", fontsize=7)
        for row in MEMORY[pair.task].rows():
            line = models.index(row.settings["model"])
            for column, key in enumerate(pair.columns.values(), 2 * place):
                accuracy, chance = statistics.fmean(row.values(Column("", key))), _CHANCE[pair.task]
                share = shares[line, column] = max(0.0, (accuracy - chance) / (1 - chance))
                ink = "white" if share > 0.6 else "black"
                axes.text(column, line, f"{accuracy:.2f}", ha="center", va="center", fontsize=5.5, color=ink)
    axes.pcolormesh(range(len(labels)), range(len(models)), shares, cmap=_COLOURS, vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, fontsize=6)
    axes.set_yticks(range(len(models)), [f"{model}, {year}" for model, year in _YEARS.items()], fontsize=7)
    axes.vlines([2 * place - 0.5 for place in range(1, len(_PAIRS))], -0.5, len(models) - 0.5, color="0.6", linewidth=0.6)
    axes.set(xlim=(-0.5, len(labels) - 0.5), ylim=(len(models) - 0.5, -0.5))
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)


PICTURES: dict[str, Callable[[Figure], None]] = {"memory_tests": memory_tests}
