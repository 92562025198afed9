"""The table of docs/guides/gpu.md, from the table of implementations: ``python -m benchmarks.gpu.paths``.

It lies between the lines ``<!-- paths: python -m benchmarks.gpu.paths -->`` and ``<!-- end of paths -->``.
"""

from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.pages import blocks
from seqmem import layers, sequence
from seqmem.cells import Recurrence
from seqmem.ops import implementations

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "gpu.md"
PART = ("paths", "benchmarks.gpu.paths")


def main() -> None:
    """Update the page."""
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def updated(text: str) -> str:
    """Return the page's text with the table of this version."""
    return blocks.replaced(text, *PART, table())


def table() -> str:
    """Return which cells and layers a GPU computes in which way, as Markdown."""
    ways: dict[str, list[str]] = {}
    for name in sequence.names():
        if name in own_names():
            ways.setdefault(path(name), []).append(name)
    lines = [[way, ", ".join(names)] for way, names in sorted(ways.items(), key=lambda item: -len(item[1]))]
    return blocks.table(["path", "cells and layers"], lines, numbers=0)


def own_names() -> set[str]:
    """Return the names of this project's own cells and layers; programs and tests register others."""
    return {name for name in sequence.names() if sequence.get(name).__module__.startswith(("seqmem.cells.", layers.__name__))}


def path(name: str) -> str:
    """Return the path of a cell or layer with its default arguments, for float32 inputs on a GPU."""
    layer = sequence.get(name)(input_size=3, hidden_size=16)
    with FakeTensorMode():
        inputs = torch.empty(2, 5, 3, device="cuda")
    choice = layer.choose(inputs)
    if choice.run is not None or not isinstance(layer, Recurrence):
        return choice.path
    return implementations.choose_loop(inputs, layer.capturable()).name


if __name__ == "__main__":
    main()
