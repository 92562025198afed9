"""Reader of run folders: fast for thousands of them, and robust to damaged records."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from seqmem.errors import UserError
from seqmem.results.machines import backend, machine, machine_name
from seqmem.results.record import RunFolder

MANIFEST = "sweep.json"
UNKNOWN = "unknown"
_IDENTITY = {"dataset": str, "model": str, "group": str, "seed": int}
_OPTIONAL = {"code": str, "commit": str, "data": str, "backend": str, "result_last": dict, "overrides": list}
_STATES = ("finished", "failed", "interrupted", "pruned", "running")
_UNKNOWN_RECORD = {"dataset": UNKNOWN, "model": UNKNOWN, "group": "", "seed": None}
_NOT_RUNS = ("checkpoints", "tensorboard")


@dataclass(frozen=True)
class Run:
    """State of a trial on disk.

    Attributes:
        folder: folder of the record, which may not exist.
        status: "finished", "failed", "interrupted", "pruned" or "running" as recorded; "pruned" also for a trial that a search
            did not begin, since it pruned a trial of the same job; "missing" for other trials of a sweep without a record;
            "damaged" for a record that cannot be read, or is finished without a result; "repeated" for a trial that was found
            before in a different folder.
        reason: why it is not finished, in one line; empty if it is.
        record: the part of the record that could be read; dataset, model, group and seed always exist, seed is None if it is
            not known.
    """

    folder: RunFolder
    status: str
    reason: str
    record: dict[str, Any]

    @property
    def finished(self) -> bool:
        """Whether it has a result."""
        return self.status == "finished"

    @property
    def version(self) -> str:
        """Version of the code: ``code=`` with the fingerprint of the sources, in older records ``commit=``."""
        key = "code" if self.record.get("code") else "commit"
        return f"{key}={self.record.get(key) or UNKNOWN}"

    @property
    def data(self) -> str:
        """Checksum of the data; empty if it is not known."""
        return self.record.get("data") or ""

    @cached_property
    def backend(self) -> str:
        """Device kind and path of the operators, such as ``cpu compiled``; empty if they are not known."""
        accelerator = None
        if not self.record.get("backend") and machine(self.record).get("gpu") is not None:
            with suppress(OSError, ValueError, KeyError, TypeError):
                accelerator = self.folder.read_config()["runner"]["accelerator"]
        return backend(self.record, accelerator)

    @property
    def machine(self) -> str:
        """Hardware that its times depend on; empty if it is not known."""
        return machine_name(self.record, self.backend.partition(" ")[0])


def find_runs(folder: Path) -> list[Run]:
    """Find the trials of a sweep's folder, or all trials below any other folder.

    Those of a sweep are in the order of its manifest, others in the order of their starts.

    A trial of a manifest without a record is "missing", also if the manifest is below the folder, unless the trial has a record
    elsewhere below it. Of trials of equal settings, seed, data, code and backend the first finished one counts, and the
    others are "repeated".

    Raises:
        UserError: there is no such folder, or its manifest cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"got {folder}, which is not a folder, expected one with run records below it")
    if (folder / MANIFEST).exists():
        return list(_of_sweep(folder / MANIFEST))
    paths, manifests = _run_folders(folder)
    runs = _adopted([read_run(RunFolder(path)) for path in paths])
    known = {each for run in runs for each in (_trial(run), (*_trial(run), run.backend))}
    for manifest in manifests:
        try:
            missing = [run for run in _named(manifest) if not _has_record(run) and _planned(run) not in known]
        except UserError as error:
            missing = [Run(RunFolder(manifest.parent), "damaged", str(error), dict(_UNKNOWN_RECORD))]
        known |= {each for run in missing for each in (_trial(run), _planned(run))}
        runs += missing
    return _once(sorted(runs, key=_start))


def _start(run: Run) -> tuple[float, str]:
    """Return the sorting key of a trial's start; earlier records have local times with their offset from UTC."""
    started = str(run.record.get("started") or "")
    try:
        time = datetime.fromisoformat(started)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp(), started
    except (ValueError, OverflowError):
        return math.inf, started


def read_run(folder: RunFolder) -> Run:
    """Read a trial's record; a problem with it becomes the status "damaged" and its reason."""
    unknown = dict(_UNKNOWN_RECORD)
    try:
        record = folder.read_record()
    except FileNotFoundError:
        return Run(folder, "damaged", "there is no record.json", unknown)
    except (OSError, ValueError) as error:
        return Run(folder, "damaged", f"record.json cannot be read ({error})", unknown)
    missing = [key for key, kind in _IDENTITY.items() if not isinstance(record.get(key), kind)]
    invalid = [key for key, kind in _OPTIONAL.items() if not isinstance(record.get(key), kind | None)]
    if missing or invalid:
        valid = {key: value for key, value in record.items() if key not in invalid}
        reason = f"record.json has no valid {', '.join(missing + invalid)}"
        return Run(folder, "damaged", reason, {**valid, **unknown} if missing else valid)
    status = record.get("status")
    if status == "finished":
        reason = _unusable_result(record)
        return Run(folder, "damaged" if reason else "finished", reason, record)
    if status == "running":
        process = record.get("process")
        return Run(folder, status, f"no end is recorded: it is still running, or was killed (process {process})", record)
    if status not in _STATES:
        return Run(folder, "damaged", "record.json has no valid status", record)
    return Run(folder, status, " ".join(str(record.get("reason") or "no reason is recorded").split()), record)


