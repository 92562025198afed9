"""Block diagrams of networks whose structure is the picture: the stack and the autoencoders."""

from collections.abc import Callable, Sequence
from functools import partial

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

_ROWS: dict[str, list[list[str]]] = {
    "stack": [
        ["inputs\n(B, T, C)", "encoder\nC to D", "norm", "mixer\nD to H", "feed\nforward", "dropout\n+ skip", "pooling", "head"]
    ],
    "lmu_plain_lstm": [
        ["inputs\n(B, T, C)", "LMU\nC to 40", "LSTM\n40 to 25", "LMU\n25 to 40", "LSTM\n40 to 25", "head\n25 to K"]
    ],
    "lstm_ae": [
        ["series\n(T, C)", "LSTM\nC to h", "activation", "LSTM\nh to E", "last step,\ntanh", "encoding\n(E,)"],
        ["series\n(T, C)", "linear\nh to C", "LSTM\nh to h", "activation", "LSTM\nE to h", "repeated\nT times"],
    ],
    "linear_ae": [
        ["values\n(T C,)", "linear\nT C to h", "activation", "linear\nh to E", "tanh", "encoding\n(E,)"],
        ["", "", "values\n(T C,)", "linear\nh to T C", "activation", "linear\nE to h"],
    ],
    "conv_lstm_ae": [
        ["frames\n(T, H, W)", "conv,\nReLU", "linear\nto V", "LSTMs", "last step,\ntanh", "encoding\n(E,)"],
        ["frames\n(T, H, W)", "transposed\nconv", "linear", "linear\nto V", "LSTMs", "repeated\nT times"],
    ],
    "seq2seq_ae": [
        ["inputs\n(T, C)", "GRU 50", "GRU 30", "last states\n(encoding)"],
        ["outputs\n(T', K), end", "GRU 50", "GRU 30", "start of the\ndecoder"],
    ],
}
_LOOPS = {
    "stack": (2, 5, "num_layers blocks"),
    "lmu_plain_lstm": (1, 4, "num_layers layers, the cells in turn"),
    "seq2seq_ae": (0, 2, "each output is the next input"),
}
"""First and last box of a bracket, and its text, below the last row."""

_DATA = ("inputs", "outputs", "series", "values", "frames", "encoding", "last states")
"""Beginnings of the texts of boxes that are data; the others are operations."""

_ARROW = {"arrowstyle": "->", "color": "0.3", "shrinkA": 0, "shrinkB": 0}


def draw(figure: Figure, name: str) -> None:
    """Draw each row of boxes, the second one from right to left."""
    rows = _ROWS[name]
    axes = figure.subplots()
    axes.set_axis_off()
    width = max(len(row) for row in rows)
    axes.set(xlim=(-0.1, width), ylim=(-len(rows) - 0.35, 0.2))
    for level, row in enumerate(rows):
        _boxes(axes, row, -level - 0.85, backwards=level == 1)
    if len(rows) == 2:
        axes.annotate("", (width - 0.55, -1.2), (width - 0.55, -0.87), arrowprops={"arrowstyle": "->", "color": "0.3"})
    if name in _LOOPS:
        first, end, text = _LOOPS[name]
        low = -len(rows)
        axes.plot([first, first, end + 0.9, end + 0.9], [low, low - 0.1, low - 0.1, low], color="0.4", linewidth=1)
        axes.text((first + end + 0.9) / 2, low - 0.3, text, ha="center", fontsize=8)


def _boxes(axes, row: Sequence[str], low: float, backwards: bool) -> None:
    for k, text in enumerate(row):
        if not text:
            continue
        colour = "#e3ecf5" if text.startswith(_DATA) else "white"
        axes.add_patch(FancyBboxPatch((k, low), 0.9, 0.65, "round,pad=0,rounding_size=0.08", fc=colour, ec="0.4"))
        axes.text(k + 0.45, low + 0.32, text, ha="center", va="center", fontsize=7.5)
        if k + 1 < len(row):
            ends = [(k + 1.0, low + 0.32), (k + 0.9, low + 0.32)]
            axes.annotate("", *(ends[::-1] if backwards else ends), arrowprops=_ARROW)


PICTURES: dict[str, Callable[[Figure], None]] = {name: partial(draw, name=name) for name in _ROWS}
