"""Training of an autoencoder on sequences in memory, without a config and without a file."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torchmetrics import MetricCollection

from seqmem.data.batch import Batch
from seqmem.data.seeds import generator
from seqmem.data.sequences import padded
from seqmem.errors import UserError
from seqmem.models.autoencoder import Autoencoder
from seqmem.tasks.reconstruction import Reconstruction
from seqmem.training.config import TrainConfig
from seqmem.training.loop.best import BestWeights
from seqmem.training.loop.copied_ahead import copied_ahead
from seqmem.training.loop.lean import LeanLoop, Observer, trained_on


def fit_sequences(
    model: Autoencoder,
    train: Sequence[Tensor],
    config: TrainConfig,
    *,
    validation: Sequence[Tensor] = (),
    patience: int | None = None,
    scale: Tensor | None = None,
    seed: int = 0,
    device: torch.device | None = None,
    progress_bar: bool = False,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> list[float]:
    """Train an autoencoder in place.

    It ends on the CPU and in training mode, with the weights of the last epoch, or of the best one in validation.

    Args:
        model: the autoencoder.
        train: sequences (T, C).
        config: optimisation, epochs and batch size.
        validation: sequences that choose the best epoch among those that train on whole sequences.
        patience: stop after this number of such epochs without a better one; None for never. Needs ``validation``.
        scale: (C,) factor of each channel's values in the returned losses.
        seed: of the order of the batches and of the random numbers of each step. The global random state is neither read nor
            changed.
        device: where to train; None for a GPU if there is one.
        progress_bar: show one.
        on_epoch: called with the number of each epoch, from 0, and its loss.

    Returns:
        For each epoch the mean squared error of a value in training, of scaled channels.

    Raises:
        UserError: a loss is not finite.
    """
    # Squares of scaled values can exceed float32, so the metric gets ratios and the unit of its squares is a Python number.
    largest = 1.0 if scale is None else scale.double().max().item()
    task = Reconstruction(model.spec, None if scale is None else (scale.double() / largest).float())
    count = math.ceil(len(train) / config.batch_size)

    def shuffled(epoch: int) -> Iterator[Batch]:
        order = generator(seed, "order", epoch).permutation(len(train)).tolist()
        return _batches(train, config.batch_size, order)

    display = Progress(console=Console(quiet=not progress_bar), transient=True, disable=not progress_bar)
    with trained_on(device, model) as chosen, display as progress:
        advice = f"try an lr below {config.lr}, or sequences of a smaller scale"
        loop = LeanLoop(model, task, config, advice, count, seed)
        validator = _Validator(model, task, validation, config.batch_size, patience) if validation else None
        observer = _Losses(task, chosen, largest**2, validator, progress, config.epochs * count, on_epoch)
        loop.run(shuffled, range(config.epochs), observer)
        if validator is not None:
            validator.best.restore(model)
    return observer.losses


class _Validator:
    """Errors of whole sequences after an epoch, and the weights with the smallest one."""

    def __init__(
        self, model: Autoencoder, task: Reconstruction, sequences: Sequence[Tensor], batch_size: int, patience: int | None
    ):
        self.model, self.task = model, task
        self.sequences, self.batch_size = sequences, batch_size
        self.best = BestWeights(patience)

    @torch.no_grad()
    def should_stop(self) -> bool:
        """Validate if the epoch trained on whole sequences; return whether to stop early."""
        if not self.model.reads_whole:
            return False
        self.model.eval()
        device = next(self.model.parameters()).device
        metrics = self.task.metrics().to(device)
        for batch in copied_ahead(_batches(self.sequences, self.batch_size, range(len(self.sequences))), device):
            self.task.update(metrics, self.model.learn(batch, self.task)[0], batch)
        return self.best.update(_mean_squared_error(metrics, "validation"), self.model)


class _Losses(Observer):
    """The loss of each epoch, reported as it ends."""

    def __init__(
        self,
        task: Reconstruction,
        device: torch.device,
        unit: float,
        validator: _Validator | None,
        progress: Progress,
        steps: int,
        on_epoch: Callable[[int, float], None],
    ):
        self.losses: list[float] = []
        self._task, self._metrics, self._unit, self._validator = task, task.metrics().to(device), unit, validator
        self._progress, self._bar = progress, progress.add_task("training", total=steps)
        self._on_epoch = on_epoch

    def on_step(self, batch: Batch, outputs: Tensor, loss: Tensor) -> None:
        self._task.update(self._metrics, outputs, batch)
        self._progress.advance(self._bar)

    def on_epoch_end(self, epoch: int) -> bool:
        self.losses.append(_mean_squared_error(self._metrics, "training") * self._unit)
        self._progress.update(self._bar, description=f"loss {self.losses[-1]:.4g}")
        self._on_epoch(epoch, self.losses[-1])
        return self._validator is not None and self._validator.should_stop()


def _batches(sequences: Sequence[Tensor], batch_size: int, order: Sequence[int]) -> Iterator[Batch]:
    """Yield padded batches of the sequences in an order."""
    for start in range(0, len(order), batch_size):
        yield padded([sequences[k] for k in order[start : start + batch_size]])


def _mean_squared_error(metrics: MetricCollection, split: str) -> float:
    """Return the error of what the metrics have gathered, and reset them.

    Raises:
        UserError: it is not finite.
    """
    error: float = metrics.compute()["mse"].item()
    metrics.reset()
    if not math.isfinite(error):
        raise UserError(f"the {split} error became {error}; try a smaller lr, or sequences of a smaller scale")
    return error
