"""Where the trials of one experiment lie, so that the same command finds them again."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqmem.results.record import RunFolder


@dataclass(frozen=True)
class Experiment:
    """The trials of one config, by one state of the code, on the same data. They share a folder that nothing else has.

    Attributes:
        folder: ``OUTPUT_DIR/DATASET_MODEL_CHECKSUM``, of which the checksum is that of the three below; trials lie in
            ``seed_0``, ``seed_1`` and so on.
        group: checksum of the config's settings.
        code: checksum of the code that trains.
        data: checksum of what describes the data.
    """

    folder: Path
    group: str
    code: str
    data: str

    @classmethod
    def of(cls, output_dir: Path, label: str, group: str, code: str, description: Mapping[str, Any]) -> "Experiment":
        """The experiment of what its results depend on.

        Args:
            output_dir: what its folder lies in.
            label: of data set and model, for people.
            group: as above.
            code: as above.
            description: of the data.
        """
        data = _checksum(json.dumps(description, sort_keys=True))
        return cls(output_dir / f"{label}_{_checksum(f'{group} {code} {data}')}", group, code, data)

    def trial(self, seed: int) -> RunFolder:
        """The folder of a trial, which may not exist yet."""
        return RunFolder(self.folder / f"seed_{seed}")


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
