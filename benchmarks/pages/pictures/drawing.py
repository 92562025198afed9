"""The table of pictures, and how a picture becomes a small file that is the same at each call."""

import re
from collections.abc import Callable, Iterable
from io import StringIO
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure

from benchmarks.pages.blocks import DOCS
from benchmarks.pages.pictures import diagrams, gates, gradients, memories, memory_tests, networks, sampling_rates

FOLDER, RESULTS = DOCS / "models" / "pictures", DOCS / "results" / "pictures"
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "seqmem",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "path.simplify_threshold": 0.3,
}

_OF_RESULTS: dict[str, Callable[[Figure], None]] = {**sampling_rates.PICTURES, **memory_tests.PICTURES}

PICTURES: dict[str, Callable[[Figure], None]] = {
    **memories.PICTURES,
    **gradients.PICTURES,
    **networks.PICTURES,
    **gates.PICTURES,
    **diagrams.PICTURES,
    **_OF_RESULTS,
}
"""What draws each picture, by the name of its model or of its table, into an empty figure."""


def names() -> list[str]:
    """Return the names of all pictures."""
    return sorted(PICTURES)


def path(name: str) -> Path:
    """Return the file of a picture."""
    return (RESULTS if name in _OF_RESULTS else FOLDER) / f"{name}.svg"


def draw(chosen: Iterable[str]) -> None:
    """Write some pictures.

    Raises:
        SystemExit: an unknown name.
    """
    for name in chosen:
        if name not in PICTURES:
            raise SystemExit(f"error: --pictures: got '{name}', expected one of {', '.join(names())}")
        path(name).parent.mkdir(exist_ok=True)
        path(name).write_text(drawn(name), encoding="utf-8")
        print(path(name).relative_to(DOCS.parent))


def drawn(name: str) -> str:
    """Return a picture as SVG: seeded, without a date, with two digits after the decimal point."""
    torch.manual_seed(0)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 2.5), layout="constrained")
        PICTURES[name](figure)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    short = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), text.getvalue())
    return "\n".join(line.rstrip() for line in short.splitlines()) + "\n"
