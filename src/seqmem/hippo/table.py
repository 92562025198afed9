"""Table 3 of the HiPPO paper: error and speed of function approximation (``python -m seqmem.hippo table``).

10^6 samples are read into 256 numbers, from which they are reconstructed.
The signal is band-limited white noise (:func:`seqmem.data.signals.white_noise`) of variance 1/4. A polynomial of order N holds
somewhat fewer than N / pi oscillations, 81 for order 256. The default of 100 is beyond that, and gives errors like the
published ones. The paper's own frequency is not known. The error is that of the whole signal, reconstructed from the last
state.

best         the least-squares polynomial, a lower bound for any memory of N polynomial coefficients.
legs         :func:`seqmem.hippo.project`: bilinear steps, compiled, float64.
lmu          the memory of a Legendre Memory Unit with the whole length as its window, by zero-order hold, as a cell runs it: a
             dense matrix-vector product a step, float64.
lmu, blocks  the same recurrence as ``project`` computes it, 256 samples at once.
lstm         ``torch.nn.LSTM`` of N units with its initial weights, float32. Its read-out is fitted to the amplitudes of other
             signals of the same distribution (:mod:`seqmem.hippo.approximation`). The published error, 0.25, is the variance of
             the signal, which predicting the mean reaches. As the noise is periodic, the end of a signal reveals a little of
             its beginning.
"""

import csv
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from seqmem import ops
from seqmem.data.signals import draw_amplitudes, endings, synthesize, white_noise
from seqmem.hippo.approximation import LSTM_MEMORY, apply_read_out, approximate, fit_read_out, last_hidden
from seqmem.hippo.measures import Memory
from seqmem.hippo.projection import project
from seqmem.hippo.reconstruction import least_squares, reconstruct
from seqmem.io.files import replacing

SOURCE = "HiPPO (arXiv 2008.07669), table 3; not verified"
PUBLISHED = {"legs": (0.02, 470_000), "lmu": (0.05, 41_000), "lstm": (0.25, 35_000)}
"""Mean squared error and elements per second on a CPU, at 10^6 steps and order 256."""

METHODS = {
    "best": "polynomial by least squares",
    "legs": "bilinear, compiled, float64",
    "lmu": "zoh, a matrix product a step, float64",
    "lmu, blocks": "the same, 256 samples at once",
    "lstm": "initial weights, float32; fitted linear read-out",
}
READ_OUT_SIGNALS = 1024
READ_OUT_BATCH = 64


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        model: a key of ``METHODS``.
        mean_squared_error: over the whole signal.
        steps_per_second: samples read in a second; None if nothing is read.
    """

    model: str
    mean_squared_error: float
    steps_per_second: float | None

    @property
    def published(self) -> tuple[float, float] | None:
        """The paper's error and steps per second; None for a model that it does not have."""
        return PUBLISHED.get(self.model)


def measure(length: int, order: int, frequency: int, seed: int) -> tuple[Tensor, dict[str, Tensor], list[Row]]:
    """Run every model over one signal.

    Args:
        length: T, in samples.
        order: N; for the LSTM the number of units.
        frequency: the highest number of oscillations over the signal.
        seed: seed of the signal and of the LSTM's weights; the signals for its read-out take the next one.

    Returns:
        The signal (T,), the reconstructions (T,) by model, and the rows.

    Raises:
        UserError: ``length`` is too short for ``frequency``.
    """
    signal = white_noise(length, frequency, seed)
    lmu = Memory(order, "lmu", length)
    memories: dict[str, tuple[Memory, Callable[[], Tensor]]] = {
        "legs": (Memory(order), lambda: project(signal, order)),
        "lmu": (lmu, lambda: lmu_step_by_step(signal, order)),
        "lmu, blocks": (lmu, lambda: project(signal, order, "lmu", length)),
    }
    reconstructions: dict[str, Tensor] = {}
    seconds: dict[str, float] = {}
    progress = Console(stderr=True).status
    for name, (memory, read) in memories.items():
        with progress(f"{name} reads {length:,} samples"):
            start = time.perf_counter()
            coefficients = read()
            seconds[name] = time.perf_counter() - start
            reconstructions[name] = approximate(coefficients, length, memory)
    with progress(f"lstm reads {length:,} samples"):
        reconstructions["lstm"], seconds["lstm"] = lstm(signal, order, frequency, seed)
    with progress("the best polynomial"):
        rows = [Row("best", best_error(signal, order), None)]
    for name, reconstruction in reconstructions.items():
        rows.append(Row(name, (reconstruction - signal).square().mean().item(), length / seconds[name]))
    return signal, reconstructions, rows


