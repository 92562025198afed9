"""Processes of this machine that train several trials at a time, each its own trial."""

import os
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing import connection
from pickle import UnpicklingError
from types import TracebackType
from typing import Any

import torch
from torch.multiprocessing import get_context

from seqmem.errors import UserError
from seqmem.io import interrupts
from seqmem.io.provenance import provenance
from seqmem.io.suspending import suspended_together
from seqmem.training.engines import worker
from seqmem.training.engines.attempts import Attempt
from seqmem.training.engines.choice import Choice, DeviceMemory
from seqmem.training.engines.display import Display, display
from seqmem.training.loop.pruning import Judge

Then = Callable[[Attempt], None]

_poll_seconds = 0.2
_PRELOADED = ["hydra", "pytorch_lightning", "pandas", "seqmem.datasets", "seqmem.training.engines.worker"]


@dataclass
class _Running:
    """A trial in a process.

    Attributes:
        forked: the process is a child of this one, whose end is seen even while its own workers keep the pipe open. The end of
            another closes the pipe; its server may end before it, at a signal to the whole group.
    """

    trial: worker.Trial
    choice: Choice
    then: Then
    process: Any
    messages: Any
    forked: bool
    judge: Judge | None = None
    outcome: Attempt | None = None
    memory: tuple[float, float, float] | None = None


class CannotStartError(Exception):
    """A process did not start: the data cannot be pickled, for example, or exceeds the shared memory of a container."""


class Workers:
    """Trains trials in processes, as a context manager; each trial gets a process of its own.

    A process of one thread is forked from this one, which takes 0.1 s and shares the data set's memory. A process of several
    threads, or where there is a GPU, comes from a server that has imported the packages, since neither the threads of OpenMP
    nor CUDA survive a fork; the data set is sent to it in shared memory.

    A signal is passed to all processes, which save a checkpoint, as a single one does; then the block raises
    :class:`seqmem.io.interrupts.Interrupted`. They do so too if the block ends by an error. A process that dies is the failure
    of its trial. While this process is suspended (Ctrl-Z), all others are.

    Args:
        trials: number of the command, those of its other jobs included.
        shown_by: what the processes send is shown by it; None for what suits the standard output.

    Attributes:
        choices: those made so far, by the checksum of the settings.
    """

    def __init__(self, trials: int, shown_by: Display | None = None):
        self.trials = trials
        self.choices: dict[str, Choice] = {}
        self._running: list[_Running] = []
        self._busy: list[tuple[worker.Trial, Choice, Then, Judge | None]] = []
        self._display: Display = shown_by or display()
        self._signals = ExitStack()  # while processes run
        self._stopping = False
        self._errors: list[Exception] = []  # of ``then`` and ``judge``; the job that runs meanwhile may be a different one

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is not None and interrupts.received() is None:
                self._stop()
            self._drain()
        finally:
            for running in self._running:
                running.process.kill()
                running.process.join()
            self._display.close()
            self._signals.__exit__(kind, error, trace)
        if error is None and self._errors:
            raise self._errors[0]

    def wait(self, choice: Choice | None = None) -> None:
        """Wait until a process is free.

        Args:
            choice: the number of workers, see :meth:`submit`; None for that of the trials that run.

        Raises:
            Interrupted: there was a signal.
        """
        chosen = [] if choice is None else [choice]
        while self._running and len(self._running) >= min(
            each.workers for each in (*chosen, *(running.choice for running in self._running))
        ):
            self._receive()
        if interrupts.received() is not None:
            self.finish()

    def submit(self, trial: worker.Trial, choice: Choice, then: Then, judge: Judge | None = None) -> None:
        """Start a trial as soon as a process is free, and return.

        Args:
            trial: what to train.
            choice: the number of workers and their threads; the trials that run now may have been submitted with another.
            then: called with the outcome, in this process, by one of the next calls of a method. A trial that a different
                process trains is attempted again after all others: there are two calls. An error of it is raised at the
                end of the block.
            judge: called after each epoch of the trial, likewise, and stops it by returning True.

        Raises:
            CannotStartError: the process did not start.
            Interrupted: there was a signal.
        """
        self.wait(choice)
        if not self._running:
            self._signals.close()
            self._signals.enter_context(interrupts.handled())
            self._signals.enter_context(interrupts.deferred(lambda number: self._pass_on()))
            self._signals.enter_context(suspended_together(self._processes))
        self._running.append(self._started(trial, choice, then, judge))
        if interrupts.received() is not None:  # the signal came while the process started
            self._pass_on()

    def submit_last(self, trial: worker.Trial, choice: Choice, then: Then, judge: Judge | None = None) -> None:
        """Attempt a trial after all others, and wait for a different process that holds its lock.

        Args:
            trial: what to train.
            choice: as for :meth:`submit`.
            then: called once, with the outcome.
            judge: as for :meth:`submit`.
        """
        self._busy.append((trial.awaited(), choice, then, judge))

    def device_memory(self, trial: worker.Trial) -> DeviceMemory | None:
        """Train a trial beside those that run, wait for its end, and return the GPU's memory; None if it failed.

        It fails, for example, if the data set cannot be pickled, or does not fit into the shared memory of a container.
        """
        try:
            self.submit(trial, Choice(self.trials, 1), lambda outcome: None)
        except CannotStartError as error:
            say_why_not_at_once(error)
            return None
        running = self._running[-1]
        while running in self._running:
            self._receive()
        interrupts.raise_if_received()
        if running.memory is None:
            return None
        free, peak, host = running.memory
        return DeviceMemory(free, peak, len(self._running), host)

    def finish(self) -> None:
        """Wait for the end of all trials.

        Raises:
            Interrupted: there was a signal, and all trials have saved their checkpoints.
        """
        self._drain()
        self._display.close()
        self._signals.close()
        interrupts.raise_if_received()

    def _drain(self) -> None:
        while self._running or (self._busy and not self._ends()):
            if self._running:
                self._receive()
            else:
                trial, choice, then, judge = self._busy.pop(0)
                try:
                    self.submit(trial, choice, then, judge)
                except CannotStartError as error:
                    self._call(then, Attempt(trial.seed, failure=error))

    def _started(self, trial: worker.Trial, choice: Choice, then: Then, judge: Judge | None) -> _Running:
        method = start_method(choice.threads)
        context: Any = get_context(method)
        here, there = context.Pipe()
        provenance()  # once, not in each process
        # A forked process has the parent's ends of all pipes, and would not see that the parent has ended.
        inherited = [here, *(each.messages for each in self._running)] if method == "fork" else []
        if method == "forkserver":
            context.set_forkserver_preload(_PRELOADED)
        shown = self._display.in_terminal
        settings = worker.Settings(choice.workers, choice.threads, shown, tuple(sys.argv), judge is not None)
        process = context.Process(target=worker.run, args=(there, inherited, trial, settings), name=trial.name)
        try:
            with warnings.catch_warnings():  # Python 3.12 and later warn of threads, of which the process uses none
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
        except Exception as error:
            here.close()
            raise CannotStartError(" ".join(f"{type(error).__name__}: {error}".split())) from error
        finally:
            there.close()
        return _Running(trial, choice, then, process, here, method == "fork", judge)

    def _receive(self) -> None:
        """Wait for messages, at most a moment, and act on them and on processes that have ended."""
        ready = connection.wait([each.messages for each in self._running], _poll_seconds)
        for running in list(self._running):
            ended = running.forked and running.process.exitcode is not None  # before the last messages are read
            if (running.messages in ready or ended) and not self._read(running):
                ended = True
            if ended:
                self._end(running)
        self._display.refresh()

    def _read(self, running: _Running) -> bool:
        """Act on the messages that have arrived; return False at the end of the pipe."""
        try:
            while running.messages.poll():
                kind, content = running.messages.recv()
                if kind == "outcome":
                    running.outcome = content
                elif kind == "memory":
                    running.memory = content
                elif kind == "epoch":
                    running.messages.send(self._verdict(running.judge, content))
                elif not running.trial.silent:
                    self._display.show(kind, running.trial.name, content)
        except (EOFError, OSError, UnpicklingError):  # a process that is killed may leave half a message
            return False
        return True

    def _end(self, running: _Running) -> None:
        running.process.join()
        running.messages.close()
        self._running.remove(running)
        self._display.show("end", running.trial.name, "")
        outcome = running.outcome
        if self._stopping or (self._ends() and (outcome is None or outcome.record is None)):
            return
        if outcome is None:
            outcome = Attempt(running.trial.seed, failure=_death(running))
        elif outcome.is_busy and not running.trial.wait:
            self.submit_last(running.trial, running.choice, running.then, running.judge)
        self._call(running.then, outcome)

    def _call(self, then: Then, outcome: Attempt) -> None:
        try:
            then(outcome)
        except Exception as error:
            self._errors.append(error)

    def _verdict(self, judge: Judge | None, epoch: tuple[int, float, bool]) -> bool:
        """Return whether to stop a trial; an error of the judge does not, and is raised at the end of the block."""
        try:
            return judge is not None and bool(judge(*epoch))
        except Exception as error:
            self._errors.append(error)
            return False

    def _processes(self) -> list[int]:
        return [running.process.pid for running in self._running]

    def _ends(self) -> bool:
        return self._stopping or interrupts.received() is not None

    def _stop(self) -> None:
        """Let all trials save a checkpoint; an error of this process ends the command."""
        self._stopping = True
        self._pass_on()

    def _pass_on(self) -> None:
        """Stop all processes. The system may have sent them the signal as well, so this is not a second one."""
        for running in self._running:
            with suppress(OSError):  # it has ended
                running.messages.send("stop")


