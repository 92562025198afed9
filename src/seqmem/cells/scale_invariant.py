"""HiPPO memories whose time scale grows with the sequence: HiPPO-LegS and two ablations of it."""

import math
from collections.abc import Sequence
from functools import lru_cache
from operator import index
from typing import Any, ClassVar

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from seqmem.arguments import checked, extends
from seqmem.cells import positions
from seqmem.cells.memory import MemoryCell, MemoryState
from seqmem.ops import DiscretizationName, canonical_discretization, generators, memory_update
from seqmem.ops.constants import constant
from seqmem.ops.gpu import support


class ScaleInvariantCell(MemoryCell):
    """A memory cell with dm/dt = (A m + B u) / t, where A and B are those of a subclass's ``measure``.

    Step k, from 0, uses t = k + init_t. At t = 0 the memory becomes u e_0, the projection of one value. A step costs O(N) per
    memory (zoh: O(N^2) for LegS, else O(N^3)), and the length of a sequence is not limited.

    Args:
        discretization: discretization of the memory's equation: forward, backward, bilinear, zoh, an alias (euler, tustin,
            ...), or alpha of the general bilinear transform, from 0 (forward) to 1 (backward).
        init_t: t of the first step: 0 starts with u e_0, t0 > 0 starts from a zero memory with t = t0.
        max_length: upper limit of t, from which on the memory forgets exponentially (1024 in the original code); None for no
            limit.
        measure_args: arguments of the measure, see :func:`seqmem.ops.transition`.
        shared: the arguments of :class:`seqmem.cells.memory.MemoryCell`.

    Raises:
        UserError: an argument of the wrong type or range.
    """

    hidden_is_output = True
    measure: ClassVar[str]
    _rows_differ = False

    @checked
    @extends(MemoryCell.__init__)
    def __init__(
        self,
        input_size: PositiveInt,
        discretization: DiscretizationName = "bilinear",
        init_t: NonNegativeInt = 0,
        max_length: PositiveInt | None = None,
        measure_args: dict[str, float] = {},  # noqa: B006
        **shared: Any,
    ):
        super().__init__(input_size, **shared)
        self.discretization = canonical_discretization(discretization)
        self.init_t, self.max_length = init_t, max_length
        self.measure_args = dict(measure_args)
        self.generators = constant(generators)(self.measure, self.memory_order, **measure_args)

    def schedule(self, state: MemoryState, steps: int, fresh: bool) -> Sequence[float | Tensor]:
        """Return the step size of each step, 1 / t (zoh: ln((t + 1) / t)), infinite at t = 0."""
        if fresh:
            return [self._step_size(k + self.init_t) for k in range(steps)]
        return self._step_sizes(state.step, steps).to(state.memory.dtype).unbind(0)

    def schedule_tensor(self, state: MemoryState, steps: int, fresh: bool) -> Tensor:
        """Return the step sizes of all steps, (T,) from the initial state, and (T, B) from another."""
        sizes = self._step_sizes(state.step[:1] * 0 if fresh else state.step, steps).to(state.memory.dtype)
        return sizes[:, 0] if fresh else sizes

    def update_memory(self, memory: Tensor, memory_input: Tensor, step_size: float | Tensor) -> Tensor:
        """Compute one step of the memory."""
        return memory_update(memory, memory_input, step_size, self.measure, self.discretization, **self.measure_args)

    def capturable(self) -> bool:
        """Return whether the memory's update has a kernel for the GPU: the reference solves a system, and waits for it."""
        return not support.fallback_reason()

    def operator_options(self) -> dict[str, Any]:
        """Return the discretization, and whether rows of the latest state on a GPU are at different positions."""
        return super().operator_options() | {"discretization": self.discretization, "rows_differ": self._rows_differ}

    def initial_state(self, batch_size: int) -> MemoryState:
        """Return a zero hidden state and memory at step 0."""
        state = super().initial_state(batch_size)
        if positions.kept_on_host(state.step) and not torch.compiler.is_compiling():
            positions.remember(state.step, 0)
        return state

    def whole_sequence(
        self, inputs: Tensor, state: MemoryState, lengths: Tensor | None, fresh: bool, rate: float = 1.0
    ) -> tuple[Tensor, MemoryState]:
        """Compute checked inputs, and remember their last position on a GPU."""
        if not positions.kept_on_host(inputs):  # elsewhere implementations take rows at different positions
            return super().whole_sequence(inputs, state, lengths, fresh)
        position = self._position(state, fresh)
        self._rows_differ = position is None
        outputs, after = super().whole_sequence(inputs, state, lengths, fresh)
        if lengths is None and not torch.compiler.is_compiling():
            positions.remember(after.step, None if position is None else position + inputs.shape[1])
        return outputs, after

    def _position(self, state: MemoryState, fresh: bool) -> int | None:
        """Return the past steps of all rows; None if they differ, or if torch.compile would have to read them."""
        if fresh:
            return 0
        return None if torch.compiler.is_compiling() else positions.position_of(state.step)

    def dynamics(self, inputs: Tensor, state: MemoryState, fresh: bool) -> dict[str, Any]:
        """Return the step sizes of all steps, shared by all rows if these are at the same position."""
        step = state.step
        position = self._position(state, fresh) if positions.kept_on_host(step) else None
        if position is not None:
            settings = position + self.init_t, index(inputs.shape[1]), self.max_length, self.discretization == "zoh"
            return {
                "step_sizes": _host_step_sizes(*settings),
                "generators": self.generators,
                "discretization": self.discretization,
            }
        # torch.compile does not read the state: its rows count as different.
        same = fresh or (not torch.compiler.is_compiling() and bool((step == step[:1]).all()))
        together = step.shape[0] > 0 and same
        sizes = self._step_sizes(step[:1] if together else step, inputs.shape[1])
        return {
            "step_sizes": sizes[:, 0] if together else sizes,
            "generators": self.generators,
            "discretization": self.discretization,
        }

    def _step_sizes(self, step: Tensor, steps: int) -> Tensor:
        """Return the step sizes (T, B) in float64 of rows after ``step`` (B,) past steps."""
        t = step + self.init_t + torch.arange(steps, device=step.device)[:, None]
        return _sizes_at(t, self.max_length, self.discretization == "zoh")

    def _step_size(self, t: int) -> float:
        if t == 0:
            return math.inf
        size = 1 / min(t, self.max_length or t)
        return math.log1p(size) if self.discretization == "zoh" else size


