"""Differences of two rows of a table over the seeds that both have."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from seqmem.errors import UserError
from seqmem.results.aggregate import Trials, mean_and_deviation
from seqmem.results.intervals import mean_interval


@dataclass(frozen=True)
class SeedDifferences:
    """Test results of two rows on the same data, seed by seed.

    Attributes:
        first, second: the rows.
    """

    first: Trials
    second: Trials

    @cached_property
    def seeds(self) -> list[int]:
        """Seeds with a result in both rows, in ascending order."""
        both = self._results(self.first).keys() & self._results(self.second).keys()
        return sorted(both)

    @cached_property
    def values(self) -> tuple[list[float], list[float]]:
        """Test results of the first and the second row by shared seed."""
        results = self._results(self.first), self._results(self.second)
        first, second = ([found[seed] for seed in self.seeds] for found in results)
        return first, second

    @cached_property
    def differences(self) -> list[float]:
        """First minus second, by shared seed."""
        return [a - b for a, b in zip(*self.values, strict=True)]

    @property
    def mean(self) -> float:
        """Mean difference; NaN without a shared seed."""
        return mean_and_deviation(self.differences)[0]

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean difference by Student's t, see :func:`seqmem.results.intervals.mean_interval`."""
        return mean_interval(self.differences)

    @property
    def p_value(self) -> float:
        """p value of the paired t test; NaN where there is no interval, or where all differences are equal."""
        from scipy.stats import ttest_rel

        if math.isnan(self.interval[0]) or self.are_equal:
            return math.nan
        return float(ttest_rel(*self.values).pvalue)

    @property
    def are_equal(self) -> bool:
        """Whether all differences are equal up to rounding, so that a t test does not apply."""
        return max(self.differences) - min(self.differences) <= self._rounding

    @property
    def are_tied(self) -> bool:
        """Whether both rows have the same mean up to rounding."""
        return abs(self.mean) <= self._rounding

    @property
    def _rounding(self) -> float:
        """Bound of the rounding of a difference, relative to the results: a mean squared error may be far below 1e-12."""
        return 1e-12 * max(abs(value) for values in self.values for value in values)

    @property
    def left_out(self) -> str:
        """Seeds that are not compared, with the reason: ``first seed 2 failed``; empty if there are none."""
        states = [(name, seed_states(row)) for name, row in (("first", self.first), ("second", self.second))]
        others = {seed for _, found in states for seed in found}.difference(self.seeds)
        pairs = [(seed, name, found.get(seed, "not trained")) for seed in sorted(others, key=str) for name, found in states]
        return ", ".join(f"{name} seed {seed} {state}" for seed, name, state in pairs if state != "finished")

    @staticmethod
    def _results(row: Trials) -> dict[int, float]:
        return {run.record["seed"]: value for run, value in zip(row.finished, row.results("test"), strict=True)}


def check_comparable(rows: Sequence[Trials]) -> None:
    """Check that rows of one data set have the same data and metric.

    Raises:
        UserError: naming two rows that differ.
    """
    known = [row for row in rows if row.finished]
    for name, values in (
        ("metric", [row.metric for row in known]),
        ("checksum of the data", [row.runs[0].data for row in known]),
    ):
        given = [(row, value) for row, value in zip(known, values, strict=True) if value]
        for row, value in given[1:]:
            first, expected = given[0]
            if value != expected:
                raise UserError(
                    f"{first.model} and {row.model} on {row.dataset}: got {name} {expected} and {value}, expected the same; "
                    "--rows chooses rows to compare"
                )


def seed_states(row: Trials) -> dict[int | str, str]:
    """Return the status of each seed's trial; of a trial that was found twice, that of the finished one."""
    runs = sorted(row.runs, key=lambda run: run.finished)
    return {"unknown" if run.record["seed"] is None else run.record["seed"]: run.status for run in runs}
