"""Settings of Hydra's launchers and sweepers, checked before the first job begins."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seqmem.cli.search.settings import SearchSettings, search_settings
from seqmem.errors import UserError

_usual = {"hydra/launcher": "basic", "hydra/sweeper": "planned"}


def check(section: DictConfig) -> None:
    """Check the settings of a sweep's launcher and sweeper.

    Args:
        section: Hydra's section of the config.

    Raises:
        UserError: naming the key, its value and the values that it can have.
    """
    launcher, sweeper = section.launcher, section.sweeper
    for name, node in (("launcher", launcher), ("sweeper", sweeper)):
        if not OmegaConf.is_dict(node):
            raise UserError(f"hydra.{name}: got {node}, expected a section; hydra/{name}=NAME selects one")
    if launcher._target_.endswith(".SlurmLauncher") and shutil.which("srun") is None:
        raise UserError(
            "hydra/launcher: got submitit_slurm, but this machine has no srun, the command of a Slurm cluster; "
            "did you mean 'submitit_local'?"
        )
    if launcher._target_.endswith(".JoblibLauncher") and launcher.get("n_jobs") == 0:
        raise UserError("hydra.launcher.n_jobs: got 0, expected the number of jobs at a time, or -1 for one on each processor")
    if is_search(section):
        check_search(section)
    batch = sweeper.get("max_batch_size")
    if isinstance(batch, int) and batch < 1:
        raise UserError(f"hydra.sweeper.max_batch_size: got {batch}, expected at least 1")


def is_search(section: DictConfig) -> bool:
    """Return whether a search by Optuna chooses the jobs."""
    return bool(section.sweeper._target_.endswith(".OptunaSweeper"))


def check_search(section: DictConfig) -> SearchSettings:
    """Return the settings of a search.

    Raises:
        UserError: naming the key, its value and the values that it can have.
    """
    sweeper: Any = OmegaConf.to_container(section.sweeper, resolve=True)
    settings = search_settings(sweeper)
    if settings.pruner != "none" and not section.launcher._target_.endswith(".BasicLauncher"):
        raise UserError(
            f"hydra.sweeper.pruner: got '{settings.pruner}' with hydra/launcher={section.runtime.choices['hydra/launcher']}, "
            "expected none; runner.workers trains several points at a time and prunes"
        )
    return settings


def objective(configs: Sequence[Mapping[str, Any]], settings: SearchSettings) -> tuple[str, str]:
    """Return the validation metric of a search, and its direction: ``minimize`` or ``maximize``.

    Args:
        configs: the checked configs of all choices.
        settings: of the search.

    Raises:
        UserError: the choices are data sets with different metrics, or a pruner cannot judge the trials.
    """
    from seqmem import datasets
    from seqmem.tasks import task_for

    if settings.pruner != "none" and any(config["runner"]["name"] == "ray" for config in configs):
        raise UserError(f"hydra.sweeper.pruner: got '{settings.pruner}' with runner=ray, expected none; runner=pl prunes")
    sections = {config["dataset"]["name"]: config["dataset"] for config in configs}
    tasks = {name: task_for(datasets.load(section).spec) for name, section in sections.items()}
    metrics = {task.metric: name for name, task in tasks.items()}
    if len(metrics) > 1:
        found = " and ".join(f"{name} ({metric})" for metric, name in metrics.items())
        raise UserError(f"dataset: got {found} in one search, expected data sets with the same metric")
    task = next(iter(tasks.values()))
    return task.metric, settings.direction or {"max": "maximize", "min": "minimize"}[task.best]


@contextmanager
def named_errors(section: DictConfig | None, settings: Sequence[str] = ()) -> Iterator[None]:
    """Let an error of Hydra or of its plugin name the plugin or the settings; jobs report their own errors.

    Args:
        section: Hydra's section of a sweep's config; None for a single job, which no plugin runs.
        settings: overrides of Hydra's section.
    """
    choices = {} if section is None else section.runtime.choices
    plugins = [f"{group}={choices[group]}" for group, usual in _usual.items() if choices.get(group, usual) != usual]
    named = " ".join(plugins or settings)
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException):
        raise
    except Exception as error:
        if not named:
            raise
        raise UserError(f"{named}: {type(error).__name__}: {error}") from error
