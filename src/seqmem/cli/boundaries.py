"""``python -m seqmem.boundaries``: see where a trained HM-LSTM finds boundaries.

  python -m seqmem.boundaries CHECKPOINT [KEY=VALUE ...]

CHECKPOINT is a file that train.py wrote, or the folder of a finished trial for its best one. The metric and each layer's
boundary rate, the fraction of steps at which it finds one, are printed; prediction, truth and boundaries of one sequence are
drawn, and those of a text printed, too.

Keys of this command
  split=test        test or validation
  sequence=0        which sequence of it is shown; of a text cut into chunks, which chunk it is shown from
  characters=600    how much of a text is shown; at most 6000
  picture=FILE      where the picture goes; without, into the trial's folder

Any other key changes the trial's config, but for the model: dataset=NAME or dataset.KEY=VALUE reads other data,
train.eval_batch_size=32 reads a text in 32 pieces side by side, train.limit_test_batches=100 reads less.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt

from seqmem.cli import commandline, messages


@dataclass(frozen=True)
class Keys:
    """The keys of this command, as above."""

    split: Literal["test", "validation"] = "test"
    sequence: NonNegativeInt = 0
    characters: Annotated[int, Field(gt=0, le=6000)] = 600  # what a picture can hold
    picture: str | None = None


def main() -> None:
    """Print and draw what the command line asks for."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(__doc__)
        return
    with messages.one_line_errors():
        checkpoint, config, keys = commandline.of_checkpoint(sys.argv[1:], Keys)

        from seqmem import datasets, models
        from seqmem.data.text import decode
        from seqmem.errors import UserError
        from seqmem.results.boundaries import plot_characters, plot_indicators, viz_char_boundaries
        from seqmem.results.plots import check_picture, save_figure
        from seqmem.training.checkpoints.checkpoints import restore
        from seqmem.training.config import model_arguments
        from seqmem.training.evaluation.evaluation import evaluate
        from seqmem.training.evaluation.excerpt import Excerpt

        path = Path(keys.picture) if keys.picture else checkpoint.folder / f"boundaries_{keys.split}.png"
        check_picture(path)
        data = datasets.load(config["dataset"])
        module = restore(checkpoint, config["train"], data.spec)
        label, task = models.label(model_arguments(config)), module.task
        if not module.model.segments:
            raise UserError(f"{checkpoint.path} is a checkpoint of {label}, which finds no boundaries; model=hmlstm does")
        module.boundary_steps = math.inf
        excerpt = Excerpt(data.spec, keys.sequence, keys.characters if task.excerpt == "text" else math.inf)
        measured = evaluate(module, data, config, keys.split, [excerpt] if task.excerpt else [])

        prefix = "val" if keys.split == "validation" else "test"
        irreducible = "" if task.irreducible_error is None else f" ({task.irreducible_error:.4f} is irreducible)"
        print(f"{label} on {data.spec.name}, epoch {checkpoint.epoch + 1}: ", end="")
        print(f"{keys.split} {task.metric} {measured[f'{prefix}/{task.metric}']:.4f}{irreducible}")
        rates = [rate for name, rate in measured.items() if name.startswith(f"{prefix}/boundary_rate_")]
        print(f"boundary rates: {', '.join(f'layer {k + 1} {rate:.4f}' for k, rate in enumerate(rates))}")
        if task.excerpt is None:
            print(f"no picture: {data.spec.name} does not ask for a value or a character at every step")
            return
        targets, outputs, boundaries = (part.numpy() for part in excerpt.parts())
        if task.excerpt == "text":
            shown = decode(targets), decode(outputs.argmax(-1)), boundaries.T
            print()
            viz_char_boundaries(*shown)
            figure = plot_characters(*shown)
        else:
            figure = plot_indicators(targets, outputs, boundaries.T)
        save_figure(figure, path)
        print(f"the picture is {path}")
