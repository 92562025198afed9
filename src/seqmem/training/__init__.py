"""Training: the LightningModule, its trials and what they leave on disk."""

from seqmem.training.config import RunnerConfig, TrainConfig
from seqmem.training.module import SequenceModule
from seqmem.training.trials import Data, check_config, run_trial, run_trials

__all__ = ["Data", "RunnerConfig", "SequenceModule", "TrainConfig", "check_config", "run_trial", "run_trials"]
