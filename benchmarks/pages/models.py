"""The generated parts of ``docs/models``: keys and results on each page, and the table of the index."""

from collections.abc import Callable
from pathlib import Path

from benchmarks import abilities
from benchmarks.gpu import paths
from benchmarks.pages import keys, results
from benchmarks.pages.blocks import DOCS, content, table, updated
from benchmarks.pages.files import read
from seqmem import cells, sequence

FOLDER = DOCS / "models"


def pages() -> dict[Path, str]:
    """Return the text of each page of a model, and of the index, by its path."""
    index, tables = FOLDER / "index.md", {"abilities": of_abilities, "cells": of_cells, "networks": of_networks}
    texts = {path(name): updated(path(name), _makers(name)) for name in keys.model_names()}
    return texts | {index: updated(index, tables)}


def path(name: str) -> Path:
    """Return the page of a model.

    Raises:
        SystemExit: there is none.
    """
    found = FOLDER / f"{name}.md"
    if not found.is_file():
        raise SystemExit(f"error: cfg/model/{name}.yaml has no page docs/models/{name}.md")
    return found


def _makers(name: str) -> dict[str, Callable[[], str]]:
    return {"keys": lambda: keys.keys(name), "results": lambda: _results(name)}


def _results(name: str) -> str:
    """Return the rows of a model, and a link to its speed if that was measured."""
    timed = {row["case"].split(",")[0] for row in read("speed.csv")}
    speed = f"Seconds of a training step: [speed](../results/speed.md), from `{name}` rows." if name in timed else ""
    return "\n\n".join(part for part in (results.measured(name), speed) if part)


def of_cells() -> str:
    """Return the table of cells and layers: what each is."""
    lines = []
    for name in layer_names():
        kind = "cell" if name in cells.names() else "layer"
        lines.append([f"[{name}]({name}.md)", kind, keys.headline(name)])
    return table(["model", "kind", "what it is"], lines, numbers=0)


def of_abilities() -> str:
    """Return the README's table of what each cell can do, which :mod:`benchmarks.abilities` finds by trying it."""
    return content(abilities.PAGE.read_text(encoding="utf-8"), *abilities.PART)


def layer_names() -> list[str]:
    """Return the names of this project's models that are cells or layers."""
    return [name for name in keys.model_names() if name in sequence.names() and name in paths.own_names()]


def of_networks() -> str:
    """Return the table of models that are networks of their own."""
    lines = [[f"[{name}]({name}.md)", keys.headline(name)] for name in keys.model_names() if name not in layer_names()]
    return table(["model", "what it is"], lines, numbers=0)
