"""``seqmem evaluate TRIAL lengths=A,B,...``: evaluate a finished trial at several lengths, as one table and one picture."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seqmem.cli import finished_trial
from seqmem.cli.evaluation_record import computed, evaluated, origin
from seqmem.errors import UserError, suggestion

if TYPE_CHECKING:
    from seqmem.data import DataSet
    from seqmem.results.by_length import AtLength
    from seqmem.training.checkpoints.files import Checkpoint
    from seqmem.training.loop.module import SequenceModule


def run(
    checkpoint: "Checkpoint",
    config: Mapping[str, Any],
    lengths: Sequence[Any],
    split: str = "test",
    predictions: str | None = None,
    again: bool = False,
) -> list["AtLength"]:
    """Evaluate a checkpoint at several lengths, print a table, and write it and a picture to the trial's folder.

    Each evaluation is recorded when it ends, so that the same command continues after an interruption.

    Args:
        checkpoint: of a finished trial.
        config: the trial's config with the changes of the command line.
        lengths: as the data set's argument ``length`` counts them.
        split: refused unless it is "test", of which alone the length is chosen.
        predictions: refused, since predictions are those of one length.
        again: evaluate lengths again that were evaluated before with the same weights, data and code.

    Returns:
        The evaluations at these lengths, in ascending order.

    Raises:
        UserError: the data set has no length, or one is not possible; the model takes no sequences of a length; or a file
            cannot be read or written.
    """
    from seqmem.results import by_length

    if split != "test":
        raise UserError(f"split: got {split} with several lengths, expected test")
    if predictions is not None:
        raise UserError(f"predictions: got {predictions} with several lengths; give dataset.length=L instead of lengths")
    if wrong := [length for length in lengths if type(length) is not int or length < 1] or (not lengths and [lengths]):
        raise UserError(f"lengths: got {wrong[0]!r}, expected whole numbers of at least 1, separated by commas")
    configs = {length: _at_length(config, length) for length in sorted(set(lengths))}
    keys = sorted({f"dataset.{key}" for own in configs.values() for key in _different(config["dataset"], own["dataset"])})
    for own in configs.values():
        _loaded(checkpoint, own)  # refuse a length before others take their time
    before = by_length.read(checkpoint.folder)
    found = [_evaluated(checkpoint, own, length, keys, [] if again else before) for length, own in configs.items()]
    first = found[0]
    others = [each for each in before if each.variant == first.variant and each.weights == first.weights]
    rows = by_length.largest(others) | {each.length: each for each in found}
    kept = sum(any(each is other for other in before) for each in found)
    _write(checkpoint, [rows[length] for length in sorted(rows)])
    if kept:
        print(
            f"{kept} of {len(found)} lengths had been evaluated with the same weights, data and code; again=true repeats them"
        )
    return found


def _at_length(config: Mapping[str, Any], length: int) -> dict[str, Any]:
    """Return the config with sequences of one length.

    Raises:
        UserError: the data set has no length to choose, or the length is not possible.
    """
    from seqmem import datasets

    given = config["dataset"]
    if "length" not in datasets.check(given):
        raise UserError(
            f"lengths: got {length}, but the sequences of {given['name']} have no length to choose"
            f"{suggestion(given['name'], datasets.names('length'))}"
        )
    return {**config, "dataset": datasets.at_length(given, length)}


def _evaluated(
    checkpoint: "Checkpoint",
    config: Mapping[str, Any],
    length: int,
    keys: Sequence[str],
    before: Sequence["AtLength"],
) -> "AtLength":
    """Return the evaluation at one length: one of those before if it would give the same, or else a new one, recorded.

    Args:
        checkpoint: of the trial.
        config: with sequences of this length.
        length: for the record.
        keys: of the config that choose the length.
        before: earlier evaluations of the trial.
    """
    from seqmem.io.files import write_json
    from seqmem.io.provenance import now
    from seqmem.results.by_length import KEY, AtLength
    from seqmem.results.record import RunFolder
    from seqmem.training.config import TrainConfig
    from seqmem.training.evaluation.by_length import Reading, evaluate_reading

    started = now()
    data, module = _loaded(checkpoint, config)
    about = evaluated(checkpoint, config, data)
    reading = Reading.of(checkpoint, data.spec, TrainConfig(**config["train"]), "train.eval_batch_size" in about["changed"])
    about |= {"dataset": data.spec.name, "split": "test", "metric": module.task.metric, **origin(config)}
    about |= {**computed(module, config, data), "data": _identity(data, config)}
    same = [each for each in before if each.length == length and each.answers(about)]
    if same:
        return same[-1]
    result, read = evaluate_reading(module, data, config, reading)
    about |= {"result": result, "started": started, "read": read.checksums(), "class_names": data.spec.class_names}
    about[KEY] = {
        "length": length,
        "steps": read.steps,
        "sequences": read.sequences,
        "keys": keys,
        "batch_size": reading.rows,
        "steps_at_once": reading.steps,
    }
    write_json(RunFolder(checkpoint.folder).new_evaluation(f"test_{config['dataset']['name']}_length_{length}"), about)
    return AtLength.of(about)


def _loaded(checkpoint: "Checkpoint", config: Mapping[str, Any]) -> tuple["DataSet", "SequenceModule"]:
    """Return the data, of which the other splits may be small, and the model.

    Raises:
        UserError: the data do not exist at this length, or the model does not take them.
    """
    from seqmem import datasets
    from seqmem.training.checkpoints.files import restore
    from seqmem.training.evaluation.by_length import refuse_too_long

    data = finished_trial.load_data(checkpoint, {**config, "dataset": datasets.of_test(config["dataset"])})
    module = restore(checkpoint, config["train"], data.spec)
    refuse_too_long(module.model, data.spec.max_length)
    return data, module


def _identity(data: "DataSet", config: Mapping[str, Any]) -> str:
    """Return a checksum of the data; of data that are drawn, of their arguments, since the checksum would draw all splits."""
    from seqmem.results.experiment import data_checksum
    from seqmem.results.record import settings

    return data_checksum(settings({"dataset": config["dataset"]}) if data.separate_test else data.describe())


def _different(one: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    """Return the keys whose values differ."""
    return {key for key in {**one, **other} if one.get(key) != other.get(key)}


def _write(checkpoint: "Checkpoint", rows: Sequence["AtLength"]) -> None:
    """Print the table of all lengths, and write it and the picture to the trial's folder."""
    from seqmem.io.files import write_text
    from seqmem.results import by_length, formats
    from seqmem.results.plots import LengthAxis, LengthLine, plot_lengths, save_figure
    from seqmem.tasks import get

    first, trained = rows[0], by_length.training_lengths(checkpoint.config)
    about = f"{first.record['model']} on {first.record['dataset']}, seed {checkpoint.config['seed']}"
    about += f", epoch {checkpoint.epoch + 1}, test split"
    columns = by_length.table(rows)
    print("\n".join([about, *(f"{key}={value}" for key, value in first.variant.items()), by_length.text(columns)]))
    if trained is not None:
        print("training length: " + " to ".join(map(str, dict.fromkeys(trained))))
    path = checkpoint.folder / "evaluations" / f"by_length{finished_trial.file_suffix(first.variant)}.csv"
    write_text(path, formats.comma_separated({name: list(map(str, column)) for name, column in columns.items()}))
    line = LengthLine(first.record["model"], [(row.length, row.value, row.value, row.value) for row in rows])
    label = get(checkpoint.spec.task).metric_label
    save_figure(
        plot_lengths([LengthAxis(about, f"test {label}", [line], [trained] if trained else [])]), path.with_suffix(".png")
    )
    print(f"table and picture: {path}, {path.with_suffix('.png')}")
