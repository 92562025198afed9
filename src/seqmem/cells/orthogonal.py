"""Recurrent networks with an orthogonal recurrent matrix, whose powers neither grow nor vanish.

Lezcano-Casado and Martinez-Rubio, "Cheap Orthogonal Constraints in Neural Networks" (2019): ExpRNN; Lezcano-Casado,
"Trivializations for Gradient-Based Optimization on Manifolds" (2019): dtriv; Helfrich, Willmott and Ye, "Orthogonal Recurrent
Neural Networks with Scaled Cayley Transform" (2018): cayley.
"""

import copy
import math
from collections.abc import Collection
from threading import Lock
from typing import Any, Literal
from weakref import WeakSet

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.parametrize import register_parametrization
from torch.optim.optimizer import register_optimizer_step_post_hook

from seqmem.arguments import checked, extends
from seqmem.cells.base import Recurrence
from seqmem.cells.initializers import Initializer, initialize, initialize_bias
from seqmem.cells.rnn import RNNState
from seqmem.ops.activations import modrelu
from seqmem.ops.orthogonal import cayley, exponential
from seqmem.ops.precision import at_least_float32, full_precision
from seqmem.sequence.parametrized import PicklableParametrized

Method = Literal["exprnn", "dtriv", "cayley"]
SkewInitializer = Literal["cayley", "henaff"]


class Orthogonal(Recurrence[RNNState]):
    """The cell of the ExpRNN paper, h_t = modrelu(W_hx x_t + Q h_{t-1}) with orthogonal Q.

    Q is computed from a skew-symmetric A, once per sequence. The lower triangle of A is that of a parameter (H, H). A loop over
    :meth:`step` computes Q at each step, unless it runs within ``torch.nn.utils.parametrize.cached()``. Under autocast Q and
    its products keep the precision of the parameters, in which Q is orthogonal. For parameters in half precision both are in
    float32.

    Args:
        input_size: C.
        hidden_size: H.
        method: map from A to Q. "exprnn": exp(A). "cayley": (I + A/2) (I - A/2)^-1. "dtriv": B exp(A), where after every K
            updates in training B becomes Q and A becomes 0, which does not change Q.
        init: initial rotation angles of Q. "henaff": uniform in [-pi, pi], "cayley": tan(s / 2) with s uniform in [0, pi / 2];
            with method "cayley" twice the arc tangent of these.
        K: number of updates of A between two changes of B; for "dtriv".

    Raises:
        UserError: an argument of the wrong type or range.
    """

    name = "orthogonal"
    operator = "modrelu"
    hidden_is_output = True

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
        """Return a zero hidden state."""
        return RNNState(self.weight_hx.new_zeros(batch_size, self.output_size))

    def project(self, inputs: Tensor) -> Tensor:
        """Compute W_hx x."""
        return linear(inputs, self.weight_hx, self.bias_hx)

    def schedule(self, state: RNNState, steps: int, fresh: bool) -> list[Tensor]:
        """Return Q, the same at each step."""
        return [self._recurrent_matrix(state)] * steps

    def advance(self, projected: Tensor, state: RNNState, scheduled: Tensor) -> tuple[Tensor, RNNState]:
        """Compute one step; ``scheduled`` is Q."""
        with full_precision(state.hidden.device):
            recurrent = linear(state.hidden.to(scheduled.dtype), scheduled)
            hidden = modrelu(projected.to(recurrent.dtype) + recurrent, self.bias_modrelu).to(state.hidden.dtype)
        return hidden, RNNState(hidden)

    def fused_forward(
        self, run: Any, inputs: Tensor, state: RNNState, lengths: Tensor | None, fresh: bool
    ) -> tuple[Tensor, RNNState]:
        """Compute a whole sequence."""
        weights = (self.weight_hx, self._recurrent_matrix(state), self.bias_hx, self.bias_modrelu)
        with full_precision(state.hidden.device):
            outputs, hidden = run(inputs, state.hidden, lengths, *weights)
        return outputs, RNNState(hidden)

    def _recurrent_matrix(self, state: RNNState) -> Tensor:
        """Return Q, and in training count an update of A since the last call."""
        if isinstance(self.recurrent, TrivializedMatrix) and self.training and torch.is_grad_enabled():
            self.recurrent.count_update()
        with full_precision(state.hidden.device):
            return self.recurrent.weight


