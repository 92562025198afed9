"""A point of a search: a job whose trials are judged by Optuna's pruner, and whose validation is the point's value."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import optuna
from optuna.trial import TrialState

from seqmem.results.record import RunFolder
from seqmem.training.engines.attempts import Attempt
from seqmem.training.loop.pruning import Judge

if TYPE_CHECKING:
    from seqmem.results import Experiment


class Point:
    """A point that is trained now.

    The pruner compares the curves of the points' first seeds. The value of a point is the mean of its seeds. It takes part in
    a job as :class:`seqmem.training.engines.watcher.Watcher`.

    Args:
        trial: Optuna's trial, which has the point's parameters.
        overrides: of its job.
        prunes: whether the search has a pruner.
        held: the lock of the point, released at its end.
        reported: epochs of the first seed that the study has.

    Attributes:
        stopped: the pruner has stopped it.
        state: of its end; None before.
        noted: called with the reason once the pruner has stopped it.
    """

    def __init__(self, trial: optuna.Trial, overrides: list[str], prunes: bool, held: ExitStack, reported: Sequence[int] = ()):
        self.trial, self.overrides = trial, overrides
        self.stopped = False
        self.state: TrialState | None = None
        self.noted: Callable[[str], None] = lambda reason: None
        self._prunes, self._held = prunes, held
        self._reported = set(reported)
        self._first: RunFolder | None = None
        self._metric = ""

    @property
    def begun(self) -> bool:
        """Whether its job has loaded data and model."""
        return self._first is not None

    def begin(self, experiment: "Experiment", first_seed: int, metric: str) -> None:
        """Take the folders of the trials.

        Args:
            experiment: of the job.
            first_seed: of its trials.
            metric: name of the validation metric in a row of metrics.csv.
        """
        self._first, self._metric = experiment.trial(first_seed), metric
        if (self._first.path / "record.json").exists():
            # Pruned by a command that was interrupted before it reported this to the study.
            self.stopped = self._prunes and self._first.read_record().get("status") == "pruned"
        self.trial.set_user_attr("folder", str(Path(experiment.folder).absolute()))

    def judge(self, seed: int) -> Judge | None:
        """Return what judges the trial of a seed: the pruner for the first, its judgement so far for the others."""
        if not self._prunes:
            return None
        if self._first is not None and self._first.path.name == f"seed_{seed}":
            return self._judge_first
        return lambda epochs, value, is_last: self.stopped

    def ended(self, attempts: Sequence[Attempt]) -> None:
        """Tell the study the outcome of the trials."""
        records = [attempt.record for attempt in attempts]
        finished = [record for record in records if record is not None and record["status"] == "finished"]
        self._report_epochs()
        if any(attempt.failure is not None for attempt in attempts) or not (finished or self.stopped):
            self.end(TrialState.FAIL)
        elif self.stopped:
            pruned = next(record for record in records if record is not None and record["status"] == "pruned")
            self.noted(pruned["reason"])
            self.end(TrialState.PRUNED)
        else:
            self.end(TrialState.COMPLETE, mean(record["result"][f"val/{record['metric']}"] for record in finished))

    def end(self, state: TrialState, value: float | None = None) -> None:
        """Tell the study how the point ended, once."""
        if self.state is None:
            self.state = state
            self.trial.study.tell(self.trial, value, state=state)
            self._held.close()

    def _judge_first(self, epochs: int, value: float, is_last: bool) -> bool:
        if self.stopped or epochs in self._reported:  # judged before an interruption
            return self.stopped
        self._report_epochs()
        self._report(epochs, value)
        if is_last:
            return False
        self.stopped = bool(self.trial.should_prune())
        return self.stopped

    def _report_epochs(self) -> None:
        """Report the epochs that the trial had before this command, if the study lacks them."""
        metrics = self._first.read_metrics() if self._first is not None else None
        if metrics is not None and self._metric in metrics:
            for epoch, value in zip(metrics["epoch"], metrics[self._metric], strict=True):
                self._report(int(epoch) + 1, float(value))

    def _report(self, epochs: int, value: float) -> None:
        if epochs not in self._reported:
            self._reported.add(epochs)
            self.trial.report(value, epochs)
