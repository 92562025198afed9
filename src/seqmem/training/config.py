"""The typed settings of a run: what ``train.*``, ``runner.*`` and the top level may hold."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from seqmem import models
from seqmem.arguments import check, plain
from seqmem.data.spec import DataSpec
from seqmem.data.splits import Split
from seqmem.errors import UserError, not_installed
from seqmem.ops import extension
from seqmem.training.optimisation.optimizers import OptimizerSettings
from seqmem.training.optimisation.schedules import Constant, Interval, InverseTime, Schedule

SMOKE_BATCHES = 2
BatchLimit = PositiveInt | Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class TrainConfig:
    """Settings of training.

    Attributes:
        optimizer: adam, adamw, muon, rmsprop or sgd, or another registered name. See
            :mod:`seqmem.training.optimisation.optimizers`.
        optimizer_args: arguments of the optimiser, such as {betas: [0.9, 0.99]}; empty for its defaults. None means the same.
        lr: learning rate.
        lr_decay: the learning rate of update i = 0, 1, 2 ... is lr / (1 + lr_decay i); 0 keeps it. A second spelling of
            ``schedule=inverse_time schedule_interval=step`` with ``schedule_args={decay: LR_DECAY}``.
        schedule: constant, exponential, cosine or inverse_time, or another registered name. See
            :mod:`seqmem.training.optimisation.schedules`.
        schedule_args: arguments of the schedule, such as {decay: 0.1} of inverse_time; empty for its defaults. None means the
            same.
        schedule_interval: the rate changes after each epoch, or after each step; a constant rate takes epoch only.
        final_lr: rate of the last epoch or step of a schedule that ends; None for a hundredth of ``lr``.
        warmup_steps: optimiser steps in which the rate grows linearly to ``lr``; a float is a fraction of all steps. At most
            those of the run.
        wd: weight decay, the optimiser's ``weight_decay``.
        epochs: passes over the training split; 0 tests the initial weights.
        patience: epochs without a better validation metric after which training stops; None trains all epochs.
        min_delta: a smaller improvement does not count for ``patience``. The best checkpoint takes any improvement.
        batch_size: B, sequences in a batch.
        accumulate_grad_batches: batches whose gradients make one optimiser step, as one batch of all their sequences would. The
            last step of an epoch may have fewer. Batch normalisation still takes its statistics of each batch.
        eval_batch_size: B of validation and test; None for ``batch_size``, or for 1 where batches are contiguous, so that a
            split is read as one text.
        gradient_clip_val: largest norm of the whole gradient, or largest absolute value of an element; 0 does not clip.
        gradient_clip_algorithm: norm or value.
        ema: decay of an exponential moving average of the weights, such as 0.999; None for no average. Validation, test and
            checkpoints then use the average, see :mod:`seqmem.training.loop.averaging`.
        limit_train_batches: an integer counts training batches an epoch, a float is a fraction of them.
        limit_val_batches: the same for validation. Of generated sequences of several lengths, those read are spread over all.
        limit_test_batches: the same for the test.
        test_last: also test the weights after the last epoch. They choose nothing, and have a column of their own.
        precision: Lightning's name of the number format.
        compile: compile the network with torch.compile, except for recurrences that run step by step.
        checkpoint_minutes: minutes between checkpoints within an epoch. There is one after each epoch, too.
        resume: the folder of a trial, or its last checkpoint, to resume from if the trial's own folder has none. Its settings
            and seed must be the same, except for ``epochs`` where the learning rate does not depend on them, and ``patience``
            and ``min_delta`` with which the training would not have stopped before that checkpoint.
    """

    optimizer: str = "adam"
    optimizer_args: dict[str, Any] | None = field(default_factory=dict)
    lr: PositiveFloat = 1e-3
    lr_decay: NonNegativeFloat = 0.0
    schedule: str = "constant"
    schedule_args: dict[str, Any] | None = field(default_factory=dict)
    schedule_interval: Interval = "epoch"
    final_lr: PositiveFloat | None = None
    warmup_steps: NonNegativeInt | Annotated[float, Field(ge=0, lt=1)] = 0
    wd: NonNegativeFloat = 0.0
    epochs: NonNegativeInt = 50
    patience: PositiveInt | None = None
    min_delta: NonNegativeFloat = 0.0
    batch_size: PositiveInt = 100
    accumulate_grad_batches: PositiveInt = 1
    eval_batch_size: PositiveInt | None = None
    gradient_clip_val: NonNegativeFloat = 0.0
    gradient_clip_algorithm: Literal["norm", "value"] = "norm"
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    limit_train_batches: BatchLimit = 1.0
    limit_val_batches: BatchLimit = 1.0
    limit_test_batches: BatchLimit = 1.0
    test_last: bool = False
    precision: Literal["32-true", "64-true", "bf16-mixed"] = "32-true"
    compile: bool = False
    checkpoint_minutes: NonNegativeFloat = 10.0
    resume: Annotated[str, Field(min_length=1)] | None = None

    @property
    def input_type(self) -> torch.dtype:
        """Type of the model's inputs; under bf16-mixed only products are in half precision."""
        return torch.float64 if self.precision == "64-true" else torch.float32

    @property
    def limits(self) -> dict[Split, int | float]:
        """The limit of each split's batches, see :func:`limited`."""
        return {
            "train": self.limit_train_batches,
            "validation": self.limit_val_batches,
            "test": self.limit_test_batches,
        }

    @property
    def rate_schedule(self) -> tuple[Schedule, Interval]:
        """The schedule of the learning rate, and what it counts."""
        if self.lr_decay > 0:
            return InverseTime(self.lr_decay), "step"
        return Schedule.select(self.schedule, self.schedule_args), self.schedule_interval

    @property
    def rate_depends_on_epochs(self) -> bool:
        """Whether the learning rate of a step would differ in a longer training."""
        return self.rate_schedule[0].ends or (isinstance(self.warmup_steps, float) and self.warmup_steps > 0)

    @property
    def advice(self) -> str:
        """Remedy for non-finite numbers."""
        slower = f"try a train.lr below {self.lr}"
        return slower if self.gradient_clip_val else f"{slower}, or train.gradient_clip_val=1"