class ExpRNN(Orthogonal):
    """The plain recurrent network of HiPPO's code with orthogonal Q, h_t = modrelu(W_hx x_t + b_hx + Q h_{t-1}).

    Args:
        hx_initializer: initialiser of W_hx (H, C).
        zero_bias_init: start b_hx at zero instead of uniform within 1 / sqrt(C).
        shared: the arguments of :class:`Orthogonal`.
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


class OrthogonalMatrix(PicklableParametrized):
    """An orthogonal ``weight`` (size, size) with determinant 1, in float32 for parameters in half precision.

    Args:
        size: number of rows and columns.
        init: see :class:`Orthogonal`.
        method: "exprnn" or "cayley", see :class:`Orthogonal`.

    Attributes:
        lr_scale: factor of the learning rate of A in training; 0.1, as in the ExpRNN paper and HiPPO's code.
    """

    lr_scale = 0.1
    weight: Tensor
    parametrizations: Any  # set by torch.nn.utils.parametrize

    def __init__(self, size: int, init: SkewInitializer, method: Literal["exprnn", "cayley"]):
        super().__init__()
        self.built_with: tuple[Any, ...] = size, init, method
        rows = torch.arange(1, size, 2)
        weight = torch.zeros(size, size)
        # The Cayley map divides A by 2.
        weight[rows, rows - 1] = _rotations(len(rows), init) * (2 if method == "cayley" else 1)
        self.weight = nn.Parameter(weight)
        register_parametrization(self, "weight", _Orthogonal(method), unsafe=True)


class TrivializedMatrix(OrthogonalMatrix):
    """An orthogonal ``weight`` (size, size) = B exp(A), where B takes the product's value after every K updates of A.

    The trivialization in torch replaces the tensor B by a QR decomposition, and has no K.

    Args:
        size: number of rows and columns.
        init: see :class:`Orthogonal`.
        K: number of updates of A between two changes of B.

    Attributes:
        changes_base: values of A at different times belong to different B, so that their average has no meaning.
    """

    changes_base = True
    updates: Tensor
    _seen: tuple[int, int | None] | None
    _is_stepped = False

    def __init__(self, size: int, init: SkewInitializer, K: int):
        super().__init__(size, init, "exprnn")
        self.built_with = size, init, K
        self.K = K
        register_parametrization(self, "weight", _Based(size), unsafe=True)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._updates = 0  # the same on the host, which does not wait for a GPU
        self.forget_changes()
        self.register_load_state_dict_post_hook(_forget_changes)
        _count_steps_of(self)

    @torch.compiler.disable
    def count_update(self) -> None:
        """Count one update if an optimiser or in-place operations changed A since the last call, or :meth:`forget_changes`.

        Changes through ``.data`` outside of an optimiser are not counted.
        """
        if self._has_update():
            self.updates += 1
            self._updates += 1
            if self._updates % self.K == 0:
                self.rebase()
        self.forget_changes()

    def is_among(self, stepped: Collection[int]) -> bool:
        """Return whether the step of an optimiser changed A: its identity is among those of the parameters, with a gradient."""
        return id(self._skew) in stepped and self._skew.grad is not None

    def note_step(self) -> None:
        """Note that an optimiser changed A."""
        self._is_stepped = True

    def forget_changes(self) -> None:
        """Count no update for the changes to A so far: weights that are loaded or sent to other processes are none."""
        self._seen, self._is_stepped = self._parameter_version(), False

    def _has_update(self) -> bool:
        """Return whether A was changed and that is not counted yet."""
        parameter, now = self._parameter_version()
        if self._seen is None:  # loaded from a pickle
            return self._is_stepped
        return parameter == self._seen[0] and (now != self._seen[1] or self._is_stepped)

    def _of_copy(self) -> dict[str, Any]:
        """Return what differs in a copy, whose A is not known yet: it has the update that is not counted yet."""
        return {"_seen": None, "_is_stepped": self._has_update()}

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        build, arguments, content = super().__reduce_ex__(protocol)
        return build, arguments, content | self._of_copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> "TrivializedMatrix":
        memo[id(self)] = found = type(self).__new__(type(self))
        found.__dict__ = copy.deepcopy(self.__dict__, memo) | self._of_copy()
        found._seen = found._parameter_version()
        _count_steps_of(found)
        return found

    def _save_to_state_dict(self, *arguments: Any) -> None:
        self.count_update()  # the last one of an optimiser, so that a state dict has all of them
        super()._save_to_state_dict(*arguments)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        self._updates = int(state_dict.get(f"{prefix}updates", self._updates))

    @torch.no_grad()
    def rebase(self) -> None:
        """Set B to B exp(A) and A to 0."""
        with full_precision(self._skew.device):
            Q = self.parametrizations.weight()
            self.parametrizations.weight[1].base.copy_(_nearer_orthogonal(Q))  # so that rounding does not accumulate
        self._skew.zero_()

    def _parameter_version(self) -> tuple[int, int | None]:
        """Return the identity of the tensor A, and the number of in-place changes to it; None if A does not count them."""
        return id(self._skew), None if self._skew.is_inference() else self._skew._version

    @property
    def _skew(self) -> Tensor:
        return self.parametrizations.weight.original


def _forget_changes(module: TrivializedMatrix, _: Any) -> None:
    module.forget_changes()


_counting: WeakSet[TrivializedMatrix] = WeakSet()
_lock = Lock()


def _count_steps_of(matrix: TrivializedMatrix) -> None:
    with _lock:
        _counting.add(matrix)


def _note_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Note the step of an optimiser: fused ones and those that change ``.data`` leave the versions of tensors alone."""
    with _lock:
        matrices = list(_counting)
    if not matrices:
        return
    stepped = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    found = [matrix for matrix in matrices if matrix.is_among(stepped)]
    skipped = getattr(optimizer, "found_inf", None) if found else None  # of a GradScaler, for fused optimisers
    if skipped is None or not bool(skipped):
        for matrix in found:
            matrix.note_step()


