"""Parts of the file that keeps an evaluation of a finished trial."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqmem.data import DataSet
    from seqmem.training.checkpoints.files import Checkpoint
    from seqmem.training.loop.module import SequenceModule


def evaluated(checkpoint: "Checkpoint", config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights that are evaluated, and the settings that differ from the training's."""
    from seqmem import models
    from seqmem.results.evaluations import changes, checksum
    from seqmem.training.config import model_arguments

    return {
        "checkpoint": str(checkpoint.path),
        "checkpoint_sha256": checksum(checkpoint.path),
        "epoch": checkpoint.epoch,
        "model": models.label(model_arguments(config)),
        "changed": changes(checkpoint.config, config),
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
