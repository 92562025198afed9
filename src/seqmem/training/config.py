"""The typed settings of a run: what ``train.*``, ``runner.*`` and the top level may be."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from seqmem import models
from seqmem.arguments import check
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError, not_installed
from seqmem.training.optimisation.schedules import Schedule

SMOKE_BATCHES = 5
BatchLimit = PositiveInt | Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class TrainConfig:
    """How one model is trained.

    Attributes:
        optimizer: adam, adamw, rmsprop or sgd of torch.optim; muon: :class:`seqmem.training.optimisation.muon.Muon`.
        lr: learning rate.
        lr_decay: the learning rate of update i = 0, 1, 2 ... is lr / (1 + lr_decay i); 0 keeps it.
        schedule: of the learning rate over the epochs: constant, or from ``lr`` to ``final_lr``, exponential or cosine.
        final_lr: where the schedule ends; None for a hundredth of ``lr``.
        wd: weight decay, the optimiser's ``weight_decay``.
        epochs: passes over the training split; 0 tests the initial weights.
        batch_size: B.
        eval_batch_size: B of validation and test; None for ``batch_size``, or for 1 where batches are contiguous, so that a
            split is read as one text.
        gradient_clip_val: largest norm of the whole gradient; 0 does not clip.
        limit_train_batches: an integer counts training batches an epoch, a float is a fraction of them.
        limit_val_batches: the same for validation.
        limit_test_batches: the same for the test.
        test_last: also test the weights after the last epoch; they choose nothing, and have a column of their own.
        precision: Lightning's name of the number format.
        compile: compile the network with torch.compile. A sequence that goes step by step stays out of it.
        checkpoint_minutes: a checkpoint is written after each epoch, and within one every so many minutes, on one device.
        resume: the folder of a trial, or its last checkpoint, to go on from where the trial's own folder has none. Its settings
            and seed must be the same, but for ``epochs`` where the schedule is constant.
    """

    optimizer: Literal["adam", "adamw", "muon", "rmsprop", "sgd"] = "adam"
    lr: PositiveFloat = 1e-3
    lr_decay: NonNegativeFloat = 0.0
    schedule: Schedule = "constant"
    final_lr: PositiveFloat | None = None
    wd: NonNegativeFloat = 0.0
    epochs: NonNegativeInt = 50
    batch_size: PositiveInt = 100
    eval_batch_size: PositiveInt | None = None
    gradient_clip_val: NonNegativeFloat = 0.0
    limit_train_batches: BatchLimit = 1.0
    limit_val_batches: BatchLimit = 1.0
    limit_test_batches: BatchLimit = 1.0
    test_last: bool = False
    precision: Literal["32-true", "64-true", "bf16-mixed"] = "32-true"
    compile: bool = False
    checkpoint_minutes: NonNegativeFloat = 10.0
    resume: str | None = None

    @property
    def if_not_finite(self) -> str:
        """What to try where numbers have outgrown their type."""
        slower = f"try a train.lr below {self.lr}"
        return slower if self.gradient_clip_val else f"{slower}, or train.gradient_clip_val=1"


@dataclass(frozen=True)
class RunnerConfig:
    """How trials are run.

    Attributes:
        name: pl, the trials one after the other in this process with PyTorch Lightning; ray: see :class:`RayConfig`.
        ntrials: how many; trial k is seeded with seed + k.
        accelerator: Lightning's name of the device.
        tensorboard: also write TensorBoard event files into each trial's folder (metrics.csv is always written).
        wandb: also log to Weights & Biases, online or into each trial's folder; None does not.
        wandb_project: the project there.
        devices: GPUs, or processes on the CPU, that share the rows of every batch.
    """

    name: Literal["pl", "ray"] = "pl"
    ntrials: PositiveInt = 1
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    tensorboard: bool = False
    wandb: Literal["online", "offline"] | None = None
    wandb_project: Annotated[str, Field(min_length=1)] = "seqmem"
    devices: PositiveInt = 1


@dataclass(frozen=True)
class RayConfig(RunnerConfig):
    """How trials are run where ``name`` is ray: several at a time, by the workers of a Ray cluster.

    Attributes:
        workers: how many trials at a time.
        cpus: processors that Ray keeps for a trial.
        gpus: the same of GPUs; trials may share one.
        address: of the cluster, as ``ray.init`` takes it; None for one on this machine that ends with the program.
    """

    name: Literal["ray"] = "ray"
    devices: Literal[1] = 1
    workers: PositiveInt = 2
    cpus: PositiveInt = 1
    gpus: NonNegativeFloat = 0.0
    address: Annotated[str, Field(min_length=1)] | None = None


def runner_config(section: Mapping[str, Any]) -> RunnerConfig:
    """The typed settings of a checked section."""
    return _schema(section)(**section)


def _schema(runner: Mapping[str, Any]) -> type[RunnerConfig]:
    return RayConfig if runner.get("name") == "ray" else RunnerConfig


def limited(batches: int, limit: int | float, smoke_test: bool = False) -> int:
    """How many of ``batches`` a limit leaves: an integer counts, a float is a fraction; at least 1, few in a smoke test."""
    count = min(batches, limit) if isinstance(limit, int) else max(1, int(batches * limit))
    return min(count, SMOKE_BATCHES) if smoke_test else count


def evaluation_batch_size(train: TrainConfig, spec: DataSpec) -> int:
    """B of validation and test."""
    return train.eval_batch_size or (1 if spec.contiguous else train.batch_size)


def check_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check every section of a config but the data set's, before anything is loaded.

    Returns:
        The config with the defaults of train and runner filled in.

    Raises:
        UserError: naming the key, what it holds and what it may hold.
    """
    models.check(model_arguments(config))
    sections = ("model", "dataset", "train", "runner")
    general = check(top_level, {key: value for key, value in config.items() if key not in sections})
    train = check(TrainConfig, config["train"], "train")
    if train["schedule"] == "constant" and train["final_lr"] is not None:
        raise UserError(f"train.final_lr: got {train['final_lr']}, expected null, since train.schedule is constant")
    if train["schedule"] != "constant" and train["lr_decay"] > 0:
        raise UserError(
            f"train.lr_decay: got {train['lr_decay']} with train.schedule={train['schedule']}, expected one of the two"
        )
    runner = check(_schema(config["runner"]), config["runner"], "runner")
    elsewhere = runner.get("address") is not None
    if train["resume"] is not None and runner["ntrials"] > 1:
        raise UserError(f"train.resume: got {train['resume']} for {runner['ntrials']} trials, expected runner.ntrials=1")
    if general["seed"] + runner["ntrials"] > 2**32:
        raise UserError(f"seed: got {general['seed']} for {runner['ntrials']} trials, expected seeds below 2**32")
    if runner["accelerator"] == "gpu" and runner.get("gpus", 1) == 0:
        raise UserError("runner.gpus: got 0 with runner.accelerator=gpu, expected the part of a GPU that a trial needs")
    if runner["accelerator"] == "gpu" and not elsewhere and not torch.cuda.is_available():
        raise UserError("runner.accelerator: got 'gpu', but torch finds no GPU here; did you mean 'auto'?")
    found = torch.cuda.device_count()
    if runner["devices"] > found > 0 and runner["accelerator"] != "cpu":
        raise UserError(f"runner.devices: got {runner['devices']}, but torch finds {found} GPUs here")
    return {"model": config["model"], "dataset": config["dataset"], "train": train, "runner": runner, **general}


