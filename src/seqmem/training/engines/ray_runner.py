"""The trials of a job spread over the workers of a Ray cluster (``runner=ray``).

Each worker trains a trial as this process would. The trials' folders lie on a file system that all workers see at the same
path. A trial whose worker dies resumes on a different worker from its last checkpoint.
"""

import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import torch

from seqmem.errors import UserError
from seqmem.io import interrupts
from seqmem.results.experiment import Experiment
from seqmem.training.config import RayConfig
from seqmem.training.engines.attempts import Attempt, attempt
from seqmem.training.loop.mlflow_run import absolute
from seqmem.training.loop.splits import Data

# Address and processors of the cluster that this module connected to; None if the program connected to one itself.
_connected: tuple[Any, ...] | None = None


def spread(
    config: Mapping[str, Any], data: Data, experiment: Experiment, seeds: Iterable[int], wait: bool
) -> Iterator[Attempt]:
    """Attempt the trials of several seeds, as many at a time as there are workers.

    Args:
        config: as for :func:`seqmem.training.engines.trials.run_trials`.
        data: the data set, which is sent to the workers.
        experiment: with the trials' folders.
        seeds: of the trials.
        wait: for other processes that train them.

    Yields:
        The outcomes, in the order in which the trials end.

    Raises:
        Interrupted: there was a signal, and each running trial has saved a checkpoint.
        UserError: no such cluster exists, or no machine of it can run one trial.
    """
    waiting = list(seeds)
    if not waiting:
        return
    runner = RayConfig(**config["runner"])
    _connect(runner)
    if runner.gpus == 0:  # a worker may see a GPU that Ray did not reserve
        config = {**config, "runner": {**config["runner"], "accelerator": "cpu"}}
    config = {**config, "runner": {**config["runner"], "mlflow": absolute(config["runner"].get("mlflow"))}}
    resolved = replace(experiment, folder=experiment.folder.resolve())
    shared = ray.put(data)
    # The number of threads changes the order of sums, and so the numbers: a worker has as many as this process.
    threads = str(torch.get_num_threads())
    environment = {"PYTHONPATH": _paths(data), "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    work = ray.remote(_attempt).options(
        num_cpus=runner.cpus, num_gpus=runner.gpus, runtime_env={"env_vars": environment}, name=experiment.folder.name
    )
    running: dict[Any, int] = {}
    cancelled = False
    with interrupts.deferred():
        while waiting or running:
            while waiting and len(running) < runner.workers:
                seed = waiting.pop(0)
                running[work.remote(dict(config), shared, resolved, seed, wait, sys.argv)] = seed
            finished, _ = ray.wait(list(running), timeout=0.5)
            if interrupts.received() is not None and not cancelled:
                cancelled = True
                waiting.clear()
                for trial in running:
                    ray.cancel(trial)  # a Ctrl-C in its worker
            for trial in finished:
                yield _outcome(trial, running.pop(trial))


def _outcome(trial: Any, seed: int) -> Attempt:
    try:
        attempted: Attempt = ray.get(trial)
    except ray.exceptions.RayTaskError as error:
        return Attempt(seed, failure=error.cause if isinstance(error.cause, Exception) else error)
    except ray.exceptions.RayError as error:
        return Attempt(seed, failure=UserError(f"the Ray worker of seed {seed} died ({error})"))
    return attempted


def _attempt(
    config: Mapping[str, Any], data: Data, experiment: Experiment, seed: int, wait: bool, command: list[str]
) -> Attempt:
    sys.argv = command  # for the record
    return attempt(config, data, experiment, seed, wait)


def _connect(runner: RayConfig) -> None:
    """Start a cluster on this machine, or connect to the one of ``runner.address``; the next job reuses one that fits."""
    global _connected
    # A cluster on this machine gets the processors that its workers reserve, whether or not the machine has them.
    processors = None if runner.address else runner.workers * runner.cpus
    needed = runner.address, processors
    if not ray.is_initialized() or _connected not in (None, needed):
        ray.shutdown()
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's future default; unset, Ray warns
        try:
            ray.init(
                runner.address or "local",
                num_cpus=processors,
                include_dashboard=None if runner.address else False,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
        except (ConnectionError, ValueError) as error:
            raise UserError(f"runner.address: got '{runner.address}', but no Ray cluster answers there ({error})") from None
        _connected = needed
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= runner.cpus and node.get("GPU", 0) >= runner.gpus for node in nodes):
        largest = {name: max(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
        raise UserError(
            f"runner.cpus, runner.gpus: got {runner.cpus} and {runner.gpus:g} for a trial, but the cluster's machines have "
            f"at most {largest['CPU']:g} and {largest['GPU']:g}"
        )


def _paths(data: Data) -> str:
    """Return the PYTHONPATH with which a worker finds this package and the data set's module."""
    modules = [sys.modules[name.partition(".")[0]] for name in (__name__, type(data).__module__)]
    folders = [str(Path(module.__file__).parents[1]) for module in modules if module.__file__]
    return os.pathsep.join(path for path in [*folders, os.environ.get("PYTHONPATH")] if path)
