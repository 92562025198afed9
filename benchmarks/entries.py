"""Rows of tables that are an experiment each, and which trials belong to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from seqmem.cli import commandline

ANYWHERE = ("data_dir", "num_workers", "resume", "checkpoint_minutes", "advice")
"""Keys that do not change what a trial computes."""


@dataclass(frozen=True)
class Entry:
    """A row of a table: an experiment, and what its command changes.

    Attributes:
        experiment: name of a file in cfg/experiment.
        changes: further arguments of the command, such as ("scale=small",).
    """

    experiment: str
    changes: tuple[str, ...] = ()

    def command(self, seed: int) -> str:
        """Return the command that trains the trial of a seed alone."""
        return " ".join(["python train.py", f"experiment={self.experiment}", *self.changes, f"seed={seed}", "runner.ntrials=1"])

    @cached_property
    def _config(self) -> dict[str, Any]:
        return commandline.compose([f"experiment={self.experiment}", *self.changes])

    def has(self, config: Mapping[str, Any]) -> bool:
        """Return whether a trial's config is one of the row; keys that were added since do not count."""
        return all(_same(self._config[section], config[section]) for section in ("dataset", "model", "train"))


def _same(expected: Any, found: Any) -> bool:
    if not isinstance(expected, dict) or not isinstance(found, dict):
        return bool(expected == found)
    # A limit of 1 is one batch, and 1.0 is all of them.
    kinds = (type(expected[key]) is type(found[key]) for key in expected if key.startswith("limit_") and key in found)
    return all(kinds) and all(
        _same(value, found[key]) for key, value in expected.items() if key in found and key not in ANYWHERE
    )
