"""Checkpoints and what is made of them again, read without running code from them."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqmem import models
from seqmem.arguments import check
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.io.files import replacing
from seqmem.io.zips import check_size
from seqmem.tasks import task_for
from seqmem.training.config import TrainConfig, model_arguments
from seqmem.training.loop.module import SequenceModule


class DamagedCheckpointError(UserError):
    """What a file holds is no checkpoint, or not all of one; a file that cannot be read may be whole."""


# What a model's weights are made for, and another data set may not change.
_SHAPE = ("input_size", "output_size", "tokens", "times", "task")


@dataclass(frozen=True)
class Checkpoint:
    """What a trial's checkpoint holds.

    Attributes:
        path: its file.
        config: the resolved config of the trial.
        spec: the spec of the data set that it was trained on.
        data: the checksum of those data; None where it does not say.
        epoch: of the training, from 0.
        weights: the LightningModule's, by name.
    """

    path: Path
    config: dict[str, Any]
    spec: DataSpec
    data: str | None
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
            trials = ", ".join(str(trial) for trial in sorted(path.glob("seed_*"))[:3])
            raise UserError(
                f"{path} holds no checkpoints/{name}; expected a checkpoint or the folder of a finished trial"
                + (f", as {trials}" if trials else "")
            )
        path = path / "checkpoints" / name
    return of_trial(path, load_plain(path))


def of_trial(path: Path, loaded: Any) -> Checkpoint:
    """What a file held, if it is a trial's.

    Raises:
        DamagedCheckpointError: it is not.
    """
    try:
        saved = loaded["hyper_parameters"]
        config, epoch = saved["config"], loaded["epoch"]
        spec = DataSpec(**check(DataSpec, saved["spec"]))
        sections = (config[section] for section in ("model", "dataset", "train", "runner"))
        if (
            all(isinstance(section, dict) for section in sections)
            and _has_names(config)
            and isinstance(config["seed"], int)
            and isinstance(epoch, int)
            and isinstance(data := saved.get("data"), str | None)
        ):
            return Checkpoint(path, config, spec, data, epoch, loaded["state_dict"])
    except (KeyError, TypeError, IndexError, AttributeError, UserError):
        pass
    raise DamagedCheckpointError(f"{path} is not a checkpoint of train.py, which writes TRIAL/checkpoints/best.ckpt")


def _has_names(config: Any) -> bool:
    """Whether all keys of a config are words."""
    return not isinstance(config, dict) or all(isinstance(key, str) and _has_names(value) for key, value in config.items())


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
                f"{spec.name} has {name}={getattr(spec, name)}, expected {name}={getattr(trained, name)}, since the model of "
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
            f"expected {own.get(name, 'nothing')}"
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
        UserError: there is no such file, or it cannot be read.
        DamagedCheckpointError: it holds something else.
        MemoryError: for a file larger than the memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            check_size(archive)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {path} ({error.strerror or error})") from None
    except MemoryError:
        raise
    except Exception:  # torch raises many kinds, with advice to read the file with code and all
        raise DamagedCheckpointError(
            f"{path} is not a checkpoint: it is damaged, or holds more than tensors and plain values"
        ) from None
