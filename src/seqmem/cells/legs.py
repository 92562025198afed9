"""HiPPO-LegS: a memory of the whole past in Legendre polynomials, scaled as time goes on."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor
from torch.nn.functional import pad

from seqmem.arguments import checked
from seqmem.cells.activations import Activation
from seqmem.cells.memory import Architecture, Initializers, MemoryCell, MemoryState
from seqmem.ops import DiscretizationName, canonical_discretization, legs_update, sequence


class LegS(MemoryCell):
    """The HiPPO-LegS recurrent network (Gu et al., 2020, theorem 2 and section 3.1).

    The memory follows c' = A c / t + B u / t. Step k (from 0) takes t = k + init_t; at t = 0 the memory becomes u e_0, the
    projection of one value. Each step costs O(N) a memory row (zoh: O(N^2)), and there is no limit on the length.

    Args:
        input_size: C.
        hidden_size: H.
        memory_size: M, how many functions are remembered.
        memory_order: N, how many coefficients each; -1 for hidden_size.
        memory_activation: act_m, of what is written to the memory.
        hidden_activation: act_h, of the candidate.
        gate: "G" for a gated hidden state, "N" for none.
        memory_output: output [h, vec(m)] instead of h.
        architecture: which of x, h, m feed what, see :class:`seqmem.cells.memory.Architecture`.
        initializers: of the weights, see :class:`seqmem.cells.memory.Initializers`.
        zero_bias_init: start b_h at zero.
        discretization: of the memory's equation: forward, backward, bilinear, zoh, or an alias (euler, tustin, ...).
        init_t: first-step rule. 0 starts with u e_0; t0 > 0 starts from a zero memory with t = t0.
        max_length: a t that is never exceeded: from there the memory forgets exponentially (1024 in the original code).

    Raises:
        UserError: an argument of the wrong type or range.
    """

    name = "legs"

    @checked
    def __init__(
        self,
        input_size: PositiveInt,
        hidden_size: PositiveInt = 256,
        memory_size: PositiveInt = 1,
        memory_order: PositiveInt | Literal[-1] = -1,
        memory_activation: Activation = "id",
        hidden_activation: Activation = "tanh",
        gate: Literal["G", "N"] = "G",
        memory_output: bool = False,
        architecture: Architecture = Architecture(),  # noqa: B008
        initializers: Initializers = Initializers(),  # noqa: B008
        zero_bias_init: bool = False,
        discretization: DiscretizationName = "bilinear",
        init_t: NonNegativeInt = 0,
        max_length: PositiveInt | None = None,
    ):
        super().__init__(
            input_size,
            hidden_size,
            memory_size,
            memory_order,
            memory_activation,
            hidden_activation,
            gate,
            memory_output,
            architecture,
            initializers,
            zero_bias_init,
        )
        self.discretization = canonical_discretization(discretization)
        self.init_t, self.max_length = init_t, max_length

    def clock(self, state: MemoryState, steps: int, fresh: bool) -> Sequence[float | Tensor]:
        """The step size of each step, 1 / t (zoh: ln((t + 1) / t)); 0 marks t = 0."""
        if fresh:
            return [self._step_size(k + self.init_t) for k in range(steps)]
        return self._step_sizes(state.step, steps).to(state.memory.dtype).unbind(0)

    def _step_sizes(self, step: Tensor, steps: int) -> Tensor:
        """The same for rows (B,) that have made ``step`` steps: (T, B) float64."""
        t = step + self.init_t + torch.arange(steps, device=step.device)[:, None]
        if self.max_length is not None:
            t = t.clamp(max=self.max_length)
        size = 1 / t.clamp(min=1).double()
        if self.discretization == "zoh":
            size = size.log1p()
        return size.where(t > 0, 0)

    def _step_size(self, t: int) -> float:
        if t == 0:
            return 0.0
        size = 1 / min(t, self.max_length or t)
        return math.log1p(size) if self.discretization == "zoh" else size

    def remember(self, memory: Tensor, written: Tensor, tick: float | Tensor) -> Tensor:
        """One step of the memory; a tick of 0 starts it with u e_0."""
        if isinstance(tick, float):
            return self._started(written) if tick == 0 else legs_update(memory, written, tick, self.discretization)
        updated = legs_update(memory, written, tick, self.discretization)
        return torch.where((tick == 0)[:, None, None], self._started(written), updated)

    def _started(self, written: Tensor) -> Tensor:
        return pad(written.unsqueeze(-1), (0, self.memory_order - 1))

    def obstacle(self, inputs: Tensor) -> str:
        """Why a sequence goes step by step; empty if it does not."""
        return sequence.obstacle(inputs, self.discretization)

    def run_compiled(
        self, inputs: Tensor, state: MemoryState, lengths: Tensor | None, fresh: bool
    ) -> tuple[Tensor, MemoryState]:
        """All steps in one call."""
        step = state.step
        together = fresh or bool((step == step[:1]).all())
        step_sizes = self._step_sizes(step[:1] if together else step, inputs.shape[1])
        outputs, hidden, memory = sequence.legs_sequence(
            inputs,
            state.hidden,
            state.memory,
            step_sizes[:, 0] if together and len(step) > 0 else step_sizes,
            lengths,
            weight_ux=self.weight_ux,
            weight_uh=self.weight_uh,
            weight_um=self.weight_um,
            bias_u=self.bias_u,
            weight_hx=self.weight_hx,
            weight_hm=self.weight_hm,
            weight_hh=self.weight_hh,
            bias_h=self.bias_h,
            discretization=self.discretization,
            memory_activation=self.memory_activation,
            hidden_activation=self.hidden_activation,
            gated=self.gate == "G",
            memory_output=self.memory_output,
        )
        return outputs, MemoryState(hidden, memory, step + (inputs.shape[1] if lengths is None else lengths))
