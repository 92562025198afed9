"""Means over the trials of a folder that one command has evaluated."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from seqmem.results.aggregate import Trials, mean_and_deviation
from seqmem.results.formats import Columns
from seqmem.results.intervals import mean_interval
from seqmem.results.table import INTERVAL, interval, spread, spread_of


@dataclass(frozen=True)
class Evaluated:
    """The metric of an evaluation.

    Attributes:
        trial: folder of the trial.
        dataset: name of the data set, on which it was evaluated.
        split: "test", "validation" or "train".
        metric: name of the metric.
        value: of the metric.
        in_training: the record's value of the same metric and split; NaN if it has none.
    """

    trial: Path
    dataset: str
    split: str
    metric: str
    value: float
    in_training: float


def means(evaluated: Sequence[Evaluated], rows: Iterable[Trials]) -> Columns:
    """Return the mean of each row of the report over its evaluated trials, beside the mean of the same trials in training.

    Args:
        evaluated: evaluations of one command.
        rows: of the report.
    """
    by_trial = {each.trial.resolve(): each for each in evaluated}
    found = [
        (row, members)
        for row in rows
        if (members := [by_trial[path] for run in row.runs if (path := run.folder.path.resolve()) in by_trial])
    ]
    metrics = list(dict.fromkeys(each.metric for each in evaluated))
    heading = f"{evaluated[0].split} {metrics[0]}" if len(metrics) == 1 else evaluated[0].split
    values = [[each.value for each in members] for _, members in found]
    ends = [mean_interval(each) for each in values]
    return {
        "data set": [members[0].dataset for _, members in found],
        "model": [row.model for row, _ in found],
        **({"metric": [members[0].metric for _, members in found]} if len(metrics) > 1 else {}),
        "n": [str(len(members)) for _, members in found],
        heading: [spread_of(each) for each in values],
        **({} if all(math.isnan(low) for low, _ in ends) else {INTERVAL: [interval(*each) for each in ends]}),
        "in training": [spread(*mean_and_deviation([each.in_training for each in members])) for _, members in found],
    }
