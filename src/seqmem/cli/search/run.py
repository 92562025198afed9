"""The loop of a search: draw a point, train it, report it to the study, until the budget is used."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import yaml
from hydra.plugins.launcher import Launcher
from optuna.trial import FrozenTrial, TrialState

from seqmem.cli import sweeps
from seqmem.cli.search.points import Point
from seqmem.cli.search.settings import SearchSettings, search_settings
from seqmem.cli.search.space import Space, space_of
from seqmem.cli.search.study import open_study, sampler
from seqmem.io import interrupts
from seqmem.io.files import locked, write_text

_FOLDER = "seqmem.sweep"
_waiting = TrialState.WAITING


def run(section: Mapping[str, Any], launcher: Launcher) -> None:
    """Run the search of this process's command line.

    Args:
        section: ``hydra.sweeper``.
        launcher: Hydra's, which composes and runs the job of each point.

    Raises:
        Interrupted: there was a signal; running points have saved checkpoints and are continued by the next call.
    """
    search, folder = sweeps.current.search, sweeps.current.folder
    assert search is not None
    assert folder is not None
    settings = search_settings(section)
    _Search(settings, space_of(search.overrides), folder, search.metric, launcher).run()


class _Search:
    """A search that runs.

    Args:
        settings: of the search.
        space: of its points.
        folder: of the sweep.
        metric: the validation metric, such as ``accuracy``.
        launcher: runs jobs.
    """

    def __init__(self, settings: SearchSettings, space: Space, folder: Path, metric: str, launcher: Launcher):
        self.settings, self.space, self.folder, self.launcher = settings, space, folder, launcher
        self.study = open_study(settings, space, folder, metric)
        self.budget = settings.n_trials
        if settings.sampler == "grid":
            self.budget = min(space.size(), settings.n_trials or space.size())
        self._until = time.monotonic() + 60 * (settings.timeout_minutes or float("inf"))

    def run(self) -> None:
        """Train points until the budget is used, those of an interrupted command first."""
        print(self._first_line(), flush=True)
        pool = sweeps.current.pool
        interrupted = self._interrupted()
        while (batch := self._next(interrupted)) and interrupts.received() is None:
            if pool is None:
                self._launch_elsewhere(batch)
            else:
                self._launch(*batch)
        if pool is not None:
            pool.finish()
        interrupts.raise_if_received()
        self._write_best()

    def _next(self, interrupted: Iterator[Point]) -> list[Point]:
        """Return the next points: one for this process, several for a launcher; none once the budget is used."""
        if sweeps.current.pool is not None:
            sweeps.current.pool.wait()  # the more points have ended, the better is the next one
        points: list[Point] = []
        while len(points) < (1 if sweeps.current.pool is not None else self.settings.n_jobs):
            point = next(interrupted, None) or self._drawn()
            if point is None:
                break
            points.append(point)
        return points

    def _drawn(self) -> Point | None:
        """Draw a new point; None if the budget is used."""
        with locked(self.folder / ".search.lock"):  # several commands may draw from the study
            known = sum(trial.state != _waiting for trial in self._trials())
            if time.monotonic() >= self._until or (self.budget is not None and known >= self.budget):
                return None
            self.study.sampler = sampler(self.settings, self.space, known)
            trial = self.study.ask(self.space.distributions)
            self.study.sampler = optuna.samplers.RandomSampler()  # that of a grid would stop the study at its last point
            trial.set_user_attr(_FOLDER, str(self.folder.absolute()))
            return self._point(trial, self._held(trial.number))

    def _interrupted(self) -> Iterator[Point]:
        """Yield the points of this folder that have not ended and that no process trains."""
        for trial in self._trials():
            if trial.state != TrialState.RUNNING or trial.user_attrs.get(_FOLDER) != str(self.folder.absolute()):
                continue
            with locked(self.folder / ".search.lock"):
                held = self._held(trial.number)
            if held is None:
                continue
            live = optuna.Trial(self.study, trial._trial_id)
            if trial.params.keys() == self.space.distributions.keys():
                yield self._point(live, held, trial)
            else:  # killed while it was drawn
                with held:
                    self.study.tell(live, state=TrialState.FAIL)

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _held(self, number: int) -> ExitStack | None:
        """Return the lock of a point; None if a process that trains it holds the lock."""
        held = ExitStack()
        if held.enter_context(locked(self.folder / "points" / f"{number}.lock", wait=False)):
            return held
        held.close()
        return None

    def _point(self, trial: optuna.Trial, held: ExitStack | None, before: FrozenTrial | None = None) -> Point:
        reported = list(before.intermediate_values) if before is not None else []
        overrides = self.space.overrides(trial.params)
        return Point(trial, overrides, self.settings.pruner != "none", held or ExitStack(), reported)

    def _launch(self, point: Point) -> None:
        """Train a point in this process or by the pool, perhaps until after this call."""
        sweeps.current.point = point
        try:
            self.launcher.launch([point.overrides], initial_job_idx=point.trial.number)
        finally:
            sweeps.current.point = None
        if not point.begun and interrupts.received() is None:
            point.end(TrialState.FAIL)

    def _launch_elsewhere(self, points: list[Point]) -> None:
        """Train points by a launcher that has processes of its own."""
        returned = self.launcher.launch([point.overrides for point in points], initial_job_idx=points[0].trial.number)
        interrupts.raise_if_received()
        for point, job in zip(points, returned, strict=True):
            value = job.return_value if job.status.name == "COMPLETED" else None
            point.end(*((TrialState.FAIL,) if value is None else (TrialState.COMPLETE, value)))

    def _first_line(self) -> str:
        ended = sum(trial.state.is_finished() for trial in self._trials())
        limits = [f"{self.budget} points"] if self.budget is not None else []
        minutes = self.settings.timeout_minutes
        limits += [f"{minutes:g} minutes"] if minutes is not None else []
        pruned = "" if self.settings.pruner == "none" else f", pruner {self.settings.pruner}"
        kept = self.settings.storage or self.folder / "study.db"
        so_far = f", {ended} of them ended before" if ended else ""
        return (
            f"search {self.study.study_name}: {' or '.join(limits)}{so_far}; sampler {self.settings.sampler}{pruned}, "
            f"{self.study.direction.name.lower()}; kept in {kept}"
        )

    def _write_best(self) -> None:
        """Write ``optimization_results.yaml``: the best point, and how many ended in which way."""
        trials = self._trials()
        states = {name: sum(trial.state.name == name for trial in trials) for name in ("COMPLETE", "PRUNED", "FAIL")}
        found: dict[str, Any] = {"name": "optuna", "study_name": self.study.study_name}
        if states["COMPLETE"]:
            best = self.study.best_trial
            trained = {key: self.space.dimensions[key].trained(value) for key, value in best.params.items()}
            found |= {"best_params": trained, "best_value": best.value, "best_point": best.number}
        found["points"] = {name.lower(): count for name, count in states.items() if count}
        write_text(self.folder / "optimization_results.yaml", yaml.safe_dump(found, sort_keys=False))
