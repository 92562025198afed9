"""``python -m seqmem.memory``: measure what the state of a trained model holds of its past inputs."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from seqmem.cli import finished_trial, messages
from seqmem.errors import UserError
from seqmem.io import interrupts

if TYPE_CHECKING:
    from seqmem.diagnostics import Sample
    from seqmem.models import SequenceModel
    from seqmem.results.memory import Measured, Reconstructed
    from seqmem.training.checkpoints.files import Checkpoint

HELP = """\
Measure what the state of a trained model holds of its past inputs, and of an untrained one.

  seqmem memory CHECKPOINT [KEY=VALUE ...]

CHECKPOINT is a file that seqmem train wrote, or the folder of a finished trial for its best checkpoint. The model is one with a
carried state: recurrent cells, or a stack of causal layers. It reads sequences of a split from the initial state. For the state
h_T after the last step T of each, and the inputs x_(T-k) at each lag k, the command prints, draws and writes

  gradient          the norm of dh_T/dx_(T-k), mean over sequences, and the effective memory length: the least lag beyond which
                    at most 1 % of the norm, summed over all lags, is left
  read-out          held-out R^2 of a linear map (ridge regression) from h_T to x_(T-k), fitted to one half of the sequences
                    and measured on the other; tokens are one-hot vectors

both for the trained weights and for the initial ones, which follow from the trial's seed. For HiPPO cells with a closed form
(legs, legt, lmu, lagt ...) R^2 of the input that their coefficients, of the inputs themselves, reconstruct is beside them.
The state is the whole carried one as a vector; a complex number counts as two numbers.

Keys of this command
  split=test        test, validation or train
  layer=all         all for the states of all layers as one vector, each for every layer, or a layer's number from 1
  lags=K            largest lag; by default the largest that half of the sequences have. Shorter sequences are left out.
  left=0.01         part of the summed gradient that is left beyond the effective memory length
  sequences=1000    sequences for the read-out, drawn at random from the split
  gradient_sequences=64
                    how many of them to take gradients of
  probes=32         random orthonormal directions of a state with more numbers, from which its gradient's norm is estimated;
                    0 for the exact norm, by one backward pass for each number of the state
  csv=FILE          where to write all lags; memory_SPLIT.csv in the trial's folder by default, with a suffix for other data
  picture=FILE      where to write the picture; memory_SPLIT.png in the trial's folder by default, with the same suffix

Any other key changes the trial's config, except its model: dataset.length=1000 takes longer sequences,
dataset.test_samples=5000 draws more, train.eval_batch_size=8 needs less memory.
"""


@dataclass(frozen=True)
class Keys:
    """The keys of this command, as in its help."""

    split: Literal["test", "validation", "train"] = "test"
    layer: Literal["all", "each"] | PositiveInt = "all"
    lags: NonNegativeInt | None = None
    left: Annotated[float, Field(gt=0, lt=1)] = 0.01
    sequences: Annotated[int, Field(ge=4)] = 1000
    gradient_sequences: PositiveInt = 64
    probes: NonNegativeInt = 32
    csv: str | None = None
    picture: str | None = None


def main() -> None:
    """Measure, print, draw and write, as the command line says."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(HELP)
        return
    with messages.one_line_errors(), interrupts.unwinding():
        run(*finished_trial.read(sys.argv[1:], Keys))


def run(checkpoint: "Checkpoint", config: Mapping[str, Any], keys: Keys) -> None:
    """Measure the model of a checkpoint, and the same model with its initial weights.

    Args:
        checkpoint: of a finished trial.
        config: the trial's config with the changes of the command line.
        keys: the command's own keys.

    Raises:
        UserError: the model carries no state, the data do not fit it, or a file cannot be read or written.
    """
    from seqmem import models
    from seqmem.diagnostics import Sample, carried_layers, drawn
    from seqmem.io.files import write_text
    from seqmem.results.evaluations import changes
    from seqmem.results.memory import memory_csv, memory_tables, plot_memory
    from seqmem.results.plots import save_figure
    from seqmem.training.checkpoints.files import initial, restore
    from seqmem.training.config import model_arguments

    data_changes = {key: new for key, (_, new) in changes(checkpoint.config, config).items() if key.startswith("dataset.")}
    csv, picture = _checked_paths(checkpoint.folder / f"memory_{keys.split}{finished_trial.file_suffix(data_changes)}", keys)
    data = finished_trial.load_data(checkpoint, config)
    train = {**config["train"], "compile": False}
    trained = restore(checkpoint, train, data.spec).model
    label, layers = models.label(model_arguments(config)), carried_layers(trained)
    if not layers:
        raise UserError(
            f"{checkpoint.path}: got a checkpoint of {label}, which carries no state from step to step, expected recurrent "
            "cells or causal layers"
        )
    size = train["eval_batch_size"] or train["batch_size"]
    sample = Sample.of(drawn(data, keys.split, keys.sequences), keys.lags, keys.gradient_sequences, size)
    both = {"trained": trained, "untrained": initial(checkpoint, train, trained.spec).model}
    chosen = {"all": [None], "each": [*range(1, layers + 1)]}.get(str(keys.layer), [keys.layer])
    states, closed = _measured(both, sample, chosen, keys, config["runner"].get("accelerator") != "cpu")

    title = f"{label} on {data.spec.name}, epoch {checkpoint.epoch + 1}, {keys.split} split"
    print(f"{title}: {len(sample.fitted)} sequences of at least {sample.longest + 1:,} steps\n")
    _print(memory_tables(states, closed, sample), states, sample, keys)
    write_text(csv, memory_csv(states, closed, sample))
    save_figure(plot_memory(states, closed, sample, title), picture)
    print(f"all lags: {csv}\npicture: {picture}")


