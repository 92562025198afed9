"""Commands of ``python -m seqmem.hippo``: errors of memories on a signal, and table 3 of the paper."""

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from seqmem import ops
from seqmem.data.signals import white_noise
from seqmem.errors import UserError, suggestion
from seqmem.hippo import Memory, experiment, table
from seqmem.hippo.measures import LAGUERRE
from seqmem.io.files import make_folder
from seqmem.io.provenance import provenance
from seqmem.io.terminal import Parser, at_least
from seqmem.ops.transition import MEASURES

COMMANDS = ("errors", "table")
DEFAULTS = {
    "errors": {"length": 10_000, "order": 64, "frequency": 8},
    "table": {"length": 1_000_000, "order": 256, "frequency": 100},
}
ERRORS_ONLY = ("measures", "theta", "timescale", "discretization")
"""Options that the table does not take."""

DESCRIPTION = """\
Band-limited white noise is projected online onto the coefficients of HiPPO memories, and reconstructed from them.

  errors   (default) one signal, several measures: their errors, and how these develop over time
  table    the paper's function approximation experiment, table 3: LegS, LMU and LSTM at 10^6 steps and order 256
           (one to three minutes)
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    parser = _parser()
    given = parser.parse_intermixed_args(arguments)
    command = given.command
    if command not in COMMANDS:
        parser.error(f"there is no command '{command}'{suggestion(command, COMMANDS)}")
    for name, default in DEFAULTS[command].items():
        if getattr(given, name) is None:
            setattr(given, name, default)
    with parser.one_line_errors():
        if command == "table":
            unused = [f"--{name}" for name in ERRORS_ONLY if getattr(given, name) is not None]
            if unused:
                raise UserError(f"the table takes no {unused[0]}; errors does")
            run_table(given)
        else:
            run_errors(given)


def run_errors(given: argparse.Namespace) -> None:
    """Compare several measures on one signal."""
    theta = given.length / 4 if given.theta is None else given.theta
    # With this time scale the N functions cover the whole signal, as finely as N functions can.
    timescale = given.length / (2 * given.order) if given.timescale is None else given.timescale
    memories = [
        Memory(given.order, name, None if name == "legs" else timescale if name in LAGUERRE else theta, given.discretization)
        for name in given.measures or ("legs", "legt", "lagt")
    ]
    signal = white_noise(given.length, given.frequency, given.seed)
    folder = make_folder(given.output or Path("outputs", "hippo"))
    traces = [experiment.follow(signal, memory) for memory in memories]
    experiment.show(traces, f"{_signal(given)}, variance {signal.square().mean():.3g}")
    experiment.save(traces, folder / "errors.csv")
    experiment.draw(signal, traces, folder / "errors.png")
    print(f"errors.csv (the error over time) and errors.png are in {folder}")


def run_table(given: argparse.Namespace) -> None:
    """Measure and print the paper's table 3."""
    folder = None if given.output is None else make_folder(given.output)
    signal, reconstructions, rows = table.measure(given.length, given.order, given.frequency, given.seed)
    table.show(rows, f"{_signal(given)}, variance 0.25, into {given.order} numbers")
    if folder is not None:
        settings = {name: getattr(given, name) for name in ("length", "order", "frequency", "seed")}
        table.save(rows, settings | _environment(), folder / "table.csv")
        table.draw(signal, reconstructions, folder / "table.png")
        print(f"table.csv and table.png are in {folder}")


def _environment() -> dict[str, object]:
    """The machine, the versions and the implementation that the rows were measured with."""
    found = provenance()
    return {
        "processor": found["machine"]["processor"],
        "threads": found["machine"]["threads"],
        "commit": found["commit"],
        "date": time.strftime("%Y-%m-%d"),
        "torch": found["versions"]["torch"],
        "operators": ops.paths()["legs_function_approx_trapezoidal"],
    }


def _signal(given: argparse.Namespace) -> str:
    return f"{given.length:,} samples of white noise of at most {given.frequency} oscillations (seed {given.seed})"


def _parser() -> Parser:
    parser = Parser("python -m seqmem.hippo", DESCRIPTION)
    parser.add_argument("command", nargs="?", default="errors", metavar="errors|table", help="what to run")
    parser.add_argument("--length", type=at_least(1), metavar="T", help=f"samples of the signal {_default('length')}")
    parser.add_argument("--order", type=at_least(1), metavar="N", help=f"coefficients of a memory {_default('order')}")
    parser.add_argument(
        "--frequency",
        type=at_least(1),
        metavar="F",
        help=f"highest number of oscillations over the signal {_default('frequency')}",
    )
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="S", help="seed of the signal (default 0)")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for CSV and picture (default outputs/hippo; table: none)"
    )
    only = parser.add_argument_group("options of errors")
    only.add_argument(
        "--measures", nargs="+", type=_measure, metavar="NAME", help=f"any of {', '.join(MEASURES)} (default legs legt lagt)"
    )
    only.add_argument("--theta", type=_positive, help="window of legt and lmu in samples (default T/4)")
    only.add_argument("--timescale", type=_positive, help="time scale of lagt, tlagt and glagt in samples (default T/(2N))")
    only.add_argument(
        "--discretization",
        type=_discretization,
        metavar="NAME",
        help="forward, backward, bilinear, zoh or alpha from 0 to 1 (default bilinear for legs, else zoh)",
    )
    return parser


def _default(name: str) -> str:
    return "(default " + "; ".join(f"{command}: {DEFAULTS[command][name]}" for command in COMMANDS) + ")"


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"got '{text}', expected a number above 0")
    return number


def _discretization(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _measure(text: str) -> str:
    if text not in MEASURES:
        raise argparse.ArgumentTypeError(f"there is no measure '{text}'{suggestion(text, MEASURES)}")
    return text


if __name__ == "__main__":
    main(sys.argv[1:])
