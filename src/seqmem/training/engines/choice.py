"""How many trials of a command are trained at a time (``runner.workers=auto``).

On the CPU, a trial of a small model gains little from a second thread. So its trials are trained side by side, in processes of
one thread each, where that ends the command sooner and the memory suffices. Larger models are trained one after the other with
all threads. The choice depends on the command and the machine alone, so that a resumed command has the same number of threads.

On a GPU, small models leave most of the device idle. There a short training measures the memory of a trial, and as many trials
as fit into the free memory share the device.
"""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import current_process
from typing import Any

import torch

from seqmem.cells.base import Recurrence
from seqmem.data.spec import DataSpec
from seqmem.io import interrupts
from seqmem.io.machine import resident_memory_mib, usable_cores, usable_memory_mib
from seqmem.models import SequenceModel
from seqmem.training.backend import device_kind
from seqmem.training.config import RayConfig, TrainConfig, runner_config
from seqmem.training.loop.threads import are_given

# Multiply-adds of one step of a batch at which a second thread adds half of its own speed. On two cores, a second thread makes
# a training step of 100 rows 1.4 times as fast with LegS 64, 1.7 with GRU 128, 1.9 with LegS 256; Lightning and the batches,
# which take most of the time of small models, gain nothing. More threads follow from two by Amdahl's law.
_HALF_SPEED = 2e6
# Least factor by which the trials have to end sooner side by side.
_LEAST_GAIN = 1.15
_MEMORY_SHARE = 0.8
# Memory of a process beside its parent's, and of the context of a process on a GPU.
_PROCESS_MIB = 400.0
_CONTEXT_MIB = 600.0


@dataclass(frozen=True)
class Choice:
    """How the trials of a job are trained.

    Attributes:
        workers: trials at a time; 1 trains them in this process.
        threads: of each worker; None for those of this process.
    """

    workers: int = 1
    threads: int | None = None


@dataclass(frozen=True)
class Machine:
    """What a choice depends on besides the command.

    Attributes:
        cores: that this process may use.
        memory_mib: that this process may use.
        threads_given: the number of threads is set from outside, by an environment variable.
        is_worker: this process is itself a worker, or cannot start any.
        resident_mib: memory that this process has taken, the data set included.
    """

    cores: int
    memory_mib: float
    threads_given: bool = False
    is_worker: bool = False
    resident_mib: float = 0.0

    @classmethod
    def here(cls) -> "Machine":
        """Return the machine of this process."""
        is_worker = interrupts.in_worker() or current_process().daemon or sys.platform != "linux"
        return cls(usable_cores(), usable_memory_mib(), are_given(), is_worker, resident_memory_mib())

    @property
    def for_trials_mib(self) -> float:
        """Memory for the processes of trials: this one has the data set, which forked ones share."""
        return max(0.0, _MEMORY_SHARE * self.memory_mib - self.resident_mib)


@dataclass(frozen=True)
class DeviceMemory:
    """Memory of a GPU in MiB.

    Attributes:
        free: without the measured trial.
        peak: of the measured trial, reserved by torch.
        beside: trials that shared the GPU meanwhile.
        host: memory of the machine that the trial's process took, its copy of the data set included.
    """

    free: float
    peak: float
    beside: int = 0
    host: float = 0.0


def choose(
    config: Mapping[str, Any],
    model: SequenceModel,
    spec: DataSpec,
    trials: int,
    measure: Callable[[], DeviceMemory | None],
    machine: Machine | None = None,
) -> Choice:
    """Choose how the trials of a job are trained.

    Args:
        config: a resolved, checked config.
        model: built from it; its tensors may be on the meta device.
        spec: of the data set.
        trials: number of the command, those of its other jobs included.
        measure: trains a few batches on the GPU and returns its memory; None if that failed.
        machine: None for this one.
    """
    runner, train = runner_config(config["runner"]), TrainConfig(**config["train"])
    machine = machine or Machine.here()
    if isinstance(runner, RayConfig) or trials == 1 or runner.devices > 1:
        return Choice()
    on_cpu = device_kind(runner) == "cpu"
    if runner.workers != "auto":
        workers = min(runner.workers, trials)
    elif machine.is_worker or machine.threads_given or machine.cores == 1:
        return Choice()
    elif on_cpu:
        workers = workers_on_cpu(shared_work(model, spec, train), peak_mib(model, spec, train), trials, machine)
    else:
        workers = workers_on_gpu(measure(), trials, machine) if device_kind(runner) == "cuda" else 1
    if workers == 1:
        return Choice()
    if machine.threads_given:
        return Choice(workers, torch.get_num_threads())
    return Choice(workers, 1 if on_cpu else max(1, machine.cores // workers))


def workers_on_cpu(work: float, peak: float, trials: int, machine: Machine) -> int:
    """Return the number of trials at a time, of one thread each, or 1 for a trial with all threads.

    Args:
        work: what :func:`shared_work` returns.
        peak: memory of a trial in MiB.
        trials: number of trials.
        machine: its cores and memory.
    """
    fitting = int(machine.for_trials_mib / peak) if math.isfinite(machine.memory_mib) else machine.cores
    workers = max(1, min(machine.cores, trials, fitting))
    gain = work / (work + _HALF_SPEED)  # by a second thread
    shared = 2 * gain / (1 + gain)  # part of the time that threads divide
    faster = 1 / (1 - shared + shared / machine.cores)
    rounds = math.ceil(trials / workers)
    return workers if trials / rounds >= _LEAST_GAIN * faster else 1


def workers_on_gpu(memory: DeviceMemory | None, trials: int, machine: Machine) -> int:
    """Return the number of trials at a time on one GPU: as many as fit, each with a core that launches its kernels."""
    if memory is None:
        return 1
    fitting = int(_MEMORY_SHARE * memory.free / (memory.peak + _CONTEXT_MIB))
    if memory.host > 0 and math.isfinite(machine.memory_mib):
        on_host = int(machine.for_trials_mib / memory.host)
        fitting = min(fitting, on_host - memory.beside)
    return min(trials, machine.cores, memory.beside + fitting) if fitting > 0 else 1


def shared_work(model: SequenceModel, spec: DataSpec, train: TrainConfig) -> float:
    """Return the multiply-adds that the threads of a trial share before they wait for each other.

    It is a step of a batch for recurrences, and all steps of other models.
    """
    recurrent = any(isinstance(module, Recurrence) for module in model.modules())
    steps = 1 if recurrent else spec.max_length
    return float(train.batch_size * steps * sum(parameter.numel() for parameter in model.parameters()))


def peak_mib(model: SequenceModel, spec: DataSpec, train: TrainConfig) -> float:
    """Return an estimate of the memory of a trial in MiB.

    It is that of the outputs of all weight matrices, kept for backward, and of weights, gradients, Adam's two moments and a
    checkpoint's copy.
    """
    width = sum(max(parameter.shape) for parameter in model.parameters() if parameter.dim() > 1)
    weights = sum(parameter.numel() for parameter in model.parameters())
    return _PROCESS_MIB + 4 * (2 * train.batch_size * spec.max_length * width + 5 * weights) / 2**20
