"""Pictures of results."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from seqmem.errors import UserError
from seqmem.files import replacing
from seqmem.results.aggregate import Trials
from seqmem.results.record import RunFolder


def plot_learning_curves(groups: Sequence[Trials], path: Path) -> bool:
    """Draw the validation metric of each epoch: the mean over trials as a line, from least to largest as a band.

    Args:
        groups: trials; those of one data set share an axis.
        path: the picture to write; its suffix names the format.

    Returns:
        Whether there was anything to draw, that is a finished trial that was trained.
    """
    drawn = [group for group in groups if any(record["epochs"] for record in group.records)]
    datasets = list(dict.fromkeys(group.dataset for group in drawn))
    if not datasets:
        return False
    figure = Figure(figsize=(6.4 * len(datasets), 4.0), layout="constrained")
    for axis, dataset in zip(figure.subplots(1, len(datasets), squeeze=False)[0], datasets, strict=True):
        for group in drawn:
            if group.dataset == dataset:
                curves = _validation_curves(group.folders, f"val/{group.metric}")
                (line,) = axis.plot(
                    curves.index + 1, curves.mean(axis=1), ".-", label=f"{group.model} (n={len(group.folders)})"
                )
                axis.fill_between(curves.index + 1, curves.min(axis=1), curves.max(axis=1), alpha=0.2, color=line.get_color())
                axis.set_ylabel(f"validation {group.metric}")
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_title(dataset)
        axis.grid(alpha=0.3)
        axis.legend()
    save_figure(figure, path)
    return True


def check_picture(path: Path) -> None:
    """Check, before there is one, that a picture can be written to ``path``.

    Raises:
        UserError: its folder does not exist, or no format has this suffix.
    """
    formats = FigureCanvasAgg.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise UserError(f"picture: got {path}, wanted a name that ends in one of: .{', .'.join(sorted(formats))}")
    if not path.parent.is_dir():
        raise UserError(f"picture: got {path}, but there is no folder {path.parent}")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture whole or not at all; the suffix of ``path`` names the format.

    Raises:
        UserError: it cannot be written.
    """
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=120)


def _validation_curves(folders: Sequence[RunFolder], column: str) -> pd.DataFrame:
    return pd.concat([folder.read_metrics().set_index("epoch")[column] for folder in folders], axis=1)
