"""Folders of the trials of one experiment, so that the same command finds them again."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seqmem.errors import UserError
from seqmem.io.files import file_name
from seqmem.results.record import RunFolder

_words = {"group": "settings", "code": "code", "data": "data", "backend": "backend"}


@dataclass(frozen=True)
class Experiment:
    """The trials of one config, one version of the code, the same data and the same backend, in one folder.

    Attributes:
        folder: ``OUTPUT_DIR/DATASET_MODEL_CHECKSUM``, with a checksum of the following four; the trials are in ``seed_0``,
            ``seed_1`` and so on.
        group: checksum of the config's settings.
        code: checksum of the code that trains.
        data: checksum of the description of the data.
        backend: device kind and path of the operators, such as ``cpu compiled``.
        swept: settings of the command line that differ between the jobs of its sweep; empty outside of a sweep.
    """

    folder: Path
    group: str
    code: str
    data: str
    backend: str
    swept: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, output_dir: Path, label: str, group: str, code: str, description: Mapping[str, Any], backend: str
    ) -> "Experiment":
        """Return the experiment of a config, a version of the code, a description of the data and a backend.

        Args:
            output_dir: parent of the experiment's folder.
            label: readable name of data set and model; characters that shells treat specially become "_".
            group: checksum of the config's settings.
            code: checksum of the code that trains.
            description: description of the data, see ``DataSet.describe``.
            backend: device kind and path of the operators.
        """
        data = data_checksum(description)
        folder = output_dir / f"{file_name(label)}_{_of_all(group, code, data, backend)}"
        return cls(folder, group, code, data, backend)

    def title(self, model: str, dataset: str) -> str:
        """Return "MODEL (SETTINGS) on DATASET" for messages, with the swept settings that the names do not imply."""
        return title(model, dataset, self.swept)

    def refuse_others(self, seed: int) -> None:
        """Check that the folder of a trial is empty or has a trial of this experiment.

        Raises:
            UserError: it has a trial of different settings, code, data or backend, as a folder that the user chose may.
        """
        trial = self.trial(seed)
        try:
            record = trial.read_record()
        except (OSError, UserError):
            return
        own = {"group": self.group, "code": self.code, "data": self.data, "backend": self.backend}
        different = [_words[key] for key, value in own.items() if record.get(key, value) != value]
        if different:
            raise UserError(
                f"{trial.path} has a trial of different {' and '.join(different)}, expected an empty folder, or the same trial"
            )

    def trial(self, seed: int) -> RunFolder:
        """Return the folder of a trial, which may not exist yet."""
        return RunFolder(self.folder / f"seed_{seed}")


def title(model: str, dataset: str, swept: Mapping[str, str]) -> str:
    """Return "MODEL (SETTINGS) on DATASET" for messages, see :meth:`Experiment.title`."""
    named = {"model": model, "dataset": dataset, "seed": swept.get("seed")}  # messages name the trial's seed
    settings = ", ".join(f"{key}={value}" for key, value in swept.items() if named.get(key) != value)
    return f"{model}{f' ({settings})' if settings else ''} on {dataset}"


def data_checksum(description: Mapping[str, Any]) -> str:
    """Return the checksum by which records and checkpoints name the data of a description."""
    return _checksum(json.dumps(description, sort_keys=True))


def identity(record: Mapping[str, Any]) -> str:
    """Return the key of a trial in a tracker: its seed and a checksum of settings, code, data and backend.

    It is the last part of the experiment's folder and the trial's, where the user did not choose the folder.
    """
    return f"{_of_all(*(str(record.get(key)) for key in _words))}-seed_{record['seed']}"


def _of_all(group: str, code: str, data: str, backend: str) -> str:
    return _checksum(f"{group} {code} {data} {backend}")


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
