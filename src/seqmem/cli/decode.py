"""``python -m seqmem.decode``: decode the encodings of ``python -m seqmem.encode``, changed or not, to series."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from seqmem.errors import UserError
from seqmem.io.files import refuse_existing
from seqmem.io.series_files import read_encodings, write_series
from seqmem.io.terminal import Parser, at_least
from seqmem.models import autoencoder_file

DESCRIPTION = """\
Decode encodings to series.

FILE is a .csv as seqmem encode writes it: columns series, length and z0, z1, ...; other columns are ignored. No
existing file is overwritten.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    _parser().run(run, arguments)


def run(given: argparse.Namespace) -> None:
    """Read the encodings, decode them, and write the series.

    Raises:
        UserError: a file cannot be read or written, exists already, or the encodings do not fit the autoencoder.
    """
    output = given.output or given.file.with_name("series.csv")
    refuse_existing(output)
    names, lengths, encodings = read_encodings(given.file)
    kind, _, decoder = autoencoder_file.load(given.model or given.file.with_name("autoencoder.zip"))
    if kind == "LINEAR_AE" and given.length is not None:
        raise UserError(f"--length: got {given.length}, but a LINEAR_AE makes series of one length; leave it out")
    series = []
    with torch.no_grad():
        for length, encoding in zip(lengths, torch.from_numpy(encodings), strict=True):
            decoded = decoder(encoding) if kind == "LINEAR_AE" else decoder(encoding, given.length or length)
            series.append(decoded.reshape(len(decoded), -1).numpy() if decoded.dim() < 3 else decoded.numpy())
    write_series(output, names, series)
    print(f"{len(series)} series in {output}")


def _parser() -> Parser:
    parser = Parser("python -m seqmem.decode", DESCRIPTION)
    parser.add_argument("file", type=Path, metavar="FILE", help="encodings: .csv")
    parser.add_argument("--model", type=Path, metavar="FILE", help="(default autoencoder.zip next to FILE)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="series: .csv or .npz (default series.csv next to FILE)")
    parser.add_argument("--length", type=at_least(1), metavar="T", help="steps of each series, instead of the column length")
    return parser
