"""Seeds of rows that have no result, in few words."""

from collections.abc import Iterable, Sequence

from seqmem.results.chosen_rows import Rows
from seqmem.results.differences import seed_states

MOST_NAMED = 6
"""Largest number of seeds, of data sets, and of groups of them that a line names."""


def unfinished_lines(models: Sequence[str], rows: Rows) -> list[str]:
    """Return a line for each model without some of the seeds.

    They are the seeds that any row of the data set has, each with its state.
    Data sets with the same missing seeds are named together: ``gru: 4 of 6 trials have no result: seeds 1, 2 failed on a, b``.

    Args:
        models: names of the rows, see :func:`seqmem.results.chosen_rows.chosen`.
        rows: their trials by (data set, model).
    """
    states = {key: seed_states(row) for key, row in rows.items()}
    lines = []
    for model in models:
        total, missing = 0, 0
        datasets: dict[str, list[str]] = {}
        for dataset in (dataset for dataset, each in rows if each == model):
            own = states[dataset, model]
            seeds = {seed for (name, _), found in states.items() if name == dataset for seed in found}
            lacking: dict[str, list[str]] = {}
            for seed in sorted(seeds, key=_in_order):
                if own.get(seed) != "finished":
                    lacking.setdefault(own.get(seed, "not trained"), []).append(str(seed))
            total, missing = total + len(seeds), missing + sum(map(len, lacking.values()))
            if lacking:
                words = ", ".join(f"seed{'s' * (len(each) > 1)} {_few(each)} {state}" for state, each in lacking.items())
                datasets.setdefault(words, []).append(dataset)
        if missing:
            groups = [f"{words} on {_few(names)}" for words, names in datasets.items()]
            lines.append(f"{model}: {missing} of {total} trials have no result: {_few(groups, '; ')}")
    return lines


def _in_order(seed: int | str) -> tuple[bool, int | str]:
    """Return a key that sorts numbers before the word for an unknown seed."""
    return isinstance(seed, str), seed


def _few(names: Iterable[str], between: str = ", ") -> str:
    """Return the first names, and how many more there are."""
    every = list(names)
    more = len(every) - MOST_NAMED
    return between.join(every[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
