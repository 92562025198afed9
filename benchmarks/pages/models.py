"""The generated parts of ``docs/models``: keys and results on each page, and the table of the index."""

from pathlib import Path

from benchmarks.gpu import paths
from benchmarks.pages import keys, results
from benchmarks.pages.blocks import DOCS, table, updated
from benchmarks.pages.trials import read
from seqmem import cells, sequence
from seqmem.ops import implementations

FOLDER = DOCS / "models"


def pages() -> dict[Path, str]:
    """Return the text of each page of a model, and of the index, by its path."""
    texts = {path(name): updated(path(name), _makers(name)) for name in keys.model_names()}
    return texts | {
        FOLDER / "index.md": updated(FOLDER / "index.md", {"abilities": abilities, "cells": of_cells, "networks": of_networks})
    }


def path(name: str) -> Path:
    """Return the page of a model.

    Raises:
        SystemExit: there is none.
    """
    found = FOLDER / f"{name}.md"
    if not found.is_file():
        raise SystemExit(f"error: cfg/model/{name}.yaml has no page docs/models/{name}.md")
    return found


def _makers(name: str) -> dict:
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


def abilities(folder: str = "") -> str:
    """Return the table of what cells and layers can do, one row for each set of abilities.

    Args:
        folder: of the pages of models, seen from the page that holds the table.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in layer_names():
        layer = sequence.get(name)
        causal = _yes(layer.causal)
        row = (_on_cpu(name), paths.path(name), "yes", _yes(layer.timed), causal, causal, "yes")
        groups.setdefault(row, []).append(f"[{name}]({folder}{name}.md)")
    lines = [[", ".join(names), *row] for row, names in sorted(groups.items(), key=lambda group: -len(group[1]))]
    headings = ["cells and layers", "on the CPU", "on a GPU", "lengths", "timestamps", "carried state", "step", "export"]
    return table(headings, lines, numbers=0)


def layer_names() -> list[str]:
    """Return the names of this project's models that are cells or layers."""
    return [name for name in keys.model_names() if name in sequence.names() and name in paths.own_names()]


def of_networks() -> str:
    """Return the table of models that are networks of their own."""
    lines = [[f"[{name}]({name}.md)", keys.headline(name)] for name in keys.model_names() if name not in layer_names()]
    return table(["model", "what it is"], lines, numbers=0)


def _yes(able: bool) -> str:
    return "yes" if able else ""


def _on_cpu(name: str) -> str:
    """Return the path of a cell's sequences on the CPU, as the table of implementations names it."""
    found = implementations.TABLE.get(sequence.get(name).operator, ())
    own = [row.name for row in found if row.device in ("", "cpu") and "exported" not in row.name]
    return own[0] if own else implementations.STEPWISE
