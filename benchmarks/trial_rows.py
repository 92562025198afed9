"""Rows of CSV files about finished trials, as the collectors of the tables write them."""

import csv
import io
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from seqmem.io.files import write_text
from seqmem.results import RunFolder, find_runs

Row = dict[str, str]

PRELOADED = ", MKL with AVX-512"
"""End of a processor's name where the library of :mod:`seqmem.io.mkl` was loaded."""


def finished(runs: Path) -> list[tuple[RunFolder, dict[str, Any]]]:
    """Return the folder and the config of each finished trial below a folder."""
    folders = [run.folder for run in find_runs(runs) if run.finished]
    return [(folder, yaml.safe_load((folder.path / "config.yaml").read_text(encoding="utf-8"))) for folder in folders]


def warn_of_unfinished(runs: Path, belongs: Callable[[Mapping[str, Any], Mapping[str, Any]], bool]) -> None:
    """Print a warning to stderr for each trial of a table that has no result, since the table shows no trace of it.

    Args:
        runs: folder with trials at any depth.
        belongs: returns whether a trial, given by its record and config, would be a row of the table.
    """
    for run in find_runs(runs):
        if not run.finished and run.status != "repeated":
            config = _config(run.folder.path)
            if config and belongs(run.record, config):
                reason = f", {run.reason}" if run.reason else ""
                print(f"warning: not in the table: {run.folder.path}: {run.status}{reason}", file=sys.stderr)


def _config(trial: Path) -> dict[str, Any] | None:
    """Return the config of a trial, or if it has not begun that of another seed beside it; None if none can be read."""
    for path in (trial / "config.yaml", *sorted(trial.parent.glob("seed_*/config.yaml"))):
        with suppress(OSError, ValueError, yaml.YAMLError):
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
            if isinstance(config, dict):
                return config
    return None


def environment(processor: str, threads: str) -> str:
    """Return the shell's assignments before the command of a trial: what its last digits depend on besides the processor.

    Args:
        processor: as the record names it, with the kernels of MKL.
        threads: their number; empty if it is not known.
    """
    preload = 'LD_PRELOAD="$(python -m seqmem.io.mkl)" ' if processor.endswith(PRELOADED) else ""
    return f"{preload}OMP_NUM_THREADS={threads} " if threads else preload


def of_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a record by the names of columns: its keys, the best epoch counted from 1, and the machine's."""
    return {
        **record,
        "best_epoch": record["best_epoch"] + 1,
        "processor": record["machine"]["processor"],
        "threads": record["machine"].get("threads", ""),
        "torch": record["versions"]["torch"],
    }


def read(path: Path) -> list[Row]:
    """Return the rows of a file, none if it does not exist."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, names: Sequence[str], found: Iterable[Mapping[str, object]]) -> None:
    """Write rows to a file; an error at any moment leaves the file as it was.

    Raises:
        ValueError: a row has a value of another name.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    write_text(path, text.getvalue())


def newest(kept: Iterable[Row], found: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, Row]:
    """Return rows by their key: of several, the one whose trial started last; print each kept row that is replaced."""
    old = {key(each): each for each in kept}
    rows = dict(old)
    for each in found:
        before = rows.get(key(each), each)
        if before.get("started", "") > each.get("started", ""):
            print(f"left out: a trial of {each.get('started')}, older than that of {before['started']}: {key(each)}")
        else:
            rows[key(each)] = each
    for place, each in old.items():
        if rows[place] != each:
            print(f"replaced: {place}")
    return rows


def may_count(record: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Return whether a trial can be a row of a table.

    Smoke tests, trials on other files than the official ones, on several devices, or by the reference of the operators cannot.
    """
    devices = config.get("runner", {}).get("devices", 1)
    return not (
        record.get("smoke_test")
        or config.get("smoke_test")
        or "other files" in (record.get("dataset") or "")
        or devices not in (None, 1)
        or "reference" in (record.get("backend") or "")
    )