register_optimizer_step_post_hook(_note_step)


class _Orthogonal(nn.Module):
    """The map from the lower triangle of A, at least in float32, to Q."""

    def __init__(self, method: Literal["exprnn", "cayley"]):
        super().__init__()
        self.method = method

    def forward(self, weight: Tensor) -> Tensor:
        below = at_least_float32(weight).tril()
        skew = below - below.mT
        return cayley(skew) if self.method == "cayley" else exponential(skew)


class _Based(nn.Module):
    """The product with B, a buffer."""

    base: Tensor

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("base", torch.eye(size))

    def forward(self, Q: Tensor) -> Tensor:
        rounded = self.base.dtype != Q.dtype  # to half precision, in which it is not orthogonal
        return (_nearer_orthogonal(self.base.to(Q.dtype)) if rounded else self.base) @ Q


def _nearer_orthogonal(Q: Tensor) -> Tensor:
    """Compute one Newton step towards the nearest orthogonal matrix, which squares the distance to it."""
    return 1.5 * Q - 0.5 * Q @ (Q.mT @ Q)


def _rotations(count: int, init: SkewInitializer) -> Tensor:
    """Draw the non-zero entries of A, one for each pair of coordinates."""
    if init == "henaff":
        return torch.empty(count).uniform_(-math.pi, math.pi)
    return torch.tan(torch.empty(count).uniform_(0, math.pi / 2) / 2)
