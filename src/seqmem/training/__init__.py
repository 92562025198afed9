"""Training: the LightningModule, its trials and what they leave on disk.

Importing Lightning takes seconds, so it is imported only when a name that needs it is used. A config is checked without it, so
that a mistake is reported at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from seqmem.training.config import RunnerConfig, TrainConfig, check_config, check_fit, check_installed

if TYPE_CHECKING:
    from seqmem.training.engines.trials import experiment, run_trials
    from seqmem.training.loop.module import SequenceModule
    from seqmem.training.loop.splits import Data
    from seqmem.training.loop.trial import run_trial

__all__ = [
    "Data",
    "RunnerConfig",
    "SequenceModule",
    "TrainConfig",
    "check_config",
    "check_fit",
    "check_installed",
    "experiment",
    "run_trial",
    "run_trials",
]

_homes = {
    "Data": "loop.splits",
    "SequenceModule": "loop.module",
    "experiment": "engines.trials",
    "run_trial": "loop.trial",
    "run_trials": "engines.trials",
}


def __getattr__(name: str) -> Any:
    if name not in _homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_homes[name]}"), name)