def _sizes_at(t: Tensor, max_length: int | None, zero_order_hold: bool) -> Tensor:
    """Return the step sizes in float64 of steps at times t."""
    if max_length is not None:
        t = t.clamp(max=max_length)
    size = 1 / t.double()
    return size.log1p() if zero_order_hold else size


@torch.compiler.assume_constant_result
def _host_step_sizes(*settings: Any) -> Tensor:
    return _kept_step_sizes(*settings)


@lru_cache(maxsize=64)
@constant
def _kept_step_sizes(first: int, steps: int, max_length: int | None, zero_order_hold: bool) -> Tensor:
    """Return the step sizes (T,) of consecutive steps in float64 on the CPU: the same tensor at each call."""
    return _sizes_at(torch.arange(first, first + steps), max_length, zero_order_hold)


class LegS(ScaleInvariantCell):
    """HiPPO-LegS: Legendre polynomials on the whole past (Gu et al., 2020, theorem 2 and section 3.1)."""

    name = "legs"
    measure = "legs"


class LegTS(ScaleInvariantCell):
    """The window of LegT, stretched to the whole past: an ablation.

    The original code solves with the lower triangle of A only; this cell uses A.
    """

    name = "legts"
    measure = "legt"


class LagTS(ScaleInvariantCell):
    """The exponential weight of LagT, stretched to the whole past: an ablation."""

    name = "lagts"
    measure = "lagt"
