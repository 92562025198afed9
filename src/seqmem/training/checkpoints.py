"""Checkpoints: written so that a kill or a full disk cannot cut them, read without running code from them."""

import shutil
import sys
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn

from seqmem import models
from seqmem.arguments import check
from seqmem.errors import UserError
from seqmem.files import replacing
from seqmem.results.record import settings
from seqmem.spec import DataSpec
from seqmem.tasks import task_for
from seqmem.training.config import TrainConfig, model_arguments
from seqmem.training.module import SequenceModule
from seqmem.zips import check_size

# What a model's weights are made for, and another data set may not change.
_SHAPE = ("input_size", "output_size", "tokens", "times", "task")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it into it: the old one stays until the new one is whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write ``checkpoint`` to ``path``."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_plain(checkpoint, Path(path))


class BestCheckpoint(ModelCheckpoint):
    """After each epoch, ``last.ckpt``, and ``best.ckpt`` if the epoch is the best so far by what it monitors."""

    def __init__(self, folder: Path, monitor: str, mode: str):
        super().__init__(
            folder,
            "best",
            monitor,
            mode=mode,
            save_on_train_epoch_end=True,  # when all of the epoch is known, its row of metrics too
            enable_version_counter=False,
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save both, if the weights are finite. Lightning's own last.ckpt is that of the last epoch that was the best."""
        broken = [name for name, value in pl_module.named_parameters() if not torch.isfinite(value).all()]
        assert self.dirpath is not None
        last = Path(self.dirpath) / "last.ckpt"
        if broken:
            config = pl_module.train_config
            assert isinstance(config, TrainConfig)
            kept = f"{last} is from before" if last.exists() else "there is no checkpoint yet"
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            raise UserError(
                f"{broken[0]} is no longer finite after step {trainer.global_step}, at the end of epoch "
                f"{trainer.current_epoch + 1} (learning rate {rate:g}); {kept}; {config.if_not_finite}"
            )
        super().on_train_epoch_end(trainer, pl_module)
        trainer.save_checkpoint(last)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint, which may have been moved with its folder."""
        assert self.dirpath is not None
        here = str(Path(self.dirpath) / "best.ckpt") if state_dict["best_model_path"] else ""
        moved = {"dirpath": self.dirpath, "best_model_path": here, "kth_best_model_path": here}
        best = dict.fromkeys([here] if here else [], state_dict["best_model_score"])
        super().load_state_dict({**state_dict, **moved, "best_k_models": best, "last_model_path": ""})


class WithinEpoch(pl.Callback):
    """Writes ``last.ckpt`` within epochs, too, with what training only holds until the epoch's end.

    Args:
        path: the file.
        minutes: between two checkpoints; 0 for one after each batch.
    """

    def __init__(self, path: Path, minutes: float):
        self.path = path
        self.seconds = 60 * minutes
        self._saving = False
        self._found: dict[str, Any] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give back what the checkpoint held from which the training goes on."""
        self._written = time.monotonic()
        if self._found is not None:
            assert isinstance(pl_module, SequenceModule)
            pl_module.continue_epoch(self._found)
            self._found = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A checkpoint is written now in any case."""
        self._written = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write one if it is time."""
        if trainer.is_last_batch or time.monotonic() < self._written + self.seconds:
            return
        self._saving = True
        trainer.save_checkpoint(self.path)
        self._saving = False
        self._written = time.monotonic()

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add what the epoch has gathered so far."""
        if self._saving:
            assert isinstance(pl_module, SequenceModule)
            checkpoint["within_epoch"] = pl_module.within_epoch()

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep it until all is on its device."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._found = checkpoint.get("within_epoch")


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
    _of_trial(path, loaded)
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


@dataclass(frozen=True)
class Checkpoint:
    """What a trial's checkpoint holds.

    Attributes:
        path: its file.
        config: the resolved config of the trial.
        spec: the spec of the data set that it was trained on.
        epoch: of the training, from 0.
        weights: the LightningModule's, by name.
    """

    path: Path
    config: dict[str, Any]
    spec: DataSpec
    epoch: int
    weights: dict[str, Tensor]

    @property
    def folder(self) -> Path:
        """The folder of its trial; the file's own if it lies elsewhere."""
        return self.path.parent.parent if self.path.parent.name == "checkpoints" else self.path.parent


def read_checkpoint(path: Path, name: str = "best.ckpt") -> Checkpoint:
    """Read a checkpoint of a trial.

    Args:
        path: the file, or the trial's folder.
        name: which one of a folder; by default the one that validation chose.

    Raises:
        UserError: there is none, or it is not one of a trial.
    """
    if path.is_dir():
        if not (path / "checkpoints" / name).is_file():
            raise UserError(f"{path} holds no checkpoints/{name}; wanted a checkpoint or the folder of a finished trial")
        path = path / "checkpoints" / name
    return _of_trial(path, load_plain(path))


def _of_trial(path: Path, loaded: Any) -> Checkpoint:
    try:
        saved = loaded["hyper_parameters"]
        config, epoch = saved["config"], loaded["epoch"]
        spec = DataSpec(**check(DataSpec, saved["spec"]))
        sections = (config[section] for section in ("model", "dataset", "train", "runner"))
        if (
            all(isinstance(section, dict) for section in sections)
            and isinstance(config["seed"], int)
            and isinstance(epoch, int)
        ):
            return Checkpoint(path, config, spec, epoch, loaded["state_dict"])
    except (KeyError, TypeError, IndexError, AttributeError, UserError):
        pass
    raise UserError(f"{path} is not a checkpoint of train.py, which writes TRIAL/checkpoints/best.ckpt")


def restore(checkpoint: Checkpoint, train: Mapping[str, Any], spec: DataSpec) -> SequenceModule:
    """The trained model, ready to be evaluated.

    Args:
        checkpoint: where its weights come from.
        train: the config's section.
        spec: of the data set to evaluate it on, which may be another than it was trained on.

    Raises:
        UserError: the data set is not of the shape that the model was built for, or the weights are not those of the model.
    """
    trained = checkpoint.spec
    for name in _SHAPE:
        if getattr(spec, name) != getattr(trained, name):
            raise UserError(
                f"{spec.name} has {name}={getattr(spec, name)}, wanted {name}={getattr(trained, name)}, since the model of "
                f"{checkpoint.path} was trained on {trained.name}"
            )
    # What the model made of the length of its training data is part of what it learned.
    spec = replace(spec, max_length=trained.max_length, embedding_size=trained.embedding_size)
    with torch.device("meta"):  # nothing of the size that a file claims is made before its weights are of that size
        check_weights(_module(checkpoint, train, spec), checkpoint.weights, checkpoint.path)
    module = _module(checkpoint, train, spec)
    load_weights(module, checkpoint.weights, checkpoint.path)
    module.model.on_epoch(checkpoint.epoch)
    return module


def _module(checkpoint: Checkpoint, train: Mapping[str, Any], spec: DataSpec) -> SequenceModule:
    return SequenceModule(models.build(model_arguments(checkpoint.config), spec), task_for(spec), TrainConfig(**train))


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load what a checkpoint holds.

    Args:
        module: whose parameters are replaced.
        weights: by name.
        path: of the checkpoint, for the message.

    Raises:
        UserError: as :func:`check_weights`; nothing is loaded.
    """
    check_weights(module, weights, path)
    module.load_state_dict(weights)


def check_weights(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights that are not those of a module, which may be on the meta device.

    Raises:
        UserError: a name is missing or unknown, a shape differs, or there are no plain tensors.
    """
    if not isinstance(weights, Mapping) or not all(
        isinstance(value, Tensor) and value.is_cpu and value.layout == torch.strided and not value.is_quantized
        for value in weights.values()
    ):
        raise UserError(f"{path} is not a checkpoint: its weights are no plain tensors by name")
    own = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    if given != own:
        name = next(name for name in [*own, *given] if own.get(name) != given.get(name))
        raise UserError(
            f"{path} is a checkpoint of another model: got {name} of shape {given.get(name, 'nothing')}, "
            f"wanted {own.get(name, 'nothing')}"
        )


def save_plain(content: Any, path: Path) -> None:
    """Write tensors and plain values so that a kill at any moment leaves the old file or the new one.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # What torch makes of a write that failed, on a full disk say.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load_plain(path: Path) -> Any:
    """Read what :func:`save_plain` wrote, tensors on the CPU; anything but tensors and plain values is refused.

    Raises:
        UserError: there is no such file, it cannot be read, or it holds something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            check_size(archive)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {path} ({error.strerror or error})") from None
    except Exception:  # torch raises many kinds, with advice to read the file with code and all
        raise UserError(f"{path} is not a checkpoint: it is damaged, or holds more than tensors and plain values") from None
