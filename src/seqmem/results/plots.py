"""Figures of learning curves, of test results, and of results by length."""

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator

from seqmem.errors import UserError
from seqmem.io.figures import Figure
from seqmem.io.files import replacing
from seqmem.results.aggregate import Trials, mean_and_deviation
from seqmem.results.curves import Curve, MeanCurve, mean_curve, thinned
from seqmem.results.labels import SMOKE, shortened
from seqmem.results.length_rows import LengthRow

MOST_NAMES = 10
"""Largest number of rows with a legend and a band; more would hide each other."""
MOST_BARS = 20
MOST_EPOCHS = 200
MOST_TICKS = 12
"""Largest number of lengths that an axis names one by one."""


@dataclass(frozen=True)
class LengthLine:
    """Results at several lengths, as one line.

    Attributes:
        label: in the legend.
        points: (length, mean, minimum, maximum), in the order of lengths.
        row: k of the row ``#row-k`` that it links to in an SVG; None for no link.
    """

    label: str
    points: Sequence[tuple[int, float, float, float]]
    row: int | None = None


@dataclass(frozen=True)
class LengthAxis:
    """Lines that share an axis.

    Attributes:
        title: above it.
        metric: label of the vertical axis.
        lines: at least one.
        trained: shortest and longest length of each training, which are marked.
    """

    title: str
    metric: str
    lines: Sequence[LengthLine]
    trained: Sequence[tuple[int, int]] = field(default_factory=list)


def plot_learning_curves(groups: Sequence[Trials], curves: Mapping[Path, Curve]) -> Figure | None:
    """Draw the validation metric of each epoch: the mean over finished trials as a line, minimum to maximum as a band.

    An axis with more than ``MOST_NAMES`` rows has no bands and no legend. In an SVG the line of row k links to ``#row-k``.

    Args:
        groups: trials, a row each; one axis for each data set.
        curves: learning curves by the run's folder.

    Returns:
        The figure; None if no finished trial was trained.
    """
    datasets: dict[str, list[tuple[int, Trials, MeanCurve]]] = {}
    for k, group in enumerate(groups):
        curve = mean_curve([curves.get(run.folder.path, []) for run in group.finished])
        if curve:
            datasets.setdefault(group.dataset, []).append((k, group, thinned(curve, MOST_EPOCHS)))
    if not datasets:
        return None
    across = min(len(datasets), 2)
    down = math.ceil(len(datasets) / across)
    figure = Figure(figsize=(6.4 * across, 4.0 * down))
    for place, (dataset, rows) in enumerate(datasets.items(), start=1):
        axis = figure.add_subplot(down, across, place)
        few = len(rows) <= MOST_NAMES
        (_draw_named_curves if few else _draw_many_curves)(axis, rows)
        axis.set_xlabel("epoch")
        axis.set_ylabel(f"validation {_metric_label(rows[0][1])}")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        title = _short(shortened([dataset])[0], 70) + ("" if few else f", {len(rows)} rows")
        axis.set_title(title + _mark(group for _, group, _ in rows), fontsize="medium")
        axis.grid(alpha=0.3)
    figure.tight_layout()  # once, and not again for each format that it is saved in
    return figure


def plot_bars(groups: Sequence[Trials]) -> Figure | None:
    """Draw each row's mean test metric as a bar, with its sample standard deviation, and its trials as points.

    The best row comes first. At most ``MOST_BARS`` rows of a data set are drawn; the title says so if there are more, and how
    many have no finite mean. In an SVG the bar of row k links to ``#row-k``.

    Args:
        groups: trials, a row each; one axis for each data set.

    Returns:
        The figure; None if no trial finished with a finite result.
    """
    datasets: dict[str, list[tuple[int, Trials]]] = {}
    left_out: dict[str, int] = {}
    for k, group in enumerate(groups):
        if group.finished and all(map(math.isfinite, group.results("test"))):
            datasets.setdefault(group.dataset, []).append((k, group))
        elif group.finished:
            left_out[group.dataset] = left_out.get(group.dataset, 0) + 1
    if not datasets:
        return None
    shown = {name: _best(rows)[:MOST_BARS] for name, rows in datasets.items()}
    heights = [0.27 * len(rows) + 1.1 for rows in shown.values()]
    figure = Figure(figsize=(9.0, sum(heights)))
    axes = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (name, rows) in zip(axes, shown.items(), strict=True):
        _draw_bars(axis, rows)
        count = len(datasets[name])
        title = _short(shortened([name])[0], 90) + (f", the best {len(rows)} of {count} rows" if count > len(rows) else "")
        if missing := left_out.get(name):
            title += f", {missing} row{'s' * (missing > 1)} without a finite mean"
        axis.set_title(title + _mark(group for _, group in rows), fontsize="medium")
    figure.tight_layout()  # once, and not again for each format that it is saved in
    return figure


