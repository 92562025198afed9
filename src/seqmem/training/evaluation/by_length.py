"""Evaluation of a trained model at other lengths than that of its training, in bounded memory."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from seqmem import models
from seqmem.data.batch import Batch
from seqmem.data.masks import valid_steps
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.models.in_parts import InParts
from seqmem.training.checkpoints.files import Checkpoint
from seqmem.training.config import TrainConfig, evaluation_batch_size, model_arguments
from seqmem.training.evaluation.measure import BatchObserver, evaluate
from seqmem.training.loop.module import SequenceModule
from seqmem.training.loop.splits import Data

FEWEST_STEPS = 256
"""Steps up to which a sequence is read whole: of shorter parts, most time would go into their beginnings."""

MOST_VALUES = 2**25
"""Numbers in the inputs of a batch, and in outputs at every step, unless its size was given: they are in memory whole."""


@dataclass(frozen=True)
class Reading:
    """How the sequences of a split are read.

    Attributes:
        rows: B, sequences of a batch.
        steps: steps of the parts of a sequence, between which the state is carried; None to read it whole.
    """

    rows: int
    steps: int | None

    @classmethod
    def of(cls, checkpoint: Checkpoint, spec: DataSpec, train: TrainConfig, given_rows: bool) -> "Reading":
        """Choose how to read sequences with about the memory of the training batches.

        Sequences up to the training length are read as in training, longer ones in parts. A model that cannot carry a state
        gets fewer sequences at once instead.

        Args:
            checkpoint: of the trial.
            spec: of the data to evaluate on.
            train: with the batch size.
            given_rows: that batch size was chosen for this evaluation, and is kept.
        """
        rows, trained = evaluation_batch_size(train, spec), checkpoint.spec.max_length
        steps, most = None, rows
        if spec.max_length > max(trained, FEWEST_STEPS) and not spec.contiguous and carries(checkpoint):
            steps = max(trained, FEWEST_STEPS)
            has_all_outputs = spec.output_steps is None and not spec.sparse_targets
            width = max(1 if spec.tokens else spec.input_size, spec.output_size if has_all_outputs else 1)
            most = MOST_VALUES // (spec.max_length * width)
        elif spec.max_length > trained:
            most = rows * trained // spec.max_length
        return cls(rows if given_rows else max(1, min(rows, most)), steps)


class Read(BatchObserver):
    """Counts the sequences of an evaluation, and computes checksums of them without their padding.

    Attributes:
        sequences: how many were read.
        steps: T of the longest batch.
    """

    def __init__(self) -> None:
        self.sequences, self.steps = 0, 0
        self._digests = {name: hashlib.sha256() for name in ("inputs", "targets")}

    def observe(self, batch: Batch, results: dict[str, Tensor]) -> None:
        """Count the batch."""
        self.sequences += len(batch)
        self.steps = max(self.steps, batch.inputs.shape[1])
        host = batch.on_host
        self._update("inputs", host.inputs, host.lengths)
        at_every_step = host.target_lengths is not None or host.targets.shape[1:2] == host.inputs.shape[1:2]
        self._update("targets", host.targets, host.output_lengths if at_every_step else None)

    def _update(self, name: str, values: Tensor, lengths: Tensor | None) -> None:
        """Continue a checksum; padding is left out, since it depends on the batch that a row is in."""
        kept = values if lengths is None else values[valid_steps(lengths, values.shape[1])]
        self._digests[name].update(kept.contiguous().numpy().data)

    def checksums(self) -> dict[str, str]:
        """Return the sha256 of all inputs and of all targets, in hexadecimal."""
        return {name: digest.hexdigest() for name, digest in self._digests.items()}


def evaluate_reading(
    module: SequenceModule, data: Data, config: Mapping[str, Any], reading: Reading
) -> tuple[dict[str, float], Read]:
    """Return loss and metrics of the test split, named as in a run's record, and the sequences read.

    Args:
        module: with the trained model.
        data: the data set.
        config: a resolved, checked config; limits, precision and accelerator are used.
        reading: how its sequences are read.
    """
    module.boundary_steps = 0
    if reading.steps is not None:
        module.model = InParts(module.model, reading.steps)
    read = Read()
    sized = {**config, "train": {**config["train"], "eval_batch_size": reading.rows}}
    return evaluate(module, data, sized, "test", [read]), read


def refuse_too_long(model: models.SequenceModel, steps: int) -> None:
    """Refuse sequences that are longer than those that a model was built for.

    Raises:
        UserError: the model is bounded, and ``steps`` are more than the longest of its training.
    """
    if model.bounded and steps > model.spec.max_length:
        raise UserError(
            f"lengths: got sequences of {steps} steps, expected at most {model.spec.max_length}, for which {model.name} was "
            "built: it has weights for each step"
        )


def carries(checkpoint: Checkpoint) -> bool:
    """Return whether the model can read a sequence in parts, with its state carried from one to the next."""
    try:
        with torch.device("meta"):
            models.build(model_arguments(checkpoint.config), replace(checkpoint.spec, contiguous=True))
    except UserError:
        return False
    return True
