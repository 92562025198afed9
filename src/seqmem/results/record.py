"""Run record: the files of one trial.

A run folder has

    config.yaml     the resolved config, from which the run can be repeated
    record.json     status, seed, versions, git commit, machine, wall time, throughput, peak memory, the final result
    data.json       provenance of the data: checksums, splits, permutation
    metrics.csv     one row for each epoch
    reconstructions.png, encodings.png, anomalies.csv: of an autoencoder
    checkpoints/    best.ckpt (chosen by validation) and last.ckpt, from which a killed trial resumes
    evaluations/    one JSON file for each evaluation by evaluate.py; by_length.csv and .png of several lengths
    memory_SPLIT.csv, memory_SPLIT.png: what the state holds of past inputs, by seqmem memory
    .lock           held by the process that trains

Every file is written to a temporary file and renamed: a kill at any moment leaves the old file or the new one.
"""

import hashlib
import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from seqmem.errors import UserError
from seqmem.io.files import file_name, json_object, locked, read_json, write_json, write_text

if TYPE_CHECKING:
    import pandas as pd

_NOT_SETTINGS = (
    "seed",
    "output_dir",
    "traceback",
    "seqmem.",
    "runner.",
    "dataset.data_dir",
    "dataset.num_workers",
    "model.preset",
    "train.resume",
    "train.checkpoint_minutes",
)
# Keys that came later, with the values that change nothing: so a trial of before has the same checksum.
_NO_SETTINGS_AT: dict[str, Any] = {
    "train.patience": None,
    "train.min_delta": 0.0,
    "train.accumulate_grad_batches": 1,
    "train.ema": None,
    "dataset.resplit": False,
}
_OF_A_FINISHED_TRIAL = {
    "metric",
    "result",
    "best_epoch",
    "epochs",
    "seconds",
    "sequences_per_second",
    "peak_memory_mib",
    "parameters",
}
_OF_AN_ATTEMPT = ("metrics.csv", "checkpoints/best.ckpt", "checkpoints/last.ckpt")
_loader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, if available, is ten times as fast


class RunFolder:
    """The folder of one trial."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def checkpoints(self) -> Path:
        """Folder of the trial's checkpoints."""
        return self.path / "checkpoints"

    def lock(self, wait: bool) -> AbstractContextManager[bool]:
        """Create the folder and hold its lock in a ``with`` block, see :func:`seqmem.io.files.locked`."""
        return locked(self.path / ".lock", wait)

    def clear(self, spared: Iterable[Path] = ()) -> None:
        """Create the folder, and remove the metrics and checkpoints of an earlier attempt.

        Args:
            spared: checkpoints to keep, for example the one to resume from.

        Raises:
            UserError: the folder cannot be created or cleared.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            kept = {path.resolve() for path in spared}
            for path in (self.path / name for name in _OF_AN_ATTEMPT):
                if path.resolve() not in kept:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot create {self.checkpoints} ({error.strerror})") from None

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write config.yaml."""
        write_text(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write record.json."""
        write_json(self.path / "record.json", record)

    def write_data(self, description: Mapping[str, Any]) -> None:
        """Write data.json."""
        write_text(self.path / "data.json", json.dumps(description) + "\n")

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.csv."""
        import pandas as pd

        write_text(self.path / "metrics.csv", pd.DataFrame(rows).to_csv(index=False))

    def evaluations(self) -> Path:
        """Return the folder of evaluations, which is created.

        Raises:
            UserError: it cannot be created.
        """
        folder = self.path / "evaluations"
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot create {folder} ({error.strerror})") from None
        return folder

    def new_evaluation(self, label: str) -> Path:
        """Return the path of a new evaluation, ``evaluations/DATE_TIME_label_RANDOM.json``, and create its folder.

        Raises:
            UserError: the folder cannot be created.
        """
        return self.evaluations() / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{file_name(label)}_{secrets.token_hex(3)}.json"

    def read_record(self) -> dict[str, Any]:
        """Read record.json; its values are not checked.

        Raises:
            OSError: it cannot be read.
            UserError: it is damaged.
        """
        return json_object(self.path / "record.json")

    def read_data(self) -> dict[str, Any]:
        """Read data.json.

        Raises:
            UserError: it cannot be read, or is damaged.
        """
        return read_json(self.path / "data.json")

    def finished(self) -> dict[str, Any] | None:
        """Return the record of a finished trial; None if the trial has not finished."""
        try:
            record = self.read_record()
        except (OSError, ValueError):
            return None
        return record if record.get("status") == "finished" and record.keys() >= _OF_A_FINISHED_TRIAL else None

    def read_config(self) -> dict[str, Any]:
        """Read config.yaml.

        Raises:
            OSError: it cannot be read.
            UserError: it is not a config.
        """
        path = self.path / "config.yaml"
        try:
            config = yaml.load(path.read_text(encoding="utf-8"), Loader=_loader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise UserError(f"{path} is damaged ({error})") from None
        if not isinstance(config, dict):
            raise UserError(f"{path} is not a config of a trial")
        return config

    def read_metrics(self) -> "pd.DataFrame":
        """Read metrics.csv; empty if no epoch has ended.

        Raises:
            UserError: it is damaged.
        """
        import pandas as pd

        path = self.path / "metrics.csv"
        if not path.exists():
            return pd.DataFrame()
        try:
            metrics = pd.read_csv(path, float_precision="round_trip")
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error})") from None
        if "epoch" not in metrics:
            raise UserError(f"{path} is damaged (it has no column epoch)")
        return metrics


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that identify an experiment: a config's keys as ``train.lr``.

    Those of ``_NOT_SETTINGS`` are left out, and those of ``_NO_SETTINGS_AT`` at these values.
    """
    found = {key: value for key, value in _flat(config).items() if not key.startswith(_NOT_SETTINGS)}
    found = {key: value for key, value in found.items() if key not in _NO_SETTINGS_AT or value != _NO_SETTINGS_AT[key]}
    devices = _flat(config).get("runner.devices", 1)
    # With dropout or batch statistics, several devices give different numbers than one.
    return found | ({"runner.devices": devices} if devices != 1 else {})


def digest(config: Mapping[str, Any]) -> str:
    """Return a short checksum of a config's settings in any order; trials of equal digest are averaged."""
    return hashlib.sha256(json.dumps(settings(config), sort_keys=True).encode()).hexdigest()[:12]


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
