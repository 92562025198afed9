"""Settings of Hydra's launchers and sweepers, checked before the first job begins."""

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seqmem.errors import UserError, suggestion

_directions = ("minimize", "maximize")
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
    if sweeper._target_.endswith(".OptunaSweeper"):
        _check_search(sweeper)
    batch = sweeper.get("max_batch_size")
    if isinstance(batch, int) and batch < 1:
        raise UserError(f"hydra.sweeper.max_batch_size: got {batch}, expected at least 1")


def search_settings(configs: Sequence[Mapping[str, Any]], given: Collection[str]) -> dict[str, Any]:
    """Return settings of a search that the command line leaves open: the metric's direction, and to survive failed jobs.

    Args:
        configs: the checked configs of all choices.
        given: keys of the command line.

    Raises:
        UserError: the choices are data sets with different metrics.
    """
    import optuna

    from seqmem import datasets
    from seqmem.tasks import task_for

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings: dict[str, Any] = {}
    sections = {config["dataset"]["name"]: config["dataset"] for config in configs}
    if "hydra.sweeper.direction" not in given or len(sections) > 1:
        tasks = {name: task_for(datasets.load(section).spec) for name, section in sections.items()}
        metrics = {task.metric: name for name, task in tasks.items()}
        if len(metrics) > 1:
            found = " and ".join(f"{name} ({metric})" for metric, name in metrics.items())
            raise UserError(f"dataset: got {found} in one search, expected data sets with the same metric")
        if "hydra.sweeper.direction" not in given:
            settings["direction"] = {"max": "maximize", "min": "minimize"}[next(iter(tasks.values())).best]
    if "hydra.sweeper.max_failure_rate" not in given:
        settings["max_failure_rate"] = 1.0
    return settings


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


def _check_search(sweeper: DictConfig) -> None:
    trials, storage = sweeper.get("n_trials"), sweeper.get("storage")
    if isinstance(trials, int) and trials < 1:
        raise UserError(f"hydra.sweeper.n_trials: got {trials}, expected at least 1")
    direction = sweeper.get("direction")
    given = list(direction) if OmegaConf.is_list(direction) else [direction]
    names = [getattr(part, "name", part) for part in given]
    if len(names) != 1:
        raise UserError(f"hydra.sweeper.direction: got {names}, expected one direction for the one validation metric")
    if names[0] is not None and names[0] not in _directions:
        raise UserError(f"hydra.sweeper.direction: got {names[0]}, expected a direction{suggestion(names[0], _directions)}")
    if storage is not None:
        _check_storage(str(storage))


def _check_storage(storage: str) -> None:
    key = f"hydra.sweeper.storage: got {storage}, expected"
    if "://" not in storage:
        raise UserError(f"{key} a URL such as sqlite:///{storage}")
    scheme, _, place = storage.partition(":///")
    path = Path(place.partition("?")[0])
    if scheme.partition("+")[0] == "sqlite" and place:
        if not path.parent.is_dir():
            raise UserError(f"{key} a file in a folder that exists, which {path.parent} does not")
        if path.is_dir():
            raise UserError(f"{key} a file, which {path} is not")
