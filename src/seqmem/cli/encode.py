"""``python -m seqmem.encode``: encode each series of a file in a few numbers; ``python -m seqmem.decode`` decodes them."""

import argparse
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqmem.compat.quick_train import quick_train
from seqmem.errors import UserError
from seqmem.io.files import make_folder, refuse_existing
from seqmem.io.series_files import LABEL, read_channels, read_series, write_rows
from seqmem.io.terminal import Parser, at_least
from seqmem.models import autoencoder_file
from seqmem.models.standardization import StandardizedDecoder, StandardizedEncoder

DESCRIPTION = """\
Learn an autoencoder of the series in a file, and write the encoding of each.

  .csv   with names in the first line: a row is a step of the series that column "series" names, other columns are channels;
         without names: a row is a series of one channel, its numbers separated by commas
  .npy   (n, T), (n, T, C), or videos (n, T, H, W)
  .npz   an array (T,), (T, C) or (T, H, W) for each series, of any length

The folder gets encodings.csv and autoencoder.zip. A row of the first has a series' name, length, mean squared error of its
reconstruction, and encoding. A series with a large error differs from the others. The second encodes other files (--model)
and decodes: seqmem decode FOLDER/encodings.csv. No existing file is overwritten.
"""

LEARNING = ("encoding_size", "hidden_sizes", "linear", "epochs", "lr", "seed", "verbose")
"""Options of learning, which are refused with ``--model``."""

