"""Mean ranks of models over several data sets, with Wilcoxon's signed-rank test of each pair and Holm's correction.

Demsar (2006) compares models over data sets by ranks. Benavoli et al. (2016) replace the test of mean ranks, whose outcome for
a pair depends on the other models, by Wilcoxon's test of the pair.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from seqmem.results.aggregate import Trials, mean_and_deviation
from seqmem.results.intervals import CONFIDENCE
from seqmem.results.paired_tests import holm

FEWEST_DATA_SETS = 5
LEVEL = round(1 - CONFIDENCE, 10)
_MOST_SIGNS = 13


@dataclass(frozen=True)
class Ranking:
    """Models ranked on each of several data sets.

    Attributes:
        models: names of the M models.
        datasets: names of the D data sets, at least ``FEWEST_DATA_SETS``.
        scores: (D, M) mean test metric, negated where a smaller one is better.
    """

    models: tuple[str, ...]
    datasets: tuple[str, ...]
    scores: np.ndarray

    @cached_property
    def mean_ranks(self) -> np.ndarray:
        """(M,) mean over data sets of the rank, 1 for the best; equal scores share the mean of their ranks."""
        from scipy.stats import rankdata

        return rankdata(-_rounded(self.scores), axis=1).mean(axis=0)

    @property
    def friedman(self) -> float:
        """p value of Friedman's test that all models are equal; NaN for two models, which it is not made for."""
        from scipy.stats import friedmanchisquare

        scores = _rounded(self.scores)
        if len(self.models) < 3 or (scores == scores[:, :1]).all():
            return float("nan")
        return float(friedmanchisquare(*scores.T).pvalue)

    @cached_property
    def pairs(self) -> dict[tuple[int, int], tuple[float, float]]:
        """p value of Wilcoxon's signed-rank test for each pair of models, and the same after Holm's correction."""
        places = list(combinations(range(len(self.models)), 2))
        p_values = [_wilcoxon(self.differences(i, j)) for i, j in places]
        return dict(zip(places, zip(p_values, holm(p_values), strict=True), strict=True))

    def differ(self, first: int, second: int) -> bool:
        """Whether two models differ at the 5 % level after Holm's correction."""
        return self.pairs[min(first, second), max(first, second)][1] < LEVEL

    def differences(self, first: int, second: int) -> np.ndarray:
        """(D,) score of the first model minus that of the second; means that differ by rounding alone are equal."""
        scores = _rounded(self.scores)
        return _rounded(scores[:, first] - scores[:, second])

    def signed_ranks(self, first: int, second: int) -> float:
        """Sum of the ranks of absolute differences with their signs: positive if the test favours the first model."""
        from scipy.stats import rankdata

        differences = self.differences(first, second)
        return float(np.sign(differences) @ rankdata(np.abs(differences)))

    @cached_property
    def groups(self) -> list[tuple[int, ...]]:
        """Largest sets of models of which no pair differs, each in the order of mean ranks.

        They are the maximal cliques of the graph of pairs that do not differ, without those of a single model. Two models are
        in a common group if and only if the test finds no difference between them.
        """
        order = sorted(range(len(self.models)), key=lambda model: (self.mean_ranks[model], model))
        near = {model: {other for other in order if other != model and not self.differ(model, other)} for model in order}
        found = [clique for clique in _cliques(set(), set(order), set(), near) if len(clique) > 1]
        places = {model: place for place, model in enumerate(order)}
        return sorted(
            (tuple(sorted(clique, key=places.__getitem__)) for clique in found), key=lambda each: [*map(places.get, each)]
        )

    @property
    def smallest_p_value(self) -> float:
        """Smallest p value that a pair can have after Holm's correction with this number of data sets and models."""
        return min(1.0, len(self.pairs) * 2.0 ** (1 - len(self.datasets)))


def ranking(models: Sequence[str], rows: dict[tuple[str, str], Trials]) -> tuple[Ranking | None, str]:
    """Rank models by their mean test metric over all finished trials, as the report has it.

    Data sets count on which every model has a finite result, in one metric: that of most of them, since the sizes of
    differences in different metrics cannot be ranked together.

    Args:
        models: names of the models.
        rows: the rows of a report by (data set, model).

    Returns:
        The ranking, None for fewer than ``FEWEST_DATA_SETS``; and a line about what was left out, empty for nothing.
    """
    datasets = list(dict.fromkeys(dataset for dataset, _ in rows))
    scores: dict[str, dict[str, list[float]]] = {}
    for dataset in datasets:
        found = [rows[dataset, model] for model in models if (dataset, model) in rows]
        means = [mean_and_deviation(row.results("test"))[0] for row in found]
        if len(found) == len(models) and np.isfinite(means).all():
            sign = 1 if found[0].best == "max" else -1
            scores.setdefault(found[0].metric, {})[dataset] = [sign * mean for mean in means]
    metric, used = max(scores.items(), key=lambda item: len(item[1]), default=("", {}))
    missing = [dataset for dataset in datasets if dataset not in used]
    note = f"not ranked: {', '.join(missing)}, where a row has no result or a metric other than {metric}" if missing else ""
    if len(used) < FEWEST_DATA_SETS:
        names = f" ({', '.join(used)})" if used else ""
        return None, (
            f"no mean ranks: got {len(used)} data set{'s' * (len(used) != 1)} of one metric with a result of every row{names}, "
            f"expected at least {FEWEST_DATA_SETS}"
        )
    return Ranking(tuple(models), tuple(used), np.array(list(used.values()))), note


def _rounded(values: np.ndarray) -> np.ndarray:
    """Return values of 12 significant digits: the means of 0.6, 0.7, 0.8 and of three times 0.7 differ by rounding alone."""
    return np.vectorize(lambda value: float(f"{value:.11e}"), otypes=[float])(values)


def _wilcoxon(differences: np.ndarray) -> float:
    """Return the two-sided p value of Wilcoxon's signed-rank test; differences of 0 are left out.

    It is exact, but for more than 50 differences, or more than ``_MOST_SIGNS`` of which some have equal sizes.
    """
    from scipy.stats import PermutationMethod, wilcoxon

    found = differences[differences != 0]  # with them, scipy takes the normal approximation
    sizes = np.abs(found)
    if not len(sizes):
        return 1.0
    # Before scipy 1.15, the default for tied sizes is the normal approximation: 0.03 instead of 0.0625 for five equal ones.
    is_tied = len(sizes) <= _MOST_SIGNS and len(np.unique(sizes)) < len(sizes)
    return float(wilcoxon(found, method=PermutationMethod(n_resamples=2**_MOST_SIGNS) if is_tied else "auto").pvalue)


def _cliques(chosen: set[int], candidates: set[int], excluded: set[int], near: dict[int, set[int]]) -> list[set[int]]:
    """Return the maximal cliques that contain ``chosen`` (Bron and Kerbosch 1973)."""
    if not candidates and not excluded:
        return [chosen]
    found = []
    pivot = max(candidates | excluded, key=lambda model: len(near[model] & candidates))
    for model in sorted(candidates - near[pivot]):
        found += _cliques(chosen | {model}, candidates & near[model], excluded & near[model], near)
        candidates, excluded = candidates - {model}, excluded | {model}
    return found
