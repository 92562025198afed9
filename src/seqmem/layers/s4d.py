"""Diagonal state space models of S4D."""

import math
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from seqmem.arguments import checked
from seqmem.errors import UserError
from seqmem.layers.state_spaces import initial_log_steps, make_projection, projected
from seqmem.ops import pairs
from seqmem.ops.diagonal_systems import Rule, discretized
from seqmem.ops.legs_modes import legs_modes
from seqmem.ops.precision import at_least_float32, full_precision
from seqmem.sequence import SequenceLayer

Init = Literal["lin", "inv", "quad", "legs", "real"]

_special = ("log_step", "log_decay", "frequency", "weight_in")
"""Parameters of the dynamics, without weight decay and with a learning rate of their own."""


class S4DState(NamedTuple):
    """State: ``modes`` (B, H, N / 2, 2), real and imaginary parts, or (B, H, N / 2) of real modes; float32 or float64."""

    modes: Tensor


class S4D(SequenceLayer[S4DState]):
    """Diagonal state space models, one for each channel.

    Each of H channels has a model s' = A s + B x, y = 2 Re(C s) + D x: Gu, Goel, Gupta and Re, "On the Parameterization and
    Initialization of Diagonal State Space Models" (2022). A channel has N / 2 modes, one of each pair of conjugates. With the
    step dt of the channel, and elementwise,

        s_t = a s_{t-1} + b x_t,    y_t = 2 Re(sum_n C_n s_t,n) + D x_t,
        zoh:      a = exp(dt A),                       b = (exp(dt A) - 1) / A B,
        bilinear: a = (1 + dt A / 2) / (1 - dt A / 2), b = dt B / (1 - dt A / 2),

    with A = -exp(log_decay) + i frequency. In a bidirectional stack a second layer runs backward in time; both include x_t,
    unlike in the original code, whose backward part begins at x_{t+1}.

    Parameters: ``log_step`` ln dt (H,); ``log_decay`` (S, N / 2) and ``frequency`` (S, N / 2) of S systems, of which channel h
    uses the one with index h mod S; ``weight_in`` B (S, N / 2, 2) if trained; these four have no weight decay. ``weight_out`` C
    (H, N / 2, 2); ``weight_skip`` D (H,); ``projection`` (H, C), a linear map of the inputs if C is not H. Real modes have no
    frequencies, and B and C without the trailing pairs.

    Args:
        input_size: C.
        hidden_size: H.
        state_size: N, an even number: twice the number of modes of a channel.
        init: initial A of modes n = 0, 1, ..., with a real part of -1/2. lin: frequency pi n. inv: N / pi (N / (2 n + 1) - 1).
            quad: (2 n + 1)^2 / pi. legs: those of HiPPO-LegS. real: A = -(n + 1), and all modes stay real.
        discretization: zoh (zero-order hold) or bilinear.
        dt_min: smallest initial dt; they are uniform on a logarithmic scale.
        dt_max: largest initial dt.
        n_ssm: S, number of different A and B; None for H.
        train_b: B is a parameter; else it is 1.
        clamp_b: largest modulus of the imaginary part of the initial B of legs, 2 in the original code; None for no limit.
        rate: factor of dt, for sequences sampled at another rate: 2 for half as many samples a second.
            The rate of a call multiplies it.
        max_lr: largest learning rate of dt, A and B; None for no limit.

    Raises:
        UserError: an argument of the wrong type or range, an odd ``state_size``, ``dt_max`` below ``dt_min``, ``n_ssm`` that
            does not divide H, or ``clamp_b`` without a trained B of legs.
    """

    name = "s4d"
    operator = "diagonal_ssm"
    rescales = True
    no_decay = _special

    @checked
    def __init__(
        self,
        input_size: PositiveInt,
        hidden_size: PositiveInt = 128,
        state_size: Annotated[int, Field(ge=2)] = 64,
        init: Init = "lin",
        discretization: Rule = "zoh",
        dt_min: PositiveFloat = 0.001,
        dt_max: PositiveFloat = 0.1,
        n_ssm: PositiveInt | None = None,
        train_b: bool = False,
        clamp_b: PositiveFloat | None = None,
        rate: PositiveFloat = 1.0,
        max_lr: PositiveFloat | None = 0.001,
    ):
        super().__init__()
        systems = n_ssm or hidden_size
        if state_size % 2:
            raise UserError(f"state_size: got {state_size}, expected an even number, twice that of the modes")
        if hidden_size % systems:
            raise UserError(f"n_ssm: got {systems}, expected a divisor of hidden_size={hidden_size}")
        if clamp_b is not None and not (train_b and init == "legs"):
            raise UserError(f"clamp_b: got {clamp_b}, expected None unless init is legs and train_b is true")
        self.input_size, self.output_size = input_size, hidden_size
        self.discretization, self.rate = discretization, rate
        self.max_lr = {} if max_lr is None else dict.fromkeys(_special, max_lr)
        count, pair = state_size // 2, () if init == "real" else (2,)
        self.log_step = nn.Parameter(initial_log_steps(hidden_size, dt_min, dt_max))
        decays, frequencies, driven = initial_modes(init, state_size)
        self.log_decay = nn.Parameter(_repeated(decays.log(), systems))
        self.frequency = nn.Parameter(_repeated(frequencies, systems)) if pair else None
        self.weight_in = None
        if train_b:
            if clamp_b is not None:
                driven[:, 1].clamp_(-clamp_b, clamp_b)
            self.weight_in = nn.Parameter(_repeated(driven if pair else driven[:, 0], systems))
        self.weight_out = nn.Parameter(torch.randn(hidden_size, count, *pair) * (0.5**0.5 if pair else 1))
        self.weight_skip = nn.Parameter(torch.randn(hidden_size))
        self.projection = make_projection(input_size, hidden_size)

    def initial_state(self, batch_size: int) -> S4DState:
        """Return zeros."""
        return S4DState(at_least_float32(self.weight_out).new_zeros(batch_size, *self.weight_out.shape))

    def fused_forward(
        self, run: Any, inputs: Tensor, state: S4DState, lengths: Tensor | None, fresh: bool, rate: float = 1.0
    ) -> tuple[Tensor, S4DState]:
        """Compute a whole sequence by state space models, in the precision of the parameters but at least in float32."""
        out, skip = at_least_float32(self.weight_out), at_least_float32(self.weight_skip)
        x = projected(inputs.to(out.dtype), self.projection)
        a, b = self.discretized(rate)
        with full_precision(inputs.device):
            outputs, modes = run(x, a, b, 2 * out, skip, None if fresh else state.modes, lengths)
        return outputs.to(self.weight_out.dtype), S4DState(modes)

    def discretized(self, rate: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return a and b of each channel, (H, N / 2, 2) or (H, N / 2) of real modes, for the rate of a call."""
        dt = (at_least_float32(self.log_step).exp() * (self.rate * rate))[:, None]
        real = -self._of_channels(self.log_decay).exp()
        weight = None if self.weight_in is None else self._of_channels(self.weight_in)
        if self.frequency is None:
            return _discretized_real(dt, real, weight, self.discretization)
        eigenvalues = torch.stack([real, self._of_channels(self.frequency)], -1)
        a, b = discretized(eigenvalues, dt, self.discretization)
        return a, b if weight is None else pairs.product(b, weight)

    def _of_channels(self, values: Tensor) -> Tensor:
        """Repeat values (S, ...) of the systems for all channels, (H, ...)."""
        values = at_least_float32(values)
        times = self.output_size // len(values)
        return values if times == 1 else values.repeat(times, *[1] * (values.dim() - 1))


def initial_modes(init: Init, state_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the decays -Re A (N / 2,), frequencies Im A (N / 2,) and B (N / 2, 2) of an initialisation, float64 on the CPU.

    B is 1 except for legs, where it is V^* sqrt(2 n + 1) with the eigenvectors V of LegS.

    Args:
        init: see :class:`S4D`.
        state_size: N.
    """
    n = torch.arange(state_size // 2, dtype=torch.float64, device="cpu")
    decays, driven = torch.full_like(n, 0.5), torch.stack([torch.ones_like(n), torch.zeros_like(n)], -1)
    match init:
        case "lin":
            return decays, math.pi * n, driven
        case "inv":
            return decays, state_size / math.pi * (state_size / (2 * n + 1) - 1), driven
        case "quad":
            return decays, (2 * n + 1) ** 2 / math.pi, driven
        case "real":
            return n + 1, torch.zeros_like(n), driven
    frequencies, vectors = legs_modes(state_size)
    norms = torch.sqrt(2 * torch.arange(state_size, dtype=torch.float64, device="cpu") + 1)
    return decays, frequencies, torch.view_as_real(vectors.mH @ norms.to(vectors.dtype))


def _discretized_real(dt: Tensor, real: Tensor, weight: Tensor | None, rule: Rule) -> tuple[Tensor, Tensor]:
    """Return a and b (H, N / 2) of real modes A, and B or None for 1."""
    z = dt * real
    if rule == "zoh":
        a, b = z.exp(), torch.expm1(z) / real
    else:
        a, b = (1 + z / 2) / (1 - z / 2), dt / (1 - z / 2)
    return a, b if weight is None else b * weight


def _repeated(values: Tensor, systems: int) -> Tensor:
    """Return copies of values (N / 2, ...) for all systems, (S, N / 2, ...), in torch's default type and device."""
    return torch.tensor(values.tolist()).repeat(systems, *[1] * values.dim())
