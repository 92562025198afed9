"""The typed settings of training and of the runner: what ``train.*`` and ``runner.*`` may be."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

BatchLimit = PositiveInt | Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class TrainConfig:
    """How one model is trained.

    Attributes:
        optimizer: adam, adamw, rmsprop or sgd of torch.optim.
        lr: learning rate.
        wd: weight decay, the optimiser's ``weight_decay``.
        epochs: passes over the training split.
        batch_size: B.
        gradient_clip_val: largest norm of the whole gradient; 0 does not clip.
        limit_train_batches: an integer counts training batches an epoch, a float is a fraction of them.
        limit_val_batches: the same for validation.
        limit_test_batches: the same for the test.
        precision: Lightning's name of the number format.
    """

    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    lr: PositiveFloat = 1e-3
    wd: NonNegativeFloat = 0.0
    epochs: PositiveInt = 50
    batch_size: PositiveInt = 100
    gradient_clip_val: NonNegativeFloat = 0.0
    limit_train_batches: BatchLimit = 1.0
    limit_val_batches: BatchLimit = 1.0
    limit_test_batches: BatchLimit = 1.0
    precision: Literal["32-true", "64-true", "bf16-mixed"] = "32-true"


@dataclass(frozen=True)
class RunnerConfig:
    """How trials are run.

    Attributes:
        name: pl, the trials one after the other in this process with PyTorch Lightning.
        ntrials: how many; trial k is seeded with seed + k.
        accelerator: Lightning's name of the device.
        tensorboard: also write TensorBoard event files into each trial's folder (metrics.csv is always written).
    """

    name: Literal["pl"] = "pl"
    ntrials: PositiveInt = 1
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    tensorboard: bool = False


def limited(batches: int, limit: int | float) -> int:
    """How many of ``batches`` a limit leaves: an integer counts them, a float is a fraction; at least one."""
    return min(batches, limit) if isinstance(limit, int) else max(1, int(batches * limit))
