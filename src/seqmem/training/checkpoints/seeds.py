"""Random numbers of a training step, which follow from the trial's seed, the epoch and the batch."""

import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch


class StepSeeds(pl.Callback):
    """Seeds the generators of Python, NumPy and torch before each training step.

    So a training resumes without the random state of the step before.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed the step."""
        ranks = [trainer.global_rank] if trainer.global_rank else []  # the first process draws the numbers of a single one
        [seed] = np.random.SeedSequence([self.seed, trainer.current_epoch, batch_idx, *ranks]).generate_state(1)
        random.seed(int(seed))
        np.random.seed(seed)  # noqa: NPY002
        # Without a GPU torch.manual_seed formats a stack trace for each kind of device, 2 ms.
        seeded = torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed
        seeded(int(seed))
