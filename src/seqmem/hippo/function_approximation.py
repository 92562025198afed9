"""Table 3 of the HiPPO paper: how much of 10^6 samples fits into 256 numbers, and how fast ("python -m seqmem.hippo table").

The signal is band-limited white noise (:func:`seqmem.hippo.signals.white_noise`) of variance 1/4 with at most ``frequency``
oscillations over its length. A polynomial of order N holds somewhat fewer than N / pi of them, 81 for order 256; the default of
100 is beyond that, and gives errors like the published ones. (The paper's own is not known here.) Each memory reads the signal
sample by sample; the error is that of the whole signal, reconstructed from the last state.

best        the polynomial that comes closest to the signal, by least squares: no memory of N coefficients can do better.
legs        the projection of :func:`seqmem.hippo.project`: bilinear steps, compiled, float64.
lmu         the memory of a Legendre Memory Unit whose window is the whole length, by zero-order hold, as a cell runs it: a
            dense matrix-vector product a step, float64.
lmu, blocks the same recurrence as ``project`` takes it when samples wait: 256 at once.
lstm        ``torch.nn.LSTM`` of N units, float32, with its initial weights, and a linear read-out of its last hidden state
            that is fitted by ridge regression to other signals of the same distribution. Its weights are not trained: that
            would take gradients through 10^6 steps. How the paper's LSTM was trained is not known here; its published error,
            0.25, is the variance of the signal, which is what the mean alone reaches. The noise being periodic, what the
            LSTM knows of the end tells it a little of the beginning.
"""

import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from seqmem import ops
from seqmem.hippo import read_out
from seqmem.hippo.projection import project
from seqmem.hippo.reconstruction import least_squares, reconstruct
from seqmem.hippo.signals import spectra, synthesize, white_noise
from seqmem.io.files import replacing
from seqmem.results.provenance import provenance

SOURCE = "HiPPO (arXiv 2008.07669), table 3; not verified"
PUBLISHED = {"legs": (0.02, 470_000), "lmu": (0.05, 41_000), "lstm": (0.25, 35_000)}
"""Mean squared error and elements per second on a CPU, at 10^6 steps and order 256."""

HOW = {
    "best": "polynomial by least squares",
    "legs": "bilinear, compiled, float64",
    "lmu": "zoh, a matrix product a step, float64",
    "lmu, blocks": "the same, 256 samples at once",
    "lstm": "initial weights, float32; fitted linear read-out",
}
READ_OUT_SIGNALS = 1024
CHUNK = 10_000


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured of one model, and how."""

    model: str
    mean_squared_error: float
    steps_per_second: float | None

    @property
    def published(self) -> tuple[float, float] | None:
        """The paper's error and steps per second."""
        return PUBLISHED.get(self.model)


def measure(length: int, order: int, frequency: int, seed: int) -> tuple[Tensor, dict[str, Tensor], list[Row]]:
    """Run every model over one signal.

    Args:
        length: T, in samples.
        order: N; the LSTM's number of units.
        frequency: the highest number of oscillations over the signal.
        seed: of the signal, of the LSTM's weights and of the signals for its read-out.

    Returns:
        The signal (T,), the reconstructions (T,) by model, and the rows.
    """
    signal = white_noise(length, frequency, seed)
    made: dict[str, Tensor] = {}
    seconds: dict[str, float] = {}
    memories: dict[str, tuple[Callable[[], Tensor], tuple[Any, ...]]] = {
        "legs": (lambda: project(signal, order), ()),
        "lmu": (lambda: lmu_step_by_step(signal, order), ("lmu", length)),
        "lmu, blocks": (lambda: project(signal, order, "lmu", length), ("lmu", length)),
    }
    working = Console(stderr=True).status
    for name, (read, measure_and_window) in memories.items():
        with working(f"{name} reads {length:,} samples"):
            start = time.perf_counter()
            coefficients = read()
            seconds[name] = time.perf_counter() - start
            made[name] = reconstruct(coefficients, length, *measure_and_window)
    with working(f"lstm reads {length:,} samples"):
        made["lstm"], seconds["lstm"] = lstm(signal, order, frequency, seed)
    with working("the best polynomial"):
        rows = [Row("best", best_error(signal, order), None)]
    rows += [Row(name, (made[name] - signal).square().mean().item(), length / seconds[name]) for name in made]
    return signal, made, rows


