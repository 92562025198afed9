"""A program of Hydra's that ends in one line where the user can mend what failed."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from seqmem.cli import startup, sweeps
from seqmem.cli.commandline import compose
from seqmem.cli.messages import one_line_errors
from seqmem.cli.overrides import split_flags, translate


def run(main: Callable[[], Any]) -> None:
    """Run a function decorated with hydra.main on ``sys.argv``.

    An error that the user can mend is printed as one line on stderr, with exit status 2; any other as one line with exit status
    1. With ``traceback=True`` on the command line it is raised instead.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises what it would otherwise print
    startup.begin()
    try:
        _run(main)
    finally:
        startup.end()


def _run(main: Callable[[], Any]) -> None:
    with one_line_errors():
        sys.argv[1:] = translate(sys.argv[1:])
        sweeps.current.command = list(sys.argv)
        check(sys.argv[1:])
        try:
            main()
        finally:  # a worker that was killed ends the sweep by an exception
            sweeps.report_sweep()
    if sweeps.current.failed:
        sys.exit(sweeps.current.failed[0])


def check(arguments: Sequence[str]) -> None:
    """Settle every job of a sweep before the first one is trained, and what ``--cfg`` would show."""
    flags, overrides = split_flags(arguments)
    own_groups = [argument for argument in flags if argument not in ("-m", "--multirun")]
    if {"-m", "--multirun"} & set(flags):
        sweeps.plan(overrides, own_groups)
    elif {"--cfg", "-c"} & set(flags):
        compose(arguments)
