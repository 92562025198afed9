"""``seqmem evaluate``, and ``python evaluate.py`` in a checkout: evaluate a finished trial again."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from seqmem.cli import by_length, each_trial, finished_trial, messages
from seqmem.cli.evaluation_record import computed, evaluated, origin
from seqmem.errors import UserError
from seqmem.io import interrupts

if TYPE_CHECKING:
    from seqmem.results.evaluated_rows import Evaluated
    from seqmem.training.checkpoints.files import Checkpoint
    from seqmem.training.evaluation.predictions import Predictions

HELP = """\
Evaluate a finished trial again, on its own data or on other data, and record the result.

  seqmem evaluate CHECKPOINT [KEY=VALUE ...]

CHECKPOINT is a file that seqmem train wrote, or the folder of a finished trial for its best checkpoint. Given a folder of
trials instead, evaluate each finished trial below it, one after the other, and print the mean over the trials of each row.
Loss and metrics are printed next to those of the training. On the training split, the latter are means over an epoch in
which the weights changed. On the other splits both are equal to the last digit if no key changes the config; otherwise a
warning names both numbers. For classification of up to 1,000 classes, a table counts the correct predictions of each class,
by its number and label. A file of TRIAL/evaluations/ keeps the result, with checksums of the weights and the data.

Keys of this command
  split=test          test, validation or train
  predictions=FILE    a new .npz or .csv file: for each sequence, its number in the split, length, target and prediction, and
                      the probability of each class (for a text, of the correct symbol), with the names of series and
                      classes if the data set has them. In .npz, predictions at every step are padded with zeros after the
                      first "steps" of a row; .csv has a line for each prediction. Given a folder of trials, FILE is a name
                      without a folder, and each trial keeps its own in TRIAL/evaluations/.
  lengths=A,B,...     evaluate at each of these lengths (dataset.length), and write a table, a .csv file and a picture of all
                      lengths so far to TRIAL/evaluations/. Sequences longer than those of the training are read in parts, with
                      the state carried, or fewer at once; train.eval_batch_size=B reads B at once. seqmem report FOLDER
                      compares the trials of a folder.
  again=true          evaluate lengths again that were evaluated before with the same weights, data and code

Any other key changes the trial's config, except its model: dataset.eval_hz=0.5 or dataset.length=1000 shifts its data,
dataset=NAME takes other data of the same shape, train.eval_batch_size=32 reads a text as 32 parallel pieces,
train.limit_test_batches=100 reads less, smoke_test=false reads everything after a smoke test. The sampling rate of the
training, dataset.train_hz, stays that of the trial, and so do the keys that choose the sequences of each split.
"""


@dataclass(frozen=True)
class Keys:
    """The keys of this command, as in its help."""

    split: Literal["test", "validation", "train"] = "test"
    predictions: str | None = None
    lengths: list[Any] | None = field(default=None, metadata={"separator": ","})
    again: bool = False


def main() -> None:
    """Evaluate, print and record, as the command line says."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(HELP)
        return
    with messages.one_line_errors(), interrupts.unwinding():
        commands = each_trial.commands(sys.argv[1:])
        if commands is None:
            run(*finished_trial.read(sys.argv[1:], Keys))
        else:
            _run_each(commands)


def _run_each(commands: Sequence[Sequence[str]]) -> None:
    """Run each command line; those that fail do not stop the others.

    Raises:
        UserError: after the last one, with the first reason, and the number of the others that failed.
    """
    failed: list[str] = []
    done: list[Evaluated] = []
    for command in commands:
        try:
            found = run(*finished_trial.read(command, Keys), is_one_of_folder=True)
            done += [found] if found else []
        except Exception as error:  # for example, one model is too large for the memory
            failed.append(f"{' '.join(command)}: {messages.describe(error)[0]}")
    if len(done) > 1:
        _print_means(done)
    if failed:
        others = f"; {len(failed) - 1} more of {len(commands)} trials failed" if len(failed) > 1 else ""
        raise UserError(f"{failed[0]}{others}")


def _print_means(done: Sequence["Evaluated"]) -> None:
    from seqmem.results.aggregate import group_trials
    from seqmem.results.evaluated_rows import means
    from seqmem.results.reading import read_run
    from seqmem.results.record import RunFolder
    from seqmem.results.table import LEGEND, print_table

    print_table(means(done, group_trials(read_run(RunFolder(each.trial)) for each in done)), LEGEND)


