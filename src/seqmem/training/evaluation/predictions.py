"""Predictions for each sequence of a split, counted by class and written to a file."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seqmem.data.batch import Batch
from seqmem.data.masks import valid_targets
from seqmem.errors import UserError
from seqmem.io.archive import write_arrays
from seqmem.io.files import replacing
from seqmem.io.series_files import write_rows
from seqmem.tasks import Task
from seqmem.training.evaluation.measure import BatchObserver


class ClassCounts(BatchObserver):
    """Counts targets by their class and the predicted class; padded and ignored targets are left out.

    Attributes:
        counts: (K, K) int64, targets by row, predictions by column.
    """

    def __init__(self, task: Task):
        self.task = task
        self.counts = torch.zeros(task.spec.output_size, task.spec.output_size, dtype=torch.int64)

    def observe(self, batch: Batch, results: dict[str, Tensor]) -> None:
        """Count the batch."""
        classes = len(self.counts)
        outputs, targets = self.task.selected(results["outputs"], batch)
        pairs = targets * classes + outputs.argmax(-1)
        self.counts += pairs.cpu().bincount(minlength=classes**2).view(classes, classes)


class Predictions(BatchObserver):
    """Keeps targets and predictions of every sequence in memory until they are written.

    Where batches are contiguous, a row of the file is everything that one row of the batches read.

    Args:
        task: names what is written (:meth:`seqmem.tasks.Task.predictions`).
    """

    def __init__(self, task: Task):
        self.task, self.spec = task, task.spec
        self._rows: list[list[dict[str, np.ndarray]]] = []
        self._lengths: list[int] = []

    def observe(self, batch: Batch, results: dict[str, Tensor]) -> None:
        """Keep the batch."""
        outputs = results["outputs"]
        # NumPy has no bfloat16; float64 stays.
        predictions = self.task.predictions(outputs.float() if outputs.element_size() < 4 else outputs, batch)
        valid = valid_targets(batch.on_host, self.task.positions(batch), self.spec.output_steps)
        steps = None if valid is None or valid.dim() == 1 else valid.numpy()
        kept = {name: values.cpu().numpy() for name, values in predictions.items()}
        for row, length in enumerate(batch.on_host.row_lengths.tolist()):
            part = {name: values[row] if steps is None else values[row, steps[row]] for name, values in kept.items()}
            if self.spec.contiguous and row < len(self._rows):
                self._rows[row].append(part)
                self._lengths[row] += length
            else:
                self._rows.append([part])
                self._lengths.append(length)

    def __len__(self) -> int:
        return len(self._rows)

    def write(self, path: Path) -> None:
        """Write the predictions of every sequence, whole or not at all.

        A ``.npz`` file holds these arrays:

        - ``row`` (n,): number of the sequence in its split; ``length`` (n,): steps of its inputs.
        - ``target`` and ``prediction``, one row for each sequence.
        - ``probability``, of classification and language modelling only.
        - ``steps`` (n,), where sequences have several outputs. The predictions then begin (n, K): row k has those of its
          ``steps[k]`` valid steps, then zeros.

        A ``.csv`` file has a line for each output, with a column ``step`` if sequences have several. Columns of several values
        or classes are numbered: ``prediction_0``, ``probability_3``.

        Raises:
            UserError: as :func:`check_predictions`, or the file cannot be written.
        """
        check_predictions(path)  # again: an evaluation may take an hour
        if path.suffix.lower() == ".npz":
            with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
                write_arrays(archive, self._arrays())
        else:
            write_rows(path, self._lines())

    def _joined(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield each row with its parts joined."""
        for parts in self._rows:
            yield {name: np.concatenate([part[name] for part in parts]) if parts[1:] else parts[0][name] for name in parts[0]}

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {"row": np.arange(len(self._rows)), "length": np.array(self._lengths)}
        rows = list(self._joined())
        if self.spec.output_steps != 0:
            steps = np.array([len(row["target"]) for row in rows])
            longest = int(steps.max())
            rows = [{name: _padded(values, longest) for name, values in row.items()} for row in rows]
            arrays["steps"] = steps
        return arrays | {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _lines(self) -> Iterator[list[str]]:
        """Yield the lines of a CSV file, a header first."""
        several = self.spec.output_steps != 0
        for number, (row, length) in enumerate(zip(self._joined(), self._lengths, strict=True)):
            if not several:
                row = {name: values[None] for name, values in row.items()}
            if number == 0:
                header = [name for key, values in row.items() for name in _columns(key, values)]
                yield ["row", "length", *(["step"] if several else []), *header]
            columns = np.concatenate([values.reshape(len(values), -1).astype(object) for values in row.values()], 1)
            for step, values in enumerate(columns.tolist()):
                yield [str(number), str(length), *([str(step)] if several else []), *map(repr, values)]


def check_predictions(path: Path) -> None:
    """Check that predictions can be written to ``path``, before they are computed.

    Raises:
        UserError: a suffix other than .npz or .csv, no such folder, or the file exists.
    """
    if path.suffix.lower() not in (".npz", ".csv"):
        raise UserError(f"predictions: got {path}, expected a name that ends in .npz or .csv")
    if not path.parent.is_dir():
        raise UserError(f"predictions: got {path}, but there is no folder {path.parent}")
    if path.exists():
        raise UserError(f"predictions: got {path}, which exists already; expected the name of a new file")


def _padded(values: np.ndarray, steps: int) -> np.ndarray:
    return np.pad(values, [(0, steps - len(values)), *[(0, 0)] * (values.ndim - 1)])


def _columns(key: str, values: np.ndarray) -> list[str]:
    """Return the names of the columns of (T,) or (T, D) values."""
    if values.ndim == 1 or (values.shape[1] == 1 and key != "probability"):
        return [key]
    return [f"{key}_{k}" for k in range(values.shape[1])]
