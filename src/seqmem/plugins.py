"""Plugins: modules outside of this package that register cells, layers, networks, data sets, tasks, optimisers or schedules.

A module registers by being imported, as the modules of this package do. A package names its module as an entry point of the
group ``seqmem.plugins``. ``seqmem.plugins=[MODULE]`` on the command line and the variable ``SEQMEM_PLUGINS=MODULE,MODULE`` name
others, which may lie in the current folder. YAML files of a plugin lie in a folder ``cfg`` next to the module's file::

    my_cells.py               class Leaky(Recurrence): name = "leaky"
    cfg/model/leaky.yaml      its arguments

"""

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from seqmem.errors import UserError, suggestion

GROUP = "seqmem.plugins"
_VARIABLE = "SEQMEM_PLUGINS"

_named: list[str] = []
_failed: set[str] = set()


class PluginWarning(UserWarning):
    """A plugin of an installed package cannot be imported."""


def find(names: Iterable[str] = ()) -> None:
    """Find the modules of plugins, without importing them, so that :func:`folders` has their configs.

    Args:
        names: modules to add to those of entry points and of the variable ``SEQMEM_PLUGINS``.

    Raises:
        UserError: no such module exists.
    """
    of_variable = [name.strip() for name in os.environ.get(_VARIABLE, "").split(",")]
    for key, found in ((_VARIABLE, of_variable), (GROUP, names)):
        for name in found:
            if name and name not in _named:
                if os.getcwd() not in sys.path:
                    sys.path.append(os.getcwd())  # python -m has it there, the console script does not
                if _origin(name) is None:
                    raise UserError(f"{key}: got {name}, expected a module in this folder or on PYTHONPATH{_near(name)}")
                _named.append(name)


def load(names: Iterable[str] = ()) -> None:
    """Import the plugins: those of entry points, of the variable ``SEQMEM_PLUGINS``, and of all names given so far.

    Args:
        names: further modules.

    Raises:
        UserError: a module that was named does not exist, or its import fails. A plugin of an installed package only warns.
    """
    find(names)
    for name in _named:
        try:
            import_module(name)
        except UserError as error:
            raise UserError(f"{GROUP}: {name}: {error}") from error
        except Exception as error:
            raise UserError(f"{GROUP}: got {name}, whose import failed: {type(error).__name__}: {error}") from error
    for name, package in _installed().items():
        if name in _failed or name in sys.modules:
            continue
        try:
            import_module(name)
        except Exception as error:
            _failed.add(name)
            message = f"plugin {name} of {package} is not used, since its import failed: {type(error).__name__}: {error}"
            warnings.warn(message, PluginWarning, stacklevel=2)


def require(config: Mapping[str, Any], place: Path) -> None:
    """Check that all plugins of a trial are imported, after those of entry points and of ``SEQMEM_PLUGINS`` are.

    Modules that only the trial's own file names are not imported, since that file may come from elsewhere.

    Args:
        config: of the trial.
        place: of the trial, for the message.

    Raises:
        UserError: a plugin of the trial is not imported.
    """
    load()
    section = config.get("seqmem")
    recorded = section.get("plugins") if isinstance(section, Mapping) else None
    missing = [name for name in recorded or [] if isinstance(name, str) and name not in sys.modules]
    if missing:
        listed = ",".join(missing)
        raise UserError(
            f"{place} was trained with {GROUP}=[{listed}]; give that here too, or import {listed} in a program, "
            f"or set {_VARIABLE}={listed} for any command"
        )


def modules() -> list[str]:
    """Return the modules of all plugins: those that were named, then those of entry points."""
    return list(dict.fromkeys([*_named, *_installed()]))


def packages() -> set[str]:
    """Return the top-level packages of all plugins."""
    return {name.partition(".")[0] for name in modules()}


def folders() -> list[Path]:
    """Return the folders of the plugins' YAML files."""
    origins = [_origin(name) for name in modules()]
    places = [origin.with_name("cfg") for origin in origins if origin is not None]
    return list(dict.fromkeys(place for place in places if place.is_dir()))


def register(registry: dict[str, Any], new: Any) -> None:
    """Put a class into a registry under its name.

    Raises:
        UserError: a module of this package has a class of the name, and the new class is not of this package.
    """
    old = registry.get(new.name)
    if old is not None and _is_own(old) and not _is_own(new):
        raise UserError(f"{_place(new)}: got the name '{new.name}', which is that of {_place(old)}; choose a new one")
    registry[new.name] = new


def _is_own(owner: Callable[..., Any]) -> bool:
    return owner.__module__.partition(".")[0] == "seqmem"


def _place(owner: Callable[..., Any]) -> str:
    return f"{owner.__module__}.{owner.__qualname__}"


@cache
def _installed() -> dict[str, str]:
    """Return the modules of entry points, and the package of each."""
    found = entry_points(group=GROUP)
    return {point.module: point.dist.name if point.dist else "a package" for point in found}


def _origin(name: str) -> Path | None:
    """Return the file of a module that can be imported; None if there is none."""
    try:
        loaded = sys.modules.get(name)
        spec = find_spec(name) if loaded is None else loaded.__spec__
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.has_location else None


def _near(name: str) -> str:
    if name.endswith(".py"):
        return suggestion(name, [name.removesuffix(".py").replace("/", ".")])
    here = [path.stem for path in Path.cwd().glob("*.py")]
    near = suggestion(name, here)
    return near if near.endswith("?") else ""
