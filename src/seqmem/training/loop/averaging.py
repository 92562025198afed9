"""Exponential moving average of the weights (``train.ema``), which validation, test and checkpoints use.

After optimiser step n = 0, 1, 2 ... the average is a := d a + (1 - d) w with the decay d = min(ema, (1 + n) / (10 + n)). The
smaller decay of the first steps lets the average of a short training forget the initial weights. Trainable parameters are
averaged, whatever computes the layer's weights from them. Buffers and other parameters are those of the training, batch
statistics and HiPPO matrices included.
"""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from seqmem.errors import UserError

TRAINED = "trained_weights"
"""Key of a checkpoint with the weights themselves; its ``state_dict`` has their averages."""


class WeightAverage(pl.Callback):
    """Averages the weights after each optimiser step; the model has the average in validations and after the training.

    Args:
        decay: the part of the average that a step keeps.
    """

    def __init__(self, decay: float):
        self.decay = decay
        self._weights: list[Tensor] = []
        self._other: list[Tensor] = []  # the averages, or the weights while the model has the averages
        self._swapped = False
        self._updates = 0
        self._loaded: dict[str, Tensor] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with the weights; in a resume, with the checkpoint's averages, which the model has."""
        self._weights = [weight for weight in pl_module.parameters() if weight.requires_grad]
        self._other = [weight.detach().clone() for weight in self._weights]
        self._updates, self._swapped = trainer.global_step, False
        if self._loaded is not None:
            self._load(pl_module, self._loaded)
            self._loaded = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average if the batch ended with an optimiser step."""
        if trainer.global_step > self._updates:
            decay = min(self.decay, (1 + self._updates) / (10 + self._updates))
            get_ema_multi_avg_fn(decay)(self._other, self._weights, self._updates)
            self._updates = trainer.global_step

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the model the averages."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._swap()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the model its weights."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._swap()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the model with the averages."""
        self._swap()

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the averages as the model's weights, and the weights themselves beside them."""
        if not self._weights:  # a training of no epoch
            return
        here = {id(weight): weight.detach() for weight in self._weights}
        other = {id(weight): value for weight, value in zip(self._weights, self._other, strict=True)}
        weights, averages = (other, here) if self._swapped else (here, other)
        trainable = [(name, id(w)) for name, w in pl_module.named_parameters(remove_duplicate=False) if id(w) in here]
        checkpoint["state_dict"].update({name: averages[weight] for name, weight in trainable})
        checkpoint[TRAINED] = {name: weights[weight] for name, weight in trainable}

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the weights until the model is on its device, unless it is loaded for a test."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._loaded = checkpoint[TRAINED]

    @torch.no_grad()
    def _load(self, module: pl.LightningModule, weights: dict[str, Tensor]) -> None:
        for name, weight in module.named_parameters():
            if weight.requires_grad:
                if name not in weights:
                    raise UserError(f"cannot resume from the checkpoint: {TRAINED} has no {name}")
                weight.copy_(weights[name])

    @torch.no_grad()
    def _swap(self) -> None:
        """Exchange the model's weights with the others."""
        if self._weights:
            before = [weight.clone() for weight in self._weights]
            torch._foreach_copy_(self._weights, self._other)
            torch._foreach_copy_(self._other, before)
            self._swapped = not self._swapped
