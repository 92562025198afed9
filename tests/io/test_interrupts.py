"""Ctrl-C and SIGTERM: when they act, and what they raise."""

import os
import signal
import time

import pytest

from seqmem.io import interrupts
from seqmem.io.interrupts import Interrupted

# Blocks of several statements: signals come within them.
# ruff: noqa: PT012


def send(number=signal.SIGINT):
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def usual_handlers():
    """Both handlers are the former ones after each test, and no signal is noted."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert interrupts.received() is None


def test_a_library_ends_with_the_usual_exception_whatever_it_became_on_the_way():
    for error in (None, SystemError("returned a result with an exception set"), SystemExit(1)):
        with pytest.raises(KeyboardInterrupt), interrupts.handled():
            with pytest.raises(Interrupted):
                send()
            assert interrupts.status() == 130
            if error:
                raise error


def test_the_former_handler_gets_a_sigterm_at_the_end():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with pytest.raises(Interrupted), interrupts.handled():
            send(signal.SIGTERM)
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_deferred_signal_waits_for_the_block_and_a_second_one_acts_at_once(monkeypatch, capfd):
    with pytest.raises(KeyboardInterrupt), interrupts.handled():
        with pytest.raises(Interrupted), interrupts.deferred():
            send()
            assert interrupts.received() == signal.SIGINT
            send()  # make and timeout(1) send a signal twice
        assert "saves a checkpoint first" in capfd.readouterr().err
    monkeypatch.setattr(interrupts, "_repeated_within", 0)
    with pytest.raises(KeyboardInterrupt), interrupts.handled(), interrupts.deferred():
        send()
        with pytest.raises(Interrupted):
            send()


def test_blocks_nest_in_any_order():
    with interrupts.unwinding():
        with interrupts.handled(), interrupts.deferred():
            pass
        with pytest.raises(KeyboardInterrupt), interrupts.handled():
            send()
    with pytest.raises(KeyboardInterrupt), interrupts.handled(), pytest.raises(Interrupted):
        send()


def test_a_signal_whose_exception_is_lost_is_noticed_later(monkeypatch):
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: None)

    class Closed:
        def __del__(self):
            send()

    with pytest.raises(KeyboardInterrupt), interrupts.handled():
        Closed()  # Python ignores what a destructor raises
        with pytest.raises(Interrupted):
            interrupts.raise_if_received()


def test_a_forked_worker_leaves_ctrl_c_to_its_parent_and_ends_at_a_sigterm():
    with interrupts.handled():
        worker = os.fork()
        if worker == 0:
            send()
            time.sleep(30)
            os._exit(3)
        time.sleep(0.1)
        assert os.waitpid(worker, os.WNOHANG) == (0, 0)
        os.kill(worker, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == -signal.SIGTERM
