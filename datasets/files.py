"""Series of the user's own files: CSV, NumPy, Parquet or .ts, or a folder of them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from torch.utils.data import Sampler

from seqmem.arguments import checked
from seqmem.data import Batch, DataSet, DataSpec, Provenance, Seed, Split
from seqmem.data.blocks import BlockSampler
from seqmem.data.class_names import numbered, numbered_as
from seqmem.data.own_files import check_labels, read_files
from seqmem.data.own_splits import parts_of
from seqmem.data.preparation import Missing, Preparation
from seqmem.data.prepared import PreparedSeries
from seqmem.data.segments import Segments
from seqmem.data.statistics import Statistics, of_segments
from seqmem.data.summary import summary
from seqmem.errors import UserError
from seqmem.io.collection import Collection, Layout
from seqmem.io.series_names import stem

Fraction = Annotated[float, Field(gt=0, lt=1)]
Task = Literal["classification", "regression", "forecasting", "reconstruction"]
# A command line gives the number of a column without a name as an integer.
Column = Annotated[str, BeforeValidator(lambda name: str(name) if type(name) is int else name), Field(min_length=1)]


class Files(DataSet):
    """Series of one's own files.

    Inputs are (B, T, C), padded with 0, with ``lengths`` unless all series of the split are equally long. The targets are:

    * classification: (B,) the class of each series;
    * regression: (B, D) its D values, standardised as the channels are;
    * forecasting: (B, T, C) the channels ``horizon`` steps later, for every step;
    * reconstruction: (B, T, C) the channels themselves; classes, if the files have them, are ``labels``.

    Channels that are missing in the files are filled in the inputs. As targets they do not count, see ``Batch.known``.

    A table is either long, where a row is a step and a column names its series, or wide, where a row is a series of one
    channel. Columns are recognised by their names unless a key names them. :attr:`summary` says what was understood.
    """

    name = "files"

    @checked
    def __init__(
        self,
        path: str | Path,
        task: Task = "classification",
        horizon: PositiveInt = 1,
        label_column: Column | list[Column] | None = None,
        labels_path: str | None = None,
        id_column: Column | None = None,
        time_column: Column | None = None,
        channel_columns: list[Column] = [],  # noqa: B006
        layout: Layout | None = None,
        header: bool | None = None,
        encoding: Column = "utf-8",
        missing: Missing = "last",
        standardize: bool = True,
        timestamp: bool = False,
        time_scale: PositiveFloat = 1.0,
        split_by: Literal["series", "time"] | None = None,
        split_column: Column | None = None,
        group_column: Column | None = None,
        validation_path: str | None = None,
        test_path: str | None = None,
        validation_fraction: Fraction = 0.15,
        test_fraction: Fraction = 0.15,
        split_seed: Seed = 0,
        window: PositiveInt | None = None,
        in_memory: bool | None = None,
        block_size: PositiveInt = 256,
        num_workers: NonNegativeInt = 0,
    ):
        """Read the files, split their series, and prepare them.

        Args:
            path: a file, or a folder with a file a series; csv, tsv, txt (also .gz), npy, npz, parquet or ts.
            task: what is learned: classification, regression, forecasting or reconstruction.
            horizon: of forecasting: how many steps ahead the target is.
            label_column: column or array of the classes, or of the values of a regression, which may be a list of them; None
                for one named label, class, target or y.
            labels_path: table of the labels, for files that have none. A folder's own is labels.csv.
            id_column: column that names the series; None for one named id, series, sample or the like.
            time_column: column of the times, numbers or ISO dates; None for one named time, t, date or the like. Steps are
                sorted by it.
            channel_columns: columns of the values, in this order; empty for all other columns of numbers.
            layout: long, where a row is a step; wide, where a row is a series; None to find out.
            header: whether the first line has the names of the columns; None to find out.
            encoding: of text files.
            missing: how missing values are filled. last: the previous value of the channel in the series, or else its mean;
                mean: the channel's mean in the training split; mask: as last, with C more channels, 1 for a value and 0 for a
                missing one; refuse: with an error.
            standardize: shift and scale each channel, and the values of a regression, to mean 0 and standard deviation 1 on the
                training split.
            timestamp: batches have ``times``, from 0 for the first step of each sequence.
            time_scale: factor of the times.
            split_by: draw the splits by series, or cut each series by time; None for time in forecasting of fewer than 10
                series.
            split_column: column that names the split of each series: train, validation or test; None for one named split or
                set.
            group_column: column of groups, such as subjects, whose series stay in one split; None for one named subject or
                group.
            validation_path: file or folder of the validation split; None to draw it.
            test_path: file or folder of the test split; None to draw it.
            validation_fraction: fraction for validation, if it is drawn.
            test_fraction: fraction for the test, if it is drawn.
            split_seed: seed of the draw.
            window: steps of a sequence, into which forecasting and reconstruction cut series. None for whole series, or for the
                larger of 100 and 4 ``horizon`` where series are split by time.
            in_memory: read large files as a whole (true), or .npy and .parquet as they are needed (false); None for the latter
                above 1 GiB.
            block_size: consecutive series of a block, in files that are read as they are needed. Blocks are shuffled, and the
                series of every eight of them.
            num_workers: worker processes that make batches; 0 makes them in the main process.

        Raises:
            UserError: a file does not exist, cannot be read or understood, or the series cannot be split; the message names the
                line, the array or the key.
        """
        given = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        trained = Preparation.loaded(self.trained) if self.trained else None
        found = read_files(given, trained)
        if trained is not None:
            found = trained.checked(found)
        check_labels(found, task, learns=trained is None)
        _refuse_useless(given, found)
        names, classes = _classes(found, trained)
        whole, parts, notes = parts_of(given, found, classes)
        self._task, self._horizon = task, horizon if task == "forecasting" else 0
        statistics = {split: of_segments(found, part) for split, part in whole.items()}
        _refuse_unknown(found, whole, statistics, self._horizon)
        if trained is None:
            preparation = _preparation(given, found, whole["train"], statistics["train"], names, "windows" in notes)
        else:
            preparation = _as_trained(given, trained)
        scale = time_scale if timestamp else None
        self._series = {split: PreparedSeries(found, preparation, part, scale) for split, part in parts.items()}
        self._targets = {split: _targets(found, preparation, part, task, classes) for split, part in parts.items()}
        self._block = None if found.in_memory else block_size
        self._preparation = preparation
        self._names = {split: [found.names[series] for series in part.series.tolist()] for split, part in parts.items()}
        self.summary = summary(found, preparation, classes, parts, statistics, notes)
        longest = max(int(part.lengths.max()) for part in parts.values()) - self._horizon
        sums = {split: part.sha256 for split, part in parts.items()}
        super().__init__(
            _spec(given, preparation, found, longest),
            {split: len(part) for split, part in parts.items()},
            Provenance(split_seed, sums, files=found.files),
            num_workers,
        )

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Return inputs (B, T, C) and the targets of the task, with any lengths, times and labels."""
        of_series = self._task in ("classification", "regression")
        inputs, later, known, lengths, times = self._series[split].batch(indices, self._horizon, channels=not of_series)
        own = self._targets[split]
        if of_series:
            return Batch(inputs, own[indices], lengths, times)
        labels = None if own is None or self._task != "reconstruction" else own[indices]
        return Batch(inputs, later, lengths, times, known=known, labels=labels)

    def sampler(self, split: Split, batch_size: int, seed: int | None) -> Sampler[int]:
        """Return the order of a split: of training by blocks, if the series are read from a file as they are needed."""
        if self._block is None or split != "train" or seed is None:
            return super().sampler(split, batch_size, seed)
        return BlockSampler(self.sizes[split], self._block, seed)

    def sequence_names(self, split: Split) -> list[str]:
        """Return the name of each sequence's series; windows of a series share its name."""
        return self._names[split]

    def preparation(self) -> dict[str, Any]:
        """Return how later inputs are prepared, which the trial's checkpoints keep."""
        return self._preparation.saved()


