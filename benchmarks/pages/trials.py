"""Tables of trained models: one row a setting, from a file with one row a trial.

Rows with three trials or more have a 95 % interval of the mean, by Student's t. Rows with fewer stand apart, without one.
"""

import statistics
import string
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from benchmarks.pages.blocks import table
from benchmarks.pages.files import letters, link, processor, read
from seqmem.results.intervals import mean_interval

ENOUGH = 3
"""The smallest number of trials that gets an interval."""

Trial = Mapping[str, str]


@dataclass(frozen=True)
class Column:
    """A number of each trial.

    Attributes:
        heading: of the column.
        key: column of the file.
        digits: after the decimal point.
        spread: show the sample standard deviation where there are several trials.
        timed: the number depends on the machine, and is of the trials of one machine alone.
        of: returns the number of a trial as text, or an empty one, where the file has no such column.
    """

    heading: str
    key: str
    digits: int = 3
    spread: bool = True
    timed: bool = False
    of: Callable[[Trial], str] | None = None

    def text(self, trial: Trial) -> str:
        """Return the number of a trial as text, empty if it has none."""
        return self.of(trial) if self.of else trial[self.key]


@dataclass(frozen=True)
class Trials:
    """A table of trained models.

    Attributes:
        page: name of its page in docs/results.
        file: the file below benchmarks/results.
        settings: maps a trial to the cells that name its row, by their headings. "model" is the model's name in cfg/model.
        metric: the number that is compared.
        command: what repeats the trials.
        others: further numbers.
        task: name of a row in the pages of models, with the headings of its settings in braces.
        level: the value that needs no training, such as chance, in words, or a map of a row's settings to it; empty where there
            is none.
        waiting: maps the trials of the file to the names of the rows that have none yet.
        again: returns the command that trains a trial alone, as a shell takes it.
        published: the published number, where it is of the same size and data; it is compared with the interval.
    """

    page: str
    file: str
    settings: Callable[[Trial], dict[str, str]]
    metric: Column
    command: str
    others: list[Column] = field(default_factory=list)
    task: str = ""
    level: str | Callable[[dict[str, str]], str] = ""
    waiting: Callable[[list[Trial]], list[str]] = lambda trials: []
    again: Callable[[Trial], str] = lambda trial: trial["command"]
    published: Column | None = None

    def rows(self) -> list["Row"]:
        """Return the rows in the order of the file."""
        grouped: dict[tuple[str, ...], list[Trial]] = {}
        for trial in read(self.file):
            grouped.setdefault(tuple(self.settings(trial).values()), []).append(trial)
        return [Row(self, self.settings(trials[0]), trials) for trials in grouped.values()]

    def markdown(self) -> str:
        """Return rows with intervals, then those without, then where they come from; a sentence if there is no trial."""
        rows = self.rows()
        if not rows:
            return f"No trial of this table is in {link(self.file)} yet. {self.command} trains or resumes them."
        parts, machines = [], _machines(rows)
        for several in (True, False):
            chosen = [row for row in rows if (row.count >= ENOUGH) is several]
            if chosen:
                if not several:
                    parts.append(f"Rows with fewer than {ENOUGH} trials, which have no interval:")
                parts.append(self._table(chosen, several, machines))
        missing = self.waiting([trial for row in rows for trial in row.trials])
        if missing:
            parts.append(f"Rows without a trial yet: {', '.join(f'`{name}`' for name in missing)}.")
        return "\n\n".join([*parts, self.source(rows, machines)])

    def _table(self, rows: list["Row"], intervals: bool, machines: Mapping[str, str]) -> str:
        words, numbers = list(rows[0].settings), self._numbers(intervals, machines)
        lines = [[*row.settings.values(), *(text(row) for text in numbers.values())] for row in rows]
        return table([*words, *numbers], lines, numbers=len(numbers))

    def _numbers(self, intervals: bool, machines: Mapping[str, str]) -> dict[str, Callable[["Row"], str]]:
        """Return the columns of numbers: the text of a row by the heading."""
        numbers: dict[str, Callable[[Row], str]] = {"n": lambda row: str(row.count)}
        numbers[self.metric.heading] = lambda row: row.shown(self.metric)
        if intervals:
            numbers["95 % interval"] = Row.interval
        if self.published:
            numbers[self.published.heading] = Row.against_published
        for column in self.others:
            numbers[column.heading] = partial(Row.shown, column=column)
        if len(machines) > 1:
            numbers["machine"] = partial(Row.machines, letters=machines)
        return numbers

    def source(self, rows: list["Row"], machines: Mapping[str, str]) -> str:
        """Return command, commits, dates and machines of the trials, and the file."""
        trials = [trial for row in rows for trial in row.trials]
        commits = ", ".join(f"`{commit[:10]}`" for commit in dict.fromkeys(trial["commit"] for trial in trials))
        days = sorted({trial["started"][:10] for trial in trials})
        dates = f"{days[0]} to {days[-1]}" if len(days) > 2 else " and ".join(days)
        processors = "; ".join(f"({letter}) {name}" if letter else name for name, letter in machines.items())
        versions = ", ".join(dict.fromkeys(trial["torch"] for trial in trials))
        word = "commit" if "," not in commits else "commits"
        where = f"{word} {commits}; {dates}; {processors}; torch {versions}"
        return f"Command: {self.command}; {where}. {self._timed(rows, machines)}Every trial: {link(self.file)}."

    def _timed(self, rows: list["Row"], machines: Mapping[str, str]) -> str:
        """Return a sentence about the rows whose numbers that depend on the machine are not of all trials; empty for none."""
        columns = [column.heading.partition(",")[0] for column in self.others if column.timed]
        found = []
        for row in rows:
            if columns and len(row.timed) < row.count:
                letter = machines[processor(row.timed[0]["processor"])]
                counted = f"{len(row.timed)} of {row.count} trials{f' ({letter})' if letter else ''}"
                found.append(f'"{", ".join(row.settings.values())}", {counted}')
        return f"Columns that are of one machine alone ({', '.join(columns)}): {'; '.join(found)}. " if found else ""


