"""Numbers by which a report's page compares two rows that its reader picks."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from seqmem.errors import UserError
from seqmem.results.aggregate import Trials
from seqmem.results.differences import SeedDifferences, check_comparable
from seqmem.results.table import INTERVAL
from seqmem.results.verdicts import SENTENCES, case

MOST_ROWS = 60
"""Largest number of rows of a data set that the page compares, which are 1,770 pairs."""


def picked_pairs(groups: Sequence[Trials]) -> dict[str, Any] | None:
    """Return the content of the page's JSON; None if no data set has two rows.

    Returns:
        ``rows``, by number: the row's name, model, data set, metric, whether more is better, test result by seed, and status of
        the other seeds. ``pairs``, by "I,J" for rows I < J of one data set: the case of the sentence, and mean, lower and upper
        end of the difference, null for none. ``sentences`` by case, and ``interval``, its name. Of a data set with more rows,
        the first ``MOST_ROWS`` count.
    """
    numbers: dict[str, list[int]] = {}
    for k, group in enumerate(groups):
        numbers.setdefault(group.dataset, []).append(k)
    shown = [rows[:MOST_ROWS] for rows in numbers.values() if len(rows) > 1]
    if not shown:
        return None
    return {
        "rows": {k: _row(groups[k]) for rows in shown for k in rows},
        "pairs": {f"{i},{j}": _pair(groups[i], groups[j]) for rows in shown for i, j in combinations(rows, 2)},
        "sentences": SENTENCES,
        "interval": INTERVAL,
    }


def _row(group: Trials) -> dict[str, Any]:
    results = zip(group.finished, group.results("test"), strict=True)
    return {
        "name": f"{group.model} on {group.dataset}",
        "model": group.model,
        "dataset": group.dataset,
        "metric": group.metric,
        "more": group.best == "max",
        "results": {run.record["seed"]: _finite(value) for run, value in results},
        "others": {run.record["seed"]: run.status for run in group.unfinished if run.record["seed"] is not None},
    }


def _pair(first: Trials, second: Trials) -> list[Any]:
    try:
        check_comparable([first, second])
    except UserError:
        return ["different", None, None, None]
    pair = SeedDifferences(first, second)
    return [case(pair), *map(_finite, (pair.mean, *pair.interval))]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
