"""The trained model of a trial, for programs and notebooks."""

from pathlib import Path

from seqmem.models import SequenceModel
from seqmem.training.checkpoints.files import read_checkpoint, restore


def load(path: str | Path) -> SequenceModel:
    """Return the trained model of a trial, as a torch module on the CPU in evaluation mode.

        model = seqmem.load("runs/digits_gru_0123456789ab/seed_0")
        outputs = model.predict(inputs)  # inputs (B, T, C); model(batch) takes a Batch

    Its weights have the types in which they were trained (float64 with ``train.precision=64-true``).

    Args:
        path: folder of a finished trial, for the checkpoint that validation chose; a checkpoint that ``seqmem train`` wrote;
            or a folder that ``seqmem publish`` wrote.

    Returns:
        The model. ``model.spec`` is the spec of its training data: sizes, task, names of the classes.

    Raises:
        UserError: no such checkpoint exists, or it cannot be read. No code of the file is executed.
    """
    checkpoint = read_checkpoint(Path(path))
    return restore(checkpoint, checkpoint.config["train"], checkpoint.spec).model.eval()
