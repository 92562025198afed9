"""Run Hydra's main function with checked command lines and one-line errors."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from omegaconf import DictConfig

from seqmem.cli import completion, engines, help, places, startup, sweeps
from seqmem.cli.commandline import compose
from seqmem.cli.messages import one_line_errors
from seqmem.cli.overrides import MULTIRUN, SWITCHES, is_multirun, search, shows_config, split_flags, translate
from seqmem.cli.plan import MODE, hydra_section, may_set_mode, plan, requests_sweep
from seqmem.errors import UserError
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
        if completion.is_query(sys.argv[1:]):
            words = completion.answer()
            print(" ".join(words)) if words is not None else main()
            return
        sys.argv[1:] = translate(sys.argv[1:])
        flags, _ = split_flags(sys.argv[1:])
        if help.is_requested(flags):
            print(help.text(sys.argv[1:]))
            return
        search(flags)
        sweeps.current.command = list(sys.argv)
        sys.argv[1:], section = check(sys.argv[1:])
        settings = [argument for argument in sys.argv[1:] if argument.lstrip("+~").startswith(("hydra.", "hydra/"))]
        with interrupts.unwinding():
            with engines.named_errors(section, [setting for setting in settings if setting != MODE]):
                try:
                    with sweeps.current.workers:
                        main()
                except BaseException:  # for example, a worker was killed
                    if interrupts.received() is None:
                        with suppress(UserError):  # the first failure is the one to report
                            sweeps.report_sweep()
                    raise
            if interrupts.received() is None:
                sweeps.report_sweep()
            interrupts.raise_if_received()
    if sweeps.current.failed:
        sys.exit(sweeps.current.failed[0])


def check(arguments: Sequence[str]) -> tuple[list[str], DictConfig | None]:
    """Check every job of a sweep before the first one is trained, and a config before it is shown.

    Args:
        arguments: translated flags and overrides.

    Returns:
        The arguments for Hydra, and Hydra's section of the config of a sweep; None for a single job.
    """
    flags, overrides = split_flags(arguments)
    others = [flag for flag in flags if flag not in MULTIRUN]
    if shows_config(flags):
        compose(arguments)
    elif set(SWITCHES).isdisjoint(others) and (is_multirun(flags) or may_set_mode(overrides, others)):
        section = hydra_section(overrides, others)
        if is_multirun(flags) or requests_sweep(section):
            places.check(overrides, sweeps=True)
            return plan(overrides, others, section), section
    places.check(overrides, sweeps=False)
    return list(arguments), None
