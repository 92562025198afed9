"""Single comparisons of two rows: over shared seeds, over test sequences, and over data sets."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from seqmem.results.aggregate import Trials, mean_and_deviation
from seqmem.results.differences import SeedDifferences
from seqmem.results.kept_predictions import NOT_KEPT, Scores, check_same_sequences, different_sequences, kept_scores
from seqmem.results.paired_tests import bootstrap_interval, holm, mcnemar
from seqmem.results.ranks import Ranking
from seqmem.results.reading import Run

FEWEST_SEQUENCES = 20
"""Smallest number of test sequences that are resampled: the bootstrap's interval is too short for few of them."""


@dataclass(frozen=True)
class Line:
    """One comparison of two rows.

    Attributes:
        dataset: name of the data set; empty for a comparison over data sets.
        first, second: names of the rows.
        metric: name of the test metric; "mean rank" over data sets.
        best: "max" or "min", the better end of the metric.
        method: "paired t", "McNemar", "bootstrap" or "Wilcoxon".
        of: trained models that are compared: "seed 0", "3 seeds"; empty where seeds or data sets are what is compared.
        n: number of what is compared, in ``unit``: seeds, sequences or data sets.
        unit: of n.
        first_mean, second_mean: mean metrics, or mean ranks.
        low, high: 95 % interval of the difference, first minus second; NaN for none.
        p: p value of the test; NaN for none.
        p_holm: the same after Holm's correction for all lines of that test; NaN for none.
        left_out: seeds that are not compared, with the reason.
    """

    dataset: str
    first: str
    second: str
    metric: str
    best: str
    method: str
    of: str
    n: int
    unit: str
    first_mean: float
    second_mean: float
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    p_holm: float = math.nan
    left_out: str = ""

    @property
    def difference(self) -> float:
        """First minus second."""
        return self.first_mean - self.second_mean

    @property
    def in_order(self) -> tuple[str, str]:
        """Names of the better and the worse row."""
        is_first = (self.difference > 0) == (self.best == "max")
        return (self.first, self.second) if is_first else (self.second, self.first)


def seed_line(pair: SeedDifferences) -> Line:
    """Compare two rows over their shared seeds by the paired t test."""
    first, second = (mean_and_deviation(values)[0] for values in pair.values)
    line = _line(pair, "paired t", "", len(pair.seeds), "seed", (first, second), pair.interval, pair.p_value)
    return replace(line, left_out=pair.left_out)


def sequence_lines(pair: SeedDifferences) -> tuple[list[Line], str]:
    """Compare the trained models of two rows over the test sequences, where both have kept their predictions.

    Each seed has a line with the interval of the paired bootstrap, and where a sequence has one class, with the p value of
    McNemar's test. Several seeds have a line with the mean over them, too, if all were tested on the same sequences.

    Returns:
        The lines; and the reason why a seed or the mean has none, empty if all have one.

    Raises:
        UserError: both have kept predictions, but of different sequences.
    """
    lines, note = [], ""
    kept: list[tuple[Scores, Scores]] = []
    rows = (pair.first, pair.second)
    scores_of = {seed: [kept_scores(_trial(row, seed), row.metric) for row in rows] for seed in pair.seeds}
    for seed, (first, second) in scores_of.items():
        if isinstance(first, Scores) and isinstance(second, Scores):
            check_same_sequences(first, second)
            count = int((first.weights > 0).sum())
            if count < FEWEST_SEQUENCES:
                return [], (
                    f"no test over sequences on {pair.first.dataset}: got {count} test sequences, "
                    f"expected at least {FEWEST_SEQUENCES}"
                )
            kept.append((first, second))
            lines.append(_of_sequences(pair, f"seed {seed}", [(first, second)]))
        elif not note:
            note = _not_kept(pair, seed, scores_of)
    if len(kept) > 1 and not any(different_sequences(kept[0][0], scores) for scores, _ in kept[1:]):
        lines.append(_of_sequences(pair, f"{len(kept)} seeds", kept))
    elif len(kept) > 1 and not note:
        note = f"no test over the sequences of all seeds on {pair.first.dataset}: each seed has its own test split"
    return lines, note


def rank_lines(ranks: Ranking) -> list[Line]:
    """Compare each pair of ranked models by Wilcoxon's test; Holm's correction is for all of these pairs."""
    lines = []
    for (i, j), (p, p_holm) in ranks.pairs.items():
        means = (float(ranks.mean_ranks[i]), float(ranks.mean_ranks[j]))
        names = (ranks.models[i], ranks.models[j])
        n = len(ranks.datasets)
        lines.append(Line("", *names, "mean rank", "min", "Wilcoxon", "", n, "data set", *means, p=p, p_holm=p_holm))
    return lines


def corrected(lines: Sequence[Line]) -> list[Line]:
    """Return lines with Holm's correction within each test that several of them have."""
    families: dict[str, list[int]] = {}
    for place, line in enumerate(lines):
        if not math.isnan(line.p):
            families.setdefault(line.method, []).append(place)
    found = list(lines)
    for places in families.values():
        if len(places) > 1:
            for place, p in zip(places, holm([lines[place].p for place in places]), strict=True):
                found[place] = replace(lines[place], p_holm=p)
    return found


def _of_sequences(pair: SeedDifferences, of: str, kept: Sequence[tuple[Scores, Scores]]) -> Line:
    """Compare trained models, or the mean over several pairs of them, over their test sequences."""
    first, second = (np.mean([scores[row].sums for scores in kept], axis=0) for row in (0, 1))
    weights = kept[0][0].weights
    counted = weights > 0
    means = float(first.sum() / weights.sum()), float(second.sum() / weights.sum())
    interval = bootstrap_interval((first - second)[counted], weights[counted])
    if len(kept) == 1 and pair.first.metric == "accuracy" and weights.max() == 1:
        p = mcnemar(first[counted] == 1, second[counted] == 1)
        return _line(pair, "McNemar", of, int(counted.sum()), "sequence", means, interval, p)
    return _line(pair, "bootstrap", of, int(counted.sum()), "sequence", means, interval)


def _not_kept(pair: SeedDifferences, seed: int, scores_of: Mapping[int, Sequence[Scores | str]]) -> str:
    """Return the reason why the trials of a seed are not compared over test sequences, and what mends that of all seeds."""
    rows = (pair.first, pair.second)
    row, reason = next((row, scores) for row, scores in zip(rows, scores_of[seed], strict=True) if isinstance(scores, str))
    folders = dict.fromkeys(
        _trial(of, each).folder.path.parent
        for place, of in enumerate(rows)
        for each, scores in scores_of.items()
        if scores[place] == NOT_KEPT
    )
    commands = [f"seqmem evaluate {shlex.quote(str(folder))} predictions=predictions.npz" for folder in folders]
    way = f"; {' and '.join(commands)} keep{'s' * (len(commands) == 1)} them" if commands else ""
    return f"no test over sequences for seed {seed} on {row.dataset}: {row.model}: {reason}{way}"


def _trial(row: Trials, seed: int) -> Run:
    return next(run for run in row.finished if run.record["seed"] == seed)


def _line(
    pair: SeedDifferences,
    method: str,
    of: str,
    n: int,
    unit: str,
    means: tuple[float, float],
    interval: tuple[float, float],
    p: float = math.nan,
) -> Line:
    first, second = pair.first, pair.second
    return Line(first.dataset, first.model, second.model, first.metric, first.best, method, of, n, unit, *means, *interval, p=p)
