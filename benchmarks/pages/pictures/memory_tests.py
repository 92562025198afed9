"""Picture of the tests of memory: what each model remembers, at a length of its training and at a longer one."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from benchmarks import memory_tasks
from benchmarks.pages.results import MEMORY
from benchmarks.pages.trials import ENOUGH, Column

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
class _Part:
    """A column of the picture.

    Attributes:
        label: above it.
        key: column of the file of trials.
        chance: accuracy of guessing; None for that of the task.
    """

    label: str
    key: str
    chance: float | None = None


def _at(*lengths: int) -> tuple[_Part, ...]:
    return tuple(_Part(f"{length:,}", f"at_{length}") for length in lengths)


_LONGER_WORDS = (*_at(20), _Part("40", "at_40", (1 + 39 / 60) / 40))  # the first answer is the input

_TASKS = {
    "selective_copying": ("selective\ncopying", _at(64, 256)),
    "induction": ("induction\nheads", _at(64, 1024)),
    "mqar": ("recall of\n4, 16 keys", (_Part("4", "at_64", 1 / 4), _Part("16", "test_accuracy", 1 / 16))),
    "flip_flop": ("flip-\nflop", (_Part("p 0.8", "test_accuracy"), _Part("0.98", "p_0.98"))),
    "even_pairs": ("even\npairs", _at(40, 256)),
    "parity": ("\nparity", _at(40, 256)),
    "cycle_navigation": ("cycle\nnavigation", _at(40, 256)),
    "modular_arithmetic": ("arithmetic\nmodulo 5", _at(40, 256)),
    "group_words_z60": ("words\nof Z60", _LONGER_WORDS),
    "group_words_a5": ("words\nof A5", _LONGER_WORDS),
}
"""Label and columns of each task, by its name."""

_CHANCE = {task.name: task.chance for task in memory_tasks.MEMORY}


def memory_tests(figure: Figure) -> None:
    """Draw mean accuracies as a table of cells, white at chance; rows with few trials are left out."""
    figure.set_size_inches(7.2, 3.2)
    axes = figure.subplots()
    models, labels = list(_YEARS), [part.label for _, parts in _TASKS.values() for part in parts]
    above_chance = np.full((len(models), len(labels)), np.nan)
    for index, (task, (label, parts)) in enumerate(_TASKS.items()):
        axes.text(2 * index + 0.5, -1.3, label, ha="center", va="bottom", fontsize=7)
        for row in MEMORY[task].rows():
            y = models.index(row.settings["model"])
            for x, part in enumerate(parts if row.count >= ENOUGH else (), 2 * index):
                accuracy = statistics.fmean(row.values(Column("", part.key)))
                chance = _CHANCE[task] if part.chance is None else part.chance
                above = above_chance[y, x] = max(0.0, (accuracy - chance) / (1 - chance))
                color = "white" if above > 0.6 else "black"
                axes.text(x, y, f"{accuracy:.2f}", ha="center", va="center", fontsize=5.5, color=color)
    axes.pcolormesh(range(len(labels)), range(len(models)), above_chance, cmap=_COLOURS, vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, fontsize=6)
    axes.set_yticks(range(len(models)), [f"{model}, {year}" for model, year in _YEARS.items()], fontsize=7)
    axes.vlines([2 * index - 0.5 for index in range(1, len(_TASKS))], -0.5, len(models) - 0.5, color="0.6", linewidth=0.6)
    axes.set(xlim=(-0.5, len(labels) - 0.5), ylim=(len(models) - 0.5, -0.5))
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)


PICTURES: dict[str, Callable[[Figure], None]] = {"memory_tests": memory_tests}
