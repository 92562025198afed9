"""Checkpoints: read without executing code from them, and restored to a trained model."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import seed_everything
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from seqmem import models, plugins
from seqmem.arguments import check
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.io.files import replacing
from seqmem.io.zips import check_size
from seqmem.tasks import task_for
from seqmem.training.checkpoints import hub_folder
from seqmem.training.config import TrainConfig, model_arguments
from seqmem.training.loop.module import SequenceModule


class DamagedCheckpointError(UserError):
    """The file holds something else, or only a part of a checkpoint. (A file that cannot be read may be intact.)"""


# Fields of the spec that a model's weights depend on; a different data set must agree in them.
_SHAPE = ("input_size", "output_size", "tokens", "times", "task")

# Fields that the model was built by, and keeps on different data.
_OF_TRAINING = ("max_length", "embedding_size", "answers_at_end", "later_targets")


@dataclass(frozen=True)
class Checkpoint:
    """Content of a trial's checkpoint.

    Attributes:
        path: the file.
        config: the resolved config of the trial.
        spec: of the data set that the trial was trained on.
        data: checksum of those data; None if it is not known.
        backend: device kind and path of the operators in training; None if it is not known.
        epoch: of the training, from 0.
        weights: of the LightningModule, by name.
        preparation: how later inputs are prepared, see ``DataSet.preparation``; None if that is not known.
    """

    path: Path
    config: dict[str, Any]
    spec: DataSpec
    data: str | None
    backend: str | None
    epoch: int
    weights: dict[str, Tensor]
    preparation: dict[str, Any] | None = None

    @property
    def folder(self) -> Path:
        """The trial's folder, or the file's own if the file was moved out of it."""
        return self.path.parent.parent if self.path.parent.name == "checkpoints" else self.path.parent


def read_checkpoint(path: Path, name: str = "best.ckpt") -> Checkpoint:
    """Read a checkpoint of a trial.

    Args:
        path: the file, the trial's folder, or the folder of a published model.
        name: of the file in a trial's folder; by default the checkpoint that validation chose.

    Raises:
        UserError: no such file exists, or it is not a trial's checkpoint.
    """
    if path.name == hub_folder.WEIGHTS and hub_folder.is_hub_folder(path.parent):
        path = path.parent
    if path.is_dir() and hub_folder.is_hub_folder(path):
        return of_trial(path / hub_folder.WEIGHTS, hub_folder.read(path))
    if path.is_dir():
        if not (path / "checkpoints" / name).is_file():
            found = sorted([*path.glob("seed_*"), *path.glob("*/seed_*")])
            trials = ", ".join(str(trial) for trial in found[:3]) + (f" or {len(found) - 3} more" if len(found) > 3 else "")
            raise UserError(
                f"{path} holds no checkpoints/{name}; expected a checkpoint or the folder of a finished trial"
                + (f", as {trials}" if trials else "")
            )
        path = path / "checkpoints" / name
    return of_trial(path, load_plain(path))


def of_trial(path: Path, loaded: Any) -> Checkpoint:
    """Create the checkpoint of a file's content.

    Raises:
        DamagedCheckpointError: it is not a trial's checkpoint.
        UserError: a plugin that the trial was trained with is not imported.
    """
    saved = loaded.get("hyper_parameters") if isinstance(loaded, dict) else None
    if isinstance(saved, dict) and isinstance(saved.get("config"), dict):
        plugins.require(saved["config"], path)  # they may have the task of the data
    try:
        saved = loaded["hyper_parameters"]
        config, epoch = saved["config"], loaded["epoch"]
        spec = DataSpec(**check(DataSpec, saved["spec"]))
        task_for(spec)
        sections = (config[section] for section in ("model", "dataset", "train", "runner"))
        if (
            all(isinstance(section, dict) for section in sections)
            and _has_names(config)
            and isinstance(config["seed"], int)
            and isinstance(epoch, int)
            and isinstance(data := saved.get("data"), str | None)
            and isinstance(backend := saved.get("backend"), str | None)
            and isinstance(preparation := saved.get("preparation"), dict | None)
        ):
            return Checkpoint(path, config, spec, data, backend, epoch, loaded["state_dict"], preparation)
    except (KeyError, TypeError, IndexError, AttributeError, UserError):
        pass
    raise DamagedCheckpointError(f"{path} is not a checkpoint of seqmem train, which writes TRIAL/checkpoints/best.ckpt")


def _has_names(config: Any) -> bool:
    """Return whether all keys of a config are strings, at any depth."""
    return not isinstance(config, dict) or all(isinstance(key, str) and _has_names(value) for key, value in config.items())


def restore(checkpoint: Checkpoint, train: Mapping[str, Any], spec: DataSpec) -> SequenceModule:
    """Create the trained model in the type of its weights, ready to be evaluated.

    Args:
        checkpoint: with the weights.
        train: the config's section.
        spec: of the data set to evaluate on, which may be a different one than that of the training.

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
    names = (spec.class_names, trained.class_names)
    if task_for(spec).class_targets and None not in names and names[0] != names[1]:
        shown = [", ".join(known[:8]) + (", ..." if len(known) > 8 else "") for known in names if known]
        raise UserError(
            f"{spec.name} has the classes {shown[0]}, expected {shown[1]} in this order, since the model of {checkpoint.path} "
            f"was trained on {trained.name}"
        )
    # The model may depend on these properties of its training data.
    spec = replace(spec, **{name: getattr(trained, name) for name in _OF_TRAINING})
    with torch.device("meta"):  # no memory of a size that a file claims, until its weights are known to have that size
        check_weights(_module(checkpoint, train, spec), checkpoint.weights, checkpoint.path)
    module = _module(checkpoint, train, spec)
    load_weights(module, checkpoint.weights, checkpoint.path)
    module.model.on_epoch(checkpoint.epoch)
    return module


