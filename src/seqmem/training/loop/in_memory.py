"""Training an autoencoder on sequences that lie in memory, without a config and without a file.

A loop of its own: a batch of such small models takes Lightning as long as the model.
"""

from collections.abc import Callable, Sequence

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection

from seqmem.data.sequences import padded
from seqmem.models.autoencoder import Autoencoder
from seqmem.tasks.reconstruction import Reconstruction
from seqmem.training.config import TrainConfig
from seqmem.training.loop.finite import not_finite
from seqmem.training.loop.freed_memory import freed_memory_kept
from seqmem.training.optimisation.optimizers import optimizer_for, schedule_for


@torch.enable_grad()
def fit_sequences(
    model: Autoencoder,
    train: Sequence[Tensor],
    config: TrainConfig,
    *,
    validation: Sequence[Tensor] = (),
    patience: int | None = None,
    scale: Tensor | None = None,
    device: torch.device | None = None,
    progress_bar: bool = False,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> list[float]:
    """Train ``model``; leave it on the CPU, in training mode, with its last weights or those that were best in validation.

    Args:
        model: the autoencoder.
        train: sequences (T, C).
        config: of a run; how it is optimised, and epochs and batch size.
        validation: sequences that the best epoch is chosen by, among those that were trained on whole sequences.
        patience: stop after so many such epochs without a better one; None for never. Needs ``validation``.
        scale: (C,) factor of each channel's values in the losses that are returned.
        device: where to train; None for a GPU if there is one.
        progress_bar: show one.
        on_epoch: called with the number of each epoch, from 0, and its loss.

    Returns:
        For each epoch the mean squared error of a value in training, of scaled channels.
    """
    where = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model.to(where)
        with freed_memory_kept():
            return _fit(model, train, config, validation, _Best(patience), scale, where, progress_bar, on_epoch)
    finally:
        model.to("cpu").train()


def _fit(
    model: Autoencoder,
    train: Sequence[Tensor],
    config: TrainConfig,
    validation: Sequence[Tensor],
    best: "_Best",
    scale: Tensor | None,
    where: torch.device,
    progress_bar: bool,
    on_epoch: Callable[[int, float], None],
) -> list[float]:
    task = Reconstruction(model.spec, scale)
    metrics = task.metrics().to(where)
    optimizer = optimizer_for(model, config)
    schedule = schedule_for(optimizer, config)
    loader = _loader(train, config.batch_size, shuffle=True)
    losses: list[float] = []
    updates = 0
    with Progress(transient=True, disable=not progress_bar) as progress:
        shown = progress.add_task("training", total=config.epochs * len(loader))
        for epoch in range(config.epochs):
            model.train()
            model.on_epoch(epoch)
            for k, batch in enumerate(loader):
                seen = model.augment(batch.to(where))
                outputs, loss = model.learn(seen, task)
                penalty = model.penalty()
                if penalty is not None:
                    loss = loss + penalty
                if not torch.isfinite(loss):
                    raise not_finite(loss, epoch, k, updates, optimizer, model.parameters(), config)
                optimizer.zero_grad()
                loss.backward()
                if config.gradient_clip_val:
                    nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip_val)
                optimizer.step()
                updates += 1
                if schedule is not None and schedule[1] == "step":
                    schedule[0].step()
                task.update(metrics, outputs.detach(), seen)
                progress.advance(shown)
            if schedule is not None and schedule[1] == "epoch":
                schedule[0].step()
            losses.append(_taken(metrics))
            progress.update(shown, description=f"loss {losses[-1]:.4g}")
            on_epoch(epoch, losses[-1])
            if validation and model.reads_whole:
                best.note(_error(model, task, _loader(validation, config.batch_size, shuffle=False), where), model)
                if best.is_over:
                    break
    if best.weights:
        model.load_state_dict(best.weights)
    return losses


def _loader(sequences: Sequence[Tensor], batch_size: int, shuffle: bool) -> DataLoader:
    return DataLoader(list(sequences), batch_size, shuffle=shuffle, collate_fn=padded)  # type: ignore[arg-type]


@torch.no_grad()
def _error(model: Autoencoder, task: Reconstruction, loader: DataLoader, where: torch.device) -> float:
    model.eval()
    metrics = task.metrics().to(where)
    for batch in loader:
        seen = batch.to(where)
        task.update(metrics, model.learn(seen, task)[0], seen)
    return _taken(metrics)


def _taken(metrics: MetricCollection) -> float:
    """The mean squared error of what has been gathered, which is then forgotten."""
    error: float = metrics.compute()["mse"].item()
    metrics.reset()
    return error


class _Best:
    """The best weights in validation, and for how long there have been none better."""

    def __init__(self, patience: int | None):
        self.weights: dict[str, Tensor] = {}
        self._error, self._since, self._patience = float("inf"), 0, patience

    def note(self, error: float, model: nn.Module) -> None:
        self._since += 1
        if error < self._error:
            self._error, self._since = error, 0
            self.weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}

    @property
    def is_over(self) -> bool:
        return self._patience is not None and self._since >= self._patience
