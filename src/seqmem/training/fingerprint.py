"""A checksum of the code that a result depends on."""

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seqmem import plugins
from seqmem.training.backend import library
from seqmem.training.optimisation.optimizers import OptimizerSettings
from seqmem.training.optimisation.schedules import Schedule

_root = "seqmem"
_entry = "seqmem.training.loop.trial"
_without_influence = ("seqmem.results",)  # records and tables change no number


def fingerprint(model: nn.Module, data: object, task: object, train: Mapping[str, Any] | None = None) -> str:
    """Return a short checksum of the code that trains ``model`` on ``data``.

    It covers torch's version, the compiled operators that are loaded, and the modules that the training needs, of this package
    and of the data set's. The operators count by the sources from which the library was built, whatever csrc/ holds now.
    Comments and docstrings have no influence. Nor has a cell, model, task or data set that is not used, so that adding one
    leaves the results of the others valid. The modules of plugins count in the same way, with all that they import from their
    own packages or from modules in the same folder.

    Args:
        model: the classes of its modules count.
        data: its class counts.
        task: its class counts.
        train: section of the config; its optimiser and schedule count if they are those of a plugin.
    """
    classes = {type(module) for module in model.modules()} | {type(data), type(task), *_of_plugins(train or {})}
    used = {ancestor.__module__ for owner in classes for ancestor in owner.__mro__}
    packages = {_root, _top(type(data).__module__), *plugins.packages()}
    digest = hashlib.sha256(torch.__version__.encode())
    for name in sorted(_needed([_entry, *used], packages)):
        digest.update(f"{name} {_source(name)[0]}\n".encode())
    digest.update(_operators().encode())
    return digest.hexdigest()[:12]


def _of_plugins(train: Mapping[str, Any]) -> list[type]:
    """Return the classes of an optimiser and a schedule that plugins define."""
    registries = {"optimizer": OptimizerSettings, "schedule": Schedule}
    chosen = [registry.named(train[key]) for key, registry in registries.items() if key in train]
    return [owner for owner in chosen if _top(owner.__module__) != _root]


def _needed(modules: Iterable[str], packages: set[str]) -> set[str]:
    """Return the modules and all that they import, directly or not, of the given packages and next to plugins."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        inside = _top(name) in packages and not name.startswith(_without_influence)
        if name in found or not inside or _path(name) is None:
            continue
        found.add(name)
        imported = _source(name)[1]
        if _top(name) != _root:
            packages = packages | {_top(other) for other in imported if _is_next_to(other, name)}
        waiting += imported
    return found


def _top(name: str) -> str:
    return name.partition(".")[0]


def _is_next_to(name: str, other: str) -> bool:
    """Return whether a module lies in the folder of a different one that is not installed, as a user's own two files do."""
    places = [_folder(_top(each)) for each in (name, other)]
    return places[0] is not None and places[0] == places[1] and "site-packages" not in places[0].parts


def _folder(top: str) -> Path | None:
    """Return the folder that holds a top-level module or package."""
    path = _path(top)
    if path is None:
        return None
    return path.parents[1] if path.name == "__init__.py" else path.parent


@cache
def _source(name: str) -> tuple[str, tuple[str, ...]]:
    """Return a checksum of a module's code, and the names that it imports, which need not be modules."""
    path = _path(name)
    assert path is not None
    tree = ast.parse(path.read_bytes())
    imported: list[str] = []
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(node, name, path)
            imported += [module, *(f"{module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
            node.body[:1] = [] if len(node.body) > 1 else [ast.Pass()]
    # A registry imports all its modules; the ones in use are found through the classes of model, data and task.
    registry = any(name.startswith("pkgutil") for name in imported)
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), () if registry else tuple(imported)


def _absolute(node: ast.ImportFrom, name: str, path: Path) -> str:
    """Return the module that a statement of a module imports from."""
    if not node.level:
        return node.module or ""
    parents = name.split(".")
    kept = len(parents) - node.level + (path.name == "__init__.py")
    return ".".join([*parents[:kept], *([node.module] if node.module else [])])


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a module or statement and all statements within, but those for type checkers.

    Expressions, ten times as many, are left out.
    """
    yield node
    is_for_types = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    for field in ("orelse",) if is_for_types else ("body", "orelse", "finalbody", "handlers", "cases"):
        for inner in getattr(node, field, ()):
            yield from _statements(inner)


@cache
def _path(name: str) -> Path | None:
    """Return the file of a module of Python code; None if no such module exists."""
    loaded = sys.modules.get(name)
    if loaded is not None:
        file = getattr(loaded, "__file__", None)
    else:
        try:
            spec = find_spec(name)
        except (ImportError, ValueError, AttributeError):
            return None
        file = spec.origin if spec else None
    return Path(file) if file and file.endswith(".py") else None


def _operators() -> str:
    """Return the checksum of the loaded operators: of their sources, or of the file if it does not hold that."""
    loaded = library()
    return "reference" if loaded is None else loaded["sources"] or loaded["sha256"]
