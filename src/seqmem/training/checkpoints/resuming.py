"""Choice of the checkpoint from which a trial resumes."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from seqmem.errors import UserError
from seqmem.io.files import replacing
from seqmem.results.experiment import Experiment
from seqmem.results.record import settings
from seqmem.tasks import task_for
from seqmem.training.checkpoints.files import Checkpoint, DamagedCheckpointError, load_plain, of_trial, read_checkpoint
from seqmem.training.config import TrainConfig
from seqmem.training.loop.averaging import TRAINED
from seqmem.training.loop.best import Patience

# Settings that say how long to train, and change nothing before: a trial may resume with others that would not have stopped it.
_FREE = frozenset(("train.epochs", "train.patience", "train.min_delta"))


def resumable(path: Path, config: Mapping[str, Any], experiment: Experiment) -> Path | None:
    """Return the checkpoint from which a trial resumes, or None if it starts from the beginning.

    Args:
        path: the trial's own last checkpoint, which may not exist. If it or the best one is damaged, it is renamed to
            ``damaged.ckpt``.
        config: of the trial. ``train.resume`` names a different checkpoint, which is used if the own one cannot be.
        experiment: of the trial, with the checksum of the data and the backend.

    Raises:
        UserError: its own cannot be read, although it may be intact, or is of different settings, data or backend, as in a
            folder that the user chose; or ``train.resume`` names none, one of these, or one without the state of a training.
    """
    if path.exists():
        try:
            _check_resumable(path)
        except DamagedCheckpointError as error:
            path.replace(path.with_name("damaged.ckpt"))
            print(f"{error}; the trial starts again, and the file is now damaged.ckpt", file=sys.stderr)
        else:
            _refuse_other(path, config, experiment)
            return path
    named = config["train"].get("resume")
    return None if named is None else _named(Path(named), config, experiment)


def adopt(checkpoint: Path, folder: Path) -> None:
    """Copy a checkpoint, and the best one next to it, into a trial's folder of checkpoints."""
    for source, name in ((checkpoint.with_name("best.ckpt"), "best.ckpt"), (checkpoint, "last.ckpt")):
        if source.resolve() != (folder / name).resolve():
            with replacing(folder / name) as temporary:
                shutil.copyfile(source, temporary)


def _refuse_other(path: Path, config: Mapping[str, Any], experiment: Experiment) -> None:
    """Refuse a checkpoint of a different trial in a trial's folder, whose record is lost."""
    checkpoint = read_checkpoint(path)
    own = {"data": experiment.data, "backend": experiment.backend}
    differences = {key: pair for key, pair in _differences(checkpoint, config).items() if not _is_free(key, config)}
    differences |= {key: (value, own[key]) for key in own if (value := getattr(checkpoint, key)) not in (None, own[key])}
    for key, (given, expected) in differences.items():
        raise UserError(f"{path} is of a trial with {key}={given}, expected {expected} as here, or an empty folder")
    if checkpoint.epoch >= config["train"]["epochs"]:
        raise UserError(
            f"{path} was trained for {_trained(checkpoint)}, expected at most train.epochs={config['train']['epochs']}, or an "
            "empty folder"
        )
    if stopped := _stopped(checkpoint, config):
        raise UserError(f"{path} {stopped}, or an empty folder")


def _named(path: Path, config: Mapping[str, Any], experiment: Experiment) -> Path:
    """Return the file that ``train.resume`` names, if the trial can resume from it."""
    checkpoint = read_checkpoint(path, "last.ckpt")
    for key, (given, expected) in _differences(checkpoint, config).items():
        if not _is_free(key, config):
            raise UserError(f"train.resume: {checkpoint.path} was trained with {key}={given}, expected {expected}")
    if checkpoint.data not in (None, experiment.data):
        raise UserError(f"train.resume: {checkpoint.path} was trained on different data of the name {checkpoint.spec.name}")
    if checkpoint.backend not in (None, experiment.backend):
        raise UserError(
            f"train.resume: {checkpoint.path} was trained with the backend '{checkpoint.backend}', expected "
            f"'{experiment.backend}' as here"
        )
    if checkpoint.epoch >= config["train"]["epochs"]:
        raise UserError(
            f"train.resume: {checkpoint.path} was trained for {_trained(checkpoint)}, expected at most "
            f"train.epochs={config['train']['epochs']}"
        )
    best = checkpoint.path.with_name("best.ckpt")
    if not best.is_file():
        raise UserError(f"train.resume: {best}, the best checkpoint so far, does not exist")
    _check_resumable(checkpoint.path)
    if stopped := _stopped(checkpoint, config):
        raise UserError(f"train.resume: {checkpoint.path} {stopped}")
    return checkpoint.path


