"""What follows the trials of a job: a search, or a view in a terminal."""

from collections.abc import Sequence
from typing import Protocol

from seqmem.training.engines.attempts import Attempt
from seqmem.training.loop.pruning import Judge


class Watcher(Protocol):
    """Follows the trials of a job for a search or a view."""

    @property
    def stopped(self) -> bool:
        """Whether no further trial of the job is to begin."""

    def judge(self, seed: int) -> Judge | None:
        """Return what judges the trial of a seed; None to train all of its epochs."""

    def ended(self, attempts: Sequence[Attempt]) -> None:
        """Take the outcomes of all trials that began, in the order of their seeds."""
