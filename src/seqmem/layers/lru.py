"""Linear recurrent units."""

import math
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from seqmem.arguments import checked
from seqmem.errors import UserError
from seqmem.layers.state_spaces import make_projection, projected
from seqmem.ops import pairs
from seqmem.ops.precision import at_least_float32, full_precision
from seqmem.sequence import SequenceLayer

_special = ("nu", "theta", "gamma", "weight_in")


class LRUState(NamedTuple):
    """State: ``hidden`` (B, N, 2), real and imaginary parts, float32 or float64."""

    hidden: Tensor


class LRU(SequenceLayer[LRUState]):
    """Linear recurrent unit.

    N complex recurrences h_t = lambda h_{t-1} + exp(gamma) B x_t have the outputs y_t = Re(C h_t) + D x_t: Orvieto et al.,
    "Resurrecting Recurrent Neural Networks for Long Sequences" (2023), sections 3.2 to 3.4. The factors lambda = exp(-exp(nu) +
    i exp(theta)) have a modulus below 1 by construction. Each of them is independent: there are no conjugate pairs.

    A rate r other than 1 takes lambda^r, with the angle of lambda between -pi and pi, and multiplies the inputs by
    (lambda^r - 1) / (lambda - 1): an input that is constant between two steps then has the same effect.

    Parameters: ``nu``, ``theta`` and ``gamma`` (N,), and ``weight_in`` B (N, H, 2), real and imaginary parts, without weight
    decay and with their own learning rate; ``weight_out`` C (H, N, 2); ``weight_skip`` D (H,); ``projection`` (H, C), a linear
    map of the inputs if C is not H.

    Args:
        input_size: C.
        hidden_size: H.
        state_size: N, the number of complex recurrences.
        r_min: smallest initial modulus of lambda, below 1; they are uniform on the ring between ``r_min`` and ``r_max``.
        r_max: largest initial modulus, at most 1.
        max_phase: largest initial angle of lambda, at most 2 pi.
        rate: r, for sequences sampled at another rate: 2 for half as many samples a second. The rate of a call multiplies it.
        lr_factor: factor of the learning rate of nu, theta, gamma and B.

    Raises:
        UserError: an argument of the wrong type or range, or ``r_max`` below ``r_min``.
    """

    name = "lru"
    operator = "diagonal_scan"
    rescales = True
    no_decay = _special

    @checked
    def __init__(
        self,
        input_size: PositiveInt,
        hidden_size: PositiveInt = 256,
        state_size: PositiveInt = 128,
        r_min: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        r_max: Annotated[float, Field(gt=0, le=1)] = 1.0,
        max_phase: Annotated[float, Field(gt=0, le=6.2832)] = 6.28,
        rate: PositiveFloat = 1.0,
        lr_factor: PositiveFloat = 0.5,
    ):
        super().__init__()
        if r_max < r_min:
            raise UserError(f"r_max: got {r_max}, expected at least r_min={r_min}")
        self.input_size, self.output_size, self.rate = input_size, hidden_size, rate
        self.lr_scale = dict.fromkeys(_special, lr_factor)
        decay, phase = _initial_logarithms(state_size, r_min, r_max, max_phase)
        dtype = torch.get_default_dtype()
        self.nu, self.theta = nn.Parameter(decay.log().to(dtype)), nn.Parameter(phase.log().to(dtype))
        self.gamma = nn.Parameter((0.5 * torch.log(-torch.expm1(-2 * decay))).to(dtype))
        self.weight_in = nn.Parameter(torch.randn(state_size, hidden_size, 2) * (2 * hidden_size) ** -0.5)
        self.weight_out = nn.Parameter(torch.randn(hidden_size, state_size, 2) * state_size**-0.5)
        self.weight_skip = nn.Parameter(torch.randn(hidden_size))
        self.projection = make_projection(input_size, hidden_size)

    def initial_state(self, batch_size: int) -> LRUState:
        """Return zeros."""
        return LRUState(at_least_float32(self.weight_in).new_zeros(batch_size, len(self.nu), 2))

    def fused_forward(
        self, run: Any, inputs: Tensor, state: LRUState, lengths: Tensor | None, fresh: bool, rate: float = 1.0
    ) -> tuple[Tensor, LRUState]:
        """Compute a whole sequence by a diagonal scan, in the precision of the parameters but at least in float32."""
        weight_out, skip = at_least_float32(self.weight_out), at_least_float32(self.weight_skip)
        x = projected(inputs.to(skip.dtype), self.projection)
        factors, weight_in = self.recurrence(rate)
        driven = pairs.from_real(x, weight_in)
        with full_precision(inputs.device):
            hidden, last = run(factors, driven, None if fresh else state.hidden, lengths)
        outputs = pairs.real_part(hidden, weight_out) + skip * x
        return outputs.to(self.weight_out.dtype), LRUState(last)

    def recurrence(self, rate: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return the factors lambda^r (N, 2) and the normalised weights of the inputs (N, H, 2), for the rate of a call."""
        rate = self.rate * rate
        nu, theta, gamma, weight_in = (at_least_float32(getattr(self, name)) for name in _special)
        logarithm = torch.stack([-nu.exp(), theta.exp()], -1)
        weight_in = gamma.exp()[:, None, None] * weight_in
        if rate == 1:
            return pairs.exp(logarithm), weight_in
        angle = logarithm[:, 1] - 2 * math.pi * torch.round(logarithm[:, 1].detach() / (2 * math.pi))
        logarithm = torch.stack([logarithm[:, 0], angle], -1)
        effect = pairs.quotient(pairs.expm1(rate * logarithm), pairs.expm1(logarithm))
        return pairs.exp(rate * logarithm), pairs.product(effect[:, None], weight_in)


def _initial_logarithms(size: int, r_min: float, r_max: float, max_phase: float) -> tuple[Tensor, Tensor]:
    """Draw exp(nu), the decay rate -ln |lambda|, and exp(theta), the angle of lambda, both (N,) and float64."""
    # Not 0 or 1, where a logarithm would be infinite.
    ring, turn = torch.rand(2, size, dtype=torch.float64).clamp(1e-7, 1 - 1e-7)
    return -0.5 * torch.log(ring * (r_max**2 - r_min**2) + r_min**2), max_phase * turn
