"""The minimal long short-term memory whose gates depend on the inputs alone."""

from typing import Any

import torch
from pydantic import FiniteFloat, PositiveInt

from seqmem.arguments import checked, extends
from seqmem.errors import UserError
from seqmem.layers.minimal import MinimalRecurrence


class MinLSTM(MinimalRecurrence):
    """Minimal LSTM, whose gates depend on the inputs alone.

    The states h_t = f'_t h_{t-1} + i'_t g(k_t) have the outputs W_o h_t. With f_t = sigmoid(W_f x_t), i_t = sigmoid(W_i x_t)
    and k_t = W_h x_t, the gates are f' = f / (f + i) and i' = i / (f + i) (Feng et al., 2024, section 3.2). g(k) is k + 1/2 for
    k >= 0 and sigmoid(k) below, so that the states stay positive. The defaults are those of lucidrains' implementation: no
    biases, and W_o only where the number of units differs from that of the outputs. The authors' form is ``bias=True,
    projection=True, learned_state=True``.

    Parameters: those of :class:`seqmem.layers.minimal.MinimalRecurrence`; the rows of ``weight_in`` (3 E, C) and ``bias_in``
    are those of k, f and i.

    Args:
        normalized: the gates are divided by their sum; else f' = f and i' = i.
        forget_bias: added to the initial biases of the forget gates, which require ``bias``.

    Raises:
        UserError: as :class:`seqmem.layers.minimal.MinimalRecurrence`, or ``forget_bias`` without ``bias``.
    """

    name = "minlstm"
    rows = 3

    @checked
    @extends(MinimalRecurrence.__init__)
    def __init__(self, input_size: PositiveInt, normalized: bool = True, forget_bias: FiniteFloat = 0.0, **rest: Any):
        super().__init__(input_size, **rest)
        self.form = "lstm" if normalized else "lstm_raw"
        if forget_bias and self.bias_in is None:
            raise UserError(f"forget_bias: got {forget_bias}, expected 0 where bias is false")
        if self.bias_in is not None:
            with torch.no_grad():
                self.bias_in[self.inner_size : 2 * self.inner_size] += forget_bias
