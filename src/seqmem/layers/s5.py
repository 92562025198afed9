"""Simplified state space layers (S5)."""

from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from seqmem.arguments import checked
from seqmem.errors import UserError
from seqmem.layers.state_spaces import initial_log_steps, make_projection, projected
from seqmem.ops import pairs
from seqmem.ops.diagonal_systems import Rule, discretized
from seqmem.ops.legs_modes import legs_modes, legs_real_mode
from seqmem.ops.precision import at_least_float32, full_precision
from seqmem.sequence import SequenceLayer

OutputInit = Literal["trunc_standard_normal", "lecun_normal", "complex_normal"]

_special = ("real", "imaginary", "weight_in", "log_step")
_TRUNCATED = 0.87962566103423978
"""Standard deviation of a standard normal distribution that is truncated at -2 and 2."""


class S5State(NamedTuple):
    """State: ``modes`` (B, M, 2), real and imaginary parts, float32 or float64."""

    modes: Tensor


class S5(SequenceLayer[S5State]):
    """Diagonal state space model of all channels together.

    The model s' = lambda s + B x of H inputs has the outputs y = 2 Re(C s) + D x: Smith, Warrington and Linderman, "Simplified
    State Space Layers for Sequence Modeling" (2023), section 3. Each of M modes has its own step dt. With the step, and
    elementwise,

        s_t = a s_{t-1} + b (B x_t),    y_t = 2 Re(C s_t) + D x_t,
        zoh:      a = exp(dt lambda),                            b = (exp(dt lambda) - 1) / lambda,
        bilinear: a = (1 + dt lambda / 2) / (1 - dt lambda / 2), b = dt / (1 - dt lambda / 2).

    M is P / 2, one mode of each pair of conjugates; or P without the factor 2 if ``conjugate`` is false. A stack with
    ``bidirectional=true`` takes :class:`BidirectionalS5`.

    Parameters: ``real`` and ``imaginary`` (M,), the parts of lambda; ``log_step`` ln dt (M,); ``weight_in`` B (M, H, 2), real
    and imaginary parts: these four without weight decay and with their own learning rate. ``weight_out`` C (H, M, 2);
    ``weight_skip`` D (H,); ``projection`` (H, C), a linear map of the inputs if C is not H.

    Args:
        input_size: C.
        hidden_size: H.
        state_size: P, which counts both modes of each pair; a multiple of 2 ``blocks``, or of ``blocks`` if ``conjugate`` is
            false.
        blocks: J, the initial lambda are J times the P / J ones of the HiPPO matrix for the whole past.
        conjugate: keep one mode of each pair of conjugates.
        discretization: zoh (zero-order hold) or bilinear.
        c_init: initial C. trunc_standard_normal: variance 1 / P of each part. lecun_normal: 1 / (P H). Both are rotated to the
            modes. complex_normal: 1/2, not rotated.
        clip: the real part of lambda is at most -1e-4; else training may make it positive.
        dt_min: smallest initial dt; they are uniform on a logarithmic scale.
        dt_max: largest initial dt.
        rate: factor of dt, for sequences sampled at another rate: 2 for half as many samples a second.
            The rate of a call multiplies it.
        max_lr: largest learning rate of lambda, B and dt; None for no limit.

    Raises:
        UserError: an argument of the wrong type or range, ``state_size`` without whole blocks, or ``dt_max`` below
            ``dt_min``.
    """

    name = "s5"
    operator = "diagonal_scan"
    rescales = True
    no_decay = _special
    directions = 1

    @checked
    def __init__(
        self,
        input_size: PositiveInt,
        hidden_size: PositiveInt = 128,
        state_size: Annotated[int, Field(ge=2)] = 256,
        blocks: PositiveInt = 8,
        conjugate: bool = True,
        discretization: Rule = "zoh",
        c_init: OutputInit = "trunc_standard_normal",
        clip: bool = False,
        dt_min: PositiveFloat = 0.001,
        dt_max: PositiveFloat = 0.1,
        rate: PositiveFloat = 1.0,
        max_lr: PositiveFloat | None = 0.001,
    ):
        super().__init__()
        unit, name = (2 * blocks, "2 * blocks") if conjugate else (blocks, "blocks")
        if state_size % unit:
            raise UserError(f"state_size: got {state_size}, expected a multiple of {name} = {unit}")
        self.input_size, self.output_size = input_size, hidden_size
        self.conjugate, self.discretization, self.clip, self.rate = conjugate, discretization, clip, rate
        self.max_lr = {} if max_lr is None else dict.fromkeys(_special, max_lr)
        eigenvalues, vectors = initial_modes(state_size // blocks, conjugate)
        real, imaginary = eigenvalues.repeat(blocks, 1).unbind(-1)
        self.real, self.imaginary = _parameter(real), _parameter(imaginary)
        self.log_step = nn.Parameter(initial_log_steps(len(real), dt_min, dt_max))
        drawn = _truncated_normal(state_size, hidden_size, std=state_size**-0.5)
        self.weight_in = _parameter(_rotated(vectors.mH, drawn, blocks))
        self.weight_out = _parameter(_initial_outputs(c_init, hidden_size, vectors, blocks, self.directions))
        self.weight_skip = nn.Parameter(torch.randn(hidden_size))
        self.projection = make_projection(input_size, hidden_size)

    def initial_state(self, batch_size: int) -> S5State:
        """Return zeros."""
        return S5State(at_least_float32(self.weight_in).new_zeros(batch_size, len(self.real), 2))

    def fused_forward(
        self, run: Any, inputs: Tensor, state: S5State, lengths: Tensor | None, fresh: bool, rate: float = 1.0
    ) -> tuple[Tensor, S5State]:
        """Compute a whole sequence by a diagonal scan, in the precision of the parameters but at least in float32."""
        weight_out, skip = at_least_float32(self.weight_out), at_least_float32(self.weight_skip)
        x = projected(inputs.to(skip.dtype), self.projection)
        factors, weight_in = self.recurrence(rate)
        driven = pairs.from_real(x, weight_in)
        weights = (2 * weight_out if self.conjugate else weight_out).chunk(self.directions, 1)
        with full_precision(inputs.device):
            modes, last = run(factors, driven, None if fresh else state.modes, lengths)
        outputs = pairs.real_part(modes, weights[0]) + skip * x
        if self.directions == 2:
            with full_precision(inputs.device):
                backward, _ = run(factors, driven, None, lengths, True)
            outputs = outputs + pairs.real_part(backward, weights[1])
        return outputs.to(self.weight_out.dtype), S5State(last)

    def recurrence(self, rate: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return the factors a (M, 2) and the weights b B of the inputs (M, H, 2), for the rate of a call."""
        real, imaginary, weight_in, log_step = (at_least_float32(getattr(self, name)) for name in _special)
        real = real.clamp(max=-1e-4) if self.clip else real
        a, b = discretized(torch.stack([real, imaginary], -1), log_step.exp() * (self.rate * rate), self.discretization)
        return a, pairs.product(b[:, None], weight_in)


class BidirectionalS5(S5):
    """S5 in both directions of time, with C of 2 M columns: y = 2 Re(C [forward; backward]) + D x.

    Both directions have the same lambda, dt and B, and both include x_t. The backward direction starts at each row's last valid
    step. It has no step form and carries no state; arguments as for :class:`S5`.
    """

    causal = False
    directions = 2

    def initial_state(self, batch_size: int) -> None:  # type: ignore[override]
        """Return None."""
        return

    def fused_forward(
        self, run: Any, inputs: Tensor, state: Any, lengths: Tensor | None, fresh: bool, rate: float = 1.0
    ) -> tuple[Tensor, Any]:
        """Compute both directions, see :meth:`S5.fused_forward`."""
        return super().fused_forward(run, inputs, state, lengths, fresh, rate)[0], None


S5.both_directions = BidirectionalS5


def initial_modes(order: int, conjugate: bool) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues (M, 2) and eigenvectors (P, M) of LegS without its rank-one part, float64 and on the CPU.

    Args:
        order: P.
        conjugate: only those with a negative imaginary part, M = P / 2, in ascending order; else all, M = P, of which
            one is real for an odd P.
    """
    frequencies, vectors = legs_modes(order)
    frequencies, vectors = -frequencies.flip(0), vectors.conj().flip(1)
    if not conjugate:
        real = [legs_real_mode(order)] if order % 2 else []
        frequencies = torch.cat([frequencies, frequencies.new_zeros(len(real)), -frequencies.flip(0)])
        vectors = torch.cat([vectors, *real, vectors.conj().flip(1)], 1)
    return torch.stack([torch.full_like(frequencies, -0.5), frequencies], -1), vectors


def _initial_outputs(c_init: OutputInit, hidden_size: int, vectors: Tensor, blocks: int, directions: int) -> Tensor:
    """Draw C (H, M, 2) of each direction, side by side."""
    size = blocks * len(vectors)
    if c_init == "complex_normal":
        return torch.randn(hidden_size, directions * blocks * vectors.shape[1], 2) * 0.5**0.5
    std = size**-0.5 if c_init == "trunc_standard_normal" else (size * hidden_size) ** -0.5
    drawn = (_truncated_normal(size, hidden_size, 2, std=std) for _ in range(directions))
    # C V is the transpose of V^T C^T.
    rotated = [_rotated(vectors.mT, torch.view_as_complex(part), blocks).transpose(0, 1) for part in drawn]
    return torch.cat(rotated, 1)


def _rotated(matrix: Tensor, values: Tensor, blocks: int) -> Tensor:
    """Multiply each of J blocks of rows of values (P, H) by a complex matrix (M, P / J), and return pairs (J M, H, 2)."""
    parts = values.to(matrix.dtype).unflatten(0, (blocks, -1))
    return torch.view_as_real(matrix.to(parts.device) @ parts).flatten(0, 1)


def _truncated_normal(*size: int, std: float) -> Tensor:
    """Draw values of a normal distribution truncated at two standard deviations, with standard deviation ``std`` itself."""
    wide = std / _TRUNCATED
    return nn.init.trunc_normal_(torch.empty(*size, dtype=torch.float64), std=wide, a=-2 * wide, b=2 * wide)


def _parameter(values: Tensor) -> nn.Parameter:
    """Return a parameter of torch's default type on its default device."""
    return nn.Parameter(values.to(torch.get_default_device(), torch.get_default_dtype(), memory_format=torch.contiguous_format))
