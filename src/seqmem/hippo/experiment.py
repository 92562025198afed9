"""Errors of memories of several measures on one signal, for ``python -m seqmem.hippo``."""

import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from seqmem.hippo.measures import Memory
from seqmem.hippo.projection import project
from seqmem.hippo.reconstruction import least_squares, reconstruct
from seqmem.io.files import replacing

CURVE_POINTS = 100
ERROR_POINTS = 1000
"""Largest number of samples of an error, which is a mean over them and hardly changes with more."""


@dataclass
class Trace:
    """Reconstruction of a signal from one memory, and its errors.

    Attributes:
        memory: settings of the memory.
        moments: (P,) the samples that are remembered after the last one, counted from 0.
        values: (P,) their reconstruction.
        error: mean squared error over the remembered samples, weighted by the measure.
        best: the same error of the least-squares projection onto the same functions.
        steps: (K,) numbers of samples.
        errors: (K,) the error after each of them.
        steps_per_second: speed of the projection.
    """

    memory: Memory
    moments: Tensor
    values: Tensor
    error: float
    best: float
    steps: list[int]
    errors: list[float]
    steps_per_second: float


def follow(signal: Tensor, memory: Memory) -> Trace:
    """Project a signal (T,) onto one memory, and compute the error at the end and at about 100 earlier steps."""
    length = len(signal)
    every = max(1, length // CURVE_POINTS)
    steps = list(range(every, length + 1, every))
    intermediate = project(signal, memory.order, every=every, **memory.settings)
    start = time.perf_counter()
    coefficients = project(signal, memory.order, **memory.settings)
    seconds = time.perf_counter() - start

    moments = memory.samples(length)
    # The least-squares matrix of a long signal would not fit into memory; a sparser signal has nearly the same projection.
    stride = max(1, len(moments) // (10 * ERROR_POINTS))
    sparse = replace(memory, theta=None if memory.theta is None else memory.theta / stride)
    sparse_signal = signal[stride // 2 :: stride]
    best = least_squares(sparse_signal, memory.order, **sparse.settings)
    return Trace(
        memory,
        moments,
        reconstruct(coefficients, length, at=moments, **memory.settings),
        error(signal, coefficients, memory),
        error(sparse_signal, best, sparse),
        steps,
        [error(signal[:step], row, memory) for step, row in zip(steps, intermediate, strict=True)],
        length / seconds,
    )


def error(signal: Tensor, coefficients: Tensor, memory: Memory) -> float:
    """Compute the mean squared error over the remembered samples of a signal (T,), weighted by the measure."""
    length = len(signal)
    moments = memory.samples(length)
    moments = moments[:: max(1, len(moments) // ERROR_POINTS)]
    weights = memory.weights(memory.ages(length, moments))
    values = reconstruct(coefficients, length, at=moments, **memory.settings)
    squares = (values - signal[moments.long()]).square()
    return ((weights * squares).sum() / weights.sum()).item()


def show(traces: Sequence[Trace], title: str) -> None:
    """Print a table of the errors."""
    table = Table(title=title, caption="best possible: least squares over the samples, not the zeros before")
    for name in ("measure", "order", "theta", "remembers", "mean squared error", "best possible", "steps/s"):
        table.add_column(name, justify="left" if name in ("measure", "remembers") else "right")
    for trace in traces:
        memory = trace.memory
        table.add_row(
            memory.measure,
            str(memory.order),
            "-" if memory.theta is None else f"{memory.theta:g}",
            remembered_part(memory),
            f"{trace.error:.2e}",
            f"{trace.best:.2e}",
            f"{trace.steps_per_second:,.0f}",
        )
    Console(width=None if Console().is_terminal else 140).print(table)


def remembered_part(memory: Memory) -> str:
    """Describe in words which samples a memory remembers."""
    if memory.is_scaled:
        return "all samples evenly"
    if memory.measure in ("legt", "lmu"):
        return "the last theta samples evenly"
    return "the past, faded by age/theta" if memory.measure == "tlagt" else "the past, in less detail by age/theta"


def save(traces: Sequence[Trace], path: Path) -> None:
    """Write the error curves as CSV, one row for each measure and number of samples."""
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("measure", "order", "theta", "samples", "mean_squared_error"))
        for trace in traces:
            memory = trace.memory
            for step, value in zip(trace.steps, trace.errors, strict=True):
                writer.writerow((memory.measure, memory.order, memory.theta, step, value))


def draw(signal: Tensor, traces: Sequence[Trace], path: Path) -> None:
    """Draw the signal (T,) with each memory's reconstruction, and the errors over time."""
    figure = Figure(figsize=(10.0, 7.0), layout="constrained")
    past, curve = figure.subplots(2, 1)
    past.plot(signal.numpy(), color="black", linewidth=2.5, alpha=0.35, label="signal")
    for number, trace in enumerate(traces):
        label = _label(trace.memory)
        past.plot(trace.moments.numpy(), trace.values.numpy(), color=f"C{number}", linewidth=1.0, label=label)
        curve.semilogy(trace.steps, trace.errors, color=f"C{number}", label=label)
    span = signal.abs().max().item()
    past.set(xlabel="sample", ylabel="reconstruction after the last", xlim=(0, len(signal)), ylim=(-1.5 * span, 1.5 * span))
    curve.set(xlabel="samples so far", ylabel="mean squared error of the remembered samples", xlim=(0, len(signal)))
    for axis in (past, curve):
        axis.grid(alpha=0.3)
    past.legend(loc="upper left", ncols=len(traces) + 1)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=120)


def _label(memory: Memory) -> str:
    theta = "" if memory.theta is None else f", theta {memory.theta:g}"
    return f"{memory.measure}{theta}"
