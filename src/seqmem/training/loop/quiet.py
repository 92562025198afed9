"""Lightning without its messages."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging import WARNING, getLogger


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Suppress Lightning's banner, and its hints at options that this project does not offer."""
    loggers = [getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            warnings.filterwarnings("ignore", ".*number of training batches .* is smaller than the logging interval.*")
            warnings.filterwarnings("ignore", ".*defined a `validation_step` but have no `val_dataloader`.*")
            warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
            warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty.*")
            # From torch.compile, about outputs of a recurrence that is not compiled.
            warnings.filterwarnings("ignore", ".*attribute of a Tensor that is not a leaf.*", UserWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