def plot_length_rows(rows: Sequence[LengthRow]) -> Figure | None:
    """Draw the rows of a report by length, one axis for each data set; None if there are none.

    In an SVG the line of row k links to ``#row-k``.
    """
    datasets: dict[str, list[LengthRow]] = {}
    for row in rows:
        datasets.setdefault(row.trials.dataset, []).append(row)
    axes = [
        LengthAxis(
            _short(shortened([name])[0], 70) + _mark(row.trials for row in own),
            f"test {_metric_label(own[0].trials)}",
            [LengthLine(label, row.points, row.row) for row, label in zip(own, _names([r.trials for r in own]), strict=True)],
            [row.trained for row in own if row.trained is not None],
        )
        for name, own in datasets.items()
    ]
    return plot_lengths(axes) if axes else None


def plot_lengths(axes: Sequence[LengthAxis]) -> Figure:
    """Draw results by length: means as lines, minimum to maximum as bands, with the training lengths marked.

    Lengths that span more than a factor of ten are on a logarithmic axis.

    Args:
        axes: at least one.
    """
    across = min(len(axes), 2)
    down = math.ceil(len(axes) / across)
    figure = Figure(figsize=(6.4 * across, 4.0 * down))
    for place, each in enumerate(axes, start=1):
        _draw_lengths(figure.add_subplot(down, across, place), each)
    figure.tight_layout()  # once, and not again for each format that it is saved in
    return figure


def svg(figure: Figure, salt: str) -> str:
    """Return a figure as an ``<svg>`` element of a page.

    Args:
        figure: the figure.
        salt: a word that no other figure of the page has, so that identifiers are unique.
    """
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    element = stream.getvalue()
    element = element[element.index("<svg") :]
    return re.sub(r' id="[\w.]+_\d+"', "", element)