def initial(checkpoint: Checkpoint, train: Mapping[str, Any], spec: DataSpec) -> SequenceModule:
    """Create the model with the initial weights of the trial: those of its seed, in the types of the trained weights.

    Args:
        checkpoint: of the trial.
        train: the config's section.
        spec: of the restored model, see :func:`restore`.
    """
    with isolate_rng():
        seed_everything(checkpoint.config["seed"], verbose=False)
        module = _module(checkpoint, train, spec)
    _take_types(module, checkpoint.weights)
    module.model.on_epoch(0)
    return module


def _module(checkpoint: Checkpoint, train: Mapping[str, Any], spec: DataSpec) -> SequenceModule:
    return SequenceModule(models.build(model_arguments(checkpoint.config), spec), task_for(spec), TrainConfig(**train))


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load weights into a module, which takes their floating-point types, so that none is rounded.

    Args:
        module: whose parameters and buffers are replaced.
        weights: by name.
        path: of the checkpoint, for the message.

    Raises:
        UserError: as :func:`check_weights`; nothing is loaded.
    """
    check_weights(module, weights, path)
    _take_types(module, weights)
    module.load_state_dict(weights)


def _take_types(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Convert parameters and buffers to the floating-point types of weights.

    Buffers that a state dict leaves out, and optional parts that the weights lack, are converted in the same way, as by
    ``module.double()`` before a training in float64.
    """
    converted: dict[torch.dtype, torch.dtype] = {}
    saved = module.state_dict(keep_vars=True)
    loaded = saved.keys() & weights.keys()
    for name in loaded:
        value, kind = saved[name], weights[name].dtype
        if value.dtype != kind and value.is_floating_point() and kind.is_floating_point:
            converted[value.dtype] = kind
            value.data = value.data.to(kind)
    known = {id(saved[name]) for name in loaded}
    for value in (*module.parameters(), *module.buffers()):
        if id(value) not in known and value.dtype in converted:
            value.data = value.data.to(converted[value.dtype])


def check_weights(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Check that weights fit a module, which may be on the meta device.

    Raises:
        UserError: a name is missing or unknown, a shape differs, or a weight is not a plain tensor.
    """
    if not isinstance(weights, Mapping) or not all(
        isinstance(value, Tensor) and value.is_cpu and value.layout == torch.strided and not value.is_quantized
        for value in weights.values()
    ):
        raise UserError(f"{path} is not a checkpoint: its weights are not plain tensors by name")
    modules = module.named_modules()
    optional = {f"{prefix}.{name}".lstrip(".") for prefix, part in modules for name in getattr(part, "optional_state", ())}
    needed = {name: value for name, value in module.state_dict().items() if name in weights or name not in optional}
    own = {name: tuple(value.shape) for name, value in needed.items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    if given != own:
        name = next(name for name in [*own, *given] if own.get(name) != given.get(name))
        raise UserError(
            f"{path} is a checkpoint of a different model: got {name} of shape {given.get(name, 'nothing')}, "
            f"expected {own.get(name, 'nothing')}"
        )


def save_plain(content: Any, path: Path) -> None:
    """Write tensors and plain values; a kill at any moment leaves the old file or the new one.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # torch hides the failed write, on a full disk for example.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load_plain(path: Path) -> Any:
    """Read what :func:`save_plain` wrote, tensors on the CPU; refuse anything but tensors and plain values.

    Raises:
        UserError: no such file exists, or it cannot be read.
        DamagedCheckpointError: it holds something else.
        MemoryError: the file is larger than the memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            check_size(archive)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {path} ({error.strerror or error})") from None
    except MemoryError:
        raise
    except Exception:  # torch raises many kinds, and advises to execute the file's code
        raise DamagedCheckpointError(
            f"{path} is not a checkpoint: it is damaged, or holds more than tensors and plain values"
        ) from None
