"""UEA and UCR archives: any of their time series classification problems."""

import re
import warnings
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field, NonNegativeInt

from seqmem.arguments import checked
from seqmem.data import Provenance, Seed, Split, sha256, stratified_validation
from seqmem.data.class_names import numbered
from seqmem.datasets.series import Samples, SeriesSet
from seqmem.errors import DataWarning, UserError
from seqmem.io.ts_files import Part, filled, read_problem


def _problem_name(name: str) -> str:
    # The name becomes a part of paths and URLs.
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError("the name of a problem, such as JapaneseVowels")
    return name


class UEA(SeriesSet):
    """A problem of the UEA (multivariate) and UCR (univariate) archives of time series classification.

    A step is a sample of all C channels. Inputs are (B, T, C), padded with 0, with ``lengths`` unless all series of the split
    are equally long; targets are (B,). Classes are numbered in the order of their labels, as numbers if all labels are numbers;
    classes of the test part alone are included. Labels keep their case: "A" and "a" are two classes.

    If the files have time stamps, they are the ``times`` of the batches: a series has a step for each time of any of its
    channels, and a channel without a value at that time has a missing one.

    The archive's test part is the test split. The validation split is a random stratified part of its training part. A missing
    value becomes the previous value of its channel, or else the next one. A channel without values is 0, which is the mean if
    channels are standardised.
    """

    name = "uea"

    @checked
    def __init__(
        self,
        problem: Annotated[str, AfterValidator(_problem_name)] = "JapaneseVowels",
        data_dir: str | Path = "data",
        standardize: bool = True,
        missing_mask: bool = False,
        timestamp: bool = True,
        reconstruction: bool = False,
        validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15,
        split_seed: Seed = 0,
        num_workers: NonNegativeInt = 0,
    ):
        """Load a problem and split off its validation part.

        Args:
            problem: its name in the archive; sktime includes JapaneseVowels, BasicMotions, ArrowHead, GunPoint,
                ItalyPowerDemand, OSULeaf, ACSF1 and PLAID.
            data_dir: folder with ``NAME/NAME_TRAIN.ts`` and ``NAME/NAME_TEST.ts``. If both are missing, those in sktime are
                taken, and the files of any other problem are downloaded to this folder.
            standardize: shift and scale each channel to mean 0 and standard deviation 1 on the training split. Missing values
                do not count, and a constant channel is only shifted.
            missing_mask: append C channels, 1 for a value and 0 for a missing one.
            timestamp: batches have ``times`` if the files have time stamps; false ignores them.
            reconstruction: the targets are the series, and the classes are the labels of a batch.
            validation_fraction: fraction of the archive's training part for the validation split.
            split_seed: seed of that choice.
            num_workers: worker processes that make batches; 0 makes them in the main process.

        Raises:
            UserError: there is no such problem; its files are missing and cannot be downloaded, cannot be read or are not a
                classification problem; or it has a single class or training series.
        """
        archive_train, archive_test = read_problem(self.name, problem, data_dir)
        # Some problems have the label 1 in one part and 1.0 in the other.
        names, numbers = numbered([*archive_train.labels, *archive_test.labels])
        labels, test_labels = np.split(numbers, [len(archive_train.labels)])
        if len(names) < 2:
            raise UserError(f"dataset.problem: got {problem}, which has a single class, expected at least 2 classes")
        train, validation = stratified_validation(labels, validation_fraction, split_seed)
        _warn_of_lost_classes(f"{self.name} {problem}", names, labels[train], labels[validation], validation_fraction)

        mean, deviation = _statistics(archive_train, train) if standardize else (0.0, 1.0)

        def samples(part: Part, rows: np.ndarray, numbers: np.ndarray) -> Samples:
            series = [_ready((part.series[row] - mean) / deviation, missing_mask) for row in rows]
            times = None if part.times is None or not timestamp else [part.times[row] for row in rows]
            return Samples(series, numbers[rows], times)

        test = np.arange(len(test_labels))
        parts: dict[Split, Samples] = {
            "train": samples(archive_train, train, labels),
            "validation": samples(archive_train, validation, labels),
            "test": samples(archive_test, test, test_labels),
        }
        provenance = Provenance(
            seed=split_seed,
            sha256={"train": sha256(train), "validation": sha256(validation), "test": sha256(test)},
            files={part.file: part.sha256 for part in (archive_train, archive_test)},
        )
        super().__init__(parts, names, provenance, num_workers, problem, reconstruction)


def _warn_of_lost_classes(
    problem: str, names: list[str], train: np.ndarray, validation: np.ndarray, validation_fraction: float
) -> None:
    """Warn if the training split has no series of a class: of one with a single series, or of the test part alone."""
    lost = sorted(set(range(len(names))) - set(train.tolist()))
    if not lost:
        return
    shown = ", ".join(names[label] for label in lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
    taken = len(set(lost) & set(validation.tolist()))
    warnings.warn(
        f"{problem}: the training split has no series of {len(lost)} of {len(names)} classes ({shown}); those of {taken} are "
        f"in the validation split (dataset.validation_fraction={validation_fraction}, at least one series), those of "
        f"{len(lost) - taken} in the test part alone",
        DataWarning,
        stacklevel=3,
    )


def _statistics(part: Part, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel (C,) over the values that are not missing; 0 and 1 if all are."""
    values = np.ma.masked_invalid(np.concatenate([part.series[row] for row in rows]))
    mean, deviation = values.mean(axis=0).filled(0.0), values.std(axis=0).filled(1.0)
    # The deviation of a constant channel is 0 up to rounding.
    return mean, np.where(deviation > 1e-12 * np.abs(mean), deviation, 1.0)


def _ready(series: np.ndarray, missing_mask: bool) -> np.ndarray:
    return np.concatenate([filled(series), ~np.isnan(series)], axis=1) if missing_mask else filled(series)