@dataclass(frozen=True)
class RunnerConfig:
    """Settings of the runner.

    Attributes:
        name: pl for trials on this machine, ray for trials on a Ray cluster.
        ntrials: number of trials; trial k is seeded with seed + k.
        workers: trials of a command at a time, each in a process of its own; auto chooses by the models' sizes. See
            :mod:`seqmem.training.engines.choice`.
        accelerator: Lightning's name of the device.
        tensorboard: also write TensorBoard event files into each trial's folder, next to metrics.csv. For a trial that is found
            finished, they are made from its metrics.
        wandb: also log to Weights & Biases: online, or offline in each trial's folder; None for no log. It
            gets the metrics of a trial that is found finished, too.
        wandb_project: the project there.
        mlflow: also log to MLflow: a tracking URI, or a folder for a database and the artifacts; None for no log. It gets the
            metrics of a trial that is found finished, too.
        mlflow_experiment: the experiment there.
        devices: GPUs, or processes on the CPU, that split the rows of every batch.
    """

    name: Literal["pl", "ray"] = "pl"
    ntrials: PositiveInt = 1
    workers: Literal["auto"] | PositiveInt = "auto"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    tensorboard: bool = False
    wandb: Literal["online", "offline"] | None = None
    wandb_project: Annotated[str, Field(min_length=1)] = "seqmem"
    mlflow: Annotated[str, Field(min_length=1)] | None = None
    mlflow_experiment: Annotated[str, Field(min_length=1)] = "seqmem"
    devices: PositiveInt = 1


@dataclass(frozen=True)
class RayConfig(RunnerConfig):
    """Settings of the runner ray: several trials at a time, by the workers of a Ray cluster.

    Attributes:
        workers: trials at a time.
        cpus: processors that Ray reserves for a trial.
        gpus: GPUs that Ray reserves for a trial; several trials may use one.
        address: of the cluster, as ``ray.init`` takes it; None for one on this machine that ends with the program.
    """

    name: Literal["ray"] = "ray"
    devices: Literal[1] = 1
    workers: PositiveInt = 2
    cpus: PositiveInt = 1
    gpus: NonNegativeFloat = 0.0
    address: Annotated[str, Field(min_length=1)] | None = None


@dataclass(frozen=True)
class PackageConfig:
    """Settings of the package.

    Attributes:
        plugins: modules of own cells, layers, data sets or tasks, see :mod:`seqmem.plugins`.
    """

    plugins: list[str] = field(default_factory=list)


def runner_config(section: Mapping[str, Any]) -> RunnerConfig:
    """Return the typed settings of a checked section."""
    return _runner_schema(section)(**section)


def _runner_schema(runner: Mapping[str, Any]) -> type[RunnerConfig]:
    return RayConfig if runner.get("name") == "ray" else RunnerConfig


def limited(batches: int, limit: int | float, smoke_test: bool = False) -> int:
    """Return how many of ``batches`` a limit leaves: at least 1, and at most ``SMOKE_BATCHES`` in a smoke test.

    Args:
        batches: of the split.
        limit: an integer counts batches, a float is a fraction of them.
        smoke_test: see above.
    """
    # 100 * 0.29 is a little below 29 in floating point.
    count = min(batches, limit) if isinstance(limit, int) else max(1, int(batches * limit + 1e-9))
    return min(count, SMOKE_BATCHES) if smoke_test else count


def updates_per_epoch(batches: int, train: TrainConfig) -> int:
    """Return the number of optimiser steps of an epoch of ``batches`` batches."""
    return math.ceil(batches / train.accumulate_grad_batches)


