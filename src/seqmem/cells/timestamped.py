"""HiPPO memories whose step sizes follow timestamps, for series with uneven sampling or gaps."""

from typing import Any, NamedTuple

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from seqmem.arguments import checked, extends
from seqmem.cells.memory import MemoryCell
from seqmem.data.checks import shown_time
from seqmem.data.masks import valid_steps
from seqmem.errors import UserError
from seqmem.ops import DiscretizationName, canonical_discretization, generators, memory_update
from seqmem.ops.constants import constant
from seqmem.ops.gpu import support
from seqmem.ops.lengths import any_wrong
from seqmem.ops.precision import autocast_active
from seqmem.ops.transforms import values


class TimedState(NamedTuple):
    """State: ``hidden`` (B, H); ``memory`` (B, M, N); ``time`` (B,) of the latest step, 0 before the first.

    ``time`` has the type of the weights, or float64 after times that this type would round.
    """

    hidden: Tensor
    memory: Tensor
    time: Tensor


class TimestampedCell(MemoryCell):
    """A memory cell whose step sizes follow from times.

    The first channel of the input is the time of the step; the other C - 1 channels are x.
    Times must not decrease along a row. At each time 0 the memory of the row starts as u e_0, the projection of one value. A
    first time above 0 is a step from time 0 and a zero memory. If a time above 0 equals the previous one, the memory does not
    change. A step costs O(N) per memory.

    Times that are passed as ``times`` may have any type: step sizes follow from times in float64 where the type of the weights
    would round them.

    Args:
        measure: name of A and B, see :func:`seqmem.ops.transition`.
        measure_args: arguments of the measure.
        discretization: discretization of the memory's equation: forward, backward, bilinear, an alias (euler, tustin, ...), or
            alpha of the general bilinear transform, from 0 (forward) to 1 (backward); not zoh.
        shared: the arguments of :class:`seqmem.cells.memory.MemoryCell`; ``input_size`` includes the channel of times.

    Raises:
        UserError: an argument of the wrong type or range; a time that decreases.
    """

    timed = True
    hidden_is_output = True
    _times_need_gradient = False

    @checked
    @extends(MemoryCell.__init__)
    def __init__(
        self,
        input_size: PositiveInt,
        measure: str = "legs",
        measure_args: dict[str, float] = {},  # noqa: B006
        discretization: DiscretizationName = "bilinear",
        **shared: Any,
    ):
        if input_size < 2:
            raise UserError(
                f"input_size: got {input_size}, expected at least 2 for {self._label()}: the time and at least one feature"
            )
        self.discretization = canonical_discretization(discretization)
        if self.discretization == "zoh":
            raise UserError(
                f"discretization: got 'zoh', which {self._label()} does not support; choose from: forward, backward, bilinear"
            )
        super().__init__(input_size, **shared)
        self.measure, self.measure_args = measure, dict(measure_args)
        self.generators = constant(generators)(measure, self.memory_order, **measure_args)

    @property
    def _features(self) -> int:
        return self.input_size - 1

    def step_sizes(self, before: Tensor, now: Tensor) -> Tensor:
        """Compute the step sizes between two times, tensors of the same shape; infinite where the memory starts."""
        raise NotImplementedError

    def initial_state(self, batch_size: int) -> TimedState:  # type: ignore[override]
        """Return a zero hidden state and memory at time 0."""
        hidden, memory, _ = super().initial_state(batch_size)
        return TimedState(hidden, memory, hidden.new_zeros(batch_size))

    def _joined(self, inputs: Tensor, times: Tensor | None) -> Tensor:
        if isinstance(times, Tensor) and inputs.is_floating_point():
            inputs = _full_precision(inputs)
            if not times.is_floating_point() or torch.promote_types(times.dtype, inputs.dtype) != inputs.dtype:
                inputs = inputs.double()
        return super()._joined(inputs, times)

    def _checked_state(self, state: TimedState, batch_size: int) -> TimedState:  # type: ignore[override]
        """Return a state whose time may also be in float64."""
        time = state[2] if isinstance(state, tuple | list) and len(state) == 3 else None
        if not isinstance(time, Tensor) or time.dtype != torch.float64:
            return super()._checked_state(state, batch_size)  # type: ignore[arg-type, return-value]
        narrow = TimedState(state[0], state[1], time.to(self._weight_type))
        checked: Any = super()._checked_state(narrow, batch_size)  # type: ignore[arg-type]
        return TimedState(checked[0], checked[1], time)

    @property
    def _weight_type(self) -> torch.dtype:
        return self.initial_state(0).hidden.dtype

    def project(self, inputs: Tensor) -> Tensor:
        """Map inputs (..., C) to the time and the input's terms of u, candidate and gate: (..., 1 + M + 2H)."""
        time, features = inputs[..., :1], inputs[..., 1:]
        if inputs.dtype == torch.float64:
            features = features.to(self._weight_type)
        return torch.cat([time, super().project(features)], -1)

    def advance(self, projected: Tensor, state: TimedState, scheduled: None) -> tuple[Tensor, TimedState]:  # type: ignore[override]
        """Compute one step."""
        time, terms = projected[:, 0].to(state.time.dtype), projected[:, 1:]
        if terms.dtype == torch.float64:
            terms = terms.to(state.hidden.dtype)
        step_size = self.step_sizes(state.time, time)
        hidden, memory = self.next_state(terms, state.hidden, state.memory, step_size)
        output = torch.cat([hidden, memory.flatten(1).to(hidden.dtype)], -1) if self.memory_output else hidden
        return output, TimedState(hidden, memory, time)

    def update_memory(self, memory: Tensor, memory_input: Tensor, step_size: Tensor) -> Tensor:
        """Compute one step of the memory."""
        return memory_update(memory, memory_input, step_size, self.measure, self.discretization, **self.measure_args)

    def check_inputs(self, inputs: Tensor, state: TimedState, lengths: Tensor | None) -> None:  # type: ignore[override]
        """Refuse times that decrease within a row's valid steps, or are not finite.

        On a GPU such times stop the process, see :mod:`seqmem.sequence.checks`.
        """
        times = inputs[..., 0].detach()
        times = times.to(torch.promote_types(times.dtype, state.time.dtype))
        before = torch.cat([state.time.detach().to(times.dtype)[:, None], times[:, :-1]], 1)
        wrong = ~((times >= before) & times.isfinite())
        if lengths is not None:
            wrong = wrong & valid_steps(lengths, times.shape[1])
        expected = "expected finite times that do not decrease"
        if any_wrong(wrong, f"{self._label()}: got a wrong time, {expected}"):
            row, step = place = _first(wrong)
            found = "a wrong time"
            if values(wrong) is wrong:
                found = f"time {shown_time(times[place])} after {shown_time(before[place])}"
            raise UserError(f"{self._label()}: got {found} at step {step} of row {row}, {expected}")

    def _prepared(  # type: ignore[override]
        self, inputs: Tensor, state: TimedState | None, lengths: Tensor | None, times: Tensor | None
    ) -> tuple[Tensor, TimedState, Tensor | None]:
        """Also widen inputs or the state's time, so that both are in float64 if one is."""
        before: Any
        joined, before, lengths = super()._prepared(inputs, state, lengths, times)  # type: ignore[arg-type]
        given = inputs[..., :1] if times is None else times
        self._times_need_gradient = given.requires_grad or before.time.requires_grad
        if torch.float64 in (joined.dtype, before.time.dtype):
            joined, before = joined.double(), TimedState(before.hidden, before.memory, before.time.double())
        return joined, before, lengths

    def capturable(self) -> bool:
        """Return whether the memory's update has a kernel for the GPU: the reference solves a system, and waits for it."""
        return not support.fallback_reason()

    def operator_options(self) -> dict[str, Any]:
        """Return the discretization, and whether the times need a gradient."""
        own = {"discretization": self.discretization, "times_need_gradient": self._times_need_gradient, "rows_differ": True}
        return super().operator_options() | own

    def fused_forward(  # type: ignore[override]
        self, run: Any, inputs: Tensor, state: TimedState, lengths: Tensor | None, fresh: bool
    ) -> tuple[Tensor, TimedState]:
        """Compute a whole sequence."""
        times = torch.cat([state.time[:, None].to(inputs.dtype), inputs[..., 0]], 1).detach()
        features = inputs[..., 1:].to(state.hidden.dtype) if inputs.dtype == torch.float64 else inputs[..., 1:]
        outputs, hidden, memory = self.run_network(run, features, state, lengths, self._dynamics(times))
        last = times[:, -1] if lengths is None else times.gather(1, lengths[:, None])[:, 0]
        return outputs, TimedState(hidden, memory, last.to(state.time.dtype))

    def _dynamics(self, times: Tensor) -> dict[str, Any]:
        times = times.double()
        return {
            "step_sizes": self.step_sizes(times[:, :-1], times[:, 1:]).T.contiguous(),
            "generators": self.generators,
            "discretization": self.discretization,
        }


