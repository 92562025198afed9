"""Figures of an autoencoder: reconstructions, and a projection of its encodings."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from seqmem.data.batch import Batch
from seqmem.io.files import replacing

SHOWN = 6
"""Largest number of sequences, of channels of a series, and of frames of a video in a figure."""


def plot_reconstructions(batch: Batch, outputs: Tensor, frame: tuple[int, ...] | None, path: Path) -> None:
    """Draw the first sequences of a batch with their reconstructions.

    Args:
        batch: targets (B, T, D), and their lengths; missing ones are not drawn.
        outputs: (B, T, D).
        frame: shape (H, W) or (D, H, W) of a step; of the latter the middle layer is drawn; None for series.
        path: the file to write.

    Raises:
        UserError: the file cannot be written.
    """
    count = min(SHOWN, len(batch))
    lengths = batch.output_lengths
    steps = [batch.targets.shape[1] if lengths is None else int(lengths[row]) for row in range(count)]
    targets = batch.targets_or_nan
    pairs = [(targets[row, :n].cpu().numpy(), outputs[row, :n].cpu().numpy()) for row, n in enumerate(steps)]
    figure = _series(pairs) if frame is None else _frames(pairs, frame)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=120)


def plot_encodings(encodings: Tensor, labels: Tensor | None, path: Path, names: Sequence[str] | None = None) -> None:
    """Draw encodings in the plane of their two largest principal components.

    Args:
        encodings: (n, E).
        labels: (n,) classes, drawn as colours; None if they are not known.
        path: the file to write.
        names: name of each class, by its number; None for the number.

    Raises:
        UserError: the file cannot be written.
    """
    centred = encodings.double().cpu() - encodings.double().cpu().mean(0)
    _, deviations, axes = torch.linalg.svd(centred, full_matrices=False)
    plane = torch.nn.functional.pad(centred @ axes[:2].T, (0, 2))[:, :2].numpy()
    fraction = deviations[:2].square().sum() / deviations.square().sum().clamp(min=1e-300)
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axis = figure.subplots()
    if labels is None:
        axis.scatter(plane[:, 0], plane[:, 1], s=12)
    else:
        colours = np.unique(labels.cpu().numpy(), return_inverse=True)[1]
        axis.scatter(plane[:, 0], plane[:, 1], s=12, c=colours, cmap="tab20")
        for label in labels.unique().tolist():
            middle = plane[labels.cpu().numpy() == label].mean(0)
            text = names[label].replace("$", r"\$") if names else str(label)
            axis.annotate(text, middle, ha="center", va="center", bbox={"boxstyle": "round", "fc": "white", "alpha": 0.7})
    axis.set_title(f"encodings: {len(plane)} of {encodings.shape[1]} numbers, {fraction:.0%} of their variance shown")
    axis.set_xlabel("first principal component")
    axis.set_ylabel("second principal component")
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=120)


def _series(pairs: list[tuple[np.ndarray, np.ndarray]]) -> Figure:
    figure = Figure(figsize=(9.6, 1.6 * len(pairs)), layout="constrained")
    for axis, (target, output) in zip(figure.subplots(len(pairs), 1, squeeze=False)[:, 0], pairs, strict=True):
        for channel in range(min(SHOWN, target.shape[1])):
            (line,) = axis.plot(target[:, channel], lw=1)
            axis.plot(output[:, channel], "--", lw=1.5, color=line.get_color())
        axis.grid(alpha=0.3)
    figure.suptitle("series (lines) and their reconstructions (dashed)")
    return figure


def _frames(pairs: list[tuple[np.ndarray, np.ndarray]], frame: tuple[int, ...]) -> Figure:
    columns = min(SHOWN, max(len(target) for target, _ in pairs))
    figure = Figure(figsize=(1.2 * columns + 0.4, 2.4 * len(pairs) + 0.4), layout="constrained")
    axes = figure.subplots(2 * len(pairs), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    least, most = (function([function(target) for target, _ in pairs]) for function in (np.nanmin, np.nanmax))
    for row, values in enumerate(values for pair in pairs for values in pair):
        chosen = np.linspace(0, len(values) - 1, min(columns, len(values))).round().astype(int)
        for column, step in enumerate(chosen):
            image = values[step].reshape(frame)
            axes[row, column].imshow(image if image.ndim == 2 else image[len(image) // 2], cmap="gray", vmin=least, vmax=most)
    figure.suptitle("frames (upper row of each pair) and their reconstructions (lower row)")
    return figure
