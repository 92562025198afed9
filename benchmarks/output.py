"""Where benchmarks write: a folder that git ignores, unless results are to be kept."""

import argparse
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
LATEST = Path(__file__).parent / "latest"


def add_output(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the arguments ``--output`` and ``--keep`` of a benchmark that writes a file or folder of a name."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--output", type=Path, help=f"what to write (default benchmarks/latest/{name}, which git ignores)")
    group.add_argument("--keep", action="store_true", help=f"write benchmarks/results/{name}, which belongs to the repository")


def output(arguments: argparse.Namespace, name: str) -> Path:
    """Return the path that the arguments of :func:`add_output` choose; its folder exists."""
    path: Path = arguments.output or (RESULTS if arguments.keep else LATEST) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
