"""All randomness of a training step follows from the trial's seed, the epoch and the batch."""

import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch


class StepSeeds(pl.Callback):
    """Seeds the generators of Python, NumPy and torch before each training step.

    A training that goes on needs no random state of the step before.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed for the step that begins."""
        ranks = [trainer.global_rank] if trainer.global_rank else []  # the first of several processes draws as one alone does
        [drawn] = np.random.SeedSequence([self.seed, trainer.current_epoch, batch_idx, *ranks]).generate_state(1)
        random.seed(int(drawn))
        np.random.seed(drawn)  # noqa: NPY002
        torch.manual_seed(int(drawn))