def run(checkpoint: "Checkpoint", config: Mapping[str, Any], keys: Keys, is_one_of_folder: bool = False) -> "Evaluated | None":
    """Evaluate a checkpoint, print the result, and record it in the trial's folder.

    Args:
        checkpoint: of a finished trial.
        config: the trial's config with the changes of the command line.
        keys: the command's own keys.
        is_one_of_folder: the command is about all trials of a folder, of which this is one. It keeps predictions in its own
            folder, and is left as it is where it has kept them before.

    Returns:
        The metric; None for several lengths.

    Raises:
        UserError: the data do not fit the model, or a file cannot be read or written.
    """
    if keys.again and keys.lengths is None:
        raise UserError("again: got true without lengths, expected lengths=A,B,...; other evaluations are always made again")
    if keys.lengths is not None:
        by_length.run(checkpoint, config, keys.lengths, keys.split, keys.predictions, keys.again)
        return None

    from seqmem.io.files import write_json
    from seqmem.io.provenance import now
    from seqmem.results import evaluations
    from seqmem.results.experiment import data_checksum
    from seqmem.results.record import RunFolder
    from seqmem.training.checkpoints.files import restore
    from seqmem.training.evaluation.measure import PREFIXES, evaluate
    from seqmem.training.evaluation.predictions import Predictions, check_predictions, class_counts

    path = Path(keys.predictions) if keys.predictions else None
    if path and is_one_of_folder:
        path = _in_trial(checkpoint.folder, path)
    elif path:
        check_predictions(path)
    before = evaluations.recorded(checkpoint.folder, checkpoint.epoch, PREFIXES[keys.split])
    data = finished_trial.load_data(checkpoint, config)
    about = evaluated(checkpoint, config, data)
    if path and is_one_of_folder:
        if kept := evaluations.kept(path, {**about, "split": keys.split, "data": data.describe()}):
            print(f"kept before: {path}")
            return _evaluated(checkpoint.folder, kept)
        check_predictions(path)
    module = restore(checkpoint, config["train"], data.spec)
    file = RunFolder(checkpoint.folder).new_evaluation(f"{keys.split}_{config['dataset']['name']}")
    task = module.task
    counts = class_counts(task)
    predictions = Predictions(task, data.sequence_names(keys.split)) if path else None
    started = now()
    observers = [observer for observer in (counts, predictions) if observer is not None]
    measured = evaluate(module, data, config, keys.split, observers)
    result = {
        **about,
        "dataset": data.spec.name,
        "split": keys.split,
        "metric": task.metric,
        "result": measured,
        "in_training": before,
    }
    by = {**computed(module, config, data), "data": data_checksum(data.describe())}
    if not result["changed"] and keys.split != "train":
        _warn_of_differences(measured, before, evaluations.circumstances(checkpoint.folder, checkpoint.config, by))
    table = None if counts is None else evaluations.by_class(counts.counts, data.spec.class_names)
    seed, epoch = checkpoint.config["seed"], checkpoint.epoch + 1
    print(f"{result['model']} on {result['dataset']}, seed {seed}, epoch {epoch}, {keys.split} split")
    _print(result, task.irreducible_error, table)
    result["by_class"] = None if counts is None else counts.counts.tolist()
    names = {"class_names": data.spec.class_names}
    result |= {"started": started, **names, **origin(config), **by, "data": data.describe()}
    result["predictions"] = _write_predictions(predictions, path)  # the last step, so that no file stays without a record
    write_json(file, result)
    print(f"record of this evaluation: {file}")
    return _evaluated(checkpoint.folder, result)


def _evaluated(trial: Path, evaluation: Mapping[str, Any]) -> "Evaluated":
    from seqmem.results.evaluated_rows import Evaluated
    from seqmem.training.evaluation.measure import PREFIXES

    split, metric = evaluation["split"], evaluation["metric"]
    name = f"{PREFIXES[split]}{metric}"
    in_training = evaluation["in_training"].get(name, math.nan)
    return Evaluated(trial, evaluation["dataset"], split, metric, evaluation["result"][name], in_training)


def _in_trial(folder: Path, name: Path) -> Path:
    """Return the path of a trial's own file of predictions.

    Raises:
        UserError: the name has a folder.
    """
    from seqmem.results.record import RunFolder

    if name.name != str(name):
        raise UserError(f"predictions: got {name} with a folder of trials, expected a name alone, as {name.name}")
    if name.stem.startswith("by_length"):
        raise UserError(
            f"predictions: got {name}, which lengths=A,B,... writes; expected another name, as predictions{name.suffix}"
        )
    return RunFolder(folder).evaluations() / name


def _warn_of_differences(measured: Mapping[str, float], before: Mapping[str, float], circumstances: Sequence[str]) -> None:
    """Warn if the same weights on the same data do not give the numbers of the record."""
    from seqmem.results.evaluations import differences

    found = [f"{name}: got {now!r}, expected {then!r}" for name, (now, then) in differences(measured, before).items()]
    if found:
        reasons = ", ".join(circumstances) or "nothing recorded explains it"
        print(f"warning: {'; '.join(found)} as recorded in training ({reasons})", file=sys.stderr)


def _print(result: Mapping[str, Any], irreducible_error: float | None, table: str | None) -> None:
    from seqmem.results.evaluations import side_by_side

    for key, (old, new) in result["changed"].items():
        print(f"{key}={new}, in training {old}")
    print(side_by_side(result["result"], result["in_training"]))
    if irreducible_error is not None:
        print(f"{result['metric']} is irreducible below {irreducible_error:.4f}")
    if table is not None:
        print(table)


def _write_predictions(predictions: "Predictions | None", path: Path | None) -> dict[str, str] | None:
    """Write the predictions, and return the file's path and checksum."""
    if predictions is None or path is None:
        return None
    from seqmem.results.evaluations import checksum

    predictions.write(path)
    print(f"predictions for {len(predictions)} sequences: {path}")
    return {"file": str(path.resolve()), "sha256": checksum(path)}
