"""Mackey-Glass equation: forecast a chaotic series from its past."""

from collections.abc import Callable
from itertools import count
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from seqmem.arguments import checked
from seqmem.data import Batch, DataSet, DataSpec, Provenance, Seed, Split, generator, sha256

TOLERANCE = 1e-8
"""Relative and absolute tolerance of a step of the solver."""


class MackeyGlass(DataSet):
    """Chaotic series; the target of every step is the value ``horizon`` steps ahead.

    The equation is dx/dt = 0.2 x(t - tau) / (1 + x(t - tau)^10) - 0.1 x(t). A step is one unit of time. A series is tanh(x - 1)
    minus the mean of the training series. Inputs are (B, T, 1), and targets (B, T, 1) are the inputs ``horizon`` steps later,
    one for every step. Predicting no change has an NRMSE of about 1.62 at the default horizon of 15.

    The defaults are those of the LMU paper's experiment (Voelker et al., 2019) in its corrected form, which forecasts the
    future: 64 series of 5000 steps for training and 64 for test. The paper has no validation series; here 32 more are drawn.
    Its series start from almost the same past and stay similar for long; here each starts from a different past, a constant
    uniform on [0.5, 1.5).
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

        Rounding errors grow as about e^(0.006 t) for tau = 17. After some thousand steps the series of different machines may
        differ, although they have the same distribution; the provenance has their checksums.

        Args:
            length: T, steps of a sequence.
            horizon: how many steps ahead the target is.
            tau: the delay in steps; 17 is mildly chaotic, 30 more so.
            washout: steps that are solved and discarded before a series begins.
            train_samples: series for training.
            validation_samples: series for validation.
            test_samples: series for test.
            seed: seed of the pasts, which are drawn independently for the three splits.
            num_workers: worker processes that make batches; 0 makes them in the main process.
        """
        sizes: dict[Split, int] = {"train": train_samples, "validation": validation_samples, "test": test_samples}
        times = np.arange(washout, washout + length + horizon)
        series: dict[Split, np.ndarray] = {}
        for split, size in sizes.items():
            past = generator(seed, self.name, split).uniform(0.5, 1.5, size)
            series[split] = np.tanh(solve(past, tau, times) - 1)
        mean = self.learned("mean", lambda: series["train"].mean())
        self._horizon = horizon
        self._series = {split: torch.from_numpy((values - mean).astype(np.float32)) for split, values in series.items()}
        spec = DataSpec(self.name, 1, 1, "forecasting", output_steps=None, max_length=length)
        sums = {split: sha256(values.numpy()) for split, values in self._series.items()}
        super().__init__(spec, sizes, Provenance(seed, sums), num_workers)

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Return inputs (B, T, 1) float32 and targets (B, T, 1) float32."""
        series = self._series[split][indices].unsqueeze(-1)
        return Batch(series[:, : -self._horizon], series[:, self._horizon :])


def solve(past: np.ndarray, tau: float, times: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """Solve the Mackey-Glass equation by the method of steps.

    Between two multiples of tau, x(t - tau) is known from the previous interval, so the equation is an ordinary one there. The
    derivatives of its solution jump at the multiples of tau, where the solver is restarted.

    Args:
        past: (n,) the constant value of each series up to time 0.
        tau: the delay.
        times: (T,) increasing and not negative.
        tolerance: relative and absolute tolerance of a step of the solver.

    Returns:
        x at these times, (n, T) float64.
    """
    # Imported here because only this data set needs a solver.
    from scipy.integrate import solve_ivp

    series = np.empty((len(past), len(times)))
    solution: Callable[[Any], np.ndarray] = lambda time: past  # noqa: E731
    state = past
    for interval in count():
        start, end = interval * tau, (interval + 1) * tau
        solved = solve_ivp(_rate, (start, end), state, args=(solution, tau), dense_output=True, rtol=tolerance, atol=tolerance)
        solution, state = solved.sol, solved.y[:, -1]
        first, last = np.searchsorted(times, [start, end])
        if first < last:
            series[:, first:last] = solution(times[first:last])
        if last == len(times):
            break
    return series


def _rate(time: float, value: np.ndarray, solution: Callable[[Any], np.ndarray], tau: float) -> np.ndarray:
    delayed = solution(time - tau)
    return 0.2 * delayed / (1 + delayed**10) - 0.1 * value