def say_why_not_at_once(error: CannotStartError) -> None:
    """Print that trials run one after the other, and why."""
    print(f"trials run one after the other: no process could start ({error})", file=sys.stderr, flush=True)


def start_method(threads: int | None) -> str:
    """Return how a process with a number of threads starts on this machine, as :mod:`multiprocessing` names it.

    OpenMP's threads do not survive a fork: a forked process that computes with several waits for them forever. Nor do those of
    autograd, which a program may have started: torch refuses backward in a forked process then.
    """
    can_fork = sys.platform == "linux" and not torch.cuda.is_available() and threads == 1
    return "fork" if can_fork and _backward_survives_a_fork() else "forkserver"


def _backward_survives_a_fork() -> bool:
    """Return whether a forked process can compute gradients; torch says so only there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        with suppress(BaseException):
            torch.ones(1, requires_grad=True).sum().backward()
            status = 0
        os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def _death(running: _Running) -> UserError:
    """Return why a process that died did not train its trial, after noting it in the trial's record."""
    status, folder = running.process.exitcode, running.trial.experiment.trial(running.trial.seed)
    killed = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    memory = ", as the system does where memory runs out; fewer runner.workers need less" if status == -signal.SIGKILL else ""
    reason = f"the process of seed {running.trial.seed} {killed}{memory}"
    with suppress(OSError, UserError):
        record = folder.read_record()
        if record.get("status") == "running" and record.get("process") == running.process.pid:
            folder.write_record({**record, "status": "failed", "reason": reason})
    return UserError(f"{reason}; the same command resumes")
