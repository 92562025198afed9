"""Rows of a table of single trials: status, result, machine and version."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seqmem.results.aggregate import Trials
from seqmem.results.reading import Run


def trial_rows(groups: Sequence[Trials], problems: Mapping[Path, str], folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each trial; an unknown value is None.

    Args:
        groups: trials, a row of the summary each.
        problems: by run folder, the file other than the record that could not be read, and why.
        folder: folder that paths are relative to.

    Yields:
        row (index of the group), dataset, model, seed, status, reason (why it is not finished, or which file could not be
        read), metric, test, validation, best_epoch (from 1), epochs, seconds, code, commit, gpu, processor, threads, started,
        folder.
    """
    for k, group in enumerate(groups):
        for run in group.runs:
            reasons = (run.reason, group.note, problems.get(run.folder.path))
            yield {
                "row": k,
                "dataset": group.dataset,
                "model": group.model,
                "seed": run.record["seed"],
                "status": run.status,
                "reason": "; ".join(reason for reason in reasons if reason),
                "metric": group.metric,
                "test": _result(run, f"test/{group.metric}"),
                "validation": _result(run, f"val/{group.metric}"),
                **_of_record(run.record),
                "folder": os.path.relpath(run.folder.path, folder),
            }


def _result(run: Run, name: str) -> float | None:
    return run.record["result"][name] if run.finished else None


def _of_record(record: Mapping[str, Any]) -> dict[str, Any]:
    best = record.get("best_epoch")
    machine = record.get("machine")
    machine = machine if isinstance(machine, dict) else {}
    return {
        "best_epoch": best + 1 if isinstance(best, int) else None,
        **{key: record.get(key) for key in ("epochs", "seconds", "code", "commit")},
        **{key: machine.get(key) for key in ("gpu", "processor", "threads")},
        "started": record.get("started"),
    }
