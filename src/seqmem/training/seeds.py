"""All randomness of an epoch follows from the trial's seed and the epoch's number."""

import random

import numpy as np
import pytorch_lightning as pl
import torch


class EpochSeeds(pl.Callback):
    """Seeds the generators of Python, NumPy and torch before each epoch.

    A training that goes on after an epoch needs no random state of the one before it.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed for the epoch that begins."""
        ranks = [trainer.global_rank] if trainer.global_rank else []  # the first of several processes draws as one alone does
        [drawn] = np.random.SeedSequence([self.seed, trainer.current_epoch, *ranks]).generate_state(1)
        random.seed(int(drawn))
        np.random.seed(drawn)  # noqa: NPY002
        torch.manual_seed(int(drawn))
