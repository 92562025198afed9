"""CharacterTrajectories: pen strokes, with a different sampling rate or missing points at test time."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt

from seqmem.arguments import checked
from seqmem.data import SPLITS, Provenance, Seed, Split, label_of, sha256
from seqmem.datasets.series import Samples, SeriesSet
from seqmem.errors import DataWarning, UserError
from seqmem.io.ts_files import Part, filled, read_problem

POINTS_SEED = 56789
"""Seed of the points that are kept if points are dropped at random; the original's, the same for every split."""

KNOWN = {
    "CharacterTrajectories_TRAIN.ts": "4702263 bytes, sha256 41b645a7294211df27cd0449b8486fc4a0198596ec15d9140970cc09c7db626b",
    "CharacterTrajectories_TEST.ts": "4746801 bytes, sha256 349f7be1025f94766516e81e613a1cc6d9fa179e2d62a90e5ef7ba61ca75aaae",
}
"""The files that this project's results were measured with: the archive's 2858 series, divided differently into two files.

The archive changed its files on 2023-11-01. A warning names files of other versions, since their results may differ.
"""

OFFICIAL = {"series": "2858", "classes": "20", "channels": "3"}
"""Content of both files together in every version of the archive."""

Rate = Annotated[float, Field(gt=0, le=1)]
Scale = Annotated[float, Field(gt=0)]


class CharacterTrajectories(SeriesSet):
    """The 2858 pen strokes of 20 letters from the UEA archive, by the protocol of HiPPO (section 4.2).

    A step is a sample of x and y velocity and pen force. Inputs are (B, T, 3), of 60 to 182 steps before padding; targets are
    (B,) of 20 classes, numbered by order of appearance.

    Both files of the archive are pooled and split again, stratified by class: 70 % for training, and half of the rest each for
    validation and test (2000, 429 and 429 series). Each series is continued to the common length of 182 with its last value,
    unless ``padding`` is "mask". Channels are standardised, x' = (x - mean) / (std + 1e-5), with the mean and standard
    deviation of all steps of the training split at the full rate, padding by the last value included. Files with other numbers
    of series, classes or channels are called "ct other files" in tables; those with other checksums than :data:`KNOWN` keep the
    name, with a warning.

    The flags ``train_...`` act on the training split, ``eval_...`` on validation and test, so that a model can be tested at a
    sampling rate or time scale that it was not trained on. A rate ``hz`` keeps n = int(L * hz) of the L steps of a series:

    * uniform: steps floor(k / hz) for k = 0 to n - 1, the same signal at a lower rate;
    * not uniform: n random steps in their order, different ones for each series. This drops points if hz < 1. With hz = 1 it
      keeps all, so the "missing values" commands of HiPPO's README (hz=1) drop none and only scale the timestamps.

    With ``timestamp``, ``Batch.times`` of a step is its index before any was dropped, multiplied by ``train_ts`` or
    ``eval_ts``; it is not standardised. The published 200 Hz is the full rate, 100 Hz is hz=0.5.

    ``Batch.rate`` of validation and test is train_hz / eval_hz, the time between two steps as a multiple of that in training.
    It is 1 if either split keeps random steps, which have no step size in common.
    """

    name = "ct"

    @checked
    def __init__(
        self,
        data_dir: str | Path = "data",
        train_hz: Rate = 1.0,
        eval_hz: Rate = 1.0,
        train_uniform: bool = True,
        eval_uniform: bool = True,
        timestamp: bool = False,
        train_ts: Scale = 1.0,
        eval_ts: Scale = 1.0,
        padding: Literal["last", "mask"] = "last",
        reconstruction: bool = False,
        split_seed: Seed = 0,
        num_workers: NonNegativeInt = 0,
    ):
        """Load the series, split them, and keep the steps that the flags select.

        Args:
            data_dir: folder with ``CharacterTrajectories/CharacterTrajectories_TRAIN.ts`` and ``_TEST.ts``. Both are downloaded
                if neither exists.
            train_hz: fraction of the steps kept in the training split, above 0 and at most 1.
            eval_hz: the same for validation and test.
            train_uniform: keep evenly spaced steps for training (true) or random ones (false).
            eval_uniform: the same for validation and test.
            timestamp: batches have ``times``.
            train_ts: factor of the times in the training split.
            eval_ts: the same for validation and test.
            padding: "last" repeats a series' last value up to the longest length; "mask" passes the lengths instead. With
                "mask", statistics are those of the valid steps alone, and rates act on each series' own length.
            reconstruction: the targets are the series, and the classes are the labels of a batch.
            split_seed: seed of the random split; 0 is the original's.
            num_workers: worker processes that make batches; 0 makes them in the main process.

        Raises:
            UserError: a file is missing and cannot be downloaded, or cannot be read; there are too few series to split; or a
                rate keeps no step of a series.
        """
        for key, scale in {"train_ts": train_ts, "eval_ts": eval_ts}.items():
            if scale != 1 and not timestamp:
                raise UserError(f"dataset.{key}: got {scale} without times, expected 1 or dataset.timestamp=true")
        parts = read_problem(self.name, "CharacterTrajectories", data_dir)
        if parts[0].times is not None:
            raise UserError(f"ct: got {parts[0].file} with timestamps, expected evenly spaced series")
        series = [filled(values) for part in parts for values in part.series]
        names, labels = _by_appearance([label for part in parts for label in part.labels])
        if padding == "last":
            longest = max(len(values) for values in series)
            series = [np.pad(values, ((0, longest - len(values)), (0, 0)), mode="edge") for values in series]

        rows = _split(labels, split_seed)
        training = np.concatenate([series[row] for row in rows["train"]])
        mean = self.learned("mean", lambda: training.mean(axis=0))
        deviation = np.array(self.learned("deviation", lambda: training.std(axis=0, ddof=1)))
        samples = {}
        for split in SPLITS:
            hz, uniform, ts = (train_hz, train_uniform, train_ts) if split == "train" else (eval_hz, eval_uniform, eval_ts)
            standardised = [(series[row] - mean) / (deviation + 1e-5) for row in rows[split]]
            lengths = [len(values) for values in standardised]
            _check_rate("train_hz" if split == "train" else "eval_hz", hz, min(lengths))
            steps = kept_steps(lengths, hz, uniform)
            samples[split] = Samples(
                [values[kept] for values, kept in zip(standardised, steps, strict=True)],
                labels[rows[split]],
                [kept * ts for kept in steps] if timestamp else None,
                train_hz / hz if train_uniform and uniform else 1.0,
            )
        provenance = Provenance(
            seed=split_seed,
            sha256={split: sha256(indices) for split, indices in rows.items()},
            files={part.file: part.sha256 for part in parts},
        )
        found = {"series": str(len(series)), "classes": str(len(names)), "channels": str(series[0].shape[1])}
        label = label_of(self.name, found, OFFICIAL)
        if not label:
            _warn_of_other_versions(parts)
        super().__init__(samples, names, provenance, num_workers, label, reconstruction)


