"""Pictures of HiPPO memories: the weight of each past input in a memory, and the signal that it still holds."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from seqmem import cells
from seqmem.cells.memory import MemoryCell
from seqmem.cells.timestamped import TimestampedCell

STEPS, ORDER, SHOWN = 200, 24, 4
_NAMES = ("legs", "legt", "lagt", "legts", "lagts", "legst", "legsn", "lmu", "lmu_plain", "lmut", "tlsi", "tlti")
_ARGUMENTS: dict[str, dict[str, Any]] = {"tlti": {"measure": "legt", "dt": 0.01}}


def draw(figure: Figure, name: str) -> None:
    """Draw kernels of the first coefficients, and a signal with its reconstruction from the memory alone."""
    sizes = {"input_size": 2 if name in ("tlsi", "tlti") else 1, "hidden_size": 4, "memory_order": ORDER}
    cell: Any = cells.get(name)(**sizes, **_ARGUMENTS.get(name, {}))
    times = uneven_times() if isinstance(cell, TimestampedCell) else torch.arange(STEPS, dtype=torch.float64)
    weights = kernels(cell.double(), times)
    weight_axes, signal_axes = figure.subplots(1, 2)
    distances = times.diff(prepend=times[:1] - 1)
    for n in range(SHOWN):
        weight = weights[n] / distances
        weight_axes.plot(times, weight / weight.abs().max(), label=f"$m_{n}$")
    weight_axes.set(xlabel="time of the input", ylabel="weight (scaled)", title="weight of each input in the memory")
    weight_axes.legend(ncols=SHOWN, fontsize=7, loc="lower left", handlelength=1)
    signal = sample(times)
    signal_axes.plot(times, signal, color="0.7", linewidth=2.5, label="signal")
    signal_axes.plot(times, read_out(weights, signal, distances), color="C3", label=f"read from {ORDER} numbers")
    if isinstance(cell, TimestampedCell):
        shown = times.repeat_interleave(3).numpy()
        heights = torch.tensor([-2.4, -2.15, float("nan")]).repeat(STEPS)
        signal_axes.plot(shown, heights, color="0.4", linewidth=0.5)
    signal_axes.set(xlabel="time", ylim=(-2.4, 3.2), title=f"what the memory holds after step {STEPS}")
    signal_axes.legend(ncols=2, fontsize=7, loc="upper left")


def kernels(cell: MemoryCell, times: Tensor) -> Tensor:
    """Return the linear map (N, T) from the memory's inputs to the memory after the last step.

    Row t of a batch of T rows gets a one at step t and zeros elsewhere, so the cell itself computes column t.
    """
    steps = len(times)
    state: Any = cell.initial_state(steps)
    memory, impulses = state.memory, torch.eye(steps, dtype=torch.float64)
    with torch.no_grad():
        for t, step_size in enumerate(_step_sizes(cell, state, times)):
            memory = cell.update_memory(memory, impulses[:, t : t + 1], step_size)
    return memory[:, 0].T


def _step_sizes(cell: Any, state: Any, times: Tensor) -> list[Any]:
    if not isinstance(cell, TimestampedCell):
        return list(cell.schedule(state, len(times), True))
    before = torch.cat([torch.zeros(1, dtype=torch.float64), times[:-1]])
    rows = [torch.full((len(times),), float(value), dtype=torch.float64) for value in (*before, *times)]
    return [cell.step_sizes(rows[t], rows[len(times) + t]) for t in range(len(times))]


def read_out(weights: Tensor, signal: Tensor, distances: Tensor) -> Tensor:
    """Return the signal with the same memory whose squared integral over time is the smallest."""
    scale = distances.sqrt()
    return torch.linalg.pinv(weights / scale, rtol=1e-3) @ (weights @ signal) / scale


def sample(times: Tensor) -> Tensor:
    """Return a smooth signal at some times."""
    return torch.sin(times / 31) + 0.6 * torch.sin(times / 11 + 1) + 0.4 * torch.cos(times / 6.5)


def uneven_times() -> Tensor:
    """Return times with random distances and a gap."""
    distances = torch.empty(STEPS, dtype=torch.float64).exponential_(1.0)
    distances[STEPS // 2] = 25.0
    return distances.cumsum(0)


PICTURES: dict[str, Callable[[Figure], None]] = {name: partial(draw, name=name) for name in _NAMES}
