"""The mixer of Mamba, a selective state space model."""

import math
from typing import Any, NamedTuple

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import silu

from seqmem.arguments import checked
from seqmem.errors import UserError
from seqmem.ops import implementations
from seqmem.ops.precision import at_least_float32, mixed_linear
from seqmem.sequence import SequenceLayer


class MambaState(NamedTuple):
    """State, at least in float32.

    ``conv`` (B, k-1, E), the last inputs of the convolution, the oldest first; ``ssm`` h (B, E, N).
    """

    conv: Tensor
    ssm: Tensor


class Mamba(SequenceLayer[MambaState]):
    """Mixer of Mamba, a selective state space model.

    The outputs are y_t = W_out (s_t SiLU(z_t)), where s is a selective scan of the inputs, in E channels with N states each::

        x_t, z_t = W_in u_t
        x = SiLU(causal depthwise convolution of x)
        delta_t, B_t, C_t = W_x x_t
        d_t = softplus(W_dt delta_t + b_dt)
        h_t = exp(d_t A) h_{t-1} + d_t B_t x_t
        s_t = C_t h_t + D x_t

    with A = -exp(A_log); Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023), algorithm 2 and
    section 3.4. The terms of h are Euler's, as in the authors' code, not those of a zero-order hold.

    Parameters: ``weight_in`` W_in (2E, C), rows x and z; ``weight_conv`` (E, k), whose last tap multiplies the current input;
    ``weight_select`` W_x (R + 2N, E), rows delta, B and C; ``weight_step`` W_dt (E, R) and ``bias_step`` b_dt (E,);
    ``log_rate`` A_log (E, N), ln 1 to ln N at first, and ``weight_skip`` D (E,), 1 at first, both without weight decay;
    ``weight_out`` W_out (H, E), whose initial values are divided by the square root of the number of blocks of a stack;
    ``bias_conv`` (E,), ``bias_in`` (2E,) and ``bias_out`` (H,), or None.

    Args:
        input_size: C.
        hidden_size: H.
        state_size: N, the number of states of a channel.
        expand: E / H, the inner width as a multiple of H.
        kernel_size: k, taps of the convolution.
        dt_rank: R, the width of delta; None for H / 16, rounded up.
        dt_min: smallest initial step size softplus(b_dt); they are uniform on a logarithmic scale.
        dt_max: largest initial step size.
        dt_floor: initial step sizes below it are set to it.
        bias: W_in and W_out have biases, zero at first.
        conv_bias: the convolution has a bias.

    Raises:
        UserError: an argument of the wrong type or range, or ``dt_max`` below ``dt_min``.
    """

    name = "mamba"
    operator = "selective_scan"
    no_decay = ("log_rate", "weight_skip")

    @checked
    def __init__(
        self,
        input_size: PositiveInt,
        hidden_size: PositiveInt = 256,
        state_size: PositiveInt = 16,
        expand: PositiveInt = 2,
        kernel_size: PositiveInt = 4,
        dt_rank: PositiveInt | None = None,
        dt_min: PositiveFloat = 1e-3,
        dt_max: PositiveFloat = 1e-1,
        dt_floor: PositiveFloat = 1e-4,
        bias: bool = False,
        conv_bias: bool = True,
    ):
        super().__init__()
        if dt_max < dt_min:
            raise UserError(f"dt_min: got {dt_min}, expected at most dt_max={dt_max}")
        self.input_size, self.output_size = input_size, hidden_size
        self.rank, inner = dt_rank or -(-hidden_size // 16), expand * hidden_size
        self.weight_in = _uniform(2 * inner, input_size)
        self.bias_in = nn.Parameter(torch.zeros(2 * inner)) if bias else None
        self.weight_conv = _uniform(inner, kernel_size)
        self.bias_conv = nn.Parameter(_uniform(1, inner, fan_in=kernel_size)[0].detach()) if conv_bias else None
        self.weight_select = _uniform(self.rank + 2 * state_size, inner)
        self.weight_step = _uniform(inner, self.rank)
        self.bias_step = nn.Parameter(_initial_step_biases(inner, dt_min, dt_max, dt_floor))
        self.log_rate = nn.Parameter(torch.arange(1.0, state_size + 1).log().repeat(inner, 1))
        self.weight_skip = nn.Parameter(torch.ones(inner))
        self.weight_out = _uniform(hidden_size, inner)
        self.bias_out = nn.Parameter(torch.zeros(hidden_size)) if bias else None

    @torch.no_grad()
    def on_depth(self, block: int, blocks: int) -> None:
        """Divide the initial W_out by the square root of the number of blocks, whose outputs add up."""
        self.weight_out.div_(math.sqrt(blocks))

    def initial_state(self, batch_size: int) -> MambaState:
        """Return zeros."""
        rate, (inner, taps) = at_least_float32(self.log_rate), self.weight_conv.shape
        return MambaState(rate.new_zeros(batch_size, taps - 1, inner), rate.new_zeros(batch_size, *rate.shape))

    def fused_forward(
        self, run: Any, inputs: Tensor, state: MambaState, lengths: Tensor | None, fresh: bool
    ) -> tuple[Tensor, MambaState]:
        """Compute a whole sequence by a selective scan, which is at least in float32, as the convolution."""
        inner, states = self.log_rate.shape
        projected = mixed_linear(inputs, self.weight_in, self.bias_in)
        x, gate = projected.split([inner, inner], -1)
        convolve = implementations.required("causal_convolution", x)
        bias_conv = None if self.bias_conv is None else at_least_float32(self.bias_conv)
        convolved, kept = convolve(x, at_least_float32(self.weight_conv), bias_conv, state.conv, lengths)
        x = silu(convolved)
        selected = mixed_linear(x, self.weight_select)
        delta, b, c = selected.split([self.rank, states, states], -1)
        delta = mixed_linear(delta, self.weight_step)
        rate, skip, bias_step = map(at_least_float32, (self.log_rate, self.weight_skip, self.bias_step))
        initial = None if fresh else state.ssm
        outputs, last = run(x, delta, -torch.exp(rate), b, c, skip, gate, bias_step, initial, lengths, True)
        outputs = mixed_linear(outputs, self.weight_out, self.bias_out)
        return outputs.to(self.weight_out.dtype), MambaState(kept, last)


def _uniform(rows: int, columns: int, fan_in: int | None = None) -> nn.Parameter:
    """Return a parameter with the initial values of torch's Linear and Conv1d, between -1 and 1 over the root of the fan-in."""
    bound = (fan_in or columns) ** -0.5
    return nn.Parameter(torch.empty(rows, columns).uniform_(-bound, bound))


def _initial_step_biases(size: int, smallest: float, largest: float, floor: float) -> Tensor:
    """Draw biases whose softplus is uniform on a logarithmic scale."""
    steps = torch.empty(size).uniform_(math.log(smallest), math.log(largest)).exp().clamp(min=floor)
    return steps + torch.log(-torch.expm1(-steps))