Autoencoder = tuple[str, StandardizedEncoder, StandardizedDecoder]
"""The name of an architecture, and its trained halves."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    _parser().run(run, arguments)


def run(given: argparse.Namespace) -> None:
    """Read the series, learn an autoencoder unless one is given, and write the encodings.

    Raises:
        UserError: a file cannot be read or written, exists already, or the series do not fit the autoencoder; or an option of
            learning is given with an autoencoder.
    """
    parser = _parser()
    useless = [name for name in LEARNING if getattr(given, name) != parser.get_default(name)]
    if given.model is not None and useless:
        raise UserError(
            f"--{useless[0].replace('_', '-')}: got it with --model {given.model}, which is trained already; leave it out"
        )
    names, arrays = read_series(given.file)
    series = [torch.from_numpy(array) for array in arrays]
    channels = read_channels(given.file)
    if given.model is not None:
        series = _in_order_of_training(given, series, channels)
    folder = make_folder(given.output)
    files = ["encodings.csv"] if given.model else ["encodings.csv", "autoencoder.zip"]
    for name in files:
        refuse_existing(folder / name)
    kind, encoder, decoder = _load(given, series) if given.model else _learn(given, series)
    inputs = [each[:, 0] for each in series] if kind == "LINEAR_AE" else series
    rows: list[list[str]] = []
    squared = 0.0
    with torch.no_grad():
        for name, each in zip(names, inputs, strict=True):
            encoding = encoder(each)
            error = (decoder(encoding).double() - each).square().mean().item()
            if not math.isfinite(error):
                raise UserError(
                    f"{given.file}, series {name}: got a reconstruction that is not finite, since values of size "
                    f"{each.abs().max():.3g} are near the largest of float32; divide the values by a constant"
                )
            squared += error * each.numel()
            rows.append([name, str(len(each)), repr(error), *map(repr, encoding.tolist())])
    numbers = len(rows[0]) - 3
    table = [[LABEL, "length", "error", *(f"z{k}" for k in range(numbers))], *rows]
    with _saved(given, series, folder, encoder, decoder, channels):
        write_rows(folder / "encodings.csv", table)
    values = torch.cat([each.flatten() for each in series]).double()
    print(
        f"{len(rows)} series of {_steps(series)} steps of shape {tuple(series[0].shape[1:])} into {numbers} numbers each by "
        f"{kind}, variance {values.var(correction=0).item():.4g}, mean squared error {squared / len(values):.4g}; "
        f"{' and '.join(files)} in {folder}"
    )


@contextmanager
def _saved(
    given: argparse.Namespace,
    series: Sequence[Tensor],
    folder: Path,
    encoder: StandardizedEncoder,
    decoder: StandardizedDecoder,
    channels: Sequence[str],
) -> Iterator[None]:
    """Save an autoencoder that was learned, for good if the block succeeds."""
    if given.model:
        yield
        return
    path = folder / "autoencoder.zip"
    autoencoder_file.save(path, *_architecture(given, series), encoder, decoder, channels)
    try:
        yield
    except BaseException:
        path.unlink()
        raise


def _learn(given: argparse.Namespace, series: Sequence[Tensor]) -> Autoencoder:
    """Train the architecture that fits the series."""
    kind, arguments = _architecture(given, series)
    if kind == "LINEAR_AE":
        series = [_single_channel(each, "--linear") for each in series]
    sizes = {key: value for key, value in arguments.items() if key not in ("input_dim", "input_dims", "encoding_dim")}
    encoder, decoder, _, _ = quick_train(
        autoencoder_file.ARCHITECTURES[kind],
        series,
        given.encoding_size,
        verbose=given.verbose,
        lr=given.lr,
        epochs=given.epochs,
        device="cpu",
        seed=given.seed,
        **sizes,
    )
    assert isinstance(encoder, StandardizedEncoder)
    assert isinstance(decoder, StandardizedDecoder)
    return kind, encoder, decoder


def _load(given: argparse.Namespace, series: Sequence[Tensor]) -> Autoencoder:
    """Load the given autoencoder, and check that the series have as many channels as it takes."""
    kind, encoder, decoder = autoencoder_file.load(given.model)
    if kind == "LINEAR_AE":
        for each in series:
            _single_channel(each, given.model)
    return kind, encoder, decoder


def _in_order_of_training(given: argparse.Namespace, series: list[Tensor], own: Sequence[str]) -> list[Tensor]:
    """Return series with the channels in the order in which an autoencoder was trained on them, if all have names."""
    trained = autoencoder_file.channels_of(given.model)
    if not own or not trained or own == trained:
        return series
    if sorted(own) != sorted(trained):
        raise UserError(
            f"{given.file}: got the channels {', '.join(own)}, expected {', '.join(trained)} as those of {given.model}, "
            "in any order"
        )
    return [each[:, [own.index(name) for name in trained]] for each in series]


def _steps(series: Sequence[Tensor]) -> str:
    shortest, longest = (pick(len(each) for each in series) for pick in (min, max))
    return f"{shortest}" if shortest == longest else f"{shortest} to {longest}"


def _single_channel(each: Tensor, owner: Any) -> Tensor:
    if each.shape[1:] != (1,):
        raise UserError(f"{owner}: got series with steps of shape {tuple(each.shape[1:])}, expected a single channel")
    return each[:, 0]


def _architecture(given: argparse.Namespace, series: Sequence[Tensor]) -> tuple[str, dict[str, Any]]:
    """The name of the architecture that fits the series, and its arguments."""
    step = list(series[0].shape[1:])
    common = {"encoding_dim": given.encoding_size}
    if given.linear:
        return "LINEAR_AE", {"input_dim": len(series[0]), **common, "h_dims": given.hidden_sizes}
    if len(step) == 1:
        return "LSTM_AE", {"input_dim": step[0], **common, "h_dims": given.hidden_sizes}
    return "CONV_LSTM_AE", {"input_dims": step, **common, "h_conv_channels": [8], "h_lstm_channels": given.hidden_sizes}


def _parser() -> Parser:
    parser = Parser("python -m seqmem.encode", DESCRIPTION)
    parser.add_argument("file", type=Path, metavar="FILE", help="series: .csv, .npy or .npz")
    parser.add_argument(
        "--output", type=Path, default=Path("outputs", "encode"), metavar="DIR", help="(default outputs/encode)"
    )
    parser.add_argument("--model", type=Path, metavar="FILE", help="an autoencoder.zip to encode with, instead of learning one")
    learning = parser.add_argument_group("learning")
    learning.add_argument(
        "--encoding-size", type=at_least(1), default=16, metavar="E", help="numbers for each series (default 16)"
    )
    learning.add_argument(
        "--hidden-sizes", type=at_least(1), nargs="*", default=[64], metavar="H", help="layers before the encoding (default 64)"
    )
    learning.add_argument("--linear", action="store_true", help="a LINEAR_AE, for series of one length and one channel")
    learning.add_argument("--epochs", type=at_least(1), default=100, metavar="N", help="passes over the series (default 100)")
    learning.add_argument("--lr", type=float, default=3e-3, help="learning rate (default 0.003)")
    learning.add_argument("--seed", type=at_least(0), default=0, metavar="S", help="of weights and order (default 0)")
    learning.add_argument("--verbose", action="store_true", help="print the loss after each epoch")
    return parser
