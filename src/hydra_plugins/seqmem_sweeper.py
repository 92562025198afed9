"""A sweeper for Hydra, which finds it in the namespace package ``hydra_plugins``; ``cfg/hydra/default.yaml`` selects it."""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class PlannedSweeper(BasicSweeper):
    """Hydra's basic sweeper for jobs that :mod:`seqmem.cli.plan` has already composed and checked."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Do not compose every job a second time, which takes minutes for a thousand jobs."""
