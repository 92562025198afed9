"""HiPPO memories that are scaled as time goes on: HiPPO-LegS, a memory of the whole past, and two ablations of it."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from seqmem.arguments import checked, extends
from seqmem.cells.memory import MemoryCell, MemoryState
from seqmem.ops import DiscretizationName, canonical_discretization, generators, memory_update


class ScaleInvariantCell(MemoryCell):
    """The memory follows c' = A c / t + B u / t, with A and B of a subclass's ``measure``.

    Step k (from 0) takes t = k + init_t; at t = 0 the memory becomes u e_0, the projection of one value. Each step costs O(N) a
    memory row (zoh: O(N^2) for LegS, else O(N^3)), and there is no limit on the length.

    Args:
        discretization: of the memory's equation: forward, backward, bilinear, zoh, an alias (euler, tustin, ...), or alpha of
            the general bilinear transform, from 0 (forward) to 1 (backward).
        init_t: first-step rule. 0 starts with u e_0; t0 > 0 starts from a zero memory with t = t0.
        max_length: a t that is never exceeded: from there the memory forgets exponentially (1024 in the original code).
        measure_args: of the measure, see :func:`seqmem.ops.transition`.
        shared: the arguments of :class:`seqmem.cells.memory.MemoryCell`.

    Raises:
        UserError: an argument of the wrong type or range.
    """

    measure: ClassVar[str]

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
        with torch.device("cpu"):
            self.generators = generators(self.measure, self.memory_order, **measure_args)

    def schedule(self, state: MemoryState, steps: int, fresh: bool) -> Sequence[float | Tensor]:
        """The step size of each step, 1 / t (zoh: ln((t + 1) / t)), infinite at t = 0."""
        if fresh:
            return [self._step_size(k + self.init_t) for k in range(steps)]
        return self._step_sizes(state.step, steps).to(state.memory.dtype).unbind(0)

    def schedule_tensor(self, state: MemoryState, steps: int) -> Tensor:
        """The step sizes of all steps, (T,)."""
        return self._step_sizes(state.step[:1] * 0, steps)[:, 0].to(state.memory.dtype)

    def update_memory(self, memory: Tensor, memory_input: Tensor, step_size: float | Tensor) -> Tensor:
        """One step of the memory."""
        return memory_update(memory, memory_input, step_size, self.measure, self.discretization, **self.measure_args)

    def operator_options(self) -> dict[str, Any]:
        """Return the discretization."""
        return {"discretization": self.discretization}

    def dynamics(self, inputs: Tensor, state: MemoryState, fresh: bool) -> dict[str, Any]:
        """Step sizes of all steps, one for all rows where these stand at the same position."""
        step = state.step
        together = step.shape[0] > 0 and (fresh or bool((step == step[:1]).all()))
        sizes = self._step_sizes(step[:1] if together else step, inputs.shape[1])
        return {
            "step_sizes": sizes[:, 0] if together else sizes,
            "generators": self.generators,
            "discretization": self.discretization,
        }

    def _step_sizes(self, step: Tensor, steps: int) -> Tensor:
        """Those of rows (B,) that have made ``step`` steps: (T, B) float64."""
        t = step + self.init_t + torch.arange(steps, device=step.device)[:, None]
        if self.max_length is not None:
            t = t.clamp(max=self.max_length)
        size = 1 / t.double()
        return size.log1p() if self.discretization == "zoh" else size

    def _step_size(self, t: int) -> float:
        if t == 0:
            return math.inf
        size = 1 / min(t, self.max_length or t)
        return math.log1p(size) if self.discretization == "zoh" else size


class LegS(ScaleInvariantCell):
    """The HiPPO-LegS recurrent network (Gu et al., 2020, theorem 2 and section 3.1): Legendre polynomials on the whole past."""

    name = "legs"
    measure = "legs"


class LegTS(ScaleInvariantCell):
    """The window of LegT, stretched to the whole past: an ablation. Its original solved with the lower triangle of A alone."""

    name = "legts"
    measure = "legt"


class LagTS(ScaleInvariantCell):
    """The exponential weight of LagT, stretched to the whole past: an ablation."""

    name = "lagts"
    measure = "lagt"