def best_error(signal: Tensor, order: int) -> float:
    """Compute the mean squared error of the least-squares polynomial.

    At most 100 N samples of the signal (T,) are taken, at equal distances, as the whole matrix would not fit into memory.
    """
    sparse = signal[:: max(1, len(signal) // (100 * order))]
    return (reconstruct(least_squares(sparse, order), len(sparse)) - sparse).square().mean().item()


def lmu_step_by_step(signal: Tensor, order: int) -> Tensor:
    """Run the memory of a Legendre Memory Unit sample by sample: c = A_d c + B_d f with theta = T.

    Args:
        signal: (T,) float64.
        order: N.

    Returns:
        The last memory (N,).
    """
    A, B = ops.discretize(*ops.transition("lmu", order), 1 / len(signal), "zoh")
    memory, spare = torch.zeros_like(B), torch.zeros_like(B)
    for value in signal.tolist():
        torch.mv(A, memory, out=spare)
        memory, spare = spare.add_(B, alpha=value), memory
    return memory


def lstm(signal: Tensor, order: int, frequency: int, seed: int) -> tuple[Tensor, float]:
    """Reconstruct a signal (T,) from the last state of an untrained LSTM.

    The read-out predicts the amplitudes, which determine the signal. It is fitted to ``READ_OUT_SIGNALS`` other signals.

    Returns:
        The reconstruction (T,), and the seconds that the LSTM took to read the signal.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = torch.nn.LSTM(1, order, batch_first=True)
    start = time.perf_counter()
    hidden = last_hidden(network, signal.float()[None])
    seconds = time.perf_counter() - start

    amplitudes = draw_amplitudes(READ_OUT_SIGNALS, frequency, seed + 1)
    others = torch.from_numpy(endings(amplitudes, len(signal), LSTM_MEMORY)).float()
    states = torch.cat([last_hidden(network, batch) for batch in others.split(READ_OUT_BATCH)])
    weights = fit_read_out(states, torch.view_as_real(torch.from_numpy(amplitudes)).flatten(1))
    predicted = torch.view_as_complex(apply_read_out(hidden, weights).reshape(1, frequency, 2))
    return torch.from_numpy(synthesize(predicted.numpy(), len(signal)))[0], seconds


def show(rows: Sequence[Row], title: str) -> None:
    """Print the rows with the published numbers."""
    table = Table(title=title, caption=f"published: {SOURCE}; its signal and machine are not known here")
    for name in ("model", "how", "mean squared error", "published", "steps/s", "published steps/s"):
        table.add_column(name, justify="left" if name in ("model", "how") else "right")
    for row in rows:
        error, speed = row.published or (None, None)
        table.add_row(
            row.model,
            METHODS[row.model],
            f"{row.mean_squared_error:.2e}",
            "-" if error is None else f"{error:g}",
            "-" if row.steps_per_second is None else f"{row.steps_per_second:,.0f}",
            "-" if speed is None else f"{speed:,.0f}",
        )
    Console(width=None if Console().is_terminal else 140).print(table)


def save(rows: Sequence[Row], settings: Mapping[str, Any], path: Path) -> None:
    """Write the rows as CSV.

    Args:
        rows: one line each.
        settings: columns that all lines share: what the rows were measured with, and on which machine.
        path: the file.

    Raises:
        UserError: the file cannot be written.
    """
    lines = []
    for row in rows:
        error, speed = row.published or (None, None)
        published = {"published_error": error, "published_steps_per_second": speed, "published_in": SOURCE if error else None}
        lines.append({**asdict(row), "how": METHODS[row.model], **published, **settings})
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)


def draw(signal: Tensor, reconstructions: Mapping[str, Tensor], path: Path) -> None:
    """Draw a signal (T,), its reconstructions (T,) by model, and their errors along it.

    Raises:
        UserError: the picture cannot be written.
    """
    shown = ["legs", "lmu", "lstm"]
    figure = Figure(figsize=(12.0, 7.0), layout="constrained")
    values, errors = figure.subplots(2, 1)
    stride, bins = max(1, len(signal) // 4000), min(200, len(signal))
    position = torch.arange(len(signal), dtype=torch.float64) / len(signal)
    values.plot(position[::stride], signal[::stride], color="black", linewidth=2.5, alpha=0.35, label="signal")
    for number, name in enumerate(shown):
        reconstruction = reconstructions[name]
        values.plot(position[::stride], reconstruction[::stride], color=f"C{number}", linewidth=0.8, label=name)
        squares = [part.mean().item() for part in (reconstruction - signal).square().tensor_split(bins)]
        errors.semilogy([(k + 0.5) / bins for k in range(bins)], squares, color=f"C{number}", label=name)
    values.set(ylabel="reconstruction from the last state", xlim=(0, 1))
    errors.set(xlabel="time over the length of the signal", ylabel="mean squared error there", xlim=(0, 1))
    for axis in (values, errors):
        axis.grid(alpha=0.3)
        axis.legend(loc="upper left", ncols=len(shown) + 1)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=120)
