"""Training with AVX-512 kernels of MKL on an AMD processor: ``python -m benchmarks.mkl_kernels`` (idle cores).

Each model trains on CharacterTrajectories in float32 with one thread, as ``make table-successors`` trains it, in turns with the
kernels that MKL chooses and with those of the library of :mod:`seqmem.io.mkl`. The second of two epochs counts. ``--keep``
writes ``benchmarks/results/mkl_kernels.csv`` and updates the pages.
"""

import argparse
import os
import statistics

import torch

from benchmarks import trial_rows
from benchmarks.epoch_times import brief
from benchmarks.output import add_output, output
from benchmarks.pages import every_page
from benchmarks.run import environment
from seqmem.io import mkl

FILE = "mkl_kernels.csv"
MODELS = ("lstm", "legs", "lru", "s4d", "mamba", "rglru", "slstm")
TURNS = 3


def main() -> None:
    """Run the command line: measure each model, and update the pages if the results are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_output(parser, FILE)
    arguments = parser.parse_args()
    if mkl.preloaded():
        parser.error(f"LD_PRELOAD: got {os.environ['LD_PRELOAD']}, expected none")
    if not mkl.kernels() or not torch.backends.mkl.is_available():
        parser.error(f"processor: got {environment()['processor']}, expected one of AMD with AVX-512, and a torch with MKL")
    path = output(arguments, FILE)
    rows = []
    for model in MODELS:
        rows.append(environment() | measure(model))
        print(*rows[-1].values(), sep=", ", flush=True)
    trial_rows.write(path, list(rows[0]), rows)
    if arguments.keep:
        every_page.update()
    print(f"all rows: {path}")


def measure(model: str) -> dict[str, object]:
    """Train in turns with both kernels; return the model, its median rates, and the median and range of the ratios."""
    libraries = {"AVX2": "", "AVX-512": str(mkl.build(mkl.cache()))}
    turns = [{kernels: rate(model, kernels, library) for kernels, library in libraries.items()} for _ in range(TURNS)]
    ratios = [turn["AVX-512"] / turn["AVX2"] for turn in turns]
    return {
        "model": model,
        "threads": 1,
        **{f"sequences_per_second_{kernels}": statistics.median(turn[kernels] for turn in turns) for kernels in libraries},
        "ratio": round(statistics.median(ratios), 2),
        "smallest": round(min(ratios), 2),
        "largest": round(max(ratios), 2),
    }


def rate(model: str, kernels: str, library: str) -> float:
    """Train with one kind of kernels; return the sequences per second of the last epoch."""
    record = brief(f"successors/ct_100to200_{model}", LD_PRELOAD=library)
    if record["machine"]["processor"].endswith("MKL with AVX-512") != (kernels == "AVX-512"):
        raise SystemExit(f"error: {record['machine']['processor']}: expected {kernels} kernels")
    return float(record["sequences_per_second"])


if __name__ == "__main__":
    main()
