"""Sentences that say what a comparison allows to say, and what it does not."""

import math
from collections.abc import Sequence

from seqmem.results.differences import SeedDifferences
from seqmem.results.ranks import LEVEL, Ranking
from seqmem.results.table import INTERVAL, number, p_equals

_MOST_NAMED = 6

_HAS = "On {dataset}, {better} has the {comparative} test {metric} by "
_NEITHER = "the numbers do not allow to say which is better"

SENTENCES = {
    "none": "On {dataset}, {first} and {second} share no seed with a result: the numbers say nothing about their difference.",
    "not_finite": "On {dataset}, a test {metric} is not finite: the numbers say nothing about {first} and {second}.",
    "different": "On {dataset}, {first} and {second} have different data or metrics: they cannot be compared.",
    "tied": f"On {{dataset}}, {{first}} and {{second}} have the same mean test {{metric}} over {{seeds}}: {_NEITHER}.",
    "one": f"{_HAS}{{size}} with the one shared seed: one seed does not allow to say whether other seeds give the same order.",
    "two": (
        f"{_HAS}{{size}} on average over two shared seeds: these are too few for an interval, and do not allow to say "
        "whether other seeds give the same order."
    ),
    "constant": f"{_HAS}the same {{size}} with each of {{seeds}}: a t test does not apply to differences without variation.",
    "excludes": (
        f"{_HAS}{{size}} on average over {{seeds}} ({{interval}} {{low}} to {{high}}): the numbers allow to say that it is "
        "better than {worse} with these settings on these data, and nothing about others."
    ),
    "includes": (
        f"{_HAS}{{size}} on average over {{seeds}}, but the {{interval}} ({{low}} to {{high}}) contains 0: {_NEITHER}, nor "
        "that both are equally good."
    ),
}
"""Sentences about two rows over shared seeds; the report's page fills in the same ones."""


def case(pair: SeedDifferences) -> str:
    """Return the key of the sentence in ``SENTENCES`` that fits two rows."""
    n, (low, high) = len(pair.seeds), pair.interval
    if n == 0:
        return "none"
    if not math.isfinite(pair.mean):
        return "not_finite"
    if pair.are_tied:
        return "tied"
    if n < 3:
        return "one" if n == 1 else "two"
    if pair.are_equal:
        return "constant"
    return "excludes" if low > 0 or high < 0 else "includes"


def over_seeds(pair: SeedDifferences) -> str:
    """Return the sentence about two rows on one data set over their shared seeds."""
    return SENTENCES[case(pair)].format(**_words(pair))


def over_sequences(better: str, worse: str, evidence: str, trials: int, is_different: bool) -> str:
    """Return the sentence about trained models over the test sequences.

    Args:
        better, worse: names of the rows.
        evidence: the interval or p value.
        trials: number of trained models of each row.
        is_different: whether the evidence excludes equality.
    """
    models = "these two trained models" if trials == 1 else f"these {trials} pairs of trained models"
    if is_different:
        said = f"the numbers allow to say that {better} is better than {worse} on test sequences of this kind"
    else:
        said = f"{_NEITHER} on test sequences of this kind"
    return f"For {models}, {said} ({evidence}); this says nothing about models of other seeds."


def over_pairs(different: Sequence[str], pairs: int) -> str:
    """Return the sentence about several pairs of rows over shared seeds.

    Args:
        different: ``A better than B on DATASET`` for each pair that differs after Holm's correction.
        pairs: number of all pairs with a p value.
    """
    if not pairs:
        return f"No pair of rows has three shared seeds with results that vary: {_NEITHER}."
    start = f"After Holm's correction for {_counted(pairs, 'paired t test')}, " if pairs > 1 else "By one paired t test, "
    if not different:
        return f"{start}no pair differs: {_NEITHER}, nor that all are equally good."
    others = "" if len(different) == pairs else f"; for the other pairs {_NEITHER}"
    return f"{start}the numbers allow to say: {_named(different)}{others}."


def over_data_sets(ranking: Ranking) -> str:
    """Return the sentence about models over several data sets."""
    names = ranking.models
    ordered = [(i, j) if ranking.signed_ranks(i, j) > 0 else (j, i) for i, j in ranking.pairs if ranking.differ(i, j)]
    different = [f"{names[i]} better than {names[j]}" for i, j in ordered]
    datasets, pairs = len(ranking.datasets), len(ranking.pairs)
    start = f"Over {datasets} data sets, Wilcoxon's test" + (f" with Holm's correction for {pairs} pairs" if pairs > 1 else "")
    if different:
        others = "" if len(different) == pairs else f"; for the other pairs {_NEITHER}"
        return f"{start} allows to say: {_named(different)}{others}."
    could = ranking.smallest_p_value
    possible = f", and none could with so few, since p is at least {number(could)}" if could >= LEVEL else ""
    return f"{start} finds no difference{possible}: {_NEITHER}, nor that all are equally good."


def mean_ranks(ranking: Ranking) -> str:
    """Return a line with the mean ranks, the best first, and for three models or more the p value of Friedman's test."""
    order = sorted(zip(ranking.mean_ranks, ranking.models, strict=True))
    friedman = "" if math.isnan(ranking.friedman) else f"; Friedman's test of equal rows: {p_equals(ranking.friedman)}"
    return (
        f"mean ranks over {', '.join(ranking.datasets)}: " + ", ".join(f"{name} {rank:.2f}" for rank, name in order) + friedman
    )


def _words(pair: SeedDifferences) -> dict[str, str]:
    """Return the words of a sentence; size and interval are of the better row's advantage."""
    first, second, n = pair.first, pair.second, len(pair.seeds)
    is_first_larger = pair.mean > 0
    larger, smaller = (first, second) if is_first_larger else (second, first)
    better, worse = (larger, smaller) if first.best == "max" else (smaller, larger)
    low, high = pair.interval if is_first_larger else (-pair.interval[1], -pair.interval[0])
    return {
        "dataset": first.dataset,
        "first": first.model,
        "second": second.model,
        "metric": first.metric,
        "better": better.model,
        "worse": worse.model,
        "comparative": "higher" if first.best == "max" else "lower",
        "size": number(abs(pair.mean)),
        "seeds": _counted(n, "shared seed"),
        "interval": INTERVAL,
        "low": number(low),
        "high": number(high),
    }


def _named(different: Sequence[str]) -> str:
    more = len(different) - _MOST_NAMED
    return ", ".join(different[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _counted(number_of: int, noun: str) -> str:
    return f"{number_of} {noun}{'s' * (number_of != 1)}"
