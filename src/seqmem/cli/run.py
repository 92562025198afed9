"""Run Hydra's main function with checked command lines and one-line errors."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from seqmem.cli import startup, sweeps
from seqmem.cli.commandline import compose
from seqmem.cli.messages import one_line_errors
from seqmem.cli.overrides import is_multirun, shows_config, split_flags, translate
from seqmem.cli.plan import plan
from seqmem.io import interrupts


def run(main: Callable[[], Any]) -> None:
    """Run a function decorated with hydra.main on ``sys.argv``.

    An error that the user can correct is printed as one line on stderr, with exit status 2; any other error as one line with
    exit status 1. With ``traceback=True`` on the command line it is raised instead.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises errors instead of printing them
    startup.pause_collector()
    try:
        _run(main)
    finally:
        startup.resume_collector()


def _run(main: Callable[[], Any]) -> None:
    with one_line_errors(resumes=True):
        sys.argv[1:] = translate(sys.argv[1:])
        sweeps.current.command = list(sys.argv)
        check(sys.argv[1:])
        with interrupts.unwinding():
            try:
                with sweeps.current.workers:
                    main()
            finally:  # a killed worker ends the sweep by an exception
                if interrupts.received() is None:
                    sweeps.report_sweep()
            interrupts.raise_if_received()
    if sweeps.current.failed:
        sys.exit(sweeps.current.failed[0])


def check(arguments: Sequence[str]) -> None:
    """Check every job of a sweep before the first one is trained, and a config before it is shown."""
    flags, overrides = split_flags(arguments)
    if is_multirun(flags):
        plan(overrides, [flag for flag in flags if flag not in ("-m", "--multirun")])
    elif shows_config(flags):
        compose(arguments)
