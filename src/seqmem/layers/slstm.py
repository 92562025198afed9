"""The sLSTM layer of xLSTM: a causal convolution, gates by head, an LSTM with exponential gates, and a norm by head."""

from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

from seqmem.arguments import checked
from seqmem.errors import UserError
from seqmem.layers.by_head import mapped_by_head
from seqmem.ops import implementations
from seqmem.ops.precision import at_least_float32, full_precision
from seqmem.sequence import SequenceLayer


class SLSTMState(NamedTuple):
    """State, at least in float32.

    ``hidden`` y, ``memory`` c, ``normalizer`` n and ``stabilizer`` m, (B, H) each; ``inputs`` (B, k-1, C), the last inputs of
    the convolution, the oldest first.
    """

    hidden: Tensor
    memory: Tensor
    normalizer: Tensor
    stabilizer: Tensor
    inputs: Tensor


class SLSTM(SequenceLayer[SLSTMState]):
    """LSTM with exponential gates and heads, of xLSTM.

    The hidden state feeds back within each of K heads alone (Beck et al., 2024)::

        u = SiLU(causal depthwise convolution of x)
        i, f = W u + R y + b
        z, o = W x + R y + b
        m' = max(m + log sigmoid(f), i), or i where n = 0
        c' = exp(m + log sigmoid(f) - m') c + exp(i - m') tanh(z)
        n' = exp(m + log sigmoid(f) - m') n + exp(i - m')
        y' = sigmoid(o) c' / n'

    These are equations 15 to 24 of the paper. W and R are block-diagonal with one block for each head. The outputs are y',
    normalised over the units of each head and scaled. States and recurrence, R y included, are at least in float32. Under
    autocast the products W u and W x are in its type.

    Parameters: ``weight_conv`` (C, k), whose last tap multiplies the current input, and ``bias_conv`` (C,); ``weight_gates`` W
    (4, K, H/K, C/K), gates i, f, z, o; ``weight_hh`` R (K, 4H/K, H/K), zero at first, rows by gate; ``bias`` b (4H,), zero at
    first except for f; ``norm_scale`` (H,). The last three and ``bias_conv`` are without weight decay.

    Args:
        input_size: C.
        hidden_size: H, at least 2.
        num_heads: K, a divisor of C and H; None for 4, or for 2 or 1 where C or H is not a multiple, or H < 4 K.
            The norm over the one unit of a head is zero, which is refused; over two units it is hardly more than a sign.
        kernel_size: k, taps of the convolution.
        forget_bias: initial bias of f, by unit j of d = H/K of a head in block l of L. powerlaw:
            5 - 12 (j / (d - 1))^(0.3 + 1.3 l / (L - 1)), with the exponent 0.3 for L = 1. linear: evenly spaced from 3 to 6.

    Raises:
        UserError: an argument of the wrong type or range, C or H is not a multiple of ``num_heads``, or a head has one
            unit.
    """

    name = "slstm"
    operator = "slstm"
    no_decay = ("weight_hh", "bias", "bias_conv", "norm_scale")

    @checked
    def __init__(
        self,
        input_size: PositiveInt,
        hidden_size: Annotated[int, Field(ge=2)] = 256,
        num_heads: PositiveInt | None = None,
        kernel_size: PositiveInt = 4,
        forget_bias: Literal["powerlaw", "linear"] = "powerlaw",
    ):
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        divisors = (k for k in (4, 2) if not (input_size % k or hidden_size % k) and hidden_size >= 4 * k)
        heads = num_heads or next(divisors, 1)
        if input_size % heads or hidden_size % heads:
            common = ", ".join(str(k) for k in range(1, hidden_size) if not (input_size % k or hidden_size % k))
            raise UserError(
                f"num_heads: got {heads}, expected a divisor of {input_size} inputs and {hidden_size} units: {common}"
            )
        if heads == hidden_size:
            raise UserError(f"num_heads: got {heads}, expected fewer than {hidden_size} units: the norm of one unit is zero")
        self.forget_bias, size = forget_bias, hidden_size // heads
        self.weight_conv = nn.Parameter(torch.empty(input_size, kernel_size))
        self.bias_conv = nn.Parameter(torch.empty(input_size))
        for parameter in (self.weight_conv, self.bias_conv):
            nn.init.uniform_(parameter, -(kernel_size**-0.5), kernel_size**-0.5)
        self.weight_gates = nn.Parameter(torch.randn(4, heads, size, input_size // heads) * (2 / (5 * input_size)) ** 0.5)
        self.weight_hh = nn.Parameter(torch.zeros(heads, 4 * size, size))
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size))
        self.norm_scale = nn.Parameter(torch.ones(hidden_size))
        self.on_depth(0, 1)

    @torch.no_grad()
    def on_depth(self, block: int, blocks: int) -> None:
        """Set the initial bias of f for this block of a stack."""
        heads, _, size = self.weight_hh.shape
        places = torch.linspace(0, 1, size)
        exponent = 0.3 + 1.3 * block / (blocks - 1) if blocks > 1 else 0.3
        values = 5 - 12 * places**exponent if self.forget_bias == "powerlaw" else 3 + 3 * places
        self.bias.view(4, heads, size)[1].copy_(values)

    def initial_state(self, batch_size: int) -> SLSTMState:
        """Return zeros."""
        bias, (channels, taps) = at_least_float32(self.bias), self.weight_conv.shape
        hidden, memory, normalizer, stabilizer = (bias.new_zeros(batch_size, self.output_size) for _ in range(4))
        return SLSTMState(hidden, memory, normalizer, stabilizer, bias.new_zeros(batch_size, taps - 1, channels))

    def fused_forward(
        self, run: Any, inputs: Tensor, state: SLSTMState, lengths: Tensor | None, fresh: bool
    ) -> tuple[Tensor, SLSTMState]:
        """Compute a whole sequence, in the precision of the parameters but at least in float32."""
        inputs = inputs.to(state.hidden.dtype)
        convolve = implementations.required("causal_convolution", inputs)
        weight_conv, bias_conv = at_least_float32(self.weight_conv), at_least_float32(self.bias_conv)
        convolved, kept = convolve(inputs, weight_conv, bias_conv, state.inputs, lengths)
        weight = at_least_float32(self.weight_gates)
        halves = [mapped_by_head(silu(convolved), weight[:2]), mapped_by_head(inputs, weight[2:])]
        projected = torch.cat(halves, 2) + at_least_float32(self.bias)
        with full_precision(inputs.device):
            results = run(projected, *state[:4], lengths, at_least_float32(self.weight_hh))
        outputs, hidden, memory, normalizer, stabilizer = results
        heads, _, size = self.weight_hh.shape
        normalized = layer_norm(outputs.unflatten(-1, (heads, size)), (size,)).flatten(2)
        scaled = (normalized * at_least_float32(self.norm_scale)).to(self.weight_conv.dtype)
        return scaled, SLSTMState(hidden, memory, normalizer, stabilizer, kept)
