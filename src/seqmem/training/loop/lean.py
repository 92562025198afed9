"""A training loop without Lightning, for small work in memory.

A batch of a small model takes Lightning as long as the model itself. ``quick_train``, ``NDS2SAEFactory`` and ``HMLSTMNetwork``
use this loop. It writes no file and chooses no checkpoint; an :class:`Observer` can do both.

The random numbers of a step (dropout, noise, windows) follow from a seed, the epoch and the batch. The global random state is
neither read nor changed.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from seqmem.data.batch import Batch
from seqmem.data.seeds import generator
from seqmem.models import SequenceModel
from seqmem.tasks import Task
from seqmem.training.config import TrainConfig
from seqmem.training.loop.clipping import clip_gradients
from seqmem.training.loop.copied_ahead import copied_ahead
from seqmem.training.loop.loss_check import LossCheck, Position
from seqmem.training.loop.not_finite import first_not_finite
from seqmem.training.loop.while_training import while_training
from seqmem.training.optimisation.build import optimizer_for, schedule_for
from seqmem.training.optimisation.schedules import Interval


class Observer:
    """Callbacks of a :class:`LeanLoop`. Each does nothing unless a subclass overrides it."""

    def on_epoch_start(self, epoch: int) -> None:
        """Called before an epoch, numbered from 0."""

    def on_step(self, batch: Batch, outputs: Tensor, loss: Tensor) -> None:
        """Called after each optimiser step with the augmented batch, its outputs and its loss, without gradients."""

    def on_epoch_end(self, epoch: int) -> bool:
        """Called after an epoch; return whether the training should stop."""
        return False


class LeanLoop:
    """Optimiser steps on batches in memory, on the device where the model is.

    Args:
        model: trained in place.
        task: what is learned.
        config: optimiser, learning rate and its schedule, and clipping. Its other settings have no effect.
        advice: last part of the error for a loss that is not finite: the remedy.
        steps_per_epoch: number of batches of an epoch, for schedules by steps.
        seed: of the random numbers of each step.

    Attributes:
        optimizer: of the model's parameters.
    """

    def __init__(
        self,
        model: SequenceModel,
        task: Task,
        config: TrainConfig,
        advice: str,
        steps_per_epoch: int = 1,
        seed: int = 0,
    ):
        self.model, self.task = model, task
        self.optimizer = optimizer_for(model, config)
        self._schedule = schedule_for(self.optimizer, config, lambda: steps_per_epoch)
        self._config, self._seed = config, seed
        self._losses = LossCheck(advice)
        self._steps = 0

    @torch.enable_grad()
    def run(self, batches: Callable[[int], Iterable[Batch]], epochs: range, observer: Observer) -> None:
        """Train for some epochs.

        Args:
            batches: returns the batches of an epoch, on any device, from its number.
            epochs: numbers of the epochs, which the model's own schedules and the observer get.
            observer: called during the training.

        Raises:
            UserError: a loss is not finite; on a GPU this may be found some steps later, at the end of the epoch at the latest.
        """
        weight = next(self.model.parameters())
        with while_training():
            for epoch in epochs:
                self.model.train()
                self.model.on_epoch(epoch)
                observer.on_epoch_start(epoch)
                for k, batch in enumerate(copied_ahead(batches(epoch), weight.device, weight.dtype)):
                    observer.on_step(*self._step(batch, Position(epoch, k, self._steps)))
                self._losses.wait()
                self._end("epoch")
                if observer.on_epoch_end(epoch):
                    return

    def _step(self, batch: Batch, position: Position) -> tuple[Batch, Tensor, Tensor]:
        """Train on one batch, on the model's device; return it as augmented, its outputs and its loss."""
        given = batch
        batch, outputs, loss = self._computed(given, position)
        self._losses.add(
            loss,
            lambda: (position, self.optimizer),
            lambda: first_not_finite(self.model, self.task, given, lambda: self._computed(given, position)[2]),
        )
        self.optimizer.zero_grad()
        loss.backward()
        clip_gradients(self.model.parameters(), self._config.gradient_clip_val, self._config.gradient_clip_algorithm)
        self.optimizer.step()
        self._steps += 1
        self._end("step")
        return batch, outputs.detach(), loss.detach()

    def _computed(self, batch: Batch, position: Position) -> tuple[Batch, Tensor, Tensor]:
        """Compute a batch as augmented, its outputs and its loss, with the random numbers of its step."""
        with own_random_state(batch.inputs.device, self._seed, "step", position.epoch, position.batch):
            batch = self.model.augment(batch)
            outputs, loss = self.model.learn(batch, self.task)
        penalty = self.model.penalty()
        return batch, outputs, loss if penalty is None else loss + penalty

    def _end(self, interval: Interval) -> None:
        if self._schedule is not None and self._schedule[1] == interval:
            self._schedule[0].step()


@contextmanager
def own_random_state(device: torch.device, seed: int, *purpose: str | int) -> Iterator[None]:
    """Draw the random numbers of a block from a seed, and restore the global random state of torch at its end.

    Args:
        device: whose generator is seeded in addition to that of the CPU.
        seed: with ``purpose``, as for :func:`seqmem.data.seeds.generator`.
        purpose: names the numbers.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    states = [each.get_state() for each in generators]
    number = int(generator(seed, *purpose).integers(2**63))
    try:
        for each in generators:
            each.manual_seed(number)
        yield
    finally:
        for each, state in zip(generators, states, strict=True):
            each.set_state(state)


@contextmanager
def trained_on(device: torch.device | None, model: nn.Module) -> Iterator[torch.device]:
    """Move the model to a device, and at the end back to the CPU, in training mode.

    Args:
        device: None for a GPU if there is one.
        model: moved in place.

    Yields:
        The device.
    """
    chosen = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model.to(chosen)
        yield chosen
    finally:
        model.to("cpu").train()


def state_on_cpu(optimizer: Optimizer) -> dict[str, Any]:
    """Return the optimiser's state with its tensors on the CPU."""
    state = optimizer.state_dict()
    # The inner dicts are the live optimiser's own.
    on_cpu = {
        number: {name: value.cpu() if isinstance(value, Tensor) else value for name, value in values.items()}
        for number, values in state["state"].items()
    }
    return {**state, "state": on_cpu}