class TLSI(TimestampedCell):
    """HiPPO-LegS with timestamps (Gu et al., 2020, section 4.2): a step from time s to t has size (t - s) / t."""

    name = "tlsi"

    def step_sizes(self, before: Tensor, now: Tensor) -> Tensor:
        """Compute (t - s) / t."""
        started = now == 0
        return torch.where(started, torch.inf, (now - before) / torch.where(started, 1, now))


class TLTI(TimestampedCell):
    """A memory with a fixed time scale and timestamps: step size dt (t - s) from time s to t.

    Args:
        dt: the measure's time per unit of the data's time.
        shared: the arguments of :class:`TimestampedCell`.
    """

    name = "tlti"

    @checked
    @extends(TimestampedCell.__init__)
    def __init__(self, input_size: PositiveInt, dt: PositiveFloat = 1.0, **shared: Any):
        super().__init__(input_size, **shared)
        self.dt = dt

    def step_sizes(self, before: Tensor, now: Tensor) -> Tensor:
        """Compute dt (t - s)."""
        return torch.where(now == 0, torch.inf, self.dt * (now - before))


def _first(wrong: Tensor) -> tuple[int, int]:
    """Return row and step of the first true entry of a tensor (B, T), also within transforms of torch.func."""
    *_, row, step = (int(index) for index in values(wrong).nonzero()[0])
    return row, step


def _full_precision(inputs: Tensor) -> Tensor:
    """Return inputs in float32 if autocast made them half precision, in which times would be rounded."""
    return inputs.float() if inputs.element_size() < 4 and autocast_active(inputs.device) else inputs
