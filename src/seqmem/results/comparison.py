"""Comparison of rows of a report: the lines of its table, and sentences that say what they allow to say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from seqmem.errors import UserError
from seqmem.results import verdicts
from seqmem.results.chosen_rows import Rows
from seqmem.results.comparison_lines import Line, corrected, rank_lines, seed_line, sequence_lines
from seqmem.results.differences import SeedDifferences, check_comparable
from seqmem.results.formats import Columns
from seqmem.results.labels import shortened
from seqmem.results.ranks import LEVEL, Ranking, ranking
from seqmem.results.table import INTERVAL, number, p_equals, p_value
from seqmem.results.unfinished import unfinished_lines

if TYPE_CHECKING:
    import pandas as pd

MOST_RANKED = 24
"""Largest number of rows that are ranked: more names do not fit in a picture."""


@dataclass(frozen=True)
class Comparison:
    """What is known about rows of a report.

    Attributes:
        lines: single comparisons.
        sentences: what the numbers allow to say.
        notes: what was not computed, and why; mean ranks, and the trials without a result that they leave out.
        ranking: over data sets; None where these are too few.
    """

    lines: list[Line]
    sentences: list[str]
    notes: list[str]
    ranking: Ranking | None

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that are compared."""
        return list(dict.fromkeys(line.metric for line in self.lines if line.dataset))


def compare_rows(models: Sequence[str], rows: Rows, over_sequences: bool = True) -> Comparison:
    """Compare rows pair by pair on each data set, and over data sets if there are enough of them.

    Args:
        models: names of the rows, see :func:`seqmem.results.chosen_rows.chosen`.
        rows: their trials by (data set, model).
        over_sequences: compare two rows over their test sequences, too.

    Raises:
        UserError: rows of a data set differ in data, metric or test sequences; or more than ``MOST_RANKED`` rows would be
            ranked.
    """
    pairs = _pairs(models, rows)
    lines, reasons = [seed_line(pair) for pair in pairs], dict[str, str]()
    for pair in pairs if over_sequences and len(models) == 2 else []:
        found, reason = sequence_lines(pair)
        lines += found
        reasons |= {pair.first.dataset: reason} if reason else {}
    notes = _first_of(reasons)
    ranks, note = ranking(models, rows)
    if ranks:
        if len(models) > MOST_RANKED:
            raise UserError(f"--rows: got {len(models)} rows, expected at most {MOST_RANKED} to rank; name those to compare")
        lines += rank_lines(ranks)
        notes.append(verdicts.mean_ranks(ranks))
        if len(models) > 2:  # the table then has no line of seeds, which names those that are not compared
            notes += unfinished_lines(models, rows)
    lines = corrected(lines)
    notes += [note] if note else []
    sentences = _sentences(pairs, lines) + ([verdicts.over_data_sets(ranks)] if ranks else [])
    return Comparison(lines, sentences, notes, ranks)


def _first_of(reasons: Mapping[str, str]) -> list[str]:
    """Return the reason why the first data set has no test over sequences, with the names of the others that lack one."""
    others = ", ".join([*reasons][1:])
    return [reason + (f"; also incomplete: {others}" if others else "") for reason in [*reasons.values()][:1]]


def frame(lines: Sequence[Line]) -> "pd.DataFrame":
    """Return all lines with all columns, in full precision."""
    import pandas as pd

    columns = (
        *("dataset", "first", "second", "metric", "method", "of", "n", "unit", "first_mean", "second_mean", "difference"),
        *("low", "high", "p", "p_holm", "left_out"),
    )
    return pd.DataFrame([[getattr(line, name) for name in columns] for line in lines], columns=list(columns))


def shown(comparison: Comparison, models: Sequence[str]) -> Columns:
    """Return the table to print: of two rows all lines; of more rows those of mean ranks, or of seeds without ranks."""
    two = len(models) == 2
    lines = [line for line in comparison.lines if two or not comparison.ranking or line.method == "Wilcoxon"]
    metrics = list(dict.fromkeys(line.metric for line in lines))
    short = dict(zip(models, shortened(models), strict=True))
    first, second = short.values() if two else ("mean of first", "mean of second")
    return {
        "data set": [line.dataset or "all" for line in lines],
        **({} if two else {"first": [short[line.first] for line in lines], "second": [short[line.second] for line in lines]}),
        **({"metric": [line.metric for line in lines]} if len(metrics) > 1 else {}),
        "method": [f"{line.method}, {line.of}" if line.of else line.method for line in lines],
        "n": [f"{line.n} {line.unit}{'s' * (line.n != 1)}" for line in lines],
        first: [number(line.first_mean) for line in lines],
        second: [number(line.second_mean) for line in lines],
        "difference": [number(line.difference, "+") for line in lines],
        **_if_any({INTERVAL: [_signed(line.low, line.high) for line in lines]}),
        **_if_any({"p": [p_value(line.p) for line in lines]}),
        **_if_any({"p (Holm)": [p_value(line.p_holm) for line in lines]}),
        **_if_any({"not compared": [line.left_out or "-" for line in lines]}),
    }


def _if_any(column: Columns) -> Columns:
    """Return a column without which the table would have the same information as nothing."""
    return {name: cells for name, cells in column.items() if any(cell != "-" for cell in cells)}


def _signed(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{number(low, '+')} to {number(high, '+')}"


def _pairs(models: Sequence[str], rows: Rows) -> list[SeedDifferences]:
    """Return each pair of rows on each data set.

    Raises:
        UserError: rows of a data set differ in data or metric.
    """
    pairs = []
    for dataset in dict.fromkeys(dataset for dataset, _ in rows):
        found = [rows[dataset, model] for model in models if (dataset, model) in rows]
        check_comparable(found)
        pairs += [SeedDifferences(first, second) for first, second in combinations(found, 2)]
    return pairs


def _sentences(pairs: Sequence[SeedDifferences], lines: Sequence[Line]) -> list[str]:
    if len(pairs) > 1:
        tested = [line for line in lines if line.method == "paired t" and not math.isnan(line.p)]
        different = [line for line in tested if (line.p if math.isnan(line.p_holm) else line.p_holm) < LEVEL]
        named = [f"{' better than '.join(line.in_order)} on {line.dataset}" for line in different]
        return [verdicts.over_pairs(named, len(tested))]
    found = [verdicts.over_seeds(pairs[0])]
    of_sequences = [line for line in lines if line.unit == "sequence"]
    trials = sum(line.of.startswith("seed ") for line in of_sequences)
    # Several seeds without a line of their mean have different test sequences.
    return found + ([_over_sequences(of_sequences[-1], trials)] if trials == 1 or len(of_sequences) > trials else [])


def _over_sequences(line: Line, trials: int) -> str:
    """Return the sentence about test sequences, from the line of all seeds if there are several."""
    if line.method == "McNemar":
        evidence, is_different = f"McNemar's {p_equals(line.p)}", line.p < LEVEL
    else:
        evidence, is_different = f"{INTERVAL} {_signed(line.low, line.high)}", line.low > 0 or line.high < 0
    return verdicts.over_sequences(*line.in_order, evidence, trials, is_different)
