"""``python -m seqmem.encode``: series in a file, each into a few numbers; ``python -m seqmem.decode`` goes back."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqmem.compat.quick_train import quick_train
from seqmem.errors import UserError
from seqmem.io.files import make_folder, refuse_existing
from seqmem.io.series_files import LABEL, read_series, write_rows
from seqmem.io.terminal import Parser, at_least
from seqmem.models import autoencoder_file
from seqmem.models.standardization import StandardizedDecoder, StandardizedEncoder

DESCRIPTION = """\
Learn an autoencoder of the series in a file, and write the encoding of each.

  .csv   with names in the first line: a row is a step of the series that column "series" names, other columns are channels;
         of numbers alone: a row is a series of one channel
  .npy   (n, T), (n, T, C), or videos (n, T, H, W)
  .npz   an array (T,), (T, C) or (T, H, W) for each series, of any length

The folder gets encodings.csv (name, length, mean squared error of the reconstruction, numbers of the encoding: a series with
a large error does not fit with the others) and autoencoder.zip, which encodes other files (--model) and decodes:
python -m seqmem.decode FOLDER/encodings.csv. Neither is written over one that is there.
"""

LEARNING = ("encoding_size", "hidden_sizes", "linear", "epochs", "lr", "seed", "verbose")
"""Arguments that have no say where there is a model."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    parser = _parser()
    given = parser.parse_args(arguments)
    useless = [name for name in LEARNING if getattr(given, name) != parser.get_default(name)]
    if given.model is not None and useless:
        parser.error(f"--{useless[0].replace('_', '-')} is for learning, and --model {given.model} is learned already")
    with parser.one_line_errors():
        run(given)


def run(given: argparse.Namespace) -> None:
    """Read, learn unless there is a model, and write."""
    names, arrays = read_series(given.file)
    series = [torch.from_numpy(array) for array in arrays]
    folder = make_folder(given.output)
    written = ["encodings.csv"] if given.model else ["encodings.csv", "autoencoder.zip"]
    for name in written:
        refuse_existing(folder / name)
    if given.model is None:
        kind, arguments = _architecture(given, series)
        flat = [_single_channel(each, "--linear") for each in series] if kind == "LINEAR_AE" else series
        torch.manual_seed(given.seed)
        sizes = {key: value for key, value in arguments.items() if key not in ("input_dim", "input_dims", "encoding_dim")}
        encoder, decoder, _, _ = quick_train(
            autoencoder_file.ARCHITECTURES[kind],
            flat,
            given.encoding_size,
            verbose=given.verbose,
            lr=given.lr,
            epochs=given.epochs,
            device="cpu",
            **sizes,
        )
        assert isinstance(encoder, StandardizedEncoder)
        assert isinstance(decoder, StandardizedDecoder)
        autoencoder_file.save(folder / "autoencoder.zip", kind, arguments, encoder, decoder)
    else:
        kind, encoder, decoder = autoencoder_file.load(given.model)
        flat = [_single_channel(each, given.model) for each in series] if kind == "LINEAR_AE" else series
    rows, errors = [], []
    with torch.no_grad():
        for name, each in zip(names, flat, strict=True):
            encoding = encoder(each)
            errors.append((decoder(encoding) - each).square().mean().item())
            rows.append([name, str(len(each)), repr(errors[-1]), *map(repr, encoding.tolist())])
    header = [LABEL, "length", "error", *(f"z{k}" for k in range(len(rows[0]) - 3))]
    write_rows(folder / "encodings.csv", [header, *rows])
    variance = torch.cat([each.flatten() for each in series]).var(correction=0).item()
    shortest, longest = (pick(len(each) for each in series) for pick in (min, max))
    steps = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
    print(
        f"{len(rows)} series of {steps} steps of shape {tuple(series[0].shape[1:])} into {len(header) - 3} numbers each by "
        f"{kind}, variance {variance:.4g}, mean squared error {sum(errors) / len(errors):.4g}; "
        f"{' and '.join(written)} in {folder}"
    )


def _single_channel(each: Tensor, wanting: Any) -> Tensor:
    if each.shape[1:] != (1,):
        raise UserError(f"{wanting}: got series with steps of shape {tuple(each.shape[1:])}, expected a single channel")
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
    parser = Parser("python -m seqmem.encode", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE", help="series: .csv, .npy or .npz")
    parser.add_argument(
        "--output", type=Path, default=Path("outputs", "encode"), metavar="DIR", help="(default outputs/encode)"
    )
    parser.add_argument("--model", type=Path, metavar="FILE", help="an autoencoder.zip to encode with, instead of learning one")
    learning = parser.add_argument_group("learning")
    learning.add_argument("--encoding-size", type=at_least(1), default=16, metavar="E", help="numbers a series (default 16)")
    learning.add_argument(
        "--hidden-sizes", type=at_least(1), nargs="*", default=[64], metavar="H", help="layers before the encoding (default 64)"
    )
    learning.add_argument("--linear", action="store_true", help="a LINEAR_AE, for series of one length and one channel")
    learning.add_argument("--epochs", type=at_least(1), default=100, metavar="N", help="passes over the series (default 100)")
    learning.add_argument("--lr", type=float, default=3e-3, help="learning rate (default 0.003)")
    learning.add_argument("--seed", type=at_least(0), default=0, metavar="S", help="of weights and order (default 0)")
    learning.add_argument("--verbose", action="store_true", help="print the loss after each epoch")
    return parser
