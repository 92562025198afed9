"""From trials to rows of a table: mean, standard deviation and count over the seeds of equal configs."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from seqmem.results.record import RunFolder, settings
from seqmem.results.sweep import Sweep


@dataclass(frozen=True)
class Trials:
    """The trials of one config.

    Attributes:
        dataset: the data set's name.
        model: the model's name, with the settings in brackets that tell it from others of that name in the same table.
        metric: what is compared.
        folders: the finished trials.
        records: their run records.
        unfinished: how many trials failed, were interrupted or still run.
    """

    dataset: str
    model: str
    metric: str
    folders: list[RunFolder]
    records: list[dict[str, Any]]
    unfinished: int


def find_runs(folder: Path) -> list[RunFolder]:
    """The run folders of the sweep whose folder this is, by its jobs; where it is none, all below it, by their paths."""
    sweep = Sweep(folder)
    if sweep.jobs():
        return sweep.runs()
    return [RunFolder(path.parent) for path in sorted(folder.rglob("record.json"))]


def group_trials(folders: Iterable[RunFolder]) -> list[Trials]:
    """The trials of equal configs together, in order of first appearance."""
    groups: dict[tuple[str, str], list[RunFolder]] = {}
    records = {folder.path: folder.read_record() for folder in folders}
    for path, record in records.items():
        groups.setdefault((record["dataset"], record["group"]), []).append(RunFolder(path))
    distinct = {key: settings(members[0].read_config()) for key, members in groups.items()}

    found = []
    for key, members in groups.items():
        model = records[members[0].path]["model"]
        namesakes = [other for other in groups if other[0] == key[0] and records[groups[other][0].path]["model"] == model]
        finished = [folder for folder in members if records[folder.path]["status"] == "finished"]
        found.append(
            Trials(
                dataset=key[0],
                model=model + _differences(distinct[key], [distinct[other] for other in namesakes]),
                metric=records[finished[0].path]["metric"] if finished else "",
                folders=finished,
                records=[records[folder.path] for folder in finished],
                unfinished=len(members) - len(finished),
            )
        )
    return found


def summarize(trials: Iterable[Trials]) -> pd.DataFrame:
    """One row for the trials of each config.

    Columns: dataset, model, n, unfinished, metric, test_mean, test_std, val_mean, val_std (sample standard deviation, missing
    for one trial), last_mean, last_std (test after the last epoch, where that was asked for), irreducible_error (where it is
    known), best_epoch (mean, from 1), parameters, seconds (mean of one trial), sequences_per_second, peak_memory_mib.
    """
    return pd.DataFrame([_row(group) for group in trials])


def _row(group: Trials) -> dict[str, Any]:
    row: dict[str, Any] = {
        "dataset": group.dataset,
        "model": group.model,
        "n": len(group.records),
        "unfinished": group.unfinished,
        "metric": group.metric,
    }
    if not group.records:
        return row
    table = pd.DataFrame(group.records)
    results = pd.DataFrame([record["result"] for record in group.records])
    for split in ("test", "val"):
        row[f"{split}_mean"] = results[f"{split}/{group.metric}"].mean()
        row[f"{split}_std"] = results[f"{split}/{group.metric}"].std()
    last = pd.DataFrame([record.get("result_last") or {} for record in group.records])
    if f"test/{group.metric}" in last:
        row["last_mean"] = last[f"test/{group.metric}"].mean()
        row["last_std"] = last[f"test/{group.metric}"].std()
    if group.records[0].get("irreducible_error") is not None:
        row["irreducible_error"] = group.records[0]["irreducible_error"]
    return row | {
        "best_epoch": table["best_epoch"].mean() + 1,
        "parameters": int(table["parameters"].iloc[0]),
        "seconds": table["seconds"].mean(),
        "sequences_per_second": pd.to_numeric(table["sequences_per_second"]).mean(),  # None where nothing was trained
        "peak_memory_mib": table["peak_memory_mib"].max(),
    }


def _differences(own: dict[str, Any], others: list[dict[str, Any]]) -> str:
    keys = [key for key, value in own.items() if any(other.get(key) != value for other in others)]
    return f" ({', '.join(f'{key}={own[key]}' for key in keys)})" if keys else ""
