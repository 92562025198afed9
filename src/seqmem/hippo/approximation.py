"""Function approximation (HiPPO, table 3): reconstruct a signal from N numbers that it was read into.

A polynomial memory (LegS, LMU) reads a signal by :func:`seqmem.hippo.project`, and :func:`approximate` reconstructs it. A
recurrent network reads it by :func:`last_hidden`; :func:`fit_read_out` fits a linear map from its last hidden state to numbers
that determine the signal. The network is not trained, since that would take gradients through 10^6 steps. How the paper trained
its LSTM is not known.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from seqmem.hippo.measures import Memory
from seqmem.hippo.reconstruction import reconstruct

CHUNK = 10_000
"""Steps of one call of a recurrent network. The outputs of 10^6 steps at once would fill the memory."""

LSTM_MEMORY = 1000
"""Steps that the last hidden state of an untrained LSTM depends on: its forget gates are near 1/2, and 2^-1000 is left of
more."""


def approximate(coefficients: Tensor, length: int, memory: Memory) -> Tensor:
    """Reconstruct all of a signal; samples before the memory's window are 0, the mean.

    Args:
        coefficients: (..., N) after ``length`` samples.
        length: T, number of samples.
        memory: settings of the projection.

    Returns:
        (..., T), of the coefficients' type.
    """
    remembered = reconstruct(coefficients, length, **memory.settings)
    return pad(remembered, (length - remembered.shape[-1], 0))


def last_hidden(network: Callable[..., tuple[Tensor, Any]], signals: Tensor) -> Tensor:
    """Run a recurrent network over signals, without gradients.

    Args:
        network: takes inputs (B, T, 1) and a state (None at first), returns outputs (B, T, H) and the next state.
        signals: (B, T), of the network's type.

    Returns:
        (B, H) float64, the outputs of the last step.
    """
    state = None
    with torch.no_grad():
        for chunk in signals[..., None].split(CHUNK, dim=1):
            outputs, state = network(chunk, state)
    return outputs[:, -1].double()


def fit_read_out(states: Tensor, targets: Tensor) -> Tensor:
    """Fit a linear map with a constant by ridge regression.

    The penalty is the best of 1, 0.1, ... 10^-10 on the last quarter of the rows, relative to the mean square of the states.

    Args:
        states: (S, H) float64.
        targets: (S, J) float64.

    Returns:
        Weights (H + 1, J) for :func:`apply_read_out`.
    """
    inputs = _with_one(states)
    fitted = max(1, len(inputs) * 3 // 4)

    def solve(count: int, penalty: float) -> Tensor:
        x, y = inputs[:count], targets[:count]
        scale = penalty * x.square().sum() / x.shape[1]
        identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        return torch.linalg.solve(x.T @ x + scale * identity, x.T @ y)

    def held_out_error(penalty: float) -> float:
        return (inputs[fitted:] @ solve(fitted, penalty) - targets[fitted:]).square().sum().item()

    return solve(len(inputs), min((10.0**-k for k in range(11)), key=held_out_error))


def apply_read_out(states: Tensor, weights: Tensor) -> Tensor:
    """Apply the map of :func:`fit_read_out`: states (B, H) -> (B, J)."""
    return _with_one(states) @ weights


def _with_one(states: Tensor) -> Tensor:
    return pad(states, (0, 1), value=1.0)
