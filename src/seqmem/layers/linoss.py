"""Linear oscillatory state space models."""

from typing import Any, NamedTuple

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from seqmem.arguments import checked
from seqmem.errors import UserError
from seqmem.layers.state_spaces import make_projection, projected
from seqmem.ops import pairs
from seqmem.ops.export import exporting
from seqmem.ops.lengths import any_wrong
from seqmem.ops.oscillators import OscillatorMethod
from seqmem.ops.precision import at_least_float32, full_precision
from seqmem.ops.transforms import values
from seqmem.sequence import SequenceLayer


class LinOSSState(NamedTuple):
    """State: ``oscillators`` (B, 2, P, 2), velocities and positions, real and imaginary parts, float32 or float64."""

    oscillators: Tensor


class LinOSS(SequenceLayer[LinOSSState]):
    """Linear oscillatory state space model.

    P forced harmonic oscillators y'' = -A y + B x with complex positions have the outputs Re(C y_t) + D x_t: Rusch and Rus,
    "Oscillatory State-Space Models" (2025), equations 1 to 6. With A = max(stiffness, 0) and steps dt = sigmoid(step_size), the
    velocities z and positions y are

        im:   y_t = y_{t-1} + dt z_t,  z_t = z_{t-1} + dt (B x_t - A y_t),      which damps the oscillations;
        imex: y_t = y_{t-1} + dt z_t,  z_t = z_{t-1} + dt (B x_t - A y_{t-1}),  which keeps their energy while dt^2 A < 4.

    A rate r other than 1 takes steps of r dt, and imex needs r^2 dt^2 A < 4. Beyond this bound its state grows exponentially.
    A call with a rate other than 1 refuses that; nothing enforces the bound at rate 1. im is stable for any A and r.

    Both methods are of first order: the outputs at another rate agree with those of the training up to errors of the order of
    dt, unlike those of LRU, S4D and S5, whose inputs are held exactly.

    Parameters: ``stiffness`` and ``step_size`` (P,); ``weight_in`` B (P, H, 2), real and imaginary parts; ``weight_out`` C
    (H, P, 2); ``weight_skip`` D (H,); ``projection`` (H, C), a linear map of the inputs if C is not H.

    Args:
        input_size: C.
        hidden_size: H.
        state_size: P, the number of oscillators.
        method: im, implicit, or imex, implicit and explicit.
        rate: r, for sequences sampled at another rate: 2 for half as many samples a second. The rate of a call multiplies it.

    Raises:
        UserError: an argument of the wrong type or range, or a rate too large for imex; on a GPU that stops the process, see
            :mod:`seqmem.sequence.checks`.
    """

    name = "linoss"
    operator = "oscillators"
    rescales = True

    @checked
    def __init__(
        self,
        input_size: PositiveInt,
        hidden_size: PositiveInt = 128,
        state_size: PositiveInt = 64,
        method: OscillatorMethod = "im",
        rate: PositiveFloat = 1.0,
    ):
        super().__init__()
        self.input_size, self.output_size, self.method, self.rate = input_size, hidden_size, method, rate
        self.stiffness, self.step_size = nn.Parameter(torch.rand(state_size)), nn.Parameter(torch.rand(state_size))
        self.weight_in = nn.Parameter((2 * torch.rand(state_size, hidden_size, 2) - 1) * hidden_size**-0.5)
        self.weight_out = nn.Parameter((2 * torch.rand(hidden_size, state_size, 2) - 1) * state_size**-0.5)
        self.weight_skip = nn.Parameter(torch.randn(hidden_size))
        self.projection = make_projection(input_size, hidden_size)

    def initial_state(self, batch_size: int) -> LinOSSState:
        """Return oscillators at rest."""
        return LinOSSState(at_least_float32(self.stiffness).new_zeros(batch_size, 2, len(self.stiffness), 2))

    def fused_forward(
        self, run: Any, inputs: Tensor, state: LinOSSState, lengths: Tensor | None, fresh: bool, rate: float = 1.0
    ) -> tuple[Tensor, LinOSSState]:
        """Compute a whole sequence of oscillators, in the precision of the parameters but at least in float32."""
        parameters = (self.stiffness, self.step_size, self.weight_in, self.weight_out, self.weight_skip)
        stiffness, step_size, weight_in, weight_out, skip = map(at_least_float32, parameters)
        x = projected(inputs.to(skip.dtype), self.projection)
        driven, initial = pairs.from_real(x, weight_in), None if fresh else state.oscillators
        with full_precision(inputs.device):
            step, stiffness = step_size.sigmoid() * (self.rate * rate), stiffness.relu()
            self._check_stability(step.detach(), stiffness.detach(), rate)
            positions, last = run(stiffness, step, driven, initial, lengths, self.method)
        outputs = pairs.real_part(positions, weight_out) + skip * x
        return outputs.to(self.weight_out.dtype), LinOSSState(last)

    def _check_stability(self, step: Tensor, stiffness: Tensor, rate: float) -> None:
        """Refuse a rate other than 1 at which the state of imex grows exponentially."""
        total = self.rate * rate
        if self.method != "imex" or total == 1 or exporting():
            return
        if any_wrong(step**2 * stiffness >= 4, f"{self._label()}: got a rate too large for method=imex"):
            fastest = values(step * stiffness.sqrt()).max().item()
            product = "" if 1 in (self.rate, rate) else f" ({self.rate:g} of the layer times {rate:g} of the call)"
            raise UserError(
                f"{self._label()}: got rate={total:g}{product}, expected at most {0.999 * 2 * total / fastest:.4g}: beyond it "
                "the state of method=imex grows exponentially; method=im takes any rate"
            )
