"""The trials of a job spread over the workers of a Ray cluster (``runner=ray``).

Processes of Ray's train the trials, each as it would be trained alone; the trials' folders lie on a file system that all of
them see at the same path. A trial whose worker dies goes on in another one from its last checkpoint.
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
from seqmem.results.experiment import Experiment
from seqmem.training.config import RayConfig
from seqmem.training.engines.attempts import Attempt, attempt
from seqmem.training.loop.trial import Data

# What the cluster that this process is connected to was asked for; None for one that the program has connected to itself.
_connected: tuple[Any, ...] | None = None


def spread(
    config: Mapping[str, Any], data: Data, experiment: Experiment, seeds: Iterable[int], wait: bool
) -> Iterator[Attempt]:
    """Attempt the trials of several seeds, as many at a time as there are workers.

    Args:
        config: as for :func:`seqmem.training.engines.trials.run_trials`.
        data: the data set, which is sent to the workers.
        experiment: where the trials' folders are.
        seeds: of the trials.
        wait: for other processes that train them.

    Yields:
        What came of them, as they end.

    Raises:
        UserError: there is no such cluster, or no machine of it can run one trial.
    """
    waiting = list(seeds)
    if not waiting:
        return
    runner = RayConfig(**config["runner"])
    _connect(runner)
    if runner.gpus == 0:  # a GPU that the trial was not promised may be there all the same
        config = {**config, "runner": {**config["runner"], "accelerator": "cpu"}}
    here = replace(experiment, folder=experiment.folder.resolve())
    shared = ray.put(data)
    # Sums in another order are other numbers: a worker has the threads of a run in this process.
    threads = str(torch.get_num_threads())
    environment = {"PYTHONPATH": _paths(data), "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    work = ray.remote(_attempt).options(
        num_cpus=runner.cpus, num_gpus=runner.gpus, runtime_env={"env_vars": environment}, name=experiment.folder.name
    )
    running: dict[Any, int] = {}
    while waiting or running:
        while waiting and len(running) < runner.workers:
            seed = waiting.pop(0)
            running[work.remote(dict(config), shared, here, seed, wait, sys.argv)] = seed
        [done], _ = ray.wait(list(running))
        seed = running.pop(done)
        try:
            made = ray.get(done)
        except ray.exceptions.RayTaskError as error:
            made = Attempt(seed, failure=error.cause if isinstance(error.cause, Exception) else error)
        except ray.exceptions.RayError as error:
            made = Attempt(seed, failure=UserError(f"the Ray worker of seed {seed} died ({error})"))
        yield made


def _attempt(
    config: Mapping[str, Any], data: Data, experiment: Experiment, seed: int, wait: bool, command: list[str]
) -> Attempt:
    sys.argv = command  # for the record
    return attempt(config, data, experiment, seed, wait)


def _connect(runner: RayConfig) -> None:
    """Start a cluster on this machine, or connect to the one of ``runner.address``; one that fits stays for the next job."""
    global _connected
    # Of a cluster on this machine, as many processors as its workers are promised, however many there are.
    processors = None if runner.address else runner.workers * runner.cpus
    wanted = runner.address, processors
    if not ray.is_initialized() or _connected not in (None, wanted):
        ray.shutdown()
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as Ray will have it; it warns where nothing is said
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
        _connected = wanted
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= runner.cpus and node.get("GPU", 0) >= runner.gpus for node in nodes):
        largest = {name: max(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
        raise UserError(
            f"runner.cpus, runner.gpus: got {runner.cpus} and {runner.gpus:g} for a trial, but the cluster's machines have "
            f"at most {largest['CPU']:g} and {largest['GPU']:g}"
        )


def _paths(data: Data) -> str:
    """Where a worker finds the modules of this package and of the data set, beside what it finds by itself."""
    modules = [sys.modules[name.partition(".")[0]] for name in (__name__, type(data).__module__)]
    folders = [str(Path(module.__file__).parents[1]) for module in modules if module.__file__]
    return os.pathsep.join(path for path in [*folders, os.environ.get("PYTHONPATH")] if path)
