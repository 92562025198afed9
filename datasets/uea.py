"""Any classification problem of the UEA and UCR archives."""

import re
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field, NonNegativeInt
from seqmem.datasets.series import Samples, SeriesSet

from seqmem.arguments import checked
from seqmem.data.provenance import Provenance, sha256
from seqmem.data.seeds import Seed
from seqmem.data.splits import Split, stratified_validation
from seqmem.errors import UserError
from seqmem.io.ts_files import Part, filled, read_problem

_number = re.compile(r"[+-]?\d+\.?\d*(e[+-]?\d+)?")


def _problem_name(name: str) -> str:
    # A name becomes a part of paths and addresses.
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError("the name of a problem, such as JapaneseVowels")
    return name


class UEA(SeriesSet):
    """A problem of the UEA (multivariate) and UCR (univariate) archives of time series classification.

    The archive's test part is the test split; the validation split is a random part of its training part that keeps the share
    of each class. Series of unequal length are padded with 0 at the end and masked by ``Batch.lengths``, which is None if all
    of a split are equally long. A missing value becomes the last one before it in its channel, or else the first one after it;
    a channel without any is 0 throughout, which is the mean if channels are standardised. Classes are numbered in the order of
    their labels, as numbers if all are; those that only the test part has are counted too.
    """

    name = "uea"

    @checked
    def __init__(
        self,
        problem: Annotated[str, AfterValidator(_problem_name)] = "JapaneseVowels",
        data_dir: str | Path = "data",
        standardize: bool = True,
        missing_mask: bool = False,
        reconstruction: bool = False,
        validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15,
        split_seed: Seed = 0,
        num_workers: NonNegativeInt = 0,
    ):
        """Load a problem and split off its validation part.

        Args:
            problem: its name in the archive; JapaneseVowels, BasicMotions, ArrowHead, GunPoint, ItalyPowerDemand, OSULeaf,
                ACSF1 and PLAID come with sktime.
            data_dir: the folder that holds ``NAME/NAME_TRAIN.ts`` and ``NAME/NAME_TEST.ts``. If both are missing, those that
                come with sktime are taken, and the files of any other problem are downloaded to there.
            standardize: whether each channel is shifted and scaled to mean 0 and standard deviation 1 over the values that are
                there in the training split; a channel that is constant there is only shifted.
            missing_mask: whether as many channels are appended, 1 where a value was there and 0 where it was missing.
            reconstruction: the series themselves are wanted, instead of their classes.
            validation_fraction: the part of the archive's training part that becomes the validation split.
            split_seed: of that choice.
            num_workers: processes that make batches; 0 makes them in the main one.

        Raises:
            UserError: there is no such problem, its files are missing and cannot be downloaded, cannot be read or hold no
                classification problem, or it has a single class or training series.
        """
        archive_train, archive_test = read_problem(self.name, problem, data_dir, {})
        classes, labels, test_labels = _numbered(archive_train.labels, archive_test.labels)
        if classes < 2:
            raise UserError(f"dataset.problem: {problem} has a single class, expected at least 2")
        train, validation = stratified_validation(labels, validation_fraction, split_seed)

        mean, deviation = _statistics(archive_train, train) if standardize else (0.0, 1.0)

        def samples(part: Part, rows: np.ndarray, numbers: np.ndarray) -> Samples:
            return Samples([_ready((part.series[row] - mean) / deviation, missing_mask) for row in rows], numbers[rows])

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
        super().__init__(parts, classes, provenance, num_workers, problem, reconstruction)


def _numbered(train: list[str], test: list[str]) -> tuple[int, np.ndarray, np.ndarray]:
    """The number of different labels, and for each label its place among them in order."""
    labels = [*train, *test]
    # Some files write 1 in one part and 1.0 in the other.
    keys = [float(label) for label in labels] if all(_number.fullmatch(label) for label in labels) else labels
    different, places = np.unique(np.array(keys), return_inverse=True)
    return len(different), places[: len(train)], places[len(train) :]


def _statistics(part: Part, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel (C,) over the values that are there; 0 and 1 where there is none."""
    values = np.ma.masked_invalid(np.concatenate([part.series[row] for row in rows]))
    mean, deviation = values.mean(axis=0).filled(0.0), values.std(axis=0).filled(1.0)
    # The deviation of a constant channel is 0 up to rounding.
    return mean, np.where(deviation > 1e-12 * np.abs(mean), deviation, 1.0)


def _ready(series: np.ndarray, missing_mask: bool) -> np.ndarray:
    return np.concatenate([filled(series), ~np.isnan(series)], axis=1) if missing_mask else filled(series)
