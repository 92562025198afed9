"""The live view of a sweep or a search in a terminal, and the job that it follows."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from seqmem.io import interrupts, terminal

if TYPE_CHECKING:
    from seqmem.cli.search.points import Point
    from seqmem.results import Experiment
    from seqmem.training.engines.attempts import Attempt
    from seqmem.training.engines.job_lines import JobLines
    from seqmem.training.loop.pruning import Judge


def of_sweep(jobs: Sequence[Mapping[str, Any]], swept: Sequence[str], total: int | None, is_search: bool) -> "JobLines | None":
    """Return the view of a sweep whose jobs this process runs; None where standard output is not a terminal.

    Args:
        jobs: entries of the jobs that are known, as in the manifest.
        swept: keys that differ between the jobs.
        total: number of jobs; None if it has no limit.
        is_search: a search chooses the jobs.
    """
    if not sys.stdout.isatty():
        return None
    from seqmem.results.experiment import title
    from seqmem.training.engines.job_lines import JobLines

    view = JobLines(total, "points" if is_search else "jobs")
    for number, job in enumerate(jobs):
        view.add(str(number), title(job["model"], job["dataset"], values(job["overrides"], swept)))
    return view


def values(overrides: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    """Return the values of those overrides whose keys are in ``keys``."""
    pairs = (override.lstrip("+").partition("=") for override in overrides)
    return {key: value for key, _, value in pairs if key in keys}


class Watched:
    """A job that a view and perhaps a search follow; see :class:`seqmem.training.engines.watcher.Watcher`.

    Args:
        view: of the sweep; None without a terminal.
        key: of the job in the view.
        point: of the search; None without one.
    """

    def __init__(self, view: "JobLines | None", key: str, point: "Point | None"):
        self._view, self._key, self._point = view, key, point

    @property
    def stopped(self) -> bool:
        """Whether the search has stopped the job."""
        return self._point is not None and self._point.stopped

    def judge(self, seed: int) -> "Judge | None":
        """Return what judges the trial of a seed for the search."""
        return None if self._point is None else self._point.judge(seed)

    def ended(self, attempts: Sequence["Attempt"]) -> None:
        """Pass the outcomes on, and show them."""
        if self._point is not None:
            self._point.ended(attempts)
        failures = [attempt.failure for attempt in attempts if attempt.failure is not None]
        if self._view is not None and not failures:  # the job itself notes its failure
            records = [attempt.record for attempt in attempts if attempt.record is not None]
            self._view.end(self._key, *_outcome(records))

    @contextmanager
    def shown(self, experiment: "Experiment", label: str, dataset: str) -> Iterator[None]:
        """Show the job as running, and the trials that this process trains within the block by their positions."""
        if self._view is None:
            yield
            return
        view, name = self._view, f"{experiment.folder.name}/here"
        view.begin(self._key, experiment.title(label, dataset), experiment.folder.name)

        def show(text: str) -> None:
            view.show("status", name, text)
            view.refresh()

        terminal.status_line = show
        try:
            yield
        finally:
            terminal.status_line = None
            view.show("end", name, "")
            if interrupts.received() is not None:  # before the line that ends the command
                view.close()

    def failed(self, reason: str) -> None:
        """Show why the job failed."""
        if self._view is not None:
            self._view.end(self._key, "failed", reason)


def _outcome(records: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Return the state and the line of a job whose trials have not failed."""
    from seqmem.results.table import spread_of

    if pruned := [record["reason"] for record in records if record["status"] == "pruned"]:
        return "pruned", pruned[0].removeprefix("pruned by the search ")
    metric = records[0]["metric"]
    found = {split: [record["result"][f"{split}/{metric}"] for record in records] for split in ("val", "test")}
    validation, test = map(spread_of, found.values())
    count = f" (n = {len(records)})" if len(records) > 1 else ""
    return "done", f"validation {metric} {validation}, test {test}{count}"