def check_picture(path: Path, key: str = "picture") -> None:
    """Check that a picture can be written to ``path``, before it is drawn.

    Args:
        path: the file.
        key: by which the user chose it, for messages.

    Raises:
        UserError: its folder does not exist, or no format has this suffix.
    """
    formats = FigureCanvasAgg.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise UserError(f"{key}: got {path}, expected a name that ends in one of: .{', .'.join(sorted(formats))}")
    if not path.parent.is_dir():
        raise UserError(f"{key}: got {path}, but there is no folder {path.parent}")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure atomically, in the format of the suffix of ``path``.

    Raises:
        UserError: it cannot be written.
    """
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=120)


def _draw_named_curves(axis: Axes, rows: Sequence[tuple[int, Trials, MeanCurve]]) -> None:
    names = _names([group for _, group, _ in rows])
    for (k, _, curve), color, name in zip(rows, _colors(len(rows)), names, strict=True):
        epochs, mean, least, largest = zip(*curve, strict=True)
        marker = "." if len(epochs) <= 50 else None
        axis.plot(epochs, mean, marker=marker, color=color, label=name, url=f"#row-{k}")
        axis.fill_between(epochs, least, largest, alpha=0.2, color=color, linewidth=0)
    axis.legend(fontsize="small")


def _draw_many_curves(axis: Axes, rows: Sequence[tuple[int, Trials, MeanCurve]]) -> None:
    colors, urls = _colors(len(rows)), [f"#row-{k}" for k, _, _ in rows]
    lines = [[point[:2] for point in curve] for _, _, curve in rows]
    axis.add_collection(LineCollection(lines, colors=colors, urls=urls, linewidths=0.8))
    last_epochs, last_values = zip(*(line[-1] for line in lines), strict=True)
    axis.scatter(last_epochs, last_values, s=5, c=colors, urls=urls)
    axis.autoscale_view()


def _draw_bars(axis: Axes, rows: Sequence[tuple[int, Trials]]) -> None:
    results = [group.results("test") for _, group in rows]
    means, deviations = zip(*map(mean_and_deviation, results), strict=True)
    places = range(len(rows))
    bars = axis.barh(places, means, height=0.7, color="tab:blue", alpha=0.45)
    for bar, (k, _) in zip(bars, rows, strict=True):
        bar.set_url(f"#row-{k}")
    axis.errorbar(means, places, xerr=deviations, fmt="none", color="black", capsize=3, linewidth=1)
    points = [(result, place) for place, trials in enumerate(results) for result in trials]
    axis.plot(*zip(*points, strict=True), "o", markeredgecolor="black", markerfacecolor="white", markersize=3.5)
    axis.set_yticks(places, _names([group for _, group in rows]))
    axis.tick_params(axis="y", labelsize="small", length=0)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlabel(f"test {_metric_label(rows[0][1])}")
    axis.grid(axis="x", alpha=0.3)


def _draw_lengths(axis: Axes, drawn: LengthAxis) -> None:
    few = len(drawn.lines) <= MOST_NAMES
    for line, color in zip(drawn.lines, _colors(len(drawn.lines)), strict=True):
        lengths, mean, least, largest = zip(*line.points, strict=True)
        url = None if line.row is None else f"#row-{line.row}"
        axis.plot(lengths, mean, marker=".", color=color, label=_short(line.label, 60) if few else None, url=url)
        if few:
            axis.fill_between(lengths, least, largest, alpha=0.2, color=color, linewidth=0)
    shown = sorted({length for line in drawn.lines for length, *_ in line.points})
    for shortest, longest in sorted(set(drawn.trained)):
        if max(shortest, shown[0]) < longest:
            axis.axvspan(max(shortest, shown[0]), longest, color="grey", alpha=0.12, linewidth=0)
        named = f"{shortest} to {longest}" if shortest < longest else f"{longest}"
        axis.axvline(longest, color="grey", linestyle="--", linewidth=1, label=f"training: {named}")
    if shown[-1] > 10 * shown[0]:
        axis.set_xscale("log")
    if len(shown) <= MOST_TICKS:
        axis.set_xticks(shown, [str(length) for length in shown])
        axis.minorticks_off()
    axis.set_xlabel("length")
    axis.set_ylabel(drawn.metric)
    axis.set_title(drawn.title, fontsize="medium")
    axis.grid(alpha=0.3)
    if few or drawn.trained:
        axis.legend(fontsize="small")


def _best(rows: Sequence[tuple[int, Trials]]) -> list[tuple[int, Trials]]:
    return sorted(rows, key=lambda row: mean_and_deviation(row[1].results("test"))[0], reverse=rows[0][1].best == "max")


def _metric_label(group: Trials) -> str:
    """Return the metric's name on an axis: the task's label, which older records do not have, or the name itself."""
    return next((run.record["metric_label"] for run in group.finished if "metric_label" in run.record), group.metric)


def _names(groups: Sequence[Trials]) -> list[str]:
    labels = shortened([group.model for group in groups])
    return [f"{_short(label, 60)} (n={len(group.finished)})" for label, group in zip(labels, groups, strict=True)]


def _mark(groups: Iterable[Trials]) -> str:
    """Return the mark of a title whose rows are all smoke tests."""
    return f", {SMOKE}" if all(group.smoke_test for group in groups) else ""


def _short(text: str, most: int) -> str:
    shortened = text if len(text) <= most else f"{text[: most - 4]} ..."
    return shortened.replace("$", r"\$")  # "$" would begin a formula


def _colors(count: int) -> list[tuple[float, ...]]:
    if count <= MOST_NAMES:
        return [colormaps["tab10"](k) for k in range(count)]
    return [colormaps["turbo"](0.05 + 0.9 * k / (count - 1)) for k in range(count)]