def _refuse_useless(given: dict[str, Any], found: Collection) -> None:
    """Refuse keys that cannot have an effect, and times that do not exist."""
    task = given["task"]
    if given["horizon"] != 1 and task != "forecasting":
        raise UserError(f"dataset.horizon: got {given['horizon']} with dataset.task={task}, expected dataset.task=forecasting")
    if given["window"] is not None and task in ("classification", "regression"):
        raise UserError(
            f"dataset.window: got {given['window']} with dataset.task={task}, expected null, since a label belongs to a "
            "whole series"
        )
    if given["split_by"] == "time" and task not in ("forecasting", "reconstruction"):
        raise UserError(
            f"dataset.split_by: got time with dataset.task={task}, expected series, since a label belongs to a whole one"
        )
    if given["time_scale"] != 1 and not given["timestamp"]:
        raise UserError(f"dataset.time_scale: got {given['time_scale']} without times, expected 1 or dataset.timestamp=true")
    if given["timestamp"] and found.times is None:
        raise UserError(
            f"dataset.timestamp: got true, but {found.path} has no times; expected a column named time, or "
            "dataset.time_column=NAME"
        )


def _refuse_unknown(
    found: Collection, whole: Mapping[Split, Segments], statistics: Mapping[Split, Statistics], horizon: int
) -> None:
    """Refuse a split in which every value is missing, or every target: the values after the first ``horizon`` steps."""
    for split, part in whole.items():
        known = statistics[split].count.sum()
        if known == 0:
            raise UserError(f"{found.path}: got no value of the {split} split, expected one that is not missing")
        if known > horizon * len(part) * len(found.channels):  # more than the first steps have
            continue
        first = replace(part, lengths=np.full(len(part), horizon))
        if of_segments(found, first).count.sum() == known:
            raise UserError(
                f"{found.path}: got no value of the {split} split after the first dataset.horizon={horizon} steps of each "
                "series, expected one that is not missing, since these are the targets"
            )


