"""Training: the LightningModule, its trials and what they leave on disk.

Lightning takes seconds to import, so it is imported when something that needs it is first asked for: a config is checked, and a
mistake in it answered, without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from seqmem.training.config import RunnerConfig, TrainConfig, check_config, check_fit

if TYPE_CHECKING:
    from seqmem.training.module import SequenceModule
    from seqmem.training.trials import Data, run_trial, run_trials

__all__ = ["Data", "RunnerConfig", "SequenceModule", "TrainConfig", "check_config", "check_fit", "run_trial", "run_trials"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'module' if name == 'SequenceModule' else 'trials'}"), name)
