"""Recurrent networks with an orthogonal recurrent matrix, whose powers neither grow nor vanish.

Lezcano-Casado and Martinez-Rubio, "Cheap Orthogonal Constraints in Neural Networks" (2019): ExpRNN; Lezcano-Casado,
"Trivializations for Gradient-Based Optimization on Manifolds" (2019): dtriv; Helfrich, Willmott and Ye, "Orthogonal Recurrent
Neural Networks with Scaled Cayley Transform" (2018): cayley.
"""

import math
from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.parametrizations import orthogonal
from torch.nn.utils.parametrize import register_parametrization

from seqmem.arguments import checked, extends
from seqmem.cells.base import Recurrence
from seqmem.cells.initializers import Initializer, initialize, initialize_bias
from seqmem.cells.rnn import RNNState
from seqmem.ops.activations import modrelu

Method = Literal["exprnn", "dtriv", "cayley"]
SkewInitializer = Literal["cayley", "henaff"]


class Orthogonal(Recurrence[RNNState]):
    """h_t = modrelu(W_hx x_t + Q h_{t-1}) with orthogonal Q: the cell of the ExpRNN paper.

    Q is made once a sequence, of the skew-symmetric part of a parameter (H, H) of which the entries below the diagonal count.
    A loop over :meth:`step` makes it once a step, unless it runs within ``torch.nn.utils.parametrize.cached()``. Under autocast
    Q and its products keep the parameters' precision, in which Q is orthogonal.

    Args:
        input_size: C.
        hidden_size: H.
        method: how Q follows from the skew-symmetric A. "exprnn": exp(A). "cayley": (I + A/2) (I - A/2)^-1. "dtriv": B exp(A),
            where every K updates in training B becomes Q and A becomes 0, which leaves Q as it is.
        init: of Q's rotation angles. "henaff": uniform in [-pi, pi], "cayley": tan(s / 2) with s uniform in [0, pi / 2]; with
            method "cayley" twice the arc tangent of these.
        K: updates of A between two changes of B; for "dtriv".

    Raises:
        UserError: an argument of the wrong type or range.
    """

    name = "orthogonal"

    bias_hx: Tensor | None

    @checked
    def __init__(
        self,
        input_size: PositiveInt,
        hidden_size: PositiveInt = 256,
        method: Method = "exprnn",
        init: SkewInitializer = "cayley",
        K: PositiveInt = 100,
    ):
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.weight_hx = nn.Parameter(torch.empty(hidden_size, input_size))
        self.register_parameter("bias_hx", None)
        self.bias_modrelu = nn.Parameter(torch.zeros(hidden_size))
        self.recurrent = (
            TrivializedMatrix(hidden_size, init, K) if method == "dtriv" else OrthogonalMatrix(hidden_size, init, method)
        )
        nn.init.kaiming_normal_(self.weight_hx, nonlinearity="relu")

    def initial_state(self, batch_size: int) -> RNNState:
        """All zero."""
        return RNNState(self.weight_hx.new_zeros(batch_size, self.output_size))

    def forward(
        self, inputs: Tensor, state: RNNState | None = None, lengths: Tensor | None = None, times: Tensor | None = None
    ) -> tuple[Tensor, RNNState]:
        """A whole sequence, see :meth:`seqmem.cells.Recurrence.forward`."""
        if isinstance(self.recurrent, TrivializedMatrix) and self.training and torch.is_grad_enabled():
            self.recurrent.count_update()
        return super().forward(inputs, state, lengths, times)

    def project(self, inputs: Tensor) -> Tensor:
        """Compute W_hx x."""
        return linear(inputs, self.weight_hx, self.bias_hx)

    def schedule(self, state: RNNState, steps: int, fresh: bool) -> list[Tensor]:
        """Return Q, the same at each step."""
        with torch.autocast(state.hidden.device.type, enabled=False):
            return [self.recurrent.weight] * steps

    def advance(self, projected: Tensor, state: RNNState, scheduled: Tensor) -> tuple[Tensor, RNNState]:
        """Compute one step; ``scheduled`` is Q."""
        with torch.autocast(state.hidden.device.type, enabled=False):
            hidden = modrelu(projected.to(state.hidden.dtype) + linear(state.hidden, scheduled), self.bias_modrelu)
        return hidden, RNNState(hidden)

    def capturable(self) -> bool:
        """Return False: the decomposition that Q follows from waits for the GPU."""
        return False


