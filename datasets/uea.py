"""UEA and UCR archives: any of their time series classification problems."""

import math
import re
import warnings
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import AfterValidator, Field, NonNegativeInt

from seqmem.arguments import checked
from seqmem.data import Provenance, Seed, Split, generator, sha256, stratified_validation
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

    If the files have timestamps, they are the ``times`` of the batches: a series has a step for each time of any of its
    channels, and a channel without a value at that time has a missing one.

    The archive's test part is the test split. The validation split is a random stratified part of its training part.

    With ``resplit`` both parts are pooled, and ``split_seed`` draws all three splits: of N series the first floor(0.7 N) for
    training, those up to floor(0.85 N) for validation, and the others for test. The draw is plain random, without
    stratification. Series of equal values count once, so that none is in two splits. This is the protocol of Walker et al.,
    "Log Neural Controlled Differential Equations" (2024), and of Rusch and Rus, "Oscillatory State-Space Models" (2025). They
    draw other splits for each of five seeds, as ``split_seed=null`` does: the trials of a seed have the same splits, whatever
    the model.

    A missing value becomes the previous value of its channel, or else the next one. A channel without values is 0, which is the
    mean if channels are standardised.
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
        resplit: bool = False,
        validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15,
        split_seed: Seed | None = 0,
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
            timestamp: batches have ``times`` if the files have timestamps; false ignores them.
            reconstruction: the targets are the series, and the classes are the labels of a batch.
            resplit: pool the archive's two parts, and draw all three splits from them.
            validation_fraction: fraction of the archive's training part for the validation split. With ``resplit`` it is a
                fraction of all series, and the test split has the same.
            split_seed: seed of that choice; None for the seed of the trial, and 0 without a trial.
            num_workers: worker processes that make batches; 0 makes them in the main process.

        Raises:
            UserError: there is no such problem; its files are missing and cannot be downloaded, cannot be read or are not a
                classification problem; it has a single class or training series; or with ``resplit`` a split is empty.
        """
        parts = read_problem(self.name, problem, data_dir)
        pool = _pooled(*parts)
        # Some problems have the label 1 in one part and 1.0 in the other.
        names, labels = numbered(pool.labels)
        if len(names) < 2:
            raise UserError(f"dataset.problem: got {problem}, which has a single class, expected at least 2 classes")
        files = {part.file: part.sha256 for part in parts}
        cases = _Problem(problem, pool, names, labels, len(parts[0].series), files)
        self._standardize, self._missing_mask, self._timestamp = standardize, missing_mask, timestamp
        self._reconstruction, self._resplit, self._validation_fraction = reconstruction, resplit, validation_fraction
        self._workers = num_workers
        self._undrawn = cases if split_seed is None else None
        self._split(cases, split_seed)

    def of_trial(self, seed: int) -> Self:
        """Return the splits of a trial, which its seed draws unless ``split_seed`` is given."""
        if self._undrawn is None:
            return self
        own = copy(self)
        own._undrawn = None
        own._split(self._undrawn, seed)
        return own

    def _statistics(self, pool: Part, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of each channel (C,).

        Raises:
            UserError: the trial whose model the data are loaded for had other channels.
        """
        mean, deviation = _statistics(pool, rows)
        known = np.array(self.learned("mean", lambda: mean)), np.array(self.learned("deviation", lambda: deviation))
        if known[0].shape != mean.shape:
            raise UserError(f"dataset.problem: got series of {len(mean)} channels, expected {len(known[0])} as in the training")
        return known

    def _split(self, problem: "_Problem", seed: int | None) -> None:
        """Draw the splits, and store their series; None stands for the seed of any trial, with the splits of seed 0."""
        rows = _rows(problem, self._resplit, self._validation_fraction, seed or 0)
        pool = problem.pool
        mean, deviation = self._statistics(pool, rows["train"]) if self._standardize else (0.0, 1.0)

        def samples(rows: np.ndarray) -> Samples:
            series = [_ready((pool.series[row] - mean) / deviation, self._missing_mask) for row in rows]
            times = None if pool.times is None or not self._timestamp else [pool.times[row] for row in rows]
            known = [~np.isnan(pool.series[row]) for row in rows]
            has_all = not self._missing_mask and all(each.all() for each in known)
            return Samples(series, problem.labels[rows], times, known=None if has_all else known)

        samples_of: dict[Split, Samples] = {split: samples(rows[split]) for split in rows}
        provenance = Provenance(seed, _checksums(problem, rows, self._resplit, seed), files=problem.files)
        super().__init__(samples_of, problem.names, provenance, self._workers, problem.name, self._reconstruction)


