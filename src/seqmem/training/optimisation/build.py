"""The optimiser and the schedule of a config."""

from collections.abc import Callable

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from seqmem.errors import UserError
from seqmem.training.config import TrainConfig
from seqmem.training.optimisation.optimizers import OptimizerSettings
from seqmem.training.optimisation.schedules import Constant, Interval


def optimizer_for(model: nn.Module, config: TrainConfig) -> Optimizer:
    """Create the config's optimiser for the parameters of a model."""
    return OptimizerSettings.select(config.optimizer, config.optimizer_args).build(model, config.lr, config.wd)


def schedule_for(
    optimizer: Optimizer, config: TrainConfig, steps_per_epoch: Callable[[], int]
) -> tuple[LambdaLR, Interval] | None:
    """Create the config's schedule of the learning rate.

    A warm-up multiplies the rate of each step. A schedule by steps begins when the warm-up has ended.

    Args:
        optimizer: whose learning rates are scaled, each from its own start.
        config: of the run.
        steps_per_epoch: returns the optimiser steps of an epoch; called only if the rate changes within epochs.

    Returns:
        The scheduler, and the interval at whose end it is stepped; None if the rate is constant.

    Raises:
        UserError: the warm-up has more steps than the run.
    """
    schedule, interval = config.rate_schedule
    last = (config.lr / 100 if config.final_lr is None else config.final_lr) / config.lr

    def by_epoch(epoch: int) -> float:
        return schedule.rate(epoch, config.epochs, 1.0, last)

    if config.warmup_steps == 0 and isinstance(schedule, Constant):
        return None
    if config.warmup_steps == 0 and interval == "epoch":
        return LambdaLR(optimizer, by_epoch), "epoch"
    per_epoch = steps_per_epoch()
    steps = per_epoch * config.epochs
    warmup = config.warmup_steps if isinstance(config.warmup_steps, int) else round(config.warmup_steps * steps)
    if warmup > steps:
        raise UserError(f"train.warmup_steps: got {warmup}, expected at most {steps}, the steps of the run")

    def by_step(step: int) -> float:
        ramp = (step + 1) / warmup if step < warmup else 1.0
        if interval == "epoch":
            return ramp * by_epoch(step // per_epoch)
        return ramp * schedule.rate(max(step - warmup, 0), steps - warmup, 1.0, last)

    return LambdaLR(optimizer, by_step), "step"