def check_installed(runner: Mapping[str, Any]) -> None:
    """Check that what a config's runner section asks for is there.

    Raises:
        UserError: naming the extra that brings it.
    """
    for key, package, wanted in (
        ("runner=ray", "ray", runner["name"] == "ray"),
        ("runner.wandb", "wandb", runner["wandb"] is not None),
    ):
        if wanted and find_spec(package) is None:
            raise UserError(f"{key}: {package} {not_installed(package)}")


def check_fit(config: Mapping[str, Any], spec: DataSpec) -> models.SequenceModel:
    """Check that the model fits a data set, without allocating it.

    Returns:
        The model, its tensors on the meta device.

    Raises:
        UserError: it does not; both are named.
    """
    devices = runner_config(config["runner"]).devices
    if devices > 1 and spec.contiguous:
        raise UserError(f"runner.devices: got {devices}, expected 1 on {spec.name}, which is read as one text, not row by row")
    with torch.device("meta"):
        model = models.build(model_arguments(config), spec)
    if config["train"]["epochs"] > 0 and not any(parameter.requires_grad for parameter in model.parameters()):
        label = models.label(model_arguments(config))
        raise UserError(f"train.epochs: got {config['train']['epochs']}, expected 0, since {label} has nothing to train")
    return model


def model_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The model section without the name of the preset, which has been applied."""
    return {key: value for key, value in config["model"].items() if key != "preset"}


def top_level(
    seed: NonNegativeInt = 0,
    smoke_test: bool = False,
    output_dir: Annotated[str, Field(min_length=1)] = "runs",
    traceback: bool = False,
) -> None:
    """The signature is the schema of the config's top level."""
