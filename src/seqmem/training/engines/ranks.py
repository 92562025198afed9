"""One function in several processes at once, which form a group of torch.distributed on this machine."""

import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any

import torch
from torch import distributed
from torch.multiprocessing import get_context


def in_ranks(count: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """What ``function(*arguments)`` gives in the first of ``count`` processes, all of which run it.

    They find the environment that Lightning expects of processes that it has not started itself, and share the threads of this
    one. If one fails, or this process ends, the others are ended too.

    Args:
        count: of processes.
        function: a module's, which they import by its name.
        arguments: what can be pickled; tensors are shared.

    Raises:
        Exception: the first failure.
    """
    context = get_context("spawn")
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(count),
        "NODE_RANK": "0",
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # DDP would tell of each model that leaves no parameter unused
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
        while len(results) < count:
            for rank in range(count):
                if rank not in results and connections[rank].poll(0.05):
                    results[rank] = _received(connections[rank], processes[rank], rank)
    finally:
        for process in processes:
            if len(results) < count and process.pid is not None:
                process.kill()  # Lightning waits for the end of a batch at any other signal
        for process in processes:
            if process.pid is not None:
                process.join(30)
                process.kill()  # one that hangs would be waited for at the end of this one
        for connection in connections:
            connection.close()
    return results[0]


def _received(connection: Connection, process: Any, rank: int) -> Any:
    try:
        result, failure = connection.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"the process of device {rank} ended with status {process.exitcode}") from None
    if failure is not None:
        raise failure
    return result


def _run(connection: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    Thread(target=_end_with_parent, args=(connection,), daemon=True).start()
    try:
        result = function(*arguments)
    except Exception as error:
        connection.send((None, error))
        return
    connection.send((result, None))
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _end_with_parent(connection: Connection) -> None:
    """The parent sends nothing: what arrives is the end of the pipe."""
    try:
        connection.recv()
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
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
