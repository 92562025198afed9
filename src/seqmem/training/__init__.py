"""Training: the LightningModule, its trials and what they leave on disk.

Lightning takes seconds to import, so it is imported when something that needs it is first asked for: a config is checked, and a
mistake in it answered, without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from seqmem.training.config import RunnerConfig, TrainConfig, check_config, check_fit, check_installed

if TYPE_CHECKING:
    from seqmem.training.engines.trials import experiment, run_trials
    from seqmem.training.loop.module import SequenceModule
    from seqmem.training.loop.trial import Data, run_trial

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
    "Data": "loop.trial",
    "SequenceModule": "loop.module",
    "experiment": "engines.trials",
    "run_trial": "loop.trial",
    "run_trials": "engines.trials",
}


def __getattr__(name: str) -> Any:
    if name not in _homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_homes[name]}"), name)
