"""The Mackey-Glass equation: forecast a chaotic series from its past."""

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from seqmem.arguments import checked
from seqmem.data.batch import Batch
from seqmem.data.dataset import DataSet
from seqmem.data.provenance import Provenance, sha256
from seqmem.data.seeds import Seed, generator
from seqmem.data.spec import DataSpec
from seqmem.data.splits import Split

TOLERANCE = 1e-8
"""Relative and absolute, of a step of the solver."""


class MackeyGlass(DataSet):
    """Series of dx/dt = 0.2 x(t - tau) / (1 + x(t - tau)^10) - 0.1 x(t), of which the value ``horizon`` steps ahead is wanted.

    A step is one unit of time. A series is tanh(x - 1) less the mean of the training series; inputs are (B, T, 1), and targets
    (B, T, 1) are the inputs ``horizon`` steps later, expected at every step. Predicting no change has an NRMSE of about 1.62 at
    the default horizon.

    The defaults are those of the LMU paper's experiment (Voelker et al., 2019) in its corrected form, which forecasts the
    future: 64 series of 5000 steps to train on and 64 to test on. That has no validation series; here 32 more are drawn for
    them. Its series come from almost the same past and stay alike for long; here each has a past of its own, a constant uniform
    on [0.5, 1.5).
    """

    name = "mackey_glass"

    @checked
    def __init__(
        self,
        length: PositiveInt = 5000,
        horizon: PositiveInt = 15,
        tau: Annotated[float, Field(ge=1)] = 17.0,
        washout: NonNegativeInt = 100,
        train_samples: PositiveInt = 64,
        validation_samples: PositiveInt = 32,
        test_samples: PositiveInt = 64,
        seed: Seed = 0,
        num_workers: NonNegativeInt = 0,
    ):
        """Solve the equation (seconds at the default size).

        Rounding grows as about e^(0.006 t) for tau = 17, so after some thousand steps another machine's series may be others of
        the same kind; the record holds their checksums.

        Args:
            length: T, steps of a sequence.
            horizon: how many steps ahead the target lies.
            tau: the delay in steps; 17 is mildly chaotic, 30 more so.
            washout: steps that are solved and thrown away before a series begins.
            train_samples: series for training.
            validation_samples: series for validation.
            test_samples: series for test.
            seed: of the pasts, which are drawn independently for the three splits.
            num_workers: processes that make batches; 0 makes them in the main one.
        """
        sizes: dict[Split, int] = {"train": train_samples, "validation": validation_samples, "test": test_samples}
        times = np.arange(washout, washout + length + horizon)
        series: dict[Split, np.ndarray] = {}
        for split, size in sizes.items():
            past = generator(seed, self.name, split).uniform(0.5, 1.5, size)
            series[split] = np.tanh(solve(past, tau, times) - 1)
        mean = series["train"].mean()
        self._horizon = horizon
        self._series = {split: torch.from_numpy((values - mean).astype(np.float32)) for split, values in series.items()}
        spec = DataSpec(self.name, 1, 1, "forecasting", output_steps=None, max_length=length)
        sums = {split: sha256(values.numpy()) for split, values in self._series.items()}
        super().__init__(spec, sizes, Provenance(seed, sums), num_workers)

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Inputs (B, T, 1) float32, targets (B, T, 1) float32."""
        series = self._series[split][indices].unsqueeze(-1)
        return Batch(series[:, : -self._horizon], series[:, self._horizon :])


def solve(past: np.ndarray, tau: float, times: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """Solve the Mackey-Glass equation by the method of steps.

    Between two multiples of tau, x(t - tau) is known from the interval before, so there the equation is an ordinary one; the
    kinks of its solution lie at the multiples of tau, where the solver starts anew.

    Args:
        past: (n,) the constant value of each series up to time 0.
        tau: the delay.
        times: (T,) increasing and not negative.
        tolerance: relative and absolute, of a step of the solver.

    Returns:
        (n, T) float64: x at these times.
    """
    # Imported here because most runs need no solver.
    from scipy.integrate import solve_ivp

    series = np.empty((len(past), len(times)))
    solution: Callable[[Any], np.ndarray] = lambda time: past  # noqa: E731
    state = past
    for interval in range(int(times[-1] // tau) + 1):
        start, end = interval * tau, (interval + 1) * tau
        solved = solve_ivp(_rate, (start, end), state, args=(solution, tau), dense_output=True, rtol=tolerance, atol=tolerance)
        solution, state = solved.sol, solved.y[:, -1]
        first, last = np.searchsorted(times, [start, end])
        if first < last:
            series[:, first:last] = solution(times[first:last])
    return series


def _rate(time: float, value: np.ndarray, solution: Callable[[Any], np.ndarray], tau: float) -> np.ndarray:
    delayed = solution(time - tau)
    return 0.2 * delayed / (1 + delayed**10) - 0.1 * value
