"""Base class of minGRU and minLSTM: projections, state, learned initial state and convolution."""

from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from seqmem.arguments import checked, checked_width
from seqmem.errors import UserError
from seqmem.layers.residual_convolution import ConvolutionState, ResidualConvolution
from seqmem.ops.minimal_gates import MinimalGates, candidate_activation
from seqmem.ops.precision import at_least_float32, mixed_linear
from seqmem.sequence import SequenceLayer

Expansion = Annotated[float, Field(gt=0)]


class MinimalState(NamedTuple):
    """State, at least in float32.

    ``hidden`` h (B, E); ``inputs`` (B, k-1, C), the last inputs of the convolution, the oldest first, k = 1 without it and in a
    block, which then keeps them.
    """

    hidden: Tensor
    inputs: Tensor


class MinimalRecurrence(SequenceLayer[MinimalState]):
    """Base class of recurrences whose gates depend on the inputs alone (Feng et al., 2024).

    Parameters: ``weight_in`` (n E, C) of the candidate k_h and then of each gate, ``bias_in`` (n E,) with ``bias``;
    ``weight_out`` (H, E) with ``projection``, ``bias_out`` (H,) with both; ``initial`` (E,) with ``learned_state``, without
    weight decay; ``convolution.weight`` (C, k) and ``convolution.bias`` (C,) with ``kernel_size``.

    Args:
        input_size: C.
        hidden_size: H.
        expansion: the recurrence has E = floor(``expansion`` H) units.
        projection: True for a linear map from E units to H outputs; None: only if E differs from H.
        bias: the linear maps have biases.
        learned_state: the initial state is g(p) with a learned p; else it is zero.
        kernel_size: k, taps of a causal convolution of each channel, added to the inputs; None for none. In a stack these are
            the inputs of the block, before its norm, as in the authors' model; in both directions of time those of each copy.

    Raises:
        UserError: an argument of the wrong type or range, or E differs from H without a projection.
    """

    operator = "minimal_gates"
    no_decay = ("initial",)
    rows: ClassVar[int]
    form: MinimalGates

    @checked
    def __init__(
        self,
        input_size: PositiveInt,
        hidden_size: PositiveInt = 256,
        expansion: Expansion = 1.0,
        projection: bool | None = None,
        bias: bool = False,
        learned_state: bool = False,
        kernel_size: PositiveInt | None = None,
    ):
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.inner_size = checked_width("expansion", expansion, "hidden_size", hidden_size, int)
        projects = self.inner_size != hidden_size if projection is None else projection
        if self.inner_size != hidden_size and not projects:
            raise UserError(f"projection: got false, expected true: {self.inner_size} units differ from {hidden_size} outputs")
        weight, offset = _affine(self.rows * self.inner_size, input_size)
        self.weight_in, self.bias_in = weight, offset if bias else None
        weight, offset = _affine(hidden_size, self.inner_size)
        self.weight_out, self.bias_out = (weight if projects else None), (offset if projects and bias else None)
        convolution = ResidualConvolution(input_size, kernel_size or 1)  # one tap is drawn without it, too
        self.convolution = convolution if kernel_size else None
        self.initial = nn.Parameter(torch.randn(self.inner_size)) if learned_state else None

    def initial_state(self, batch_size: int) -> MinimalState:
        """Return g(p) or zeros, and zeros before the convolution."""
        like = at_least_float32(self.weight_in)
        taps = 1 if self.convolution is None else self.convolution.kernel_size
        inputs = like.new_zeros(batch_size, taps - 1, self.input_size)
        if self.initial is None:
            return MinimalState(like.new_zeros(batch_size, self.inner_size), inputs)
        return MinimalState(candidate_activation(at_least_float32(self.initial)).repeat(batch_size, 1), inputs)

    def fused_forward(
        self, run: Any, inputs: Tensor, state: MinimalState, lengths: Tensor | None, fresh: bool
    ) -> tuple[Tensor, MinimalState]:
        """Compute a whole sequence by a scan whose state is at least in float32."""
        last = state.inputs
        if self.convolution is not None:
            inputs, [last] = self.convolution(inputs, ConvolutionState(last), lengths)
        projected = mixed_linear(inputs, self.weight_in, self.bias_in)
        hidden, final = run(projected, state.hidden, lengths, self.form)
        outputs = hidden if self.weight_out is None else mixed_linear(hidden, self.weight_out, self.bias_out)
        return outputs.to(self.weight_in.dtype), MinimalState(final, last)

    def release_first(self) -> ResidualConvolution | None:
        """Return the convolution, which this layer then no longer has."""
        released, self.convolution = self.convolution, None
        return released

    def gates(self, name: str) -> int:
        """Return the number of matrices, one for each gate, that are stacked in a parameter of this module."""
        return self.rows if name.endswith("_in") else 1


def _affine(rows: int, columns: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Return a weight and a bias with the initial values of torch.nn.Linear."""
    weight, bias = torch.empty(rows, columns), torch.empty(rows)
    for values in (weight, bias):
        values.uniform_(-(columns**-0.5), columns**-0.5)
    return nn.Parameter(weight), nn.Parameter(bias)