def evaluation_batch_size(train: TrainConfig, spec: DataSpec) -> int:
    """Return B of validation and test."""
    return train.eval_batch_size or (1 if spec.contiguous else train.batch_size)


def check_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check every section of a config except the data set's, before anything is loaded.

    Returns:
        The config with the defaults of train and runner filled in.

    Raises:
        UserError: naming the key, what it holds and what it may hold.
    """
    config = plain(dict(config))
    models.check(model_arguments(config))
    sections = ("model", "dataset", "train", "runner", "seqmem")
    general = check(top_level, {key: value for key, value in config.items() if key not in sections})
    train = check(TrainConfig, config["train"], "train")
    _check_optimisation(TrainConfig(**train))
    runner = check(_runner_schema(config["runner"]), config["runner"], "runner")
    if train["resume"] is not None and runner["ntrials"] > 1:
        raise UserError(f"train.resume: got {train['resume']} for {runner['ntrials']} trials, expected runner.ntrials=1")
    if general["seed"] + runner["ntrials"] > 2**32:
        raise UserError(f"seed: got {general['seed']} for {runner['ntrials']} trials, expected seeds below 2**32")
    _check_devices(runner)
    package = check(PackageConfig, config.get("seqmem") or {}, "seqmem")
    return {
        "model": models.as_declared(config["model"]),
        "dataset": config["dataset"],
        "train": train,
        "runner": runner,
        "seqmem": package,
        **general,
    }


def _check_optimisation(train: TrainConfig) -> None:
    """Check names and arguments of optimiser and schedule, and keys that exclude each other."""
    OptimizerSettings.select(train.optimizer, train.optimizer_args)
    schedule = Schedule.select(train.schedule, train.schedule_args)
    if train.final_lr is not None and not schedule.ends:
        raise UserError(f"train.final_lr: got {train.final_lr}, expected null, since train.schedule is {schedule.name}")
    if train.lr_decay > 0 and not isinstance(schedule, Constant):
        raise UserError(f"train.lr_decay: got {train.lr_decay} with train.schedule={schedule.name}, expected one of the two")
    if train.min_delta > 0 and train.patience is None:
        raise UserError(f"train.min_delta: got {train.min_delta}, expected 0, since train.patience is null")
    if train.schedule_interval == "step" and isinstance(schedule, Constant):
        reason = f"train.lr_decay={train.lr_decay} already counts steps" if train.lr_decay > 0 else "train.schedule is constant"
        raise UserError(f"train.schedule_interval: got 'step', expected 'epoch', since {reason}")


def _check_devices(runner: Mapping[str, Any]) -> None:
    """Check that the devices of a runner section exist on this machine."""
    if runner["accelerator"] == "gpu" and runner.get("gpus", 1) == 0:
        raise UserError("runner.gpus: got 0 with runner.accelerator=gpu, expected the part of a GPU that a trial needs")
    remote = runner.get("address") is not None
    if runner["accelerator"] == "gpu" and not remote and not torch.cuda.is_available():
        raise UserError("runner.accelerator: got 'gpu', but torch finds no GPU here; did you mean 'auto'?")
    count = torch.cuda.device_count()
    if runner["devices"] > 1 and runner["workers"] not in ("auto", 1):
        raise UserError(f"runner.workers: got {runner['workers']} with runner.devices={runner['devices']}, expected 1")
    if runner["devices"] > count > 0 and runner["accelerator"] != "cpu":
        raise UserError(f"runner.devices: got {runner['devices']}, but torch finds {count} GPUs here")


def check_installed(runner: Mapping[str, Any]) -> None:
    """Check that the packages which a runner section needs are installed, and that the compiled operators are current.

    Raises:
        UserError: naming the extra that brings the package, or the command that builds the operators again.
    """
    extension.require_current()
    for key, package, needed in (
        ("runner=ray", "ray", runner["name"] == "ray"),
        ("runner.wandb", "wandb", runner["wandb"] is not None),
        ("runner.mlflow", "mlflow", runner["mlflow"] is not None),
    ):
        if needed and find_spec(package) is None:
            raise UserError(f"{key}: {package} {not_installed(package)}")
    if runner["mlflow"] is not None:
        from seqmem.training.loop.mlflow_run import check_place

        check_place(runner["mlflow"])


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
    if config["train"].get("ema") is not None and any(getattr(module, "changes_base", False) for module in model.modules()):
        label = models.label(model_arguments(config))
        raise UserError(
            f"train.ema: got {config['train']['ema']}, expected null for {label}, whose orthogonal weights of method dtriv "
            "change the base that they are relative to; model.cell_args.method=exprnn or cayley can be averaged"
        )
    return model


def model_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model section without the name of the preset, which has been applied."""
    return {key: value for key, value in config["model"].items() if key != "preset"}


def top_level(
    seed: NonNegativeInt = 0,
    smoke_test: bool = False,
    output_dir: Annotated[str, Field(min_length=1)] = "runs",
    traceback: bool = False,
) -> None:
    """The signature is the schema of the config's top level."""