def _warn_of_other_versions(parts: Iterable[Part]) -> None:
    """Warn of files with the official counts that are not those of :data:`KNOWN`."""
    names = {part.file.rpartition("/")[2]: part.sha256 for part in parts}
    other = [f"{name}: got sha256 {found}, expected {KNOWN[name]}" for name, found in names.items() if found not in KNOWN[name]]
    if other:
        warnings.warn(
            f"ct was read from other files than this project's results ({'; '.join(other)}); the archive has several versions, "
            "whose results may differ",
            DataWarning,
            stacklevel=3,
        )


def kept_steps(lengths: list[int], hz: float, uniform: bool) -> list[np.ndarray]:
    """Choose the steps of each series that are kept at a lower rate.

    Args:
        lengths: L, the steps of each series.
        hz: fraction of the steps to keep, above 0 and at most 1.
        uniform: evenly spaced steps, or random ones with :data:`POINTS_SEED`.

    Returns:
        For each series int(L * hz) indices in increasing order, int64.
    """
    if uniform:
        return [np.floor(np.arange(int(length * hz)) / hz).astype(np.int64) for length in lengths]
    random = torch.Generator().manual_seed(POINTS_SEED)
    orders = (torch.randperm(length, generator=random)[: int(length * hz)] for length in lengths)
    return [order.sort().values.numpy() for order in orders]


def _check_rate(key: str, hz: float, shortest: int) -> None:
    if int(shortest * hz) == 0:
        raise UserError(f"dataset.{key}: got {hz}, which keeps no step of a series of {shortest}, expected a larger fraction")


def _by_appearance(labels: list[str]) -> tuple[list[str], np.ndarray]:
    """The different labels in order of first appearance, and the position of each label among them."""
    places = {label: place for place, label in enumerate(dict.fromkeys(labels))}
    return list(places), np.array([places[label] for label in labels])


def _split(labels: np.ndarray, seed: int) -> dict[Split, np.ndarray]:
    """70 % for training, half of the rest for validation, with the original's seeds: ``seed``, then ``seed + 1``."""
    # Imported here because it takes a second, and listing the data sets must be fast.
    from sklearn.model_selection import train_test_split

    try:
        train, rest = train_test_split(np.arange(len(labels)), train_size=0.7, stratify=labels, random_state=seed)
        seconds = (seed + 1) % 2**32
        validation, test = train_test_split(rest, train_size=0.5, stratify=labels[rest], random_state=seconds)
    except ValueError as error:
        raise UserError(f"ct: {len(labels)} series cannot be split by class into 70, 15 and 15 %: {error}") from None
    return {"train": train, "validation": validation, "test": test}
