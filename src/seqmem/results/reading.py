"""Run folders read back: thousands of them quickly, and none of them trusted to be whole."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from seqmem.errors import UserError
from seqmem.results.record import RunFolder

MANIFEST = "sweep.json"
UNKNOWN = "unknown"
_IDENTITY = {"dataset": str, "model": str, "group": str, "seed": int}
_OPTIONAL = {"code": str, "commit": str, "data": str, "result_last": dict, "overrides": list}
_STATES = ("finished", "failed", "interrupted", "running")
_NOTHING_TOLD = {"dataset": UNKNOWN, "model": UNKNOWN, "group": "", "seed": None}
_NOT_RUNS = ("checkpoints", "tensorboard")


@dataclass(frozen=True)
class Run:
    """A trial as it was found.

    Attributes:
        folder: where its record is, or should be.
        status: "finished", "failed", "interrupted" or "running" as its record says; "missing" for a trial of a sweep that has
            no record; "damaged" for a record that cannot be read, or tells of an end without a result; "repeated" for one that
            was found before, in another folder.
        reason: why it is not finished, in one line; empty if it is.
        record: what could be read; dataset, model, group and seed are always there, seed None where it is not known.
    """

    folder: RunFolder
    status: str
    reason: str
    record: dict[str, Any]

    @property
    def finished(self) -> bool:
        """Whether it has a result that counts."""
        return self.status == "finished"

    @property
    def version(self) -> str:
        """What the code was: ``code=`` with the sources' fingerprint, in older records ``commit=``."""
        key = "code" if self.record.get("code") else "commit"
        return f"{key}={self.record.get(key) or UNKNOWN}"

    @property
    def data(self) -> str:
        """A checksum of what the data were; empty where that is not known."""
        return self.record.get("data") or ""


def find_runs(folder: Path) -> list[Run]:
    """The trials of the sweep whose manifest ``folder`` holds, or where it holds none, all below it as they were started.

    A manifest's trial without a record is "missing", also where the manifest lies below the folder, unless the trial has a
    record elsewhere below it. Of trials of equal settings, seed, data and code the first that finished counts, and the others
    are "repeated".

    Raises:
        UserError: there is no such folder, or its manifest cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"got {folder}, which is not a folder, expected one with run records below it")
    if (folder / MANIFEST).exists():
        return list(_of_sweep(folder / MANIFEST))
    paths, manifests = _run_folders(folder)
    runs = _adopted([read_run(RunFolder(path)) for path in paths])
    there = {_trial(run) for run in runs}
    for manifest in manifests:
        try:
            missing = [run for run in _named(manifest) if not _has_record(run) and _trial(run) not in there]
        except UserError as error:
            missing = [Run(RunFolder(manifest.parent), "damaged", str(error), dict(_NOTHING_TOLD))]
        there |= set(map(_trial, missing))
        runs += missing
    return _once(sorted(runs, key=lambda run: str(run.record.get("started") or "later")))


def read_run(folder: RunFolder) -> Run:
    """A trial's record, or what is wrong with it."""
    unknown = dict(_NOTHING_TOLD)
    try:
        record = folder.read_record()
    except FileNotFoundError:
        return Run(folder, "damaged", "there is no record.json", unknown)
    except (OSError, ValueError) as error:
        return Run(folder, "damaged", f"record.json cannot be read ({error})", unknown)
    if not isinstance(record, dict):
        return Run(folder, "damaged", f"record.json holds a {type(record).__name__}, expected an object", unknown)
    lost = [key for key, kind in _IDENTITY.items() if not isinstance(record.get(key), kind)]
    odd = [key for key, kind in _OPTIONAL.items() if not isinstance(record.get(key), kind | None)]
    if lost or odd:
        told = {key: value for key, value in record.items() if key not in odd}
        reason = f"record.json does not tell its {', '.join(lost + odd)}"
        return Run(folder, "damaged", reason, {**told, **unknown} if lost else told)
    status = record.get("status")
    if status == "finished":
        reason = _unusable_result(record)
        return Run(folder, "damaged" if reason else "finished", reason, record)
    if status == "running":
        process = record.get("process")
        return Run(folder, status, f"no end is recorded: it runs still, or was killed (process {process})", record)
    if status not in _STATES:
        return Run(folder, "damaged", "record.json does not tell its status", record)
    return Run(folder, status, " ".join(str(record.get("reason") or "no reason is recorded").split()), record)


def _unusable_result(record: Mapping[str, Any]) -> str:
    """Why a finished record's result cannot be averaged; empty if it can."""
    metric, result = record.get("metric"), record.get("result")
    if not isinstance(metric, str) or not isinstance(result, dict):
        return "record.json says finished, but has no result"
    for name in (f"test/{metric}", f"val/{metric}"):
        if not isinstance(result.get(name), int | float):
            return f"record.json says finished, but its result has no number for {name}"
    return ""


def _run_folders(folder: Path) -> tuple[list[Path], list[Path]]:
    """Of trials, and the manifests of sweeps."""
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
    """What a trial is of, whatever the code and the data."""
    return tuple(run.record[key] for key in _IDENTITY)


def _once(runs: list[Run]) -> list[Run]:
    first: dict[tuple[Any, ...], Run] = {}
    for run in runs:
        if run.finished:
            first.setdefault((*_trial(run), run.version, run.data), run)
    found = []
    for run in runs:
        other = first.get((*_trial(run), run.version, run.data), run) if run.finished else run
        reason = f"the same trial as {other.folder.path}"
        found.append(run if other is run else replace(run, status="repeated", reason=reason))
    return found


def _adopted(runs: list[Run]) -> list[Run]:
    """A record that does not tell what it was of belongs with its folder's others, where these agree."""
    found = []
    for _, neighbours in groupby(runs, key=lambda run: run.folder.path.parent):
        members = list(neighbours)
        keys = ("dataset", "model", "group", "code", "commit", "data")
        known = [{key: run.record.get(key) for key in keys} for run in members if run.record["group"]]
        agreed = known[0] if known and all(each == known[0] for each in known) else {}
        found += [run if run.record["group"] else replace(run, record={**run.record, **agreed}) for run in members]
    return found


def _of_sweep(manifest: Path) -> Iterator[Run]:
    """The trials that a manifest names, each once, in its order."""
    for named in _named(manifest):
        if _has_record(named):
            run = read_run(named.folder)
            yield run if run.record["group"] else replace(run, record={**run.record, **named.record})
        else:
            yield named


def _named(manifest: Path) -> list[Run]:
    """What a manifest says of its trials, as if none had left a record."""
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
        "dataset": job.get("dataset") or UNKNOWN,
        "model": job.get("model") or UNKNOWN,
        "group": job.get("group") or "",
        "code": job.get("code"),
        "overrides": job.get("overrides") or [],
        "seed": seed,
    }
    reason = job.get("failure") or ("it was begun, but left no record" if path.exists() else "it was not begun")
    return Run(RunFolder(path), "missing", reason, record)


def _has_record(run: Run) -> bool:
    return (run.folder.path / "record.json").exists()