def _unusable_result(record: Mapping[str, Any]) -> str:
    """The reason why a finished record's result cannot be averaged; empty if it can."""
    metric, result = record.get("metric"), record.get("result")
    if not isinstance(metric, str) or not isinstance(result, dict):
        return "record.json is finished, but has no result"
    for name in (f"test/{metric}", f"val/{metric}"):
        if not isinstance(result.get(name), int | float):
            return f"record.json is finished, but its result has no number for {name}"
    return ""


def _run_folders(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders of trials and the manifests of sweeps below a folder."""
    trials: list[Path] = []
    manifests: list[Path] = []
    for path, folders, files in os.walk(folder):
        if "record.json" in files or ("config.yaml" in files and "checkpoints" in folders):
            trials.append(Path(path))
        if MANIFEST in files:
            manifests.append(Path(path) / MANIFEST)
        folders[:] = [name for name in folders if name not in _NOT_RUNS and not name.startswith(".")]
    return sorted(trials), sorted(manifests)


def _trial(run: Run) -> tuple[Any, ...]:
    """Identity of a trial, independent of code, data and backend."""
    return tuple(run.record[key] for key in _IDENTITY)


def _planned(run: Run) -> tuple[Any, ...]:
    """Identity of a trial of a manifest, which does not know the backend of a job that has not begun."""
    return (*_trial(run), run.backend) if run.backend else _trial(run)


def _identity(run: Run) -> tuple[Any, ...]:
    """Identity of a finished trial."""
    return (*_trial(run), run.version, run.data, run.backend)


def _once(runs: list[Run]) -> list[Run]:
    first: dict[tuple[Any, ...], Run] = {}
    for run in runs:
        if run.finished:
            first.setdefault(_identity(run), run)
    found = []
    for run in runs:
        other = first.get(_identity(run), run) if run.finished else run
        reason = f"the same trial as {other.folder.path}"
        found.append(run if other is run else replace(run, status="repeated", reason=reason))
    return found


def _adopted(runs: list[Run]) -> list[Run]:
    """Give a record without an identity that of the others in its folder, if these agree."""
    found = []
    for _, siblings in groupby(runs, key=lambda run: run.folder.path.parent):
        members = list(siblings)
        keys = ("dataset", "model", "group", "code", "commit", "data", "backend")
        known = [{key: run.record.get(key) for key in keys} for run in members if run.record["group"]]
        agreed = known[0] if known and all(each == known[0] for each in known) else {}
        found += [run if run.record["group"] else replace(run, record={**run.record, **agreed}) for run in members]
    return found


def _of_sweep(manifest: Path) -> Iterator[Run]:
    """The trials of a manifest, each once, in its order."""
    for named in _named(manifest):
        if _has_record(named):
            run = read_run(named.folder)
            yield run if run.record["group"] else replace(run, record={**run.record, **named.record})
        else:
            yield named


def _named(manifest: Path) -> list[Run]:
    """The trials of a manifest, as if none had a record."""
    try:
        jobs = json.loads(manifest.read_text(encoding="utf-8"))["jobs"]
        trials = {
            Path(os.path.normpath(manifest.parent / (job["folder"] or f"job {number}") / f"seed_{seed}")): (job, seed)
            for number, job in enumerate(jobs)
            for seed in job["seeds"]
        }
        return [_expected(path, job, seed) for path, (job, seed) in trials.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"cannot read the sweep's manifest {manifest} ({type(error).__name__}: {error})") from None


def _expected(path: Path, job: Mapping[str, Any], seed: int) -> Run:
    record = {
        "dataset": job.get("data_name") or job.get("dataset") or UNKNOWN,
        "model": job.get("model") or UNKNOWN,
        "group": job.get("group") or "",
        "code": job.get("code"),
        "backend": job.get("backend"),
        "overrides": job.get("overrides") or [],
        "seed": seed,
    }
    if pruned := job.get("pruned"):
        return Run(RunFolder(path), "pruned", f"it was not started, since a trial of the same job was {pruned}", record)
    reason = job.get("failure") or ("it was started, but has no record" if path.exists() else "it was not started")
    return Run(RunFolder(path), "missing", reason, record)


def _has_record(run: Run) -> bool:
    return (run.folder.path / "record.json").exists()
