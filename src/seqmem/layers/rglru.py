"""The recurrent block of Griffin, with the real-gated linear recurrent unit."""

from typing import Any, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import gelu

from seqmem.arguments import checked
from seqmem.data.masks import masked
from seqmem.errors import UserError
from seqmem.layers.by_head import mapped_by_head
from seqmem.ops import implementations
from seqmem.ops.precision import at_least_float32, mixed_linear
from seqmem.ops.rg_lru import rg_lru_terms
from seqmem.sequence import SequenceLayer, checks


class RGLRUState(NamedTuple):
    """State, at least in float32.

    ``hidden`` h (B, N); ``inputs`` (B, k-1, N), the last inputs of the convolution, the oldest first; ``started`` (B,), 0
    before the first step of a document and 1 after it.
    """

    hidden: Tensor
    inputs: Tensor
    started: Tensor


class RGLRU(SequenceLayer[RGLRUState]):
    """Recurrent block of Griffin, with the real-gated linear recurrent unit.

    The outputs are y_t = W_3 (GELU(W_1 x_t + b_1) h_t) + b_3 with h = RG-LRU(convolution(W_2 x + b_2)). The convolution is
    causal, one for each channel. From its outputs u, the real-gated linear recurrent unit (De et al., 2024, section 2.4)
    computes

        r_t = sigmoid(W_a u_t + b_a),  q_t = sigmoid(W_x u_t + b_x),  a_t = exp(-8 r_t softplus(Lambda)),
        h_t = a_t h_{t-1} + sqrt(1 - a_t^2) q_t u_t,

    where W_a and W_x have ``num_heads`` blocks on the diagonal. At the first step of a document, which is that of a sequence
    without a state, h_t = q_t u_t. The derivative of the root is at most 1000. GELU has the tanh form.

    Parameters: ``decay`` Lambda (N,), without weight decay; ``weight_recurrence`` W_a and ``weight_gate`` W_x (heads, d, d)
    with d = N / heads, input by output, and their biases (heads, d); ``weight_branch`` W_1 and ``weight_in`` W_2 (N, C);
    ``weight_conv`` (N, k), whose last tap multiplies the current input; ``weight_out`` W_3 (H, N); and the biases of these.

    Args:
        input_size: C.
        hidden_size: H.
        inner_size: N, the width of the recurrence; None for ``hidden_size``.
        num_heads: blocks of the gates' weights; None for 16, or for 8, 4, 2 or 1 where N is not a multiple, or N < 4
            ``num_heads``.
        kernel_size: k, taps of the convolution.

    Raises:
        UserError: an argument of the wrong type or range, or N is not a multiple of ``num_heads``.
    """

    name = "rglru"
    operator = "diagonal_scan"
    no_decay = ("decay",)

    @checked
    def __init__(
        self,
        input_size: PositiveInt,
        hidden_size: PositiveInt = 256,
        inner_size: PositiveInt | None = None,
        num_heads: PositiveInt | None = None,
        kernel_size: PositiveInt = 4,
    ):
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        size = inner_size or hidden_size
        divisors = (k for k in (16, 8, 4, 2) if size % k == 0 and size >= 4 * k)
        heads = num_heads or next(divisors, 1)
        if size % heads:
            raise UserError(f"num_heads: got {heads}, expected a divisor of the inner size {size}")
        self.decay = nn.Parameter(torch.empty(size))
        self.weight_recurrence, self.bias_recurrence = _affine(heads, size // heads, size // heads)
        self.weight_gate, self.bias_gate = _affine(heads, size // heads, size // heads)
        self.weight_branch, self.bias_branch = _affine(size, input_size)
        self.weight_in, self.bias_in = _affine(size, input_size)
        self.weight_conv, self.bias_conv = _affine(size, kernel_size)
        self.weight_out, self.bias_out = _affine(hidden_size, size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values: decays exp(-softplus(Lambda)) with squares from 0.9^2 to 0.999^2, biases of zero."""
        squares = at_least_float32(torch.empty_like(self.decay)).uniform_(0.9**2, 0.999**2)
        if squares.dtype != self.decay.dtype:
            squares = squares.double()
        with torch.no_grad():
            self.decay.copy_(torch.log(squares.rsqrt() - 1))
        for weight, inputs in (
            (self.weight_recurrence, self.weight_recurrence.shape[1]),
            (self.weight_gate, self.weight_gate.shape[1]),
            (self.weight_branch, self.input_size),
            (self.weight_in, self.input_size),
            (self.weight_conv, 100 * self.weight_conv.shape[1]),
            (self.weight_out, len(self.decay)),
        ):
            nn.init.normal_(weight, std=inputs**-0.5)
        for name, parameter in self.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(parameter)

    def initial_state(self, batch_size: int) -> RGLRUState:
        """Return zeros, which mark the next step as the first one of a document."""
        decay, (size, taps) = at_least_float32(self.decay), self.weight_conv.shape
        shapes = (batch_size, size), (batch_size, taps - 1, size), (batch_size,)
        return RGLRUState(*(decay.new_zeros(shape) for shape in shapes))

    def documents(
        self, inputs: Tensor, starts: Tensor, state: RGLRUState | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, RGLRUState]:
        """Compute sequences that hold several documents, none of which influences the next one.

        Args:
            inputs: (B, T, C).
            starts: (B, T) bool, true at the first step of each document. The first step of a row without a state is one.
            state: as for a call of the layer.
            lengths: as for a call of the layer.

        Returns:
            As a call of the layer.

        Raises:
            UserError: shapes or types that do not match.
        """
        checks.check_tensor(self._label(), inputs)
        if not isinstance(starts, Tensor):
            raise UserError(f"{self._label()}: got starts of type {type(starts).__name__}, expected a tensor (B, T) of bool")
        if starts.shape != inputs.shape[:2] or starts.dtype != torch.bool:
            raise UserError(
                f"{self._label()}: got starts of shape {tuple(starts.shape)} and type {starts.dtype}, expected "
                f"{tuple(inputs.shape[:2])} and torch.bool"
            )
        inputs, state, lengths = self._prepared(inputs, state, lengths, None)
        choice = self.choose(inputs)
        self.path = choice.path
        outputs, state = self._mixed(choice.run, masked(inputs, lengths), state, lengths, starts)
        return masked(outputs, lengths), state

    def fused_forward(
        self, run: Any, inputs: Tensor, state: RGLRUState, lengths: Tensor | None, fresh: bool
    ) -> tuple[Tensor, RGLRUState]:
        """Compute a whole sequence by a diagonal scan, in the precision of the parameters but at least in float32."""
        return self._mixed(run, inputs, state, lengths, None)

    def _mixed(
        self, run: Any, inputs: Tensor, state: RGLRUState, lengths: Tensor | None, starts: Tensor | None
    ) -> tuple[Tensor, RGLRUState]:
        steps = inputs.shape[1]
        first = torch.arange(steps, device=inputs.device).eq(0) & state.started.eq(0)[:, None]
        begin = first if starts is None else first | starts
        drive = mixed_linear(inputs, self.weight_in, self.bias_in)
        weight_conv, bias_conv, decay = map(at_least_float32, (self.weight_conv, self.bias_conv, self.decay))
        convolve = implementations.required("causal_convolution", drive)
        drive, kept = convolve(drive, weight_conv, bias_conv, state.inputs, lengths, starts)
        recurrence = self._blocks(drive, self.weight_recurrence, self.bias_recurrence)
        gate = self._blocks(drive, self.weight_gate, self.bias_gate)
        hidden, last = run(*rg_lru_terms(drive, recurrence, gate, decay, begin), state.hidden, lengths)
        branch = gelu(mixed_linear(inputs, self.weight_branch, self.bias_branch), approximate="tanh")
        outputs = mixed_linear(branch * hidden, self.weight_out, self.bias_out)
        read = torch.full_like(state.started, steps) if lengths is None else lengths
        return outputs.to(self.weight_out.dtype), RGLRUState(last, kept, state.started.masked_fill(read > 0, 1))

    def _blocks(self, values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Multiply values (B, T, N) by a block-diagonal matrix (heads, N / heads, N / heads)."""
        return (mapped_by_head(values.to(weight.dtype), weight.mT[None]) + bias.flatten()).to(values.dtype)


def _affine(*shape: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Return parameters of a weight of a shape and of its bias, without their values."""
    bias = shape[0] if len(shape) == 2 else (shape[0], shape[2])
    return nn.Parameter(torch.empty(shape)), nn.Parameter(torch.empty(bias))