def _measured(
    both: Mapping[str, "SequenceModel"], sample: "Sample", layers: Sequence[Any], keys: Keys, gpu: bool
) -> tuple[list["Measured"], list["Reconstructed"]]:
    """Measure trained and untrained weights, and the closed forms of their cells, for each of the layers."""
    import torch
    from rich.console import Console

    from seqmem.diagnostics import closed_forms, measure
    from seqmem.results.memory import Measured, Reconstructed

    device = torch.device("cuda" if gpu and torch.cuda.is_available() else "cpu")
    states = []
    for layer, (weights, model) in product(layers, both.items()):
        with Console(stderr=True).status(f"{weights}, {'all layers' if layer is None else f'layer {layer}'}"):
            curves = measure(model.to(device), sample, layer, keys.probes or None, keys.left)
        states.append(Measured(weights, str(layer or "all"), curves))
    closed = [
        Reconstructed(memory, str(layer or "all"), r2)
        for layer in layers
        for memory, r2 in closed_forms(both["trained"], sample, layer)
    ]
    return states, closed


def _print(tables: Sequence[str], states: Sequence["Measured"], sample: "Sample", keys: Keys) -> None:
    """Print the tables with what their numbers are, and how exact."""
    fitted = int(sample.fitted.sum())
    lengths, norms, r2 = tables
    print(lengths)
    print(
        f"effective memory length: the least lag beyond which at most {keys.left:.3g} of the norm, summed over lags 0 to "
        f"{sample.longest:,}, is left\n"
    )
    count = sum(map(len, sample.gradient))
    over = f"mean over {count} sequences" if count > 1 else "of one sequence"
    print(f"norm of the gradient of the last state by the input at a lag, {over}")
    print(f"{norms}{_exactness(states, keys.probes, count)}\n")
    print(f"held-out R^2 of a linear read-out of the input at a lag, fitted to {fitted} sequences")
    print(r2, end="")
    largest = max(state.curves.size for state in states)
    if largest >= fitted:
        print(f"a lower bound: {fitted} sequences fit a map of {largest:,} numbers, and more would fit a better one")
    print()


def _exactness(states: Sequence["Measured"], probes: int, sequences: int) -> str:
    """Return the line of the largest standard error of the means, which includes that of estimated norms."""
    sizes = [state.curves.size for state in states if not state.curves.is_exact]
    directions = f"; norms are estimated from {probes} random directions of {max(sizes):,}" if sizes else "; norms are exact"
    if sequences < 2:
        return f"no standard error: got {sequences} sequence, expected at least 2 (gradient_sequences=2){directions}"
    ratios = []
    for curves in (state.curves for state in states):
        reached = slice((curves.effective_length or 0) + 1)
        ratios += (curves.errors / curves.norms)[reached].nan_to_num().tolist()
    return f"standard error up to the effective length: at most {100 * max(ratios):.2g} %{directions}"


def _checked_paths(default: Path, keys: Keys) -> tuple[Path, Path]:
    """Return the paths of the CSV file and of the picture, which can be written as far as can be known before.

    Args:
        default: path of both without their endings.
        keys: the command's own keys.
    """
    from seqmem.results.plots import check_picture

    csv = Path(keys.csv) if keys.csv else default.with_suffix(".csv")
    if csv.suffix.lower() != ".csv":
        raise UserError(f"csv: got {csv}, expected a name that ends in .csv")
    if not csv.parent.is_dir():
        raise UserError(f"csv: got {csv}, but there is no folder {csv.parent}")
    picture = Path(keys.picture) if keys.picture else default.with_suffix(".png")
    check_picture(picture)
    return csv, picture