def best_error(signal: Tensor, order: int) -> float:
    """Mean squared error of the least-squares polynomial, on as many samples of a signal (T,) as its matrix has room for."""
    sparse = signal[:: max(1, len(signal) // (100 * order))]
    return (reconstruct(least_squares(sparse, order), len(sparse)) - sparse).square().mean().item()


def lmu_step_by_step(signal: Tensor, order: int) -> Tensor:
    """The memory (N,) of a Legendre Memory Unit with theta = T after a signal (T,): c = A_d c + B_d f, sample by sample."""
    A, B = ops.discretize(*ops.transition("lmu", order), 1 / len(signal), "zoh")
    memory, spare = torch.zeros_like(B), torch.zeros_like(B)
    for value in signal.tolist():
        torch.mv(A, memory, out=spare)
        memory, spare = spare.add_(B, alpha=value), memory
    return memory


def lstm(signal: Tensor, order: int, frequency: int, seed: int) -> tuple[Tensor, float]:
    """What an LSTM that was not trained retains of a signal (T,), by its best linear read-out; and the seconds it took.

    The read-out maps the last hidden state to the amplitudes of the signal's oscillations, which are all there is to know of
    it. It is fitted to ``READ_OUT_SIGNALS`` other signals, with the ridge that is best on a quarter of them held back.

    Returns:
        The reconstruction (T,), and the seconds of the recurrence.
    """
    length = len(signal)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        cell = torch.nn.LSTM(1, order, batch_first=True)
        state = None
        start = time.perf_counter()
        for chunk in signal.float().split(CHUNK):
            _, state = cell(chunk[None, :, None], state)
        seconds = time.perf_counter() - start
        assert state is not None
        hidden = state[0][0].double()

        amplitudes = spectra(READ_OUT_SIGNALS, frequency, seed + 1)
        hidden_of_others = torch.cat([cell(ends[..., None])[1][0][0] for ends in endings(amplitudes, length).float().split(64)])
    weights = read_out.ridge(read_out.with_one(hidden_of_others.double()), torch.view_as_real(amplitudes).flatten(1))
    return synthesize(torch.view_as_complex((read_out.with_one(hidden) @ weights).reshape(1, frequency, 2)), length)[0], seconds


def endings(amplitudes: Tensor, length: int) -> Tensor:
    """The last ``LSTM_MEMORY`` samples (or all) of signals with these amplitudes, (count, LSTM_MEMORY) float64."""
    moments = torch.arange(max(0, length - read_out.LSTM_MEMORY), length, dtype=torch.float64)
    phases = torch.outer(torch.arange(1, amplitudes.shape[-1] + 1, dtype=torch.float64), moments) * (2 * torch.pi / length)
    return 2 * (amplitudes.real @ phases.cos() - amplitudes.imag @ phases.sin())


def show(rows: Sequence[Row], title: str) -> None:
    """Print the table, with the published numbers beside."""
    table = Table(title=title, caption=f"published: {SOURCE}; its signal and machine are not known here")
    for name in ("model", "how", "mean squared error", "published", "steps/s", "published steps/s"):
        table.add_column(name, justify="left" if name in ("model", "how") else "right")
    for row in rows:
        error, speed = row.published or (None, None)
        table.add_row(
            row.model,
            HOW[row.model],
            f"{row.mean_squared_error:.2e}",
            "-" if error is None else f"{error:g}",
            "-" if row.steps_per_second is None else f"{row.steps_per_second:,.0f}",
            "-" if speed is None else f"{speed:,.0f}",
        )
    Console(width=None if Console().is_terminal else 140).print(table)


def save(rows: Sequence[Row], settings: dict[str, object], path: Path) -> None:
    """Write the rows as CSV, with what they were measured with and on."""
    found = provenance()
    where = {
        "processor": found["machine"]["processor"],
        "threads": found["machine"]["threads"],
        "commit": found["commit"],
        "date": time.strftime("%Y-%m-%d"),
        "torch": found["versions"]["torch"],
        "operators": ops.paths()["legs_function_approx_trapezoidal"],
    }
    lines = []
    for row in rows:
        error, speed = row.published or (None, None)
        beside = {"published_error": error, "published_steps_per_second": speed, "published_in": SOURCE if error else None}
        lines.append({**asdict(row), "how": HOW[row.model], **beside, **settings, **where})
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)


def draw(signal: Tensor, made: dict[str, Tensor], path: Path) -> None:
    """Draw the signal (T,) with the reconstructions, and where along it they err."""
    shown = ["legs", "lmu", "lstm"]
    figure = Figure(figsize=(12.0, 7.0), layout="constrained")
    values, errors = figure.subplots(2, 1)
    stride, bins = max(1, len(signal) // 4000), min(200, len(signal))
    position = torch.arange(len(signal), dtype=torch.float64) / len(signal)
    values.plot(position[::stride], signal[::stride], color="black", linewidth=2.5, alpha=0.35, label="signal")
    for number, name in enumerate(shown):
        values.plot(position[::stride], made[name][::stride], color=f"C{number}", linewidth=0.8, label=name)
        squares = [part.mean().item() for part in (made[name] - signal).square().tensor_split(bins)]
        errors.semilogy([(k + 0.5) / bins for k in range(bins)], squares, color=f"C{number}", label=name)
    values.set(ylabel="reconstruction from the last state", xlim=(0, 1))
    errors.set(xlabel="time over the length of the signal", ylabel="mean squared error there", xlim=(0, 1))
    for axis in (values, errors):
        axis.grid(alpha=0.3)
        axis.legend(loc="upper left", ncols=len(shown) + 1)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=120)
