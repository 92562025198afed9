"""Parts of the file that keeps an evaluation of a finished trial."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqmem.errors import UserError

if TYPE_CHECKING:
    from seqmem.data import DataSet
    from seqmem.training.checkpoints.files import Checkpoint
    from seqmem.training.loop.module import SequenceModule


def evaluated(checkpoint: "Checkpoint", config: Mapping[str, Any], data: "DataSet") -> dict[str, Any]:
    """Return the weights that are evaluated, and the settings and files that differ from the training's.

    Different files are the change ``dataset.files``, with the checksum of their names and contents.
    """
    from seqmem import models
    from seqmem.results.evaluations import changes, checksum
    from seqmem.training.config import model_arguments

    return {
        "checkpoint": str(checkpoint.path),
        "checkpoint_sha256": checksum(checkpoint.path),
        "epoch": checkpoint.epoch,
        "model": models.label(model_arguments(config)),
        "changed": changes(checkpoint.config, config) | _changed_files(checkpoint.folder, data),
    }


def origin(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the command of the evaluation, its settings, commit, versions and machine."""
    from seqmem.io.provenance import provenance

    return {"command": sys.argv, "config": config, **provenance()}


def computed(module: "SequenceModule", config: Mapping[str, Any], data: "DataSet") -> dict[str, Any]:
    """Return what computes the evaluation, by the keys of a trial's record."""
    from seqmem.training.backend import backend, computed_by
    from seqmem.training.fingerprint import fingerprint

    return {
        "code": fingerprint(module.model, data, module.task, config["train"]),
        "backend": backend(config),
        **computed_by(config),
    }


def _changed_files(trial: Path, data: "DataSet") -> dict[str, tuple[str, str]]:
    """Return the change from the files of a trial's training to those of data; empty if there is none, or it is not known."""
    from seqmem.results.experiment import data_checksum
    from seqmem.results.record import RunFolder

    if data.separate_test:  # drawn, not read; the description would draw all splits
        return {}
    try:
        before = RunFolder(trial).read_data().get("files")
    except UserError:  # a checkpoint outside of its trial's folder
        return {}
    if before is None:
        return {}
    now = data.describe()["files"]
    # By content: the names have versions of packages, and an archive may have been unpacked.
    same = set(before.values()) <= set(now.values()) or set(now.values()) <= set(before.values())
    return {} if same else {"dataset.files": (data_checksum(before), data_checksum(now))}
