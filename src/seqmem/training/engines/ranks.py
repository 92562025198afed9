"""A function run by several processes at once, which form a torch.distributed group on this machine."""

import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any

import torch
from torch import distributed
from torch.multiprocessing import get_context

from seqmem.io import interrupts


def in_ranks(count: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run ``function(*arguments)`` in ``count`` processes, and return the result of the first one.

    The processes get the environment that Lightning expects if it has not started them itself, and divide the threads of this
    process. If one fails, or this process ends, the others are ended too. A signal is passed to all of them, and the function
    has to raise :class:`seqmem.io.interrupts.Interrupted` in each.

    Args:
        count: number of processes.
        function: a function of a module, which the processes import by its name.
        arguments: values that can be pickled; tensors are shared.

    Raises:
        Exception: the first failure.
        Interrupted: there was a signal, and the function has stopped in all processes.
    """
    context = get_context("spawn")
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(count),
        "NODE_RANK": "0",
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # DDP warns if no parameter is unused
        "OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // count)),
    }
    processes: list[Any] = []
    connections: list[Connection] = []
    results: dict[int, Any] = {}
    try:
        for rank in range(count):
            here, there = context.Pipe()
            processes.append(context.Process(target=_run, args=(there, function, arguments)))
            connections.append(here)
            with _environment({**common, "LOCAL_RANK": str(rank)}):
                processes[rank].start()
            there.close()
        with interrupts.deferred():
            _collect(results, connections, processes)
    finally:
        for process in processes:
            if len(results) < count and process.pid is not None:
                process.kill()  # Lightning waits for the end of a batch at any other signal
        for process in processes:
            if process.pid is not None:
                process.join(30)
                process.kill()  # otherwise this process would wait at its end for one that hangs
        for connection in connections:
            connection.close()
    return results[0]


def _collect(results: dict[int, Any], connections: list[Connection], processes: list[Any]) -> None:
    """Wait for the result of each process, which is an Interrupted if it has stopped at a signal."""
    passed_on = False
    while len(results) < len(processes):
        if interrupts.received() is not None and not passed_on:
            passed_on = True
            for connection in connections:
                with suppress(OSError):  # it has ended
                    connection.send("stop")
        for rank, connection in enumerate(connections):
            if rank not in results and connection.poll(0.05):
                results[rank] = _received(connection, processes[rank], rank)
    if any(isinstance(result, interrupts.Interrupted) for result in results.values()):
        raise interrupts.Interrupted


def _received(connection: Connection, process: Any, rank: int) -> Any:
    try:
        result, failure = connection.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"the process of device {rank} ended with status {process.exitcode}") from None
    if failure is not None and not isinstance(failure, interrupts.Interrupted):
        raise failure
    return failure or result


def _run(connection: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.setpgid(0, 0)  # out of the group that a terminal or timeout(1) sends signals to; the parent passes them on
    Thread(target=_end_with_parent, args=(connection,), daemon=True).start()
    try:
        result = function(*arguments)
    except (Exception, interrupts.Interrupted) as error:
        connection.send((None, error))
        return
    connection.send((result, None))
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _end_with_parent(connection: Connection) -> None:
    """Note a signal when the parent sends something, and end this process when the parent closes the pipe."""
    try:
        while connection.recv():
            interrupts.note(signal.SIGTERM)
    except EOFError:
        os._exit(1)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
