"""``seqmem predict``, or ``python -m seqmem.predict``: predictions of a trial for new files of one's own."""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqmem.errors import UserError
from seqmem.io.files import check_new_file
from seqmem.io.terminal import Parser, at_least

if TYPE_CHECKING:
    from seqmem.data.preparation import Preparation
    from seqmem.io.collection import Collection, Reading
    from seqmem.training.checkpoints.files import Checkpoint

DESCRIPTION = """\
Predict new series with a trial that was trained on files of one's own (dataset=files).

TRIAL is the folder of a finished trial, for its best checkpoint, or a checkpoint. FILE has new series, in a format of the
training's files; labels may be absent. Values are standardised as in the training, by the statistics that the trial keeps.
The table of predictions has

  classification   a row for each series: the predicted class, and the probability of each class
  regression       a row for each series: the predicted values, in their own unit
  forecasting      a row for each of the following steps, as many as the horizon: the channels in their own unit. If the model
                   gets fewer steps, the rows are of the last of them
  reconstruction   a row for each step: the channels in their own unit, and the mean squared error of the standardised ones
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    _parser().run(run, arguments)


def run(given: argparse.Namespace) -> None:
    """Read the new series, predict, and write the table.

    Raises:
        UserError: the trial or the file cannot be read, they do not fit each other, or the table cannot be written.
    """
    check_new_file(given.out, "--out", [".csv"])

    import torch

    from seqmem.data.own_files import reading_of
    from seqmem.data.prepared import PreparedSeries
    from seqmem.io.series_files import write_rows
    from seqmem.training.checkpoints.files import read_checkpoint, restore
    from seqmem.training.config import TrainConfig, evaluation_batch_size
    from seqmem.training.evaluation.new_series import Written, outputs_of, segments_for

    checkpoint = read_checkpoint(given.trial)
    arguments, preparation = _trained(checkpoint)
    found = _read(given.file, reading_of(arguments, new=True), preparation)
    train, spec = checkpoint.config["train"], checkpoint.spec
    if spec.times and found.times is None:
        raise UserError(f"{found.path} has no times, expected them as in the training (dataset.timestamp=true)")
    segments = segments_for(found, spec, preparation.windowed)
    series = PreparedSeries(found, preparation, segments, arguments["time_scale"] if spec.times else None)
    module = restore(checkpoint, {**train, "compile": False}, spec)
    size = given.batch_size or evaluation_batch_size(TrainConfig(**train), spec)
    gpu = torch.cuda.is_available() and checkpoint.config["runner"].get("accelerator") != "cpu"
    written = Written(found, preparation, spec, segments, arguments["horizon"])
    rows = [written.header()]
    for sequence, pair in enumerate(outputs_of(module.model, series, spec, size, torch.device("cuda" if gpu else "cpu"))):
        rows += written.rows(sequence, *pair)
    write_rows(given.out, rows)
    print(f"{spec.name}, epoch {checkpoint.epoch + 1}: predictions for {len(found)} series of {found.path} in {given.out}")
    short = int((segments.lengths < arguments["horizon"]).sum()) if spec.task == "forecasting" else 0
    if short:
        print(
            f"{short} of {len(found)} series give the model fewer steps than dataset.horizon={arguments['horizon']}: only "
            "the last of the steps after them are predicted"
        )
    if spec.task == "classification":
        print(_counts(rows, found, spec.class_names or ()))


def _trained(checkpoint: "Checkpoint") -> tuple[dict[str, Any], "Preparation"]:
    """Return the data set's arguments of a trial on files, and the preparation of its inputs."""
    from seqmem import datasets
    from seqmem.data.preparation import Preparation

    name = checkpoint.config["dataset"].get("name")
    if name != "files" or checkpoint.preparation is None:
        raise UserError(
            f"{checkpoint.path} was trained on dataset={name}, expected dataset=files, which has one's own files; "
            "seqmem evaluate TRIAL predictions=FILE predicts the splits of any data set"
        )
    return datasets.check(checkpoint.config["dataset"]), Preparation.loaded(checkpoint.preparation)


def _read(path: Path, reading: "Reading", preparation: "Preparation") -> "Collection":
    """Return the new series with the channels of the training, in its order."""
    from seqmem.io.sources import read_source

    layout, classes = preparation.layout or reading.layout, preparation.class_names or ()
    reading = replace(reading, layout=layout, classes=classes).with_columns_of(preparation)
    if preparation.layout == "long":
        reading = replace(reading, channel_columns=preparation.channels)
    found = read_source(path, reading, "FILE")
    return preparation.checked(found)


def _counts(rows: Sequence[Sequence[str]], found: "Collection", names: Sequence[str]) -> str:
    """Return the line of the predicted classes, with the accuracy if the labels are known."""
    place = list(rows[0]).index("prediction")
    counts: Mapping[str, int] = Counter(row[place] for row in rows[1:])
    line = "predicted: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    if found.labels is None:
        return line
    from seqmem.data.class_names import places_of

    known = [row for row in rows[1:] if row[1]]
    pairs = zip(*(places_of([row[column] for row in known], names) for column in (1, place)), strict=True)
    right = sum(label == prediction for label, prediction in pairs)
    return f"{line}; {right} of {len(known)} labels are predicted correctly" if known else line


def _parser() -> Parser:
    parser = Parser("python -m seqmem.predict", DESCRIPTION)
    parser.add_argument("trial", type=Path, metavar="TRIAL", help="the folder of a finished trial, or a checkpoint")
    parser.add_argument("file", type=Path, metavar="FILE", help="a file or folder with new series")
    parser.add_argument(
        "--out", type=Path, default=Path("predictions.csv"), metavar="FILE.csv", help="a new file (default predictions.csv)"
    )
    parser.add_argument(
        "--batch-size", type=at_least(1), metavar="B", help="sequences in a batch (default: that of the trial's evaluation)"
    )
    return parser
