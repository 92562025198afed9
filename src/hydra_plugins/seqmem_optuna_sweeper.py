"""Hydra's plugin for searches by Optuna; ``hydra/sweeper=optuna`` selects it."""

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class OptunaSweeper(Sweeper):
    """Lets a search choose the jobs while it runs, see :mod:`seqmem.cli.search`.

    Args:
        settings: those of ``cfg/hydra/sweeper/optuna.yaml``.
    """

    def __init__(self, **settings: Any):
        self.settings = settings
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher that runs each job."""
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the search that the command line describes."""
        from seqmem.cli.search import run

        assert self.launcher is not None
        settings: Any = OmegaConf.to_container(OmegaConf.create(self.settings), resolve=True)
        run.run(settings, self.launcher)
