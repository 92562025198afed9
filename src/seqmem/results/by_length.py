"""Evaluations of trials at several lengths: read from their folders, as a table, and as a CSV file."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqmem.results.evaluations import aligned
from seqmem.results.record import settings

KEY = "by_length"
"""Key of an evaluation's file that has its length, and how it was read."""

COUNTS = (
    "train.eval_batch_size",
    "train.limit_train_batches",
    "train.limit_val_batches",
    "train.limit_test_batches",
    "dataset.train_samples",
    "dataset.validation_samples",
    "dataset.test_samples",
)
"""Settings that choose how many sequences are read. Of generated data, a different number can be different sequences."""


@dataclass(frozen=True)
class AtLength:
    """One evaluation at one length.

    Attributes:
        length: as the data set's argument ``length`` counts it.
        steps: of the longest sequence.
        sequences: how many were read.
        metric: name of the metric that tables show.
        result: loss and metrics by their names, without the split.
        variant: the settings that differ from those of the training in more than lengths and numbers of sequences.
        record: content of the file.
    """

    length: int
    steps: int
    sequences: int
    metric: str
    result: dict[str, float]
    variant: dict[str, Any]
    record: Mapping[str, Any]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "AtLength":
        """Return the evaluation of a file's content.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is not an evaluation at a length.
        """
        about = record[KEY]
        length, steps, sequences = (about[key] for key in ("length", "steps", "sequences"))
        result = {str(name).partition("/")[2]: float(value) for name, value in record["result"].items()}
        if (
            not all(type(number) is int and number > 0 for number in (length, steps, sequences))
            or record["metric"] not in result
        ):
            raise ValueError("it has no length, number of sequences or metric")
        others = {*about["keys"], *COUNTS}
        variant = {key: new for key, (_, new) in record["changed"].items() if key not in others}
        return cls(length, steps, sequences, record["metric"], result, variant, record)

    @property
    def weights(self) -> str | None:
        """Checksum of the weights; None if it is not known."""
        return self.record.get("checkpoint_sha256")

    @property
    def rows(self) -> int:
        """Sequences that were read at once."""
        return int(self.record[KEY].get("batch_size", 1))

    @property
    def read(self) -> dict[str, str]:
        """Checksums of the sequences by "inputs" and "targets"; empty if they are not known."""
        found = self.record.get("read")
        return {name: str(each) for name, each in found.items()} if isinstance(found, dict) else {}

    @property
    def value(self) -> float:
        """The metric."""
        return self.result[self.metric]

    def answers(self, asked: Mapping[str, Any]) -> bool:
        """Return whether an evaluation with the values of ``asked`` would have the same result.

        Args:
            asked: by the file's keys: checksums of the weights, the code and the data, and the config.
        """
        same = all(self.record.get(key) == asked[key] for key in ("checkpoint_sha256", "code", "data"))
        return same and _counted(self.record["config"]) == _counted(asked["config"])


def read(folder: Path) -> list[AtLength]:
    """Read the evaluations of a trial's folder at single lengths, the oldest first; files that are damaged do not count."""
    found = []
    for path in sorted((folder / "evaluations").glob("*_length_*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if KEY in record:
                found.append(AtLength.of(record))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return found


def largest(evaluations: Iterable[AtLength]) -> dict[int, AtLength]:
    """Return by length the evaluation on the most sequences, of several the last one."""
    return {each.length: each for each in sorted(evaluations, key=lambda each: each.sequences)}


def comparable(trials: Mapping[Path, Iterable[AtLength]]) -> dict[int, dict[Path, AtLength]]:
    """Return by length one evaluation of each trial of a row, all of them on the same number of sequences.

    It is the number that most of the trials have, of several the largest, and of each trial its last evaluation on so many.
    A trial without one is left out at that length.

    Args:
        trials: by folder, the evaluations of a trial, the oldest first.
    """
    known: dict[int, dict[Path, dict[int, AtLength]]] = {}
    for path, evaluations in trials.items():
        for each in evaluations:
            known.setdefault(each.length, {}).setdefault(path, {})[each.sequences] = each
    found = {}
    for length, of_trials in known.items():
        counts = Counter(number for own in of_trials.values() for number in own)
        number = max(counts, key=lambda number: (counts[number], number))
        found[length] = {path: own[number] for path, own in of_trials.items() if number in own}
    return found


def training_lengths(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the shortest and the longest length of a training; None if its data set has no length.

    They are those of ``mixture``, a list of lists that begin with a length, or ``min_length`` and ``length``.

    Args:
        config: of the trial, or its flat settings.
    """
    flat = settings(config)
    mixture = flat.get("dataset.mixture")
    mixed = [each[0] for each in mixture if isinstance(each, list) and each] if isinstance(mixture, list) else []
    if mixed and all(type(length) is int for length in mixed):
        return min(mixed), max(mixed)
    longest = flat.get("dataset.length")
    if type(longest) is not int:
        return None
    shortest = flat.get("dataset.min_length", longest)
    return (shortest if type(shortest) is int else longest), longest


def table(evaluations: Sequence[AtLength]) -> dict[str, list[Any]]:
    """Return the columns length, steps, metrics, loss and n, the number of sequences."""
    first = evaluations[0]
    metrics = sorted(first.result, key=lambda name: (name != first.metric, name == "loss"))
    return {
        "length": [each.length for each in evaluations],
        "steps": [each.steps for each in evaluations],
        **{name: [each.result.get(name, math.nan) for each in evaluations] for name in metrics},
        "n": [each.sequences for each in evaluations],
    }


def text(columns: Mapping[str, Sequence[Any]]) -> str:
    """Return the columns of :func:`table` as lines of text."""
    cells = ([f"{value:.6g}" if isinstance(value, float) else str(value) for value in column] for column in columns.values())
    return aligned([tuple(columns), *zip(*cells, strict=True)])


def _counted(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a result depends on."""
    return {key: repr(value) for key, value in settings(config).items() if key != "train.eval_batch_size"}