@dataclass(frozen=True)
class Row:
    """The trials of one setting.

    Attributes:
        of: the table.
        settings: what names the row.
        trials: of the file.
    """

    of: Trials
    settings: dict[str, str]
    trials: list[Trial]

    @property
    def count(self) -> int:
        """Number of trials."""
        return len(self.trials)

    @property
    def timed(self) -> list[Trial]:
        """The trials of the machine with most of them, or else with the newest, since times of machines are not averaged."""
        found: dict[tuple[str, str], list[Trial]] = {}
        for trial in self.trials:
            found.setdefault((processor(trial["processor"]), trial.get("threads", "")), []).append(trial)
        return max(found.values(), key=lambda trials: (len(trials), max(trial["started"] for trial in trials)))

    def values(self, column: Column) -> list[float]:
        """Return the numbers of a column."""
        trials = self.timed if column.timed else self.trials
        return [float(text) for trial in trials if (text := column.text(trial))]

    def shown(self, column: Column) -> str:
        """Return the mean, and the sample standard deviation of several trials; empty if there are no values."""
        values = self.values(column)
        if not values:
            return ""
        mean = f"{statistics.fmean(values):,.{column.digits}f}"
        several = column.spread and len(values) > 1
        return f"{mean} +/- {statistics.stdev(values):.{column.digits}f}" if several else mean

    def machines(self, letters: Mapping[str, str]) -> str:
        """Return the letters of the processors of the trials."""
        return ", ".join(sorted({letters[processor(trial["processor"])] for trial in self.trials}))

    def against_published(self) -> str:
        """Return the published number, and on which side of the interval it lies, if there are both."""
        column = self.of.published
        if not column or not (values := self.values(column)):
            return ""
        if self.count < ENOUGH:
            return self.shown(column)
        low, high = mean_interval(self.values(self.of.metric))
        side = "above" if values[0] > high else "below" if values[0] < low else "inside"
        return f"{self.shown(column)}, {side}"

    def title(self) -> str:
        """Return the name of the row in the pages of models, with the settings that it needs besides the task."""
        return self.of.task.format(**self.settings) + self._variant(self.of.rows(), self._named())

    def _named(self) -> set[str]:
        """Return the headings of the settings that the title names."""
        return {key for _, key, _, _ in string.Formatter().parse(self.of.task) if key}

    def comparison(self) -> str:
        """Return the means of the other models on the same data, which the first setting names, and the level.

        Settings in which they differ from the title of this row stand in brackets.
        """
        mean, data = replace(self.of.metric, spread=False), next(iter(self.settings))
        same = [row for row in self.of.rows() if row.settings[data] == self.settings[data]]
        others = [
            f"{row.settings['model']}{row._variant(same, beside=self)} {row.shown(mean)}"
            for row in same
            if row.settings["model"] != self.settings["model"]
        ]
        level = self.of.level if isinstance(self.of.level, str) else self.of.level(self.settings)
        return ", ".join([*dict.fromkeys(others), *([level] if level else [])])

    def _variant(self, rows: list["Row"], named: Collection[str] = (), beside: "Row | None" = None) -> str:
        """Return, in brackets, the settings in which the rows of this model differ; empty if there are none.

        Args:
            rows: all rows to distinguish.
            named: settings that are named already; rows that differ in them are not among those to distinguish.
            beside: a row of a different model. Settings in its title that are others here are shown, too.
        """
        own = [row.settings for row in rows if all(row.settings[key] == self.settings[key] for key in ("model", *named))]
        if beside:
            own.append(self.settings | {key: beside.settings[key] for key in beside._named() - {"model"}})
        found = [value for key, value in self.settings.items() if any(settings[key] != value for settings in own)]
        return f" ({', '.join(found)})" if found else ""

    def interval(self) -> str:
        """Return the 95 % interval of the mean, by Student's t."""
        low, high = mean_interval(self.values(self.of.metric))
        return f"{low:.{self.of.metric.digits}f} to {high:.{self.of.metric.digits}f}"


def _machines(rows: list[Row]) -> dict[str, str]:
    """Return a letter for each processor by its name, empty if there is only one."""
    return letters(trial["processor"] for row in rows for trial in row.trials)
