"""Settings of a search: ``hydra.sweeper`` with ``hydra/sweeper=optuna``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from seqmem.arguments import check
from seqmem.errors import UserError, not_installed

_WHERE = "hydra.sweeper"


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search; ``cfg/hydra/sweeper/optuna.yaml`` says what each means."""

    n_trials: PositiveInt | None = 20
    timeout_minutes: PositiveFloat | None = None
    sampler: Literal["tpe", "random", "grid", "cmaes"] = "tpe"
    sampler_args: dict[str, Any] = field(default_factory=dict)
    pruner: Literal["none", "median", "asha"] = "none"
    pruner_args: dict[str, Any] = field(default_factory=dict)
    seed: NonNegativeInt = 0
    storage: Annotated[str, Field(min_length=1)] | None = None
    study_name: Annotated[str, Field(min_length=1)] | None = None
    direction: Literal["minimize", "maximize"] | None = None
    n_jobs: PositiveInt = 1
    params: dict[str, Any] | None = None


def search_settings(section: Mapping[str, Any]) -> SearchSettings:
    """Return the settings of a section ``hydra.sweeper``.

    Raises:
        UserError: naming the key, its value and the values that it can have; or Optuna is not installed.
    """
    given = {key: value for key, value in section.items() if key not in ("_target_", "max_batch_size")}
    if isinstance(directions := given.get("direction"), list) and len(directions) == 1:  # as other sweepers take it
        given["direction"] = directions[0]
    settings = SearchSettings(**check(SearchSettings, given, _WHERE))
    if settings.n_trials is None and settings.timeout_minutes is None and settings.sampler != "grid":
        raise UserError(f"{_WHERE}.n_trials: got null, expected a number of points, or {_WHERE}.timeout_minutes")
    if settings.storage is not None:
        _check_storage(settings.storage)
    require_optuna()
    if settings.sampler == "cmaes" and find_spec("cmaes") is None:
        raise UserError(f"{_WHERE}.sampler: got 'cmaes', which requires a package; install it with: pip install cmaes")
    return settings


def require_optuna() -> None:
    """Check that a version of Optuna is installed that this program knows.

    Raises:
        UserError: it is not; the line names the command that installs it.
    """
    if find_spec("optuna") is None:
        raise UserError(f"hydra/sweeper=optuna: optuna {not_installed('optuna')}")
    found = version("optuna")
    if int(found.partition(".")[0]) < 4:
        raise UserError(
            f"hydra/sweeper=optuna: got optuna {found}, expected 4 or later; update it with: "
            "pip install -r requirements/optuna.txt"
        )


def _check_storage(storage: str) -> None:
    key = f"{_WHERE}.storage: got {storage}, expected"
    if "://" not in storage:
        raise UserError(f"{key} a URL such as sqlite:///{storage}")
    scheme, _, place = storage.partition(":///")
    path = Path(place.partition("?")[0])
    if scheme.partition("+")[0] == "sqlite" and place:
        if not path.parent.is_dir():
            raise UserError(f"{key} a file in a folder that exists, which {path.parent} does not")
        if path.is_dir():
            raise UserError(f"{key} a file, which {path} is not")
