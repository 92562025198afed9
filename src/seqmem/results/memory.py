"""Figure, tables and CSV file of what a model's state holds of its inputs, over the lag."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib import colormaps
from matplotlib.axes import Axes
from torch import Tensor

from seqmem.diagnostics import Curves, Sample, parts_left
from seqmem.hippo import Memory
from seqmem.io.figures import Figure
from seqmem.results.formats import comma_separated, text


@dataclass(frozen=True)
class Measured:
    """Curves of one state.

    Attributes:
        weights: "trained" or "untrained".
        layer: "all" for the states of all layers as one vector, else the layer's number from 1.
        curves: the curves.
    """

    weights: str
    layer: str
    curves: Curves

    @property
    def label(self) -> str:
        """The weights, and the layer if it is one of them."""
        return self.weights if self.layer == "all" else f"{self.weights}, layer {self.layer}"


@dataclass(frozen=True)
class Reconstructed:
    """R^2 of the closed form of a HiPPO memory, which has the settings of a layer's cells.

    Attributes:
        memory: measure, order and time scale.
        layer: as for :class:`Measured`.
        r2: (L,) at the sample's lags; NaN at those that the memory's window does not reach.
    """

    memory: Memory
    layer: str
    r2: Tensor

    @property
    def label(self) -> str:
        """The measure, its order, and the window or time scale in steps if there is one."""
        scale = "" if self.memory.theta is None else f", theta {self.memory.theta:g}"
        return f"closed form of {self.memory.measure}, order {self.memory.order}{scale}"


def memory_tables(states: Sequence[Measured], closed: Sequence[Reconstructed], sample: Sample) -> list[str]:
    """Return three tables: effective memory lengths, norms of the gradient at a few lags, and R^2 at these.

    Args:
        states: curves, a row each.
        closed: closed forms, a row each.
        sample: the sequences of all of them.
    """
    names = [state.label for state in states]
    lengths = {
        "model": names,
        "numbers": [f"{state.curves.size:,}" for state in states],
        "effective memory length": [
            "-" if state.curves.effective_length is None else f"{state.curves.effective_length:,}" for state in states
        ],
    }
    lags = sample.lags.tolist()
    shown = [lag for lag in lags if lag == sample.longest or str(lag).rstrip("0") in ("", "1", "2", "5")]
    places = [lags.index(lag) for lag in shown]
    norms = [[_norm(value) for value in state.curves.norms[shown].tolist()] for state in states]
    forms = {each.label: each.r2 for each in closed}  # several layers may have the same
    r2 = [[_r2(value) for value in each[places].tolist()] for each in (*(state.curves.r2 for state in states), *forms.values())]
    return [
        text(lengths),
        text(_by_lag(names, shown, norms)),
        text(_by_lag([*names, *forms], shown, r2)),
    ]


def memory_csv(states: Sequence[Measured], closed: Sequence[Reconstructed], sample: Sample) -> str:
    """Return the text of a CSV file with a line for each state or closed form, and lag.

    Columns: ``model`` (trained, untrained, or the closed form's name), ``layer``, ``lag``, ``sequences`` and ``gradient``, the
    mean norm over so many sequences, ``gradient_error``, its standard error, ``gradient_left``, the part of the summed norm
    beyond the lag, and ``r2``, of the read-out or the reconstruction at the lags where it was measured. A number that is
    undefined is empty.
    """
    count = str(sum(map(len, sample.gradient)))
    lines: list[tuple[str, ...]] = []
    places = {lag: place for place, lag in enumerate(sample.lags.tolist())}
    for state in states:
        curves = state.curves
        columns = (curves.norms, curves.errors, parts_left(curves.norms))
        for lag, numbers in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
            r2 = curves.r2[places[lag]].item() if lag in places else math.nan
            lines.append((state.weights, state.layer, str(lag), count, *map(_cell, (*numbers, r2))))
    for each in closed:
        lines += [
            (each.label, each.layer, str(lag), "", "", "", "", _cell(each.r2[place].item())) for lag, place in places.items()
        ]
    names = ("model", "layer", "lag", "sequences", "gradient", "gradient_error", "gradient_left", "r2")
    return comma_separated(dict(zip(names, zip(*lines, strict=True), strict=True)))


def plot_memory(states: Sequence[Measured], closed: Sequence[Reconstructed], sample: Sample, title: str = "") -> Figure:
    """Draw the norm of the gradient, with the effective memory lengths as vertical lines, and R^2, both over the lag.

    A colour is a layer; untrained weights have dashed lines, and closed forms dotted ones.

    Returns:
        The figure, not registered with pyplot.
    """
    figure = Figure(figsize=(12.0, 4.5), layout="constrained")
    gradient, read_out = figure.subplots(1, 2)
    layers = list(dict.fromkeys(state.layer for state in states))
    colors = dict(zip(layers, colormaps["viridis"]([k / max(len(layers), 2) for k in range(len(layers))]), strict=True))
    for state in states:
        style = {"color": colors[state.layer], "linestyle": "-" if state.weights == "trained" else "--"}
        norms, length = state.curves.norms.numpy(), state.curves.effective_length
        largest = norms.max()
        reach = "" if length is None else f" (effective length {length:,})"
        gradient.plot(norms / largest if largest > 0 else norms, label=state.label + reach, **style)
        if length is not None:
            gradient.axvline(length, linewidth=0.8, alpha=0.7, **style)
        read_out.plot(sample.lags, state.curves.r2, label=state.label, **style)
    for color, each in zip(("black", "0.4", "0.6"), {each.label: each for each in closed}.values(), strict=False):
        read_out.plot(sample.lags, each.r2, label=each.label, color=color, linestyle=":", linewidth=2)
    gradient.set(yscale="log", ylabel="norm of the gradient, largest = 1", title="gradient of the last state by the input")
    read_out.set(ylim=(-0.1, 1.05), ylabel="held-out R^2", title="linear read-out of the input from the last state")
    for axis in (gradient, read_out):
        _finish(axis, sample.longest)
    figure.suptitle(title)
    return figure


def _finish(axis: Axes, longest: int) -> None:
    axis.set_xlabel("lag in steps")
    axis.set_xlim(0, max(longest, 1))
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")


def _by_lag(names: Sequence[str], lags: Sequence[int], rows: Sequence[Sequence[str]]) -> dict[str, Sequence[str]]:
    return {"model": names, **{f"{lag:,}": column for lag, column in zip(lags, zip(*rows, strict=True), strict=True)}}


def _norm(value: float) -> str:
    return f"{value:.2g}" if math.isfinite(value) else "-"


def _r2(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"


def _cell(value: float) -> str:
    return repr(value) if math.isfinite(value) else ""
