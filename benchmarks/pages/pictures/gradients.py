"""Pictures of nonlinear cells: how far back the gradient of an untrained cell reaches."""

from collections.abc import Callable
from functools import partial

import torch
from matplotlib.figure import Figure
from torch import Tensor

from seqmem import cells

STEPS, HIDDEN, ROWS, CHANNELS = 100, 64, 8, 4
_NAMES = ("lstm", "gru", "mgu", "mrnn", "rnn", "grus", "exprnn", "orthogonal", "relu_gru")


def draw(figure: Figure, name: str) -> None:
    """Draw the gradient by lag, that of LegS beside it, and the outputs for a pulse."""
    lag_axes, pulse_axes = figure.subplots(1, 2)
    for shown, colour in (("legs", "0.7"), (name, "C0")):
        norms = gradient_by_lag(shown)
        lag_axes.semilogy(norms / norms[0], color=colour, label=shown)
    lag_axes.set(
        xlabel="lag in steps", ylabel="norm (lag 0: 1)", ylim=(1e-7, 30), title="gradient of the last output, untrained"
    )
    lag_axes.legend(fontsize=7)
    pulse_axes.plot(pulse(name), linewidth=0.9)
    pulse_axes.set(xlabel="step", title="six outputs for a pulse in steps 10 to 19")
    pulse_axes.axvspan(10, 20, color="0.92")


def gradient_by_lag(name: str) -> Tensor:
    """Return the norm of the derivative of the sum of last outputs by the input at each lag, mean over rows."""
    torch.manual_seed(0)
    cell = cells.get(name)(input_size=CHANNELS, hidden_size=HIDDEN).double()
    inputs = torch.randn(ROWS, STEPS, CHANNELS, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(ROWS, HIDDEN, dtype=torch.float64)
    [gradient] = torch.autograd.grad((cell(inputs)[0][:, -1] * weights).sum(), inputs)
    return gradient.norm(dim=-1).mean(0).flip(0)


def pulse(name: str) -> Tensor:
    """Return six outputs (T, 6) of an untrained cell, whose input is one in steps 10 to 19 and else zero."""
    torch.manual_seed(0)
    cell = cells.get(name)(input_size=1, hidden_size=HIDDEN).double()
    inputs = torch.zeros(1, STEPS, 1, dtype=torch.float64)
    inputs[:, 10:20] = 1
    with torch.no_grad():
        return cell(inputs)[0][0, :, :6]


PICTURES: dict[str, Callable[[Figure], None]] = {name: partial(draw, name=name) for name in _NAMES}