class ExpRNN(Orthogonal):
    """h_t = modrelu(W_hx x_t + b_hx + Q h_{t-1}): the plain recurrent network of HiPPO's code with orthogonal Q.

    Args:
        hx_initializer: of W_hx (H, C).
        zero_bias_init: start b_hx at zero instead of uniform within 1 / sqrt(C).
        shared: those of :class:`Orthogonal`.
    """

    name = "exprnn"

    @checked
    @extends(Orthogonal.__init__)
    def __init__(
        self,
        input_size: PositiveInt,
        hx_initializer: Initializer = "xavier_normal",
        zero_bias_init: bool = False,
        **shared: Any,
    ):
        super().__init__(input_size, **shared)
        self.bias_hx = nn.Parameter(torch.zeros(self.output_size))
        initialize(self.weight_hx, hx_initializer)
        if not zero_bias_init:
            initialize_bias(self.bias_hx, input_size)


class OrthogonalMatrix(nn.Module):
    """An orthogonal ``weight`` (size, size) with determinant 1.

    Args:
        size: rows and columns.
        init: see :class:`Orthogonal`.
        method: "exprnn" or "cayley", see :class:`Orthogonal`.

    Attributes:
        lr_scale: what training multiplies the learning rate of A by; a tenth, as in the ExpRNN paper and HiPPO's code.
    """

    lr_scale = 0.1
    weight: Tensor
    parametrizations: Any  # torch.nn.utils.parametrize puts it here

    def __init__(self, size: int, init: SkewInitializer, method: Literal["exprnn", "cayley"]):
        super().__init__()
        rows = torch.arange(1, size, 2)
        weight = torch.zeros(size, size)
        # torch's Cayley map halves what it is given.
        weight[rows, rows - 1] = _rotations(len(rows), init) * (2 if method == "cayley" else 1)
        self.weight = nn.Parameter(weight)
        orthogonal(self, "weight", "cayley" if method == "cayley" else "matrix_exp", use_trivialization=False)


class TrivializedMatrix(OrthogonalMatrix):
    """An orthogonal ``weight`` (size, size) = B exp(A). B becomes the whole, and A zero, after every K updates of A.

    torch's own trivialization puts a new tensor in B's place, which it makes by a QR decomposition, and has no K.

    Args:
        size: rows and columns.
        init: see :class:`Orthogonal`.
        K: updates of A between two changes of B.
    """

    updates: Tensor

    def __init__(self, size: int, init: SkewInitializer, K: int):
        super().__init__(size, init, "exprnn")
        self.K = K
        register_parametrization(self, "weight", _Based(size), unsafe=True)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._seen = self._counter()

    @torch.compiler.disable
    def count_update(self) -> None:
        """Count one update if A was changed since the last call, by an optimiser or from a checkpoint."""
        (seen, before), (parameter, now) = self._seen, self._counter()
        if parameter == seen and now != before:
            self.updates += 1
            if self.updates % self.K == 0:
                self.rebase()
        self._seen = self._counter()

    @torch.no_grad()
    def rebase(self) -> None:
        """B becomes B exp(A) and A becomes 0."""
        with torch.autocast(self._skew.device.type, enabled=False):
            Q = self.parametrizations.weight()
            # A step of Newton's iteration to the nearest orthogonal matrix, lest rounding adds up over the changes.
            self.parametrizations.weight[1].base.copy_(1.5 * Q - 0.5 * Q @ (Q.mT @ Q))
        self._skew.zero_()

    def _counter(self) -> tuple[int, int]:
        """Which tensor A is, and how often it has been written to."""
        return id(self._skew), self._skew._version

    @property
    def _skew(self) -> Tensor:
        return self.parametrizations.weight.original


class _Based(nn.Module):
    base: Tensor

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("base", torch.eye(size))

    def forward(self, Q: Tensor) -> Tensor:
        return self.base @ Q


def _rotations(count: int, init: SkewInitializer) -> Tensor:
    """Entries of the skew-symmetric A, one for each pair of coordinates."""
    if init == "henaff":
        return torch.empty(count).uniform_(-math.pi, math.pi)
    return torch.tan(torch.empty(count).uniform_(0, math.pi / 2) / 2)
