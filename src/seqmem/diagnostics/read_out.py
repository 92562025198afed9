"""Linear read-out of past inputs from a state, and its held-out R^2."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from seqmem.errors import UserError

PENALTIES = tuple(10.0**k for k in range(-8, 4))
"""Penalties to choose from, as multiples of the number of fitted rows; the state's numbers are standardized."""

_budget = 2**24  # numbers of targets that are fitted at once: 128 MiB in float64


def read_out_r2(states: Tensor, inputs: Tensor, fitted: Tensor) -> Tensor:
    """Measure how well a linear map of the state gives the input at each lag: R^2 on rows that the map was not fitted to.

    Ridge regression with a constant, of each input channel and lag on the standardized numbers of the state. The penalty is
    that of ``PENALTIES`` with the smallest squared leave-one-out error. R^2 is 1 minus the squared error over the squared
    deviation from the mean, both summed over the channels and the rows that were not fitted. 1 is a state that holds the input,
    and 0 one that says nothing but the mean; below 0, what was fitted does not hold for other rows. With fewer fitted rows than
    numbers of the state, R^2 is a lower bound: more rows may fit a better map.

    Args:
        states: (n, d), as :func:`flat_state` returns them.
        inputs: (n, L, C) floating point, or (n, L) int64 tokens, which are read as one-hot vectors: the inputs at L lags.
        fitted: (n,) bool: rows to fit the map to. R^2 is measured on the others.

    Returns:
        (L,) float64; NaN at lags where the measured inputs are all the same.

    Raises:
        UserError: shapes that do not match, states or inputs that are not finite, fewer than 2 rows to fit or to measure.

    >>> states = torch.randn(200, 5, dtype=torch.float64)
    >>> inputs = torch.stack([states[:, 2:3], torch.randn(200, 1, dtype=torch.float64)], 1)
    >>> fitted = torch.arange(200) < 100
    >>> read_out_r2(states, inputs, fitted)[0] > 0.999
    tensor(True)
    """
    _check(states, inputs, fitted)
    # Imported here because it takes a second.
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, chosen = states.double().cpu().numpy(), fitted.cpu().numpy()
    penalties = np.array(PENALTIES) * chosen.sum()
    errors = []
    for part in _parts(inputs.cpu()):
        rows, lags, channels = part.shape
        targets = part.reshape(rows, lags * channels)
        model = make_pipeline(StandardScaler(), RidgeCV(penalties, alpha_per_target=True))
        model.fit(features[chosen], targets[chosen])
        residual = model.predict(features[~chosen]).reshape(-1, lags, channels) - part[~chosen]
        errors.append(np.square(residual).sum((0, 2)))
    return r2(torch.from_numpy(np.concatenate(errors)), inputs[~fitted])


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


def _parts(inputs: Tensor) -> Iterator[np.ndarray]:
    """Yield the inputs (n, l, C) float64 of a few lags at a time; of tokens the one-hot vectors of those that occur."""
    tokens = not inputs.is_floating_point()
    channels = int(inputs.max()) + 1 if tokens else inputs.shape[2]
    for part in inputs.split(max(1, _budget // (len(inputs) * channels)), 1):
        if tokens:
            part = one_hot(part.unique(return_inverse=True)[1])
        yield part.double().numpy()


def _check(states: Tensor, inputs: Tensor, fitted: Tensor) -> None:
    dims = 3 if inputs.is_floating_point() else 2
    if states.dim() != 2 or inputs.dim() != dims or not len(states) == len(inputs) == len(fitted) or fitted.dim() != 1:
        raise UserError(
            f"read_out_r2: got states of shape {tuple(states.shape)}, inputs of shape {tuple(inputs.shape)} and fitted of "
            f"shape {tuple(fitted.shape)}, expected (n, d), (n, L, C) or tokens (n, L), and (n,)"
        )
    count = int(fitted.sum())
    if count < 2 or len(fitted) - count < 2:
        raise UserError(f"fitted: got {count} of {len(fitted)} rows, expected at least 2 to fit and 2 to measure")
    for name, values in (("states", states), ("inputs", inputs)):
        if not bool(values.isfinite().all()):
            raise UserError(f"{name}: got values that are not finite")
