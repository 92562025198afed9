"""The garbage collector at the start of a program; test_sweeps.py has it in a whole run."""

import gc

from seqmem.cli import startup


def test_a_program_collects_rarely_until_it_has_started() -> None:
    usual, frozen = gc.get_threshold(), gc.get_freeze_count()
    startup.pause_collector()
    try:
        assert gc.get_threshold()[0] > 100 * usual[0] > 0 or usual[0] >= 200_000
    finally:
        startup.resume_collector()
        assert gc.get_freeze_count() > frozen
        gc.unfreeze()
    assert gc.get_threshold() == usual


def test_a_worker_that_did_not_begin_as_a_program_keeps_its_collector() -> None:
    usual = gc.get_threshold()
    gc.set_threshold(500, 5, 5)
    try:
        startup.resume_collector()
        assert gc.get_threshold() == (500, 5, 5)
    finally:
        gc.set_threshold(*usual)
