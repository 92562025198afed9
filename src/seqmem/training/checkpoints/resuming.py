"""From which checkpoint a trial goes on."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqmem.errors import UserError
from seqmem.io.files import replacing
from seqmem.results.record import settings
from seqmem.training.checkpoints.checkpoints import Checkpoint, DamagedCheckpointError, load_plain, of_trial, read_checkpoint


def resumable(path: Path, config: Mapping[str, Any], data: str) -> Path | None:
    """The checkpoint from which a trial goes on.

    Args:
        path: its own last one, which may not exist. One that is damaged, or whose best one is, is renamed ``damaged.ckpt``.
        config: of the trial; ``train.resume`` names another, which is taken if the first cannot be.
        data: the checksum of the data.

    Returns:
        None if the trial begins anew.

    Raises:
        UserError: its own cannot be read, which says nothing of what it holds; or ``train.resume`` names none, one of other
            settings or data, or one that holds no state of a training.
    """
    if path.exists():
        try:
            _check_resumable(path)
        except DamagedCheckpointError as error:
            path.replace(path.with_name("damaged.ckpt"))
            print(f"{error}; the trial begins anew, and the file is damaged.ckpt now", file=sys.stderr)
        else:
            return path
    named = config["train"].get("resume")
    if named is None:
        return None
    checkpoint = read_checkpoint(Path(named), "last.ckpt")
    for key, (given, wanted) in _differences(checkpoint, config).items():
        if key != "train.epochs" or config["train"]["schedule"] != "constant":
            raise UserError(f"train.resume: {checkpoint.path} was trained with {key}={given}, expected {wanted}")
    if checkpoint.data not in (None, data):
        raise UserError(f"train.resume: {checkpoint.path} was trained on other data of the name {checkpoint.spec.name}")
    if checkpoint.epoch >= config["train"]["epochs"]:
        raise UserError(
            f"train.resume: {checkpoint.path} has {checkpoint.epoch + 1} epochs behind it, expected at most "
            f"train.epochs={config['train']['epochs']}"
        )
    best = checkpoint.path.with_name("best.ckpt")
    if not best.is_file():
        raise UserError(f"train.resume: there is no {best}, the best checkpoint so far")
    _check_resumable(checkpoint.path)
    return checkpoint.path


def adopt(checkpoint: Path, folder: Path) -> None:
    """Copy into a trial's folder of checkpoints the one from which it goes on, as its last, and the best one beside that."""
    for source, name in ((checkpoint.with_name("best.ckpt"), "best.ckpt"), (checkpoint, "last.ckpt")):
        if source.resolve() != (folder / name).resolve():
            with replacing(folder / name) as temporary:
                shutil.copyfile(source, temporary)


def _differences(checkpoint: Checkpoint, config: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings and seed that are not those of a config: the checkpoint's value and the config's."""
    own, other = ({**settings(of), "seed": of["seed"]} for of in (config, checkpoint.config))
    keys = dict.fromkeys([*own, *other])
    return {key: (other.get(key), own.get(key)) for key in keys if own.get(key) != other.get(key)}


def _check_resumable(path: Path) -> None:
    """Check that a checkpoint holds the state of a training, and that the best one beside it is there, too."""
    loaded = load_plain(path)
    last = of_trial(path, loaded)
    kinds = dict.fromkeys(("loops", "callbacks", "epoch_recorder"), dict) | dict.fromkeys(
        ("optimizer_states", "lr_schedulers"), list
    )
    missing = [name for name, kind in kinds.items() if not isinstance(loaded.get(name), kind)]
    if not isinstance(loaded.get("within_epoch", {}), dict):
        missing.append("within_epoch")
    if missing:
        raise DamagedCheckpointError(f"{path} cannot be gone on from: it holds no {missing[0]}")
    best = path.with_name("best.ckpt")
    if not any(isinstance(state, dict) and state.get("best_model_path") for state in loaded["callbacks"].values()):
        return  # no epoch has ended yet
    if not best.exists():
        raise DamagedCheckpointError(f"{path} cannot be gone on from: there is no {best.name} beside it")
    other = _differences(read_checkpoint(best), last.config)
    if other.keys() - {"train.epochs"}:
        raise DamagedCheckpointError(f"{path} cannot be gone on from: {best.name} beside it is of another trial")
