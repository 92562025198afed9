"""``python -m seqmem.boundaries``: print and draw the boundaries that a trained HM-LSTM finds."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeInt

from seqmem.cli import finished_trial, messages
from seqmem.errors import UserError
from seqmem.io import interrupts

if TYPE_CHECKING:
    from seqmem.training.checkpoints.files import Checkpoint
    from seqmem.training.evaluation.excerpt import Excerpt

HELP = """\
Print and draw the boundaries that a trained HM-LSTM finds.

  seqmem boundaries CHECKPOINT [KEY=VALUE ...]

CHECKPOINT is a file that seqmem train wrote, or the folder of a finished trial for its best checkpoint. The command prints the
metric and each layer's boundary rate, the fraction of steps at which it finds a boundary. It draws prediction, target and
boundaries of one sequence, and also prints those of a text.

Keys of this command
  split=test        test or validation
  sequence=0        number of the sequence to show; for a text cut into chunks, of the chunk to start from
  characters=600    how many characters of a text to show, at most 6000
  picture=FILE      where to write the picture; the trial's folder by default

Any other key changes the trial's config, except its model: dataset=NAME or dataset.KEY=VALUE takes other data,
train.eval_batch_size=32 reads a text as 32 parallel pieces, train.limit_test_batches=100 reads less.
"""


@dataclass(frozen=True)
class Keys:
    """The keys of this command, as in its help."""

    split: Literal["test", "validation"] = "test"
    sequence: NonNegativeInt = 0
    characters: Annotated[int, Field(gt=0, le=6000)] = 600  # what a picture can hold
    picture: str | None = None


def main() -> None:
    """Print and draw, as the command line says."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(HELP)
        return
    with messages.one_line_errors(), interrupts.unwinding():
        run(*finished_trial.read(sys.argv[1:], Keys))


def run(checkpoint: "Checkpoint", config: Mapping[str, Any], keys: Keys) -> None:
    """Evaluate a checkpoint; print the boundary rates, and draw one sequence's boundaries.

    Args:
        checkpoint: of a finished trial.
        config: the trial's config with the changes of the command line.
        keys: the command's own keys.

    Raises:
        UserError: the model has no boundaries, the data do not fit it, or a file cannot be read or written.
    """
    from seqmem import models
    from seqmem.results.plots import check_picture
    from seqmem.training.checkpoints.files import restore
    from seqmem.training.config import model_arguments
    from seqmem.training.evaluation.excerpt import Excerpt
    from seqmem.training.evaluation.measure import evaluate

    path = Path(keys.picture) if keys.picture else checkpoint.folder / f"boundaries_{keys.split}.png"
    check_picture(path)
    data = finished_trial.load_data(checkpoint, config)
    module = restore(checkpoint, config["train"], data.spec)
    label, task = models.label(model_arguments(config)), module.task
    if not module.model.segments:
        raise UserError(f"{checkpoint.path}: got a checkpoint of {label}, expected a model with boundaries (model=hmlstm)")
    module.boundary_steps = math.inf
    excerpt = Excerpt(data.spec, keys.sequence, keys.characters if task.excerpt == "text" else math.inf)
    measured = evaluate(module, data, config, keys.split, [excerpt] if task.excerpt else [])

    print(f"{label} on {data.spec.name}, epoch {checkpoint.epoch + 1}: ", end="")
    _print_measured(measured, keys.split, task.metric, task.irreducible_error)
    if task.excerpt:
        _show(excerpt, task.excerpt == "text", path)
    else:
        print(f"no picture: {data.spec.name} has no value or character to predict at every step")


def _print_measured(measured: Mapping[str, float], split: str, metric: str, irreducible_error: float | None) -> None:
    prefix = "val" if split == "validation" else "test"
    irreducible = "" if irreducible_error is None else f" ({irreducible_error:.4f} is irreducible)"
    print(f"{split} {metric} {measured[f'{prefix}/{metric}']:.4f}{irreducible}")
    rates = [rate for name, rate in measured.items() if name.startswith(f"{prefix}/boundary_rate_")]
    print(f"boundary rates: {', '.join(f'layer {k + 1} {rate:.4f}' for k, rate in enumerate(rates))}")


def _show(excerpt: "Excerpt", text: bool, path: Path) -> None:
    """Draw one sequence's predictions and boundaries; print those of a text, too."""
    from seqmem.data.text import decode
    from seqmem.results.boundaries import plot_characters, plot_indicators, viz_char_boundaries
    from seqmem.results.plots import save_figure

    targets, outputs, boundaries = (part.numpy() for part in excerpt.parts())
    if text:
        shown = decode(targets), decode(outputs.argmax(-1)), boundaries.T
        print()
        viz_char_boundaries(*shown)
        figure = plot_characters(*shown)
    else:
        figure = plot_indicators(targets, outputs, boundaries.T)
    save_figure(figure, path)
    print(f"picture: {path}")
