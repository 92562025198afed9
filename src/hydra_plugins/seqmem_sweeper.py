"""A sweeper for Hydra, which finds it in the namespace package ``hydra_plugins``; ``cfg/hydra/default.yaml`` selects it."""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override

from seqmem.cli import sweeps


class PlannedSweeper(BasicSweeper):
    """Hydra's basic sweeper for the jobs that :mod:`seqmem.cli.plan` has already composed and checked."""

    @staticmethod
    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        """Return the planned jobs in batches; without a plan, every combination of the overrides."""
        if not sweeps.current.batch:
            return BasicSweeper.split_arguments(overrides, max_batch_size)
        return list(BasicSweeper.split_overrides_to_chunks(sweeps.current.batch, max_batch_size))

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Do not compose every job a second time, which takes minutes for a thousand jobs."""
