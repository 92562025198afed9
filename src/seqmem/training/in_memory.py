"""Training an autoencoder on sequences that lie in memory, without a config and without a file."""

from collections.abc import Callable, Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from seqmem.models.autoencoder import Autoencoder
from seqmem.sequences import padded
from seqmem.tasks.reconstruction import Reconstruction
from seqmem.training.config import TrainConfig
from seqmem.training.fitting import fit
from seqmem.training.module import SequenceModule


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
    """Train ``model``, and leave it on the CPU with its last weights, or those that were best in validation.

    Args:
        model: the autoencoder.
        train: sequences (T, C).
        config: as of a run.
        validation: sequences that the best epoch is chosen by, among those that were trained on whole sequences.
        patience: stop after so many such epochs without a better one; None for never. Needs ``validation``.
        scale: (C,) factor of each channel's values in the losses that are returned.
        device: where to train; None for a GPU if there is one.
        progress_bar: show one.
        on_epoch: called with the number of each epoch, from 0, and its loss.

    Returns:
        For each epoch the mean squared error of a value in training, of scaled channels.
    """
    history = History(patience, on_epoch)
    fit(
        SequenceModule(model, Reconstruction(model.spec, scale), config),
        _loader(train, config.batch_size, shuffle=True),
        config.epochs,
        [history],
        validation=_loader(validation, config.batch_size, shuffle=False) if validation else None,
        device=device,
        progress_bar=progress_bar,
    )
    if history.best_weights:
        model.load_state_dict(history.best_weights)
    return history.losses


def _loader(sequences: Sequence[Tensor], batch_size: int, shuffle: bool) -> DataLoader:
    return DataLoader(list(sequences), batch_size, shuffle=shuffle, collate_fn=padded)  # type: ignore[arg-type]


class History(pl.Callback):
    """The losses, and the best weights where there is a validation set."""

    def __init__(self, patience: int | None, on_epoch: Callable[[int, float], None]):
        self.losses: list[float] = []
        self.best_weights: dict[str, Tensor] = {}
        self._best, self._since = float("inf"), 0
        self._patience, self._on_epoch = patience, on_epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the epoch; validation has run by now."""
        self.losses.append(trainer.callback_metrics["train/mse"].item())
        self._on_epoch(trainer.current_epoch, self.losses[-1])
        assert isinstance(pl_module.model, Autoencoder)
        if "val/mse" not in trainer.callback_metrics or not pl_module.model.reads_whole:
            return
        error = trainer.callback_metrics["val/mse"].item()
        self._since += 1
        if error < self._best:
            self._best, self._since = error, 0
            self.best_weights = {name: value.detach().cpu().clone() for name, value in pl_module.model.state_dict().items()}
        if self._patience is not None and self._since >= self._patience:
            trainer.should_stop = True