def _is_free(key: str, config: Mapping[str, Any]) -> bool:
    """Return whether a trial may resume with a different value of a key."""
    return key in _FREE and not (key == "train.epochs" and TrainConfig(**config["train"]).rate_depends_on_epochs)


def _stopped(checkpoint: Checkpoint, config: Mapping[str, Any]) -> str:
    """Return why a config would have stopped the training before the checkpoint, and what it needs; empty if not."""
    train, task = TrainConfig(**config["train"]), task_for(checkpoint.spec)
    if train.patience is None:
        return ""
    loaded = load_plain(checkpoint.path)
    values = [row[f"val/{task.metric}"] for row in loaded["epoch_recorder"]["rows"]]
    patience = Patience(train.patience, task.best, train.min_delta)
    for count in range(1, len(values) + (loaded.get("within_epoch") is not None)):
        if reason := patience.reason(values[:count], f"val/{task.metric}"):
            given = f"train.patience={train.patience}" + (
                f" and train.min_delta={train.min_delta:g}" if train.min_delta else ""
            )
            return (
                f"was trained for {_trained(checkpoint)}, but {given} stops after epoch {count} ({reason}); expected a "
                "larger train.patience or a smaller train.min_delta"
            )
    return ""


def _trained(checkpoint: Checkpoint) -> str:
    """Return for how many epochs a checkpoint was trained."""
    within = load_plain(checkpoint.path).get("within_epoch") is not None
    count = checkpoint.epoch + (not within)
    return f"{count} epoch{'s' if count != 1 else ''}{' and a part of the next' if within else ''}"


def _differences(checkpoint: Checkpoint, config: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return settings and seed that differ from a config's: the checkpoint's value and the config's."""
    own, other = ({**settings(of), "seed": of["seed"]} for of in (config, checkpoint.config))
    keys = dict.fromkeys([*own, *other])
    return {key: (other.get(key), own.get(key)) for key in keys if own.get(key) != other.get(key)}


def _check_resumable(path: Path) -> None:
    """Check that a checkpoint holds the state of a training, and that the best one is next to it.

    Raises:
        DamagedCheckpointError: something is missing.
    """
    loaded = load_plain(path)
    last = of_trial(path, loaded)
    kinds = dict.fromkeys(("loops", "callbacks", "epoch_recorder"), dict) | dict.fromkeys(
        ("optimizer_states", "lr_schedulers"), list
    )
    missing = [name for name, kind in kinds.items() if not isinstance(loaded.get(name), kind)]
    metric, rows = f"val/{task_for(last.spec).metric}", [] if missing else loaded["epoch_recorder"].get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and isinstance(row.get(metric), float) for row in rows):
        missing.append(f"rows with {metric}")
    within = loaded.get("within_epoch")
    if within is not None and not (isinstance(within, dict) and isinstance(within.get("processes"), list)):
        missing.append("within_epoch")
    if last.config["train"].get("ema") is not None and not _fits(loaded.get(TRAINED), last.weights):
        missing.append(TRAINED)
    if missing:
        raise DamagedCheckpointError(f"cannot resume from {path}: it has no {missing[0]}")
    best = path.with_name("best.ckpt")
    if not any(isinstance(state, dict) and state.get("best_model_path") for state in loaded["callbacks"].values()):
        return  # no epoch has ended yet
    if not best.exists():
        raise DamagedCheckpointError(f"cannot resume from {path}: {best.name} does not exist next to it")
    other = _differences(read_checkpoint(best), last.config)
    if other.keys() - _FREE:
        raise DamagedCheckpointError(f"cannot resume from {path}: {best.name} next to it is of a different trial")


def _fits(weights: Any, others: Mapping[str, Tensor]) -> bool:
    """Return whether weights are tensors of the names and shapes of some of the others."""
    return isinstance(weights, dict) and all(
        isinstance(value, Tensor) and name in others and value.shape == others[name].shape for name, value in weights.items()
    )
