"""The contract of cells: one time step, from which whole sequences follow."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from seqmem import sequence
from seqmem.data.masks import masked, valid_steps
from seqmem.errors import UserError, suggestion
from seqmem.ops import implementations
from seqmem.ops.export import scan
from seqmem.ops.loop import run_steps, stacked
from seqmem.ops.precision import autocast_active
from seqmem.ops.states import kept_types, mapped, parts, rebuild, select
from seqmem.sequence import SequenceLayer
from seqmem.sequence.cuda_graph import CapturedLoop

State = TypeVar("State", bound=tuple[Any, ...])

_STEPS = {"forward", "step", "advance", "whole_sequence", "fused_forward", "stepwise_forward"}


class Recurrence(SequenceLayer[State]):
    """A sequence layer that is defined by one step.

    A subclass with a class attribute ``name`` is registered under it. It defines :meth:`initial_state`, :meth:`project` (the
    terms that depend on the inputs alone, for many steps at once) and :meth:`advance` (one step), and inherits the time loop,
    the carried state and padding. A cell with a fused sequence names its operator and defines ``fused_forward``.
    """

    hidden_is_output: bool = False
    """Whether the output of a step is the part ``hidden`` of the state after it; a subclass with own steps sets it again."""

    _loop: CapturedLoop | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if _STEPS & cls.__dict__.keys() and "hidden_is_output" not in cls.__dict__:
            cls.hidden_is_output = False

    def project(self, inputs: Tensor) -> Tensor:
        """Compute the terms of a step that depend on its input alone: (..., C) -> (..., P)."""
        return inputs

    def schedule(self, state: State, steps: int, fresh: bool) -> Sequence[Any]:
        """Return an item for each of the next steps, for example its step size.

        Items may also hold values that are computed once per sequence.

        Args:
            state: the state before the first of these steps.
            steps: their number.
            fresh: ``state`` is the initial state, so that all rows are at the same position.
        """
        return [None] * steps

    def schedule_tensor(self, state: State, steps: int, fresh: bool) -> Tensor | None:
        """Return :meth:`schedule` as a tensor (T, ...); None if all items are equal, whatever the state."""
        return None

    def advance(self, projected: Tensor, state: State, scheduled: Any) -> tuple[Tensor, State]:
        """Compute one step.

        Under autocast torch.nn.functional.linear returns half precision. Cast its results to the state's type before a function
        that takes one type only, such as torch.lerp.

        Args:
            projected: (B, P), the result of :meth:`project` for the step.
            state: the state before it.
            scheduled: the step's item of :meth:`schedule`.

        Returns:
            outputs (B, H) and the state after the step.
        """
        raise NotImplementedError

    def step(
        self, inputs: Tensor, state: State | None = None, times: Tensor | None = None, rate: float = 1.0
    ) -> tuple[Tensor, State]:
        """Compute one step, see :meth:`seqmem.sequence.SequenceLayer.step`; ``rate`` is 1."""
        self._check_step(inputs, times)
        self._rescaling(rate)
        fresh = state is None
        joined, state, _ = self._prepared(inputs.unsqueeze(1), state, None, None if times is None else times.unsqueeze(1))
        return self.advance_in_type(self.project(joined.squeeze(1)), state, self.schedule(state, 1, fresh)[0])

    def advance_in_type(self, projected: Tensor, state: State, scheduled: Any) -> tuple[Tensor, State]:
        """Compute one step by :meth:`advance`; the state keeps its types under autocast."""
        output, after = self.advance(projected, state, scheduled)
        return output, kept_types(after, state) if autocast_active(projected.device) else after

    def whole_sequence(
        self, inputs: Tensor, state: State, lengths: Tensor | None, fresh: bool, rate: float = 1.0
    ) -> tuple[Tensor, State]:
        """Compute checked inputs by the operator's implementation, else by a time loop; the table chooses both."""
        choice = self.choose(inputs)
        self.path = choice.path
        if choice.run is not None:
            return self.fused_forward(choice.run, inputs, state, lengths, fresh)
        loop = implementations.choose_loop(inputs, self.capturable())
        return getattr(self, loop.method)(inputs, state, lengths, fresh)

    def gates(self, name: str) -> int:
        """Return the number of gates whose rows are stacked in a parameter of this module."""
        rows = len(self.get_parameter(name))
        return rows // self.output_size if rows % self.output_size == 0 else 1

    def capturable(self) -> bool:
        """Return whether a CUDA graph can capture the steps, :meth:`advance`.

        It cannot if they draw random numbers, copy from the CPU or wait for the GPU: the first call also looks for torch
        operations that do. :meth:`project` and :meth:`schedule` may: they are computed before.
        """
        return True

    @torch.compiler.disable  # a graph of all steps takes minutes to compile, and one of a single step is slower than eager
    def stepwise_forward(
        self, inputs: Tensor, state: State, lengths: Tensor | None, fresh: bool, rate: float = 1.0
    ) -> tuple[Tensor, State]:
        """Compute a whole sequence step by step, see :meth:`seqmem.sequence.SequenceLayer.whole_sequence`."""
        steps = inputs.shape[1]
        projected = self.project(masked(inputs, lengths).transpose(0, 1))
        items = zip(projected.unbind(0), self.schedule(state, steps, fresh), strict=True)
        outputs, state = run_steps(
            lambda item, before: self.advance_in_type(item[0], before, item[1]), items, state, lengths, steps
        )
        found = stacked(outputs, inputs, self.output_size)
        return found if steps else found + projected.sum().to(found.dtype), state  # no step either has a graph

    def scan_forward(self, inputs: Tensor, state: State, lengths: Tensor | None, fresh: bool) -> tuple[Tensor, State]:
        """Compute a sequence by torch's scan operator, for exported programs of any length."""
        steps = inputs.shape[1]
        sequences = [self.project(masked(inputs, lengths).transpose(0, 1))]
        items = self.schedule_tensor(state, steps, fresh)
        same = None
        if items is None:
            same = mapped(torch.clone, self.schedule(state, 1, True)[0])
        else:
            sequences.append(items)
        if lengths is not None:
            sequences.append(valid_steps(lengths, steps).T)

        def step(before: list[Tensor], given: list[Tensor]) -> tuple[list[Tensor], Tensor]:
            output, after = self.advance_in_type(given[0], rebuild(state, before), same if items is None else given[1])
            following = parts(after)
            if lengths is not None:
                output = select(given[-1], output, torch.zeros_like(output))
                following = [select(given[-1], new, old) for new, old in zip(following, before, strict=True)]
            return [part.clone() for part in following], output.clone()

        # The operator refuses aliases: each part is a copy.
        last, outputs = scan(step, [part.clone() for part in parts(state)], sequences)
        return outputs.transpose(0, 1), rebuild(state, list(last))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the captured time loop, which belongs to this instance; a copy captures its own."""
        return {name: value for name, value in super().__getstate__().items() if name != "_loop"}

    @torch.compiler.disable
    def captured_forward(self, inputs: Tensor, state: State, lengths: Tensor | None, fresh: bool) -> tuple[Tensor, State]:
        """Compute a whole sequence by CUDA graphs of the time loop, see :mod:`seqmem.sequence.cuda_graph`."""
        if getattr(self, "_is_replica", False):  # with the loop of its original, and without parameters
            self.path = f"{self.path}, without a CUDA graph: a replica of torch.nn.DataParallel exists for one call"
            return self.stepwise_forward(inputs, state, lengths, fresh)
        if self._loop is None:
            self._loop = CapturedLoop(self)
        # Within a capture of the caller's the steps become part of it.
        capturing = torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
        found = None if capturing else self._loop(inputs, state, lengths)
        if found is None:
            if self._loop.reason:
                self.path = f"{self.path}, without a CUDA graph: {self._loop.reason}"
            return self.stepwise_forward(inputs, state, lengths, fresh)
        if self._loop.used:
            self.path = f"{self.path}, by CUDA graphs"
        return found[0], rebuild(state, found[1])


def names() -> list[str]:
    """Return the names of all registered cells."""
    return [name for name in sequence.names() if issubclass(sequence.get(name), Recurrence)]


def get(name: str) -> type[Recurrence]:
    """Return the cell registered as ``name``.

    Raises:
        UserError: no cell has this name; the message suggests the nearest one.
    """
    if name not in names():
        if name in sequence.names():
            raise UserError(f"'{name}' is not a cell but a parallel layer; use it by model.network=stack model.mixer={name}")
        raise UserError(f"no cell is called '{name}'{suggestion(name, names())}")
    return sequence.get(name)  # type: ignore[return-value]
