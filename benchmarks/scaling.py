"""Time of a training step by length, memory order and batch size: ``python -m benchmarks.scaling``.

Writes ``scaling.csv`` and ``scaling.png`` to ``benchmarks/latest/``, which git ignores, or with ``--keep`` to
``benchmarks/results/``: the figure of docs/results/speed.md.
"""

import argparse
import time
from pathlib import Path

from benchmarks import trial_rows
from benchmarks.cases import Case, builders
from benchmarks.output import add_output, output
from benchmarks.run import environment

LENGTHS = [100, 300, 1_000, 3_000, 10_000, 30_000, 100_000]
ORDERS = [16, 32, 64, 128, 256, 512, 1024]
BATCHES = [1, 4, 16, 64, 256]
KINDS = ("legs", "lstm", "gru")
AXES = {
    "length": [Case(kind, 256, steps, 4) for kind in KINDS for steps in LENGTHS],
    "order": [Case(kind, order, 784, 100) for kind in KINDS for order in ORDERS],
    "batch": [Case(kind, 256, 784, batch) for kind in KINDS for batch in BATCHES],
}
# Longest sequence of the implementations that step in Python.
MAX_PYTHON_STEPS = 3_000


def main() -> None:
    """Run the command line: measure, save and plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_output(parser, "scaling.csv")
    path = output(parser.parse_args(), "scaling.csv")
    rows = [row for axis, cases in AXES.items() for case in cases for row in measure(axis, case)]
    save(rows, path)
    plot(rows, path.with_suffix(".png"))


def measure(axis: str, case: Case) -> list[dict]:
    """Measure one training step of seqmem and, on the length axis, of its baselines; one row each."""
    built = builders(case)
    names = ["seqmem"]
    if axis == "length" and case.steps <= MAX_PYTHON_STEPS:
        names += [name for name in built if name.startswith(("original", "torch.nn"))]
    rows = []
    for name in names:
        call = built[name]()
        call()
        seconds = []
        while len(seconds) < 5 and sum(seconds) < 2:
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        labels = {"axis": axis, "kind": case.kind, "side": name}
        sizes = {"length": case.steps, "order": case.hidden_size, "batch": case.batch_size}
        rows.append({**labels, **sizes, "seconds": min(seconds)})
        print(*rows[-1].values(), flush=True)
    return rows


def save(rows: list[dict], path: Path) -> None:
    """Write the rows with the environment of the measurement."""
    where = environment()
    trial_rows.write(path, [*rows[0], *where], [{**row, **where} for row in rows])


def plot(rows: list[dict], path: Path) -> None:
    """Plot one panel per axis, with one line per kind and implementation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(AXES), figsize=(13, 4), layout="constrained")
    colours = dict(zip(KINDS, ("C0", "C1", "C2"), strict=True))
    titles = {
        "length": ("length T", "microseconds per step and sequence", "hidden size 256, batch 4"),
        "order": ("hidden size and memory order", "seconds per training step", "length 784, batch 100"),
        "batch": ("batch size", "seconds per training step", "hidden size 256, length 784"),
    }
    for panel, (axis, (across, up, title)) in zip(panels, titles.items(), strict=True):
        lines: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for row in rows:
            if row["axis"] == axis:
                height = 1e6 * row["seconds"] / (row["length"] * row["batch"]) if axis == "length" else row["seconds"]
                lines.setdefault((row["kind"], row["side"]), []).append((row[axis], height))
        for (kind, side), points in lines.items():
            ours = side == "seqmem"
            label = kind if ours else f"{kind}, {side}"
            panel.loglog(*zip(*points, strict=True), "o-" if ours else "s:", color=colours[kind], label=label, markersize=4)
        panel.set(xlabel=across, ylabel=up, title=title)
        panel.grid(alpha=0.3, which="both")
        panel.legend(fontsize=7)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
