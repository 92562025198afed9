"""Rows of a table of single trials: status, result, machine and version."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seqmem.results.aggregate import Trials
from seqmem.results.machines import machine
from seqmem.results.reading import Run


def trial_rows(groups: Sequence[Trials], problems: Mapping[Path, str], folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each trial; an unknown value is None.

    Args:
        groups: trials, a row of the summary each.
        problems: by run folder, the file other than the record that could not be read, and why.
        folder: folder that paths are relative to.

    Yields:
        row (index of the group), dataset, model, seed, status, reason (why it is not finished, or which file could not be
        read), metric, test, validation, best_epoch (from 1), epochs, seconds, code, commit, data (checksum), backend,
        machine, gpu, processor, threads, instructions, library, started, folder.
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
                **_of_record(run),
                "folder": os.path.relpath(run.folder.path, folder),
            }


def _result(run: Run, name: str) -> float | None:
    return run.record["result"][name] if run.finished else None


def _of_record(run: Run) -> dict[str, Any]:
    record, computer = run.record, machine(run.record)
    best, library, instructions = record.get("best_epoch"), record.get("library"), computer.get("instructions")
    return {
        "best_epoch": best + 1 if isinstance(best, int) else None,
        **{key: record.get(key) for key in ("epochs", "seconds", "code", "commit")},
        "data": run.data or None,
        "backend": run.backend or None,
        "machine": run.machine or None,
        **{key: computer.get(key) for key in ("gpu", "processor", "threads")},
        "instructions": " ".join(map(str, instructions.values())) if isinstance(instructions, dict) else None,
        "library": library.get("sources") or library.get("sha256") if isinstance(library, dict) else None,
        "started": record.get("started"),
    }
