"""Comparison of an evaluation of a finished trial with its recorded metrics."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from seqmem.errors import UserError
from seqmem.io.files import json_object
from seqmem.results.record import RunFolder, settings


def recorded(folder: Path, epoch: int, prefix: str) -> dict[str, float]:
    """Read the metrics that the training of a trial recorded for the weights after an epoch.

    Args:
        folder: the trial's folder.
        epoch: number of the epoch, from 0.
        prefix: prefix of a split's metrics, ``test/``, ``val/`` or ``train/``. Those of training are means over the epoch,
            during which the weights changed.

    Returns:
        The metrics by name; empty if there is no record of these weights.

    Raises:
        UserError: the record cannot be read.
    """
    trial = RunFolder(folder)
    try:
        record = trial.read_record()
        rows = [] if prefix == "test/" else trial.read_metrics().to_dict("records")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the record of {folder} ({error})") from None
    found: Mapping[Any, Any] = {}
    if record.get("best_epoch") in (epoch, -1):  # -1: the initial weights
        found = record.get("result") or {}
    elif record.get("epochs") == epoch + 1:
        found = record.get("result_last") or {}
    for row in rows:
        if row["epoch"] == epoch:
            found = row
    return {name: value for name, value in found.items() if name.startswith(prefix)}


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ between two configs by name: (old, new), None for a missing one."""
    old, new = settings(before), settings(after)
    return {key: (old.get(key), new.get(key)) for key in {**old, **new} if not _is_equal(key, old.get(key), new.get(key))}


def _is_equal(key: str, old: Any, new: Any) -> bool:
    """Return whether two values of a setting are the same: 1 and 1.0, except where 1 is one batch and 1.0 all of them."""
    if type(old) in (int, float) and type(new) in (int, float) and not key.startswith("train.limit_"):
        return bool(old == new)
    return repr(old) == repr(new)


def kept(path: Path, about: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the evaluation beside a file of predictions that has written it; None if there is none.

    Args:
        path: the file, in the folder of a trial's evaluations.
        about: what the evaluation must agree with, by the keys of its file: weights, changed settings, split, data.
    """
    if not path.is_file():
        return None
    expected = {"file": path.name, "sha256": checksum(path)}
    for file in path.parent.glob("*.json"):
        try:
            evaluation = json_object(file)
            predictions = evaluation.get("predictions") or {}
            found = {"file": Path(predictions["file"]).name, "sha256": predictions["sha256"]}
        except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        asked = ("checkpoint_sha256", "changed", "split", "data")
        if found == expected and all(_as_json(evaluation.get(key)) == _as_json(about[key]) for key in asked):
            return evaluation
    return None


def weights_of_result(trial: RunFolder) -> str | None:
    """Return the checksum of the weights that gave a trial's result; None if their file cannot be read."""
    try:
        return checksum(trial.checkpoints / "best.ckpt")
    except OSError:
        return None


def is_of_weights(evaluation: Mapping[str, Any], weights: str | None, best_epoch: int | None) -> bool:
    """Return whether an evaluation is of the weights that gave a trial's result.

    Args:
        evaluation: content of its file.
        weights: checksum of these weights; if it is None, the epoch decides.
        best_epoch: as in the trial's record.
    """
    if weights is None:
        return best_epoch in (evaluation.get("epoch"), -1)  # -1: the initial weights
    return bool(evaluation.get("checkpoint_sha256") == weights)


def differences(measured: Mapping[str, float], before: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Return the metrics that differ in any digit by name: (now, in training). NaN equals NaN."""
    common = {name: (value, before[name]) for name, value in measured.items() if name in before}
    return {name: pair for name, pair in common.items() if repr(pair[0]) != repr(pair[1])}


def circumstances(folder: Path, config: Mapping[str, Any], computed: Mapping[str, Any]) -> list[str]:
    """Return how a trial was computed, where that differs from now, on one device.

    Args:
        folder: the trial's folder, whose record says most of it; without a record the result is empty.
        config: of the trial, which says how many devices split the rows of every batch.
        computed: values of now by the record's keys: code, data, backend and machine.
    """
    try:
        record = RunFolder(folder).read_record()
    except (OSError, ValueError):
        return []
    then, now = ({"variables": [], **each, **_machine(each)} for each in (record, computed))
    names = ("code", "data", "backend", "processor", "threads", "devices", "instructions", "variables")
    changed = [name for name in names if name in then and then[name] != now.get(name)]
    devices = config["runner"].get("devices", 1)
    split = [f"runner.devices {devices}, now 1"] if devices > 1 else []
    return [*(f"{name} {_in_words(then[name])}, now {_in_words(now.get(name))}" for name in changed), *split]


def _machine(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a record says of its machine; empty if it is damaged there."""
    found = record.get("machine")
    return found if isinstance(found, Mapping) else {}


def side_by_side(measured: Mapping[str, float], before: Mapping[str, float]) -> str:
    """Return a line for each metric: its name without the split, its value now, and its value in training."""
    rows: list[tuple[str, ...]] = [("", "now", "in training")] if before else []
    for name, value in measured.items():
        old = [f"{before[name]:.6g}" if name in before else "-"] if before else []
        rows.append((name.partition("/")[2], f"{value:.6g}", *old))
    return aligned(rows)


def by_class(counts: Tensor, names: Sequence[str] | None = None) -> str:
    """Return a line for each class: the number of its targets, of correct predictions, and of all predictions of it.

    Args:
        counts: (K, K) confusion matrix, targets by row.
        names: name of each class, by its number; None for the number alone.
    """
    columns: dict[str, Iterable[Any]] = {"class": range(len(counts))}
    if names is not None:
        columns["label"] = names
    columns |= {"targets": counts.sum(1).tolist(), "correct": counts.diagonal().tolist(), "predictions": counts.sum(0).tolist()}
    return aligned([tuple(columns), *zip(*(map(str, column) for column in columns.values()), strict=True)])


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def aligned(rows: list[tuple[str, ...]]) -> str:
    """Return rows of cells as lines with columns of equal width, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first, *others = widths
    lines = ([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))] for row in rows)
    return "\n".join("  ".join(line) for line in lines)


def _as_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _in_words(value: Any) -> str:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return " ".join(map(str, parts)) or "none"
