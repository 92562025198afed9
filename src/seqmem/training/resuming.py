"""From which checkpoint a trial goes on."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqmem.errors import UserError
from seqmem.files import replacing
from seqmem.results.record import settings
from seqmem.training.checkpoints import load_plain, of_trial, read_checkpoint


def resumable(path: Path, config: Mapping[str, Any]) -> Path | None:
    """The checkpoint from which a trial goes on.

    Args:
        path: its own last one, which may not exist.
        config: of the trial; ``train.resume`` names another, which is taken if the first cannot be.

    Returns:
        None if the trial begins anew.

    Raises:
        UserError: ``train.resume`` names none, one of other settings, or one that holds no state of a training.
    """
    if path.exists():
        try:
            _check_resumable(path)
        except UserError as error:
            print(f"{error}; the trial begins anew", file=sys.stderr)
        else:
            return path
    named = config["train"].get("resume")
    if named is None:
        return None
    checkpoint = read_checkpoint(Path(named), "last.ckpt")
    own, other = ({**settings(of), "seed": of["seed"]} for of in (config, checkpoint.config))
    may_differ = ["train.epochs"] if config["train"]["schedule"] == "constant" else []
    for key in [*own, *other]:
        if own.get(key) != other.get(key) and key not in may_differ:
            raise UserError(f"train.resume: {checkpoint.path} was trained with {key}={other.get(key)}, wanted {own.get(key)}")
    if checkpoint.epoch >= config["train"]["epochs"]:
        raise UserError(
            f"train.resume: {checkpoint.path} has {checkpoint.epoch + 1} epochs behind it, wanted at most "
            f"train.epochs={config['train']['epochs']}"
        )
    best = checkpoint.path.with_name("best.ckpt")
    if not best.is_file():
        raise UserError(f"train.resume: there is no {best}, the best checkpoint so far")
    _check_resumable(checkpoint.path)
    return checkpoint.path


def _check_resumable(path: Path) -> None:
    loaded = load_plain(path)
    of_trial(path, loaded)
    kinds = dict.fromkeys(("loops", "callbacks", "epoch_recorder"), dict) | dict.fromkeys(
        ("optimizer_states", "lr_schedulers"), list
    )
    missing = [name for name, kind in kinds.items() if not isinstance(loaded.get(name), kind)]
    if missing:
        raise UserError(f"{path} cannot be gone on from: it holds no {missing[0]}")


def adopt(checkpoint: Path, folder: Path) -> None:
    """Copy into a trial's folder of checkpoints the best one so far of another, from whose last one it goes on."""
    with replacing(folder / "best.ckpt") as temporary:
        shutil.copyfile(checkpoint.with_name("best.ckpt"), temporary)