def _classes(found: Collection, trained: Preparation | None) -> tuple[tuple[str, ...] | None, np.ndarray | None]:
    """Return the names of the classes, and the number of each series' class; None without classes of all series."""
    if found.labels is None or any(label is None for label in found.labels):
        return None, None
    labels = [str(label) for label in found.labels]
    if trained is not None and trained.class_names is not None:
        return trained.class_names, numbered_as(labels, trained.class_names, str(found.path))
    names, numbers = numbered(labels)
    return tuple(names), numbers


def _preparation(
    given: dict[str, Any],
    found: Collection,
    train: Segments,
    statistics: Statistics,
    names: tuple[str, ...] | None,
    windowed: bool,
) -> Preparation:
    """Return the preparation by the training split."""
    channels, mean, deviation = len(found.channels), statistics.mean, statistics.deviation
    targets = Statistics.of([] if found.targets is None else [found.targets[train.series]], len(found.target_names))
    statistics.refuse_infinite(found.channels, f"{found.path}, channel")
    targets.refuse_infinite(found.target_names, f"{found.path}, value to predict")
    target_mean, target_deviation, fill = targets.mean, targets.deviation, np.zeros(channels)
    if not given["standardize"]:
        mean, deviation, fill = np.zeros(channels), np.ones(channels), mean
        target_mean, target_deviation = np.zeros_like(target_mean), np.ones_like(target_deviation)
    return Preparation(
        found.channels,
        tuple(mean.tolist()),
        tuple(deviation.tolist()),
        tuple(fill.tolist()),
        given["missing"],
        names,
        found.target_names,
        tuple(target_mean.tolist()),
        tuple(target_deviation.tolist()),
        found.layout,
        windowed,
        given["standardize"],
        found.step_columns,
        found.is_dated if given["timestamp"] else None,
        found.column_count,
        found.optional_columns,
        found.in_durations if given["timestamp"] else None,
    )


def _as_trained(given: dict[str, Any], trained: Preparation) -> Preparation:
    """Return the preparation of a trial, with missing values filled as the keys say."""
    if given["standardize"] != trained.standardizes:
        raise UserError(f"dataset.standardize: got {given['standardize']}, expected {trained.standardizes} as in the training")
    return replace(trained, missing=given["missing"])


def _targets(
    found: Collection, preparation: Preparation, part: Segments, task: str, classes: np.ndarray | None
) -> Tensor | None:
    """Return the classes (n,) or the standardised values (n, D) of a split's sequences; None without."""
    if task == "regression":
        assert found.targets is not None
        return torch.from_numpy(preparation.standard_targets(found.targets[part.series]))
    return None if classes is None else torch.from_numpy(classes[part.series].astype(np.int64))


def _spec(given: dict[str, Any], preparation: Preparation, found: Collection, longest: int) -> DataSpec:
    task, channels = given["task"], len(preparation.channels)
    sizes = {"classification": len(preparation.class_names or ()), "regression": len(preparation.target_names)}
    return DataSpec(
        f"files {stem(found.path.name)}",
        input_size=preparation.input_size,
        output_size=sizes.get(task, channels),
        task=task,
        output_steps=0 if task in sizes else None,
        max_length=longest,
        times=given["timestamp"],
        class_names=preparation.class_names if task in ("classification", "reconstruction") else None,
    )
