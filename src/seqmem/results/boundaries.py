"""Figures and rows of the boundaries of an HM-LSTM, over a signal and above a text."""

from itertools import count
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from seqmem.errors import UserError
from seqmem.io.figures import Figure


def plot_indicators(truth: Any, prediction: Any, indicators: Any) -> Figure:
    """Draw a signal, its prediction, and a vertical line for each boundary of each layer.

    Each layer has its own band, the lowest at the bottom. A signal of several channels has an axis for each.

    Args:
        truth: (T,) or (T, C).
        prediction: of the same shape.
        indicators: (L, T), layers from the bottom up; a value above 1/2 is a boundary.

    Returns:
        The figure, not registered with pyplot; save it by ``figure.savefig("boundaries.png")``.

    Raises:
        UserError: the shapes do not match.
    """
    truth, prediction = np.asarray(truth, dtype=float), np.asarray(prediction, dtype=float)
    if truth.shape != prediction.shape or truth.ndim not in (1, 2) or not truth.size:
        raise UserError(
            f"plot_indicators: got truth of shape {truth.shape} and prediction of shape {prediction.shape}, expected both (T,) "
            "or both (T, C)"
        )
    found = _found("plot_indicators", indicators, len(truth))
    truth, prediction = truth.reshape(len(truth), -1), prediction.reshape(len(truth), -1)
    channels = truth.shape[1]
    figure = Figure(figsize=(12.0, 1.0 + 3.0 * channels), layout="constrained")
    axes = figure.subplots(channels, 1, sharex=True, squeeze=False)[:, 0]
    for channel, axis in enumerate(axes):
        axis.plot(truth[:, channel], color="black", linewidth=1, label="truth")
        axis.plot(prediction[:, channel], color="tab:red", linewidth=1, label="prediction")
        _draw_bands(axis, found)
        axis.set_ylabel("value" if channels == 1 else f"channel {channel + 1}")
    axes[-1].set_xlabel("step")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def viz_char_boundaries(truth: str, predictions: str, indicators: Any, row_len: int = 60) -> None:
    """Print a text by rows: boundaries as 0 and 1 from the top layer to the lowest, prediction, truth, an empty line.

    Args:
        truth: T characters.
        predictions: T characters.
        indicators: (L, T), layers from the bottom up; a value above 1/2 is printed as 1.
        row_len: characters of a row.

    Raises:
        UserError: the lengths do not match.
    """
    found = _of_text("viz_char_boundaries", truth, predictions, indicators, row_len)
    for start in range(0, len(truth), row_len):
        row = slice(start, start + row_len)
        for layer in found[::-1, row]:
            print("".join("01"[boundary] for boundary in layer.astype(int)))
        print(predictions[row])
        print(truth[row])
        print()


def plot_characters(truth: str, predictions: str, indicators: Any, row_len: int = 60) -> Figure:
    """Draw the rows of :func:`viz_char_boundaries`, with a box for each boundary.

    Args:
        truth: T characters.
        predictions: T characters.
        indicators: (L, T), layers from the bottom up; a value above 1/2 is a boundary.
        row_len: characters of a row.

    Returns:
        The figure, not registered with pyplot.

    Raises:
        UserError: the lengths do not match.
    """
    found = _of_text("plot_characters", truth, predictions, indicators, row_len)
    layers = [(f"layer {k + 1}", layer, color) for k, (layer, color) in enumerate(zip(found, _colors(len(found)), strict=True))]
    starts = range(0, len(truth), row_len)
    lines = len(starts) * (len(found) + 3)
    figure = Figure(figsize=(1.5 + 0.16 * row_len, 0.5 + 0.2 * lines), layout="constrained")
    axis = figure.subplots()
    place = count()
    labels = {}
    for start in starts:
        row = slice(start, start + row_len)
        for label, layer, color in reversed(layers):
            y = next(place)
            labels[y] = label
            axis.broken_barh([(step, 1) for step in np.flatnonzero(layer[row]).tolist()], (y + 0.1, 0.8), color=color)
        for label, text, color in (("prediction", predictions, "tab:red"), ("truth", truth, "black")):
            y = next(place)
            labels[y] = label
            for step, character in enumerate(text[row]):
                axis.text(step + 0.5, y + 0.5, character, color=color, family="monospace", ha="center", va="center")
        next(place)
    axis.set_xlim(0, row_len)
    axis.set_ylim(lines, 0)
    axis.set_xticks([])
    axis.set_yticks([y + 0.5 for y in labels], labels=list(labels.values()), fontsize="x-small")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return figure


def _draw_bands(axis: Axes, found: np.ndarray) -> None:
    for k, (layer, color) in enumerate(zip(found, _colors(len(found)), strict=True)):
        low, high = k / len(found), (k + 1) / len(found)
        across = axis.get_xaxis_transform()  # steps along x, fractions of the axis along y
        axis.vlines(np.flatnonzero(layer), low, high, transform=across, colors=[color], alpha=0.3, label=f"layer {k + 1}")


def _found(name: str, indicators: Any, steps: int) -> np.ndarray:
    """(L, T) bool: the boundaries of each layer."""
    indicators = np.asarray(indicators)
    if indicators.ndim != 2 or indicators.shape[1] != steps or not len(indicators):
        raise UserError(
            f"{name}: got indicators of shape {indicators.shape}, expected (L, {steps}), one number a layer and step"
        )
    return indicators > 0.5


def _of_text(name: str, truth: str, predictions: str, indicators: Any, row_len: int) -> np.ndarray:
    if len(truth) != len(predictions):
        raise UserError(
            f"{name}: got {len(truth)} characters of truth and {len(predictions)} of predictions, expected equal numbers"
        )
    if row_len < 1:
        raise UserError(f"{name}: got row_len={row_len}, expected at least 1")
    return _found(name, indicators, len(truth))


def _colors(layers: int) -> np.ndarray:
    return colormaps["viridis"](np.linspace(0, 0.8, layers))
