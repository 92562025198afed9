"""Predictions for each sequence of a split, counted by class and written to a file."""

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seqmem.data.batch import IGNORE_INDEX, Batch
from seqmem.data.masks import valid_targets
from seqmem.io.archive import write_arrays
from seqmem.io.files import check_new_file, replacing
from seqmem.io.series_files import write_rows
from seqmem.tasks import Task
from seqmem.tasks.classification import MANY_CLASSES
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


def class_counts(task: Task) -> ClassCounts | None:
    """Return counts for the classes of a task; None if it does not tabulate classes or has many."""
    return ClassCounts(task) if task.tabulates_classes and task.spec.output_size <= MANY_CLASSES else None


class Predictions(BatchObserver):
    """Keeps targets and predictions of every sequence in memory until they are written.

    Where batches are contiguous, a row of the file is everything that one row of the batches read.

    Args:
        task: names what is written (:meth:`seqmem.tasks.Task.predictions`).
        names: of the split's sequences (:meth:`seqmem.data.DataSet.sequence_names`); None for numbers alone.
    """

    def __init__(self, task: Task, names: Sequence[str] | None = None):
        self.task, self.spec, self.names = task, task.spec, names
        self.class_names = task.spec.class_names if task.class_targets else None
        self._rows: list[list[dict[str, np.ndarray]]] = []
        self._lengths: list[int] = []

    def observe(self, batch: Batch, results: dict[str, Tensor]) -> None:
        """Keep the batch."""
        outputs = results["outputs"]
        # NumPy has no bfloat16; float64 stays.
        predictions = self.task.predictions(outputs.float() if outputs.element_size() < 4 else outputs, batch)
        valid = valid_targets(batch.on_host, self.task.positions(batch), self.spec.output_steps)
        if batch.places is not None:
            predictions = {"step": batch.places, **predictions}
            valid = batch.on_host.targets != IGNORE_INDEX
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
        - ``probability``, of classification and language modelling only; that of the target alone if there are many classes.
        - ``step``, of a data set with ``sparse_targets``, whose ignored targets are left out: the step of each of the others.
        - ``steps`` (n,), where sequences have several outputs. The predictions then begin (n, K): row k has those of its
          ``steps[k]`` valid steps, then zeros.
        - ``series`` (n,), names of the sequences, and ``class_names`` (K,), if the data set has them.

        A ``.csv`` file has a line for each output, with a column ``step`` if sequences have several. Columns of several values
        or classes are numbered: ``prediction_0``, ``probability_3``. Names of classes are in ``target_label`` and
        ``prediction_label``.

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
        if self.names is not None:
            arrays["series"] = np.array(self.names[: len(self._rows)])
        if self.class_names is not None:
            arrays["class_names"] = np.array(self.class_names)
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
            row = self._labelled(row)
            numbers = row.pop("step", None)
            if number == 0:
                header = [name for key, values in row.items() for name in _columns(key, values)]
                columns = ["row", "length"] if self.names is None else ["row", "series", "length"]
                yield [*columns, *(["step"] if several else []), *header]
            named = [] if self.names is None else [self.names[number]]
            table = np.concatenate([values.reshape(len(values), -1).astype(object) for values in row.values()], 1)
            for step, values in zip(range(len(table)) if numbers is None else numbers, table.tolist(), strict=True):
                cells = [value if isinstance(value, str) else repr(value) for value in values]
                yield [str(number), *named, str(length), *([str(step)] if several else []), *cells]

    def _labelled(self, row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the columns of a row with the names of classes beside their numbers."""
        if self.class_names is None:
            return row
        labelled: dict[str, np.ndarray] = {}
        for key, values in row.items():
            labelled[key] = values
            if key in ("target", "prediction"):
                labelled[f"{key}_label"] = np.array([self._label(number) for number in values.tolist()], object)
        return labelled

    def _label(self, number: int) -> str:
        """Return the name of a class; empty for an ignored target."""
        assert self.class_names is not None
        return self.class_names[number] if 0 <= number < len(self.class_names) else ""


def check_predictions(path: Path) -> None:
    """Check that predictions can be written to ``path``, before they are computed.

    Raises:
        UserError: a suffix other than .npz or .csv, no such folder, or the file exists.
    """
    check_new_file(path, "predictions", [".npz", ".csv"])


def _padded(values: np.ndarray, steps: int) -> np.ndarray:
    return np.pad(values, [(0, steps - len(values)), *[(0, 0)] * (values.ndim - 1)])


def _columns(key: str, values: np.ndarray) -> list[str]:
    """Return the names of the columns of (T,) or (T, D) values."""
    if values.ndim == 1 or (values.shape[1] == 1 and key != "probability"):
        return [key]
    return [f"{key}_{k}" for k in range(values.shape[1])]
