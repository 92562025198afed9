"""Linear read-out of past inputs from a state, and its held-out R^2."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from seqmem.errors import UserError

PENALTIES = tuple(10.0**k for k in range(-8, 4))
"""Penalties to choose from, as multiples of the number of fitted rows; the state's numbers are standardized."""

_budget = 2**24  # numbers of targets that are fitted at once: 128 MiB in float64


def read_out_r2(states: Tensor, inputs: Tensor, fitted: Tensor) -> Tensor:
    """Measure how well a linear map of the state gives the input at each lag: R^2 on rows that the map was not fitted to.

    Ridge regression with a constant on the standardized numbers of the state. The penalty of each lag is that of ``PENALTIES``
    with the smallest squared leave-one-out error. R^2 is 1 minus the squared error over the squared deviation from the mean,
    both summed over the channels and the rows that were not fitted. 1 is a state that holds the input, and 0 one that says
    nothing but the mean; below 0, what was fitted does not hold for other rows. With fewer fitted rows than numbers of the
    state, R^2 is a lower bound: more rows may fit a better map.

    Args:
        states: (n, d), as :func:`flat_state` returns them.
        inputs: (n, L, C) floating point, or (n, L) int64 tokens, which are read as one-hot vectors: the inputs at L lags.
        fitted: (n,) bool: rows to fit the map to. R^2 is measured on the others.

    Returns:
        (L,) float64; NaN at lags where the measured inputs are all the same.

    Raises:
        UserError: shapes that do not match, ``fitted`` that is not bool, states or inputs that are not finite, fewer than 2
            rows to fit or to measure.

    >>> states = torch.randn(200, 5, dtype=torch.float64)
    >>> inputs = torch.stack([states[:, 2:3], torch.randn(200, 1, dtype=torch.float64)], 1)
    >>> fitted = torch.arange(200) < 100
    >>> read_out_r2(states, inputs, fitted)[0] > 0.999
    tensor(True)
    """
    _check(states, inputs, fitted)
    states, fitted, errors = states.double().cpu(), fitted.cpu(), []
    ridge = _Ridge(states[fitted])
    for part in _parts(inputs.cpu()):
        errors.append((ridge.fit(part[fitted])(states[~fitted]) - part[~fitted]).square().sum((0, 2)))
    return r2(torch.cat(errors), inputs.cpu()[~fitted])


class _Ridge:
    """Ridge regression with a constant, for targets at several lags, with a penalty for each lag.

    With the singular value decomposition X = U S V' of the standardized states, a penalty a has the residuals
    Y - U F U' Y with F = S^2 / (S^2 + a), and the error of a row that is left out is its residual over 1 - 1 / n - (U F U')_ii.
    """

    def __init__(self, states: Tensor):
        """Decompose states (n, d); numbers that are the same in all rows do not count."""
        self.center, deviation = states.mean(0), states.std(0, correction=0)
        self.scale = torch.where(deviation > 1e-12 * self.center.abs(), deviation, torch.inf)
        self.U, self.S, self.V = torch.linalg.svd(self._standardized(states), full_matrices=False)

    def fit(self, targets: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the map from states (m, d) to targets (m, l, C) that was fitted to targets (n, l, C)."""
        rows = len(targets)
        mean = targets.mean(0)
        flat = (targets - mean).flatten(1)
        inside = self.U.T @ flat
        outside = flat - self.U @ inside
        best = torch.full(targets.shape[1:2], torch.inf, dtype=torch.float64)
        weights = torch.zeros(len(inside), *targets.shape[1:], dtype=torch.float64)
        for penalty in (rows * multiple for multiple in PENALTIES):
            damped = penalty / (self.S.square() + penalty)  # 1 - F, without cancellation
            left = 1 - 1 / rows - self.U.square().sum(1) + self.U.square() @ damped
            residual = (outside + self.U @ (damped[:, None] * inside)).unflatten(1, targets.shape[1:])
            errors = (residual / left.clamp(min=1e-15)[:, None, None]).square().sum((0, 2))
            better = errors < best
            best = torch.where(better, errors, best)
            solution = ((self.S / (self.S.square() + penalty))[:, None] * inside).unflatten(1, targets.shape[1:])
            weights = torch.where(better[:, None], solution, weights)
        coefficients = (self.V.T @ weights.flatten(1)).unflatten(1, targets.shape[1:])
        return lambda states: torch.einsum("md,dlc->mlc", self._standardized(states), coefficients) + mean

    def _standardized(self, states: Tensor) -> Tensor:
        """Return states (n, d) less the means of the fitted rows, over their deviations."""
        return (states - self.center) / self.scale


def r2(squared_errors: Tensor, inputs: Tensor) -> Tensor:
    """Return R^2 at each lag.

    Args:
        squared_errors: (L,) summed over rows and channels.
        inputs: (n, L, C) floating point, or (n, L) int64 tokens: those that were to be predicted.

    Returns:
        (L,) float64, NaN where the inputs of all rows are the same.
    """
    deviations = []
    for lag in inputs.cpu().unbind(1):
        if lag.is_floating_point():
            centred = lag.double() - lag.double().mean(0)
            deviations.append(float(centred.square().sum()) if (lag != lag[0]).any() else 0.0)
        else:
            counts = lag.unique(return_counts=True)[1].double()
            deviations.append(float(counts.sum() - counts.square().sum() / counts.sum()))
    total = torch.tensor(deviations, dtype=torch.float64)
    return (1 - squared_errors.double().cpu() / total).where(total > 0, torch.nan)


def _parts(inputs: Tensor) -> Iterator[Tensor]:
    """Yield the inputs (n, l, C) float64 of a few lags at a time; of tokens the one-hot vectors of those that occur."""
    tokens = not inputs.is_floating_point()
    channels = int(inputs.max()) + 1 if tokens else inputs.shape[2]
    for part in inputs.split(max(1, _budget // (len(inputs) * channels)), 1):
        if tokens:
            part = one_hot(part.unique(return_inverse=True)[1])
        yield part.double()


def _check(states: Tensor, inputs: Tensor, fitted: Tensor) -> None:
    dims = 3 if inputs.is_floating_point() else 2
    if states.dim() != 2 or inputs.dim() != dims or not len(states) == len(inputs) == len(fitted) or fitted.dim() != 1:
        raise UserError(
            f"read_out_r2: got states of shape {tuple(states.shape)}, inputs of shape {tuple(inputs.shape)} and fitted of "
            f"shape {tuple(fitted.shape)}, expected (n, d), (n, L, C) or tokens (n, L), and (n,)"
        )
    if fitted.dtype != torch.bool:
        raise UserError(f"read_out_r2: got fitted of {fitted.dtype}, expected torch.bool")
    count = int(fitted.sum())
    if count < 2 or len(fitted) - count < 2:
        raise UserError(f"fitted: got {count} of {len(fitted)} rows, expected at least 2 to fit and 2 to measure")
    for name, values in (("states", states), ("inputs", inputs)):
        if not bool(values.isfinite().all()):
            raise UserError(f"{name}: got values that are not finite")
