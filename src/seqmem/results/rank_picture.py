"""Critical-difference picture: mean ranks on an axis, and bars that join rows between which no difference was found."""

from matplotlib.axes import Axes

from seqmem.io.figures import Figure
from seqmem.results.labels import shortened
from seqmem.results.ranks import LEVEL, Ranking

_LETTER = 0.085
"""Width of a letter in inches."""
_LINE = 0.24
"""Height of a line in inches."""
_TOP = 3
"""Lines above the axis."""
_MOST_LETTERS = 50


def plot_ranks(ranking: Ranking) -> Figure:
    """Draw models at their mean ranks, the best on the left, as Demsar (2006, figure 1) does.

    A bar joins models of which no pair differs by Wilcoxon's test with Holm's correction. Its dots are its members: a model
    below the bar without a dot differs from one of them.
    """
    labels = [_short(label) for label in shortened(ranking.models)]
    labels = [f"{label}  {rank:.2f}" for label, rank in zip(labels, ranking.mean_ranks, strict=True)]
    order = sorted(range(len(labels)), key=lambda model: (ranking.mean_ranks[model], model))
    left, right = order[: (len(order) + 1) // 2], order[(len(order) + 1) // 2 :]
    margin = _LETTER * max(map(len, labels)) + 0.4
    middle = max(4.0, 0.7 * len(labels))
    first_name = 1.5 + 0.6 * len(ranking.groups)
    height = (_TOP + first_name + len(left)) * _LINE
    figure = Figure(figsize=(middle + 2 * margin, height))
    axis = figure.add_axes((0, 0, 1, 1))
    unit = (len(labels) - 1) / middle  # ranks in an inch
    axis.set_xlim(1 - margin * unit, len(labels) + margin * unit)
    axis.set_ylim(first_name + len(left), -_TOP)
    axis.axis("off")
    _draw_axis(axis, len(labels))
    for side, models in ((-1, left), (1, right[::-1])):
        end = 1 - 0.2 * unit if side < 0 else len(labels) + 0.2 * unit
        for place, model in enumerate(models):
            rank, y = ranking.mean_ranks[model], first_name + place
            axis.plot([rank, rank, end], [0, y, y], color="black", linewidth=0.9)
            axis.text(end + side * 0.08 * unit, y, labels[model], ha="right" if side < 0 else "left", va="center", fontsize=9)
    for place, group in enumerate(ranking.groups):
        ranks = [ranking.mean_ranks[model] for model in group]
        axis.plot(ranks, [0.5 + 0.6 * place] * len(ranks), "o-", color="tab:blue", linewidth=3, markersize=5)
    axis.text(sum(axis.get_xlim()) / 2, 0.7 - _TOP, _title(ranking), ha="center", va="center", fontsize=9)
    return figure


def _draw_axis(axis: Axes, models: int) -> None:
    axis.plot([1, models], [0, 0], color="black", linewidth=1.2)
    for rank in range(1, models + 1):
        axis.plot([rank, rank], [0, -0.25], color="black", linewidth=1.2)
        axis.text(rank, -0.4, str(rank), ha="center", va="bottom", fontsize=9)


def _title(ranking: Ranking) -> str:
    return (
        f"mean rank over {len(ranking.datasets)} data sets, 1 is the best;\n"
        f"a bar joins rows between which no difference is found (Wilcoxon, Holm, level {LEVEL:g})"
    )


def _short(label: str) -> str:
    cut = label if len(label) <= _MOST_LETTERS else f"{label[: _MOST_LETTERS - 4]} ..."
    return cut.replace("$", r"\$")  # "$" would begin a formula