@dataclass(frozen=True)
class _Problem:
    """The cases of a problem, before they are split.

    Attributes:
        name: of the problem.
        pool: the cases of both parts.
        names: of the classes.
        labels: (n,) numbers of the classes.
        first_of_test: number of cases of the archive's training part, after which those of its test part come.
        files: sha256 of each file by its name.
    """

    name: str
    pool: Part
    names: list[str]
    labels: np.ndarray
    first_of_test: int
    files: dict[str, str]


def _rows(problem: _Problem, resplit: bool, validation_fraction: float, seed: int) -> dict[Split, np.ndarray]:
    """Return the cases of each split, and warn of classes that training lacks.

    Raises:
        UserError: a split is empty.
    """
    label, labels, first_of_test = f"{UEA.name} {problem.name}", problem.labels, problem.first_of_test
    rows: dict[Split, np.ndarray]
    if resplit:
        rows = _drawn(label, _without_repeats(problem.pool), validation_fraction, seed)
    else:
        train, validation = stratified_validation(labels[:first_of_test], validation_fraction, seed)
        rows = {"train": train, "validation": validation, "test": np.arange(first_of_test, len(labels))}
    _warn_of_lost_classes(label, problem.names, {split: labels[rows[split]] for split in rows}, validation_fraction, resplit)
    return rows


def _checksums(problem: _Problem, rows: dict[Split, np.ndarray], resplit: bool, seed: int | None) -> dict[Split, str]:
    """Return the checksum of each split's cases; of splits that each trial draws, that of the cases which they are drawn from.

    Without ``resplit``, the archive's test part counts its own series from 0.
    """
    first = 0 if resplit else problem.first_of_test
    indices = {**rows, "test": rows["test"] - first}
    if seed is None:
        drawn = np.sort(np.concatenate([rows[split] for split in rows if resplit or split != "test"]))
        indices |= dict.fromkeys(rows if resplit else ("train", "validation"), drawn)
    return {split: sha256(indices[split]) for split in rows}


def _pooled(first: Part, second: Part) -> Part:
    """Return the cases of both parts in order."""
    times = None if first.times is None or second.times is None else [*first.times, *second.times]
    return replace(first, series=[*first.series, *second.series], labels=[*first.labels, *second.labels], times=times)


def _without_repeats(pool: Part) -> np.ndarray:
    """Return the numbers of the cases without those whose values and times an earlier case has."""
    stamps = pool.times or [np.zeros(0)] * len(pool.series)
    first: dict[tuple[bytes, bytes], int] = {}
    for number, (values, times) in enumerate(zip(pool.series, stamps, strict=True)):
        first.setdefault((values.tobytes(), times.tobytes()), number)
    return np.array(list(first.values()))


def _drawn(label: str, cases: np.ndarray, held_out: float, seed: int) -> dict[Split, np.ndarray]:
    """Draw three splits of cases, of which validation and test get the fraction ``held_out`` each.

    Raises:
        UserError: one of them would be empty.
    """
    bounds = [max(0, math.floor(len(cases) * fraction + 1e-9)) for fraction in (1 - 2 * held_out, 1 - held_out)]
    train, validation, test = np.split(generator(seed, "split").permutation(cases), bounds)
    if not (len(train) and len(validation) and len(test)):
        raise UserError(
            f"dataset.validation_fraction: got {held_out} of the {len(cases)} different series of {label}, which leaves "
            f"{len(train)} for training, {len(validation)} for validation and {len(test)} for test, expected at least 1 each"
        )
    return {"train": train, "validation": validation, "test": test}


def _warn_of_lost_classes(
    problem: str, names: list[str], labels: dict[Split, np.ndarray], validation_fraction: float, resplit: bool
) -> None:
    """Warn if the training split has no series of a class: of one with a single series, or of the test part alone."""
    lost = sorted(set(range(len(names))) - set(labels["train"].tolist()))
    if not lost:
        return
    shown = ", ".join(names[label] for label in lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
    taken = len(set(lost) & set(labels["validation"].tolist()))
    at_least = "" if resplit else ", at least one series"
    warnings.warn(
        f"{problem}: the training split has no series of {len(lost)} of {len(names)} classes ({shown}); those of {taken} are "
        f"in the validation split (dataset.validation_fraction={validation_fraction}{at_least}), those of "
        f"{len(lost) - taken} in the test {'split' if resplit else 'part'} alone",
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
