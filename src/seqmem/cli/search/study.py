"""Optuna's study of a search: opened in its database, with the sampler of each point."""

import warnings
from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GridSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from seqmem.cli.search.settings import SearchSettings
from seqmem.cli.search.space import Space
from seqmem.errors import UserError

_FIXED, _METRIC = "seqmem.fixed", "seqmem.metric"
_NOT_COMPARED = ("runner.", "output_dir=", "traceback=")  # overrides that leave the value of a point as it is
_SAMPLERS: dict[str, Callable[..., BaseSampler]] = {
    "tpe": TPESampler,
    "random": RandomSampler,
    "cmaes": CmaEsSampler,
    "grid": GridSampler,
}
_PRUNERS: dict[str, Callable[..., BasePruner]] = {
    "none": NopPruner,
    "median": MedianPruner,
    "asha": SuccessiveHalvingPruner,
}


def open_study(settings: SearchSettings, space: Space, folder: Path, metric: str) -> optuna.Study:
    """Open the study of a search, or create it.

    Args:
        settings: of the search; its direction is known by now.
        space: of the search.
        folder: of the sweep.
        metric: that is optimised.

    Raises:
        UserError: the database cannot be opened, or has a study of this name with other settings.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    url = settings.storage or f"sqlite:///{folder.absolute() / 'study.db'}"
    try:
        study = optuna.create_study(
            storage=_storage(url),
            study_name=settings.study_name or folder.name,
            direction=settings.direction,
            pruner=pruner(settings),
            sampler=RandomSampler(),
            load_if_exists=True,
        )
    except (SQLAlchemyError, ImportError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"hydra.sweeper.storage: got {url}, which cannot be opened: {reason}") from None
    _check_same(study, settings, space, metric, url)
    return study


def sampler(settings: SearchSettings, space: Space, number: int) -> BaseSampler:
    """Return the sampler of a point, seeded by the point's number, so that an interrupted search draws the same points.

    Raises:
        UserError: an argument of ``hydra.sweeper.sampler_args`` does not exist or is wrong.
    """
    made, arguments = _SAMPLERS[settings.sampler], dict(settings.sampler_args)
    seed = int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0])
    given: dict[str, Any] = {"seed": seed}
    if settings.sampler == "grid":
        given = {"search_space": space.grid(), "seed": settings.seed}  # every point has the same order of the grid
    elif settings.sampler == "cmaes":
        given |= {"warn_independent_sampling": False}
    return _made(made, arguments, given, "hydra.sweeper.sampler_args")


def pruner(settings: SearchSettings) -> BasePruner:
    """Return the pruner of a search.

    Raises:
        UserError: an argument of ``hydra.sweeper.pruner_args`` does not exist or is wrong.
    """
    return _made(_PRUNERS[settings.pruner], settings.pruner_args, {}, "hydra.sweeper.pruner_args")


def check_arguments(settings: SearchSettings, space: Space) -> None:
    """Check the arguments of sampler and pruner, as :func:`sampler` and :func:`pruner` do."""
    sampler(settings, space, 0)
    pruner(settings)


def _made(made: Callable[..., Any], arguments: Mapping[str, Any], given: Mapping[str, Any], key: str) -> Any:
    names = [name for name in signature(made).parameters if name not in given and name not in ("args", "kwargs")]
    unknown = [name for name in arguments if name not in names]
    if unknown:
        expected = f"expected among {', '.join(names)}" if names else "expected none"
        raise UserError(f"{key}: got {unknown[0]}, {expected}")
    try:
        return made(**arguments, **given)
    except (TypeError, ValueError) as error:
        raise UserError(f"{key}: got {dict(arguments)}: {error}") from None


def _storage(url: str) -> BaseStorage:
    if not url.startswith("sqlite"):
        return optuna.storages.get_storage(url)
    # No connection is open while a worker process is forked; several commands may write at the same time.
    return RDBStorage(url, engine_kwargs={"poolclass": NullPool, "connect_args": {"timeout": 60}})


def _check_same(study: optuna.Study, settings: SearchSettings, space: Space, metric: str, url: str) -> None:
    """Check that the points of a study so far are comparable with those of this search; note it in a new study."""
    lines = (line.lstrip("+") for line in space.fixed.values())
    fixed = sorted(line for line in lines if line.startswith("runner.ntrials=") or not line.startswith(_NOT_COMPARED))
    wanted = {_FIXED: fixed, _METRIC: metric}
    known = {key: study.user_attrs.get(key, value) for key, value in wanted.items()}
    named = f"hydra.sweeper.study_name: got {study.study_name} of {url}, which"
    direction = study.direction.name.lower()
    if direction != settings.direction:
        raise UserError(f"{named} has the direction {direction}, not {settings.direction}; give another name")
    if known[_METRIC] != metric:
        raise UserError(f"{named} optimises {known[_METRIC]}, not {metric}; give another name")
    if known[_FIXED] != fixed:
        different = sorted(set(known[_FIXED]) ^ set(fixed))
        raise UserError(f"{named} was begun with other settings ({', '.join(different)}); give another name")
    searched = {key for trial in study.get_trials(deepcopy=False) for key in trial.distributions}
    if searched - space.distributions.keys():
        raise UserError(f"{named} searches {', '.join(sorted(searched))}; give another name")
    for key, value in wanted.items():
        study.set_user_attr(key, value)
