"""Trials in a folder of a test's own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqmem import training
from seqmem.results import RunFolder


def run_trials(config: Mapping[str, Any], data: training.Data, folder: Path) -> list[RunFolder]:
    """Run the trials of a config; the experiment's folder lies in ``folder``."""
    return training.run_trials(config, data, training.experiment(config, data, folder))
