"""The contract of every recurrence: a whole sequence at once, or one step at a time, with the same result."""

from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch.utils._pytree import tree_map_only

from seqmem.cells.cuda_graph import CapturedLoop
from seqmem.data.masks import valid_steps
from seqmem.errors import UserError, suggestion

State = TypeVar("State", bound=tuple[Tensor, ...])

_registry: dict[str, type["Recurrence"]] = {}


class Recurrence(nn.Module, Generic[State]):
    """What happens between two time steps, and from them over a whole sequence.

    A subclass with a class attribute ``name`` is registered under it. It writes :meth:`initial_state`, :meth:`project` (all
    that can be computed from the inputs alone, for many steps at once) and :meth:`advance` (one step); the time loop, carried
    state and padding are here. Rows are independent: neither padding nor the other rows of a batch change a row's result.

    Attributes:
        name: the name under which command lines and tables know the cell.
        timed: the cell goes by the times of its steps; for others they are a feature like any other.
        input_size: C of the inputs, the channel for ``times`` included: given times join the inputs as first channel.
        output_size: H of the outputs.
        path: how the latest :meth:`forward` went, "one compiled call" or "step by step" and why.
    """

    name: ClassVar[str]
    timed: ClassVar[bool] = False

    input_size: int
    output_size: int
    path: str = "not run yet"
    _loop: CapturedLoop | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            _registry[cls.name] = cls

    def initial_state(self, batch_size: int) -> State:
        """The state before the first step, a tuple of tensors whose first dimension is ``batch_size``."""
        raise NotImplementedError

    def gates(self, name: str) -> int:
        """How many gates' rows lie one above the other in a parameter of this module's own."""
        rows = len(self.get_parameter(name))
        return rows // self.output_size if rows % self.output_size == 0 else 1

    def on_epoch(self, epoch: int) -> None:
        """Told the number of a training epoch, from 0, before it begins, and that of a checkpoint when it is loaded."""

    def project(self, inputs: Tensor) -> Tensor:
        """What a step needs of its input: (..., C) -> (..., P)."""
        return inputs

    def schedule(self, state: State, steps: int, fresh: bool) -> Sequence[Any]:
        """What each of the next ``steps`` steps needs to know of its position, one item a step.

        Args:
            state: the state before the first of them.
            steps: how many follow.
            fresh: ``state`` is the initial state, so all rows stand at the same position.
        """
        return [None] * steps

    def schedule_tensor(self, state: State, steps: int) -> Tensor | None:
        """:meth:`schedule` from the initial state on as one tensor (T, ...); None where its items are all the same."""
        return None

    def advance(self, projected: Tensor, state: State, tick: Any) -> tuple[Tensor, State]:
        """One step: (B, P) and a state -> (B, H) and the next state; ``tick`` is this step's item of :meth:`schedule`."""
        raise NotImplementedError

    def step(self, inputs: Tensor, state: State | None = None, times: Tensor | None = None) -> tuple[Tensor, State]:
        """One step.

        Args:
            inputs: (B, C).
            state: the state so far; None for the initial one.
            times: (B,) the time of this step in the data's unit, or None.

        Returns:
            outputs (B, H) and the new state.
        """
        joined = self._joined(inputs.unsqueeze(1), None if times is None else times.unsqueeze(1))
        fresh = state is None
        state = self.initial_state(inputs.shape[0]) if state is None else self._named(state)
        self._check_rows(inputs.shape[0], 1, state, None)
        self.check_inputs(joined, state, None)
        return self.advance(self.project(joined.squeeze(1)), state, self.schedule(state, 1, fresh)[0])

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None, times: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """A whole sequence.

        Args:
            inputs: (B, T, C).
            state: the state before the first step, from an earlier call say, or a plain tuple of its parts; None for the
                initial one.
            lengths: (B,) int64 valid steps of each row, the rest being padding; None if all T are valid.
            times: (B, T) time of each step in the data's unit, non-decreasing; None if steps are evenly spaced.

        Returns:
            outputs (B, T, H), zero where padded, and each row's state after its last valid step.

        Raises:
            UserError: the shapes do not fit together.
        """
        inputs = self._joined(inputs, times)
        batch_size, steps, _ = inputs.shape
        fresh = state is None
        state = self.initial_state(batch_size) if state is None else self._named(state)
        self._check_rows(batch_size, steps, state, lengths)
        exporting = torch.compiler.is_exporting()  # a program has no branches that depend on values
        if not exporting:
            self.check_inputs(inputs, state, lengths)
        why = self.fallback_reason(inputs)
        self.path = f"step by step ({why})" if why else "one compiled call"
        if not why:
            return self.fused_forward(inputs, state, lengths, fresh)
        if exporting:
            return self.scan_forward(inputs, state, lengths)
        if inputs.is_cuda:
            return self._captured(inputs, state, lengths, fresh)
        return self.stepwise_forward(inputs, state, lengths, fresh)

    def check_inputs(self, inputs: Tensor, state: State, lengths: Tensor | None) -> None:
        """Refuse inputs (B, T, C) that the cell cannot make sense of, with a UserError that names row and step."""

    def fallback_reason(self, inputs: Tensor) -> str:
        """Why :meth:`fused_forward` does not take these inputs; empty if it does."""
        return f"there is no compiled sequence of {self._label()}"

    def fused_forward(self, inputs: Tensor, state: State, lengths: Tensor | None, fresh: bool) -> tuple[Tensor, State]:
        """What :meth:`stepwise_forward` does, in one compiled call; for a subclass that has one."""
        raise NotImplementedError

    @torch.compiler.disable  # a graph of all steps would take minutes to compile, and one of a step runs slower than none
    def stepwise_forward(self, inputs: Tensor, state: State, lengths: Tensor | None, fresh: bool) -> tuple[Tensor, State]:
        """The time loop, step by step: the reference for any faster path.

        Args:
            inputs: (B, T, C), ``times`` joined to them.
            state: the state before the first step.
            lengths: (B,) valid steps of each row, or None.
            fresh: ``state`` is the initial state.
        """
        steps = inputs.shape[1]
        valid = None if lengths is None else valid_steps(lengths, steps).T
        if valid is not None:
            inputs = inputs.where(valid.T[..., None], 0)  # 0 times NaN is NaN on the way back
        outputs = []
        ticks = self.schedule(state, steps, fresh)
        for t, projected in enumerate(self.project(inputs.transpose(0, 1)).unbind(0)):
            output, following = self.advance(projected, state, ticks[t])
            if valid is not None:
                output = _select(valid[t], output, torch.zeros_like(output))
                following = _rebuild(following, [_select(valid[t], n, o) for n, o in zip(following, state, strict=True)])
            state = following
            outputs.append(output)
        stacked = torch.stack(outputs, 1) if outputs else inputs.new_zeros(inputs.shape[0], 0, self.output_size)
        return stacked, state

    def scan_forward(self, inputs: Tensor, state: State, lengths: Tensor | None) -> tuple[Tensor, State]:
        """:meth:`stepwise_forward` from the initial state on as one operator of torch, so that an exported program is short
        and takes any number of steps."""
        steps = inputs.shape[1]
        sequences = [self.project(inputs.transpose(0, 1))]
        ticks = self.schedule_tensor(state, steps)
        # Copies, since scan takes no two names of one tensor.
        initial = [part.clone() for part in state]
        tick = None
        if ticks is None:
            tick = tree_map_only(Tensor, torch.clone, self.schedule(state, 1, True)[0])
        else:
            sequences.append(ticks)
        if lengths is not None:
            valid = valid_steps(lengths, steps).T
            sequences[0] = sequences[0].where(valid[..., None], 0)
            sequences.append(valid)

        def step(parts: list[Tensor], items: list[Tensor]) -> tuple[list[Tensor], Tensor]:
            before = _rebuild(state, parts)
            output, after = self.advance(items[0], before, tick if ticks is None else items[1])
            following = list(after)
            if lengths is not None:
                output = _select(items[-1], output, torch.zeros_like(output))
                following = [_select(items[-1], n, o) for n, o in zip(following, parts, strict=True)]
            return [part.clone() for part in following], output.clone()

        parts, outputs = scan(step, initial, sequences)
        return outputs.transpose(0, 1), _rebuild(state, list(parts))

    def __getstate__(self) -> dict[str, Any]:
        """A copy captures its own time loop."""
        return {name: value for name, value in super().__getstate__().items() if name != "_loop"}

    @torch.compiler.disable
    def _captured(self, inputs: Tensor, state: State, lengths: Tensor | None, fresh: bool) -> tuple[Tensor, State]:
        if self._loop is None:
            self._loop = CapturedLoop(self)
        outputs, parts = self._loop(inputs, state, lengths, fresh)
        if self._loop.used:
            self.path = f"{self.path}, in a CUDA graph"
        return outputs, _rebuild(state, list(parts))

    def _joined(self, inputs: Tensor, times: Tensor | None) -> Tensor:
        if inputs.dim() != 3:
            raise UserError(f"{self._label()}: got inputs of shape {tuple(inputs.shape)}, expected (B, T, C)")
        if times is not None:
            if times.shape != inputs.shape[:2]:
                raise UserError(f"{self._label()}: got times of shape {tuple(times.shape)}, expected {tuple(inputs.shape[:2])}")
            inputs = torch.cat([times.unsqueeze(-1).to(inputs.dtype), inputs], -1)
        if inputs.shape[-1] != self.input_size:
            raise UserError(
                f"{self._label()}: got inputs with {inputs.shape[-1]} channels, expected input_size={self.input_size}"
            )
        return inputs

    def _check_rows(self, batch_size: int, steps: int, state: State, lengths: Tensor | None) -> None:
        for part in state:
            if part.shape[0] != batch_size:
                raise UserError(
                    f"{self._label()}: got a state of {part.shape[0]} rows, expected {batch_size} as the inputs have"
                )
        if lengths is not None and lengths.shape != (batch_size,):
            raise UserError(f"{self._label()}: got lengths of shape {tuple(lengths.shape)}, expected ({batch_size},)")
        if torch.compiler.is_exporting():
            return
        if lengths is not None and not bool(((lengths >= 0) & (lengths <= steps)).all()):
            raise UserError(f"{self._label()}: got lengths {lengths.tolist()}, expected each between 0 and T={steps}")

    def _named(self, state: State) -> State:
        """A plain tuple, as detaching each part of a state makes it, under the names of the cell's own."""
        if type(state) is not tuple:
            return state
        like = self.initial_state(0)
        if len(state) != len(like):
            raise UserError(f"{self._label()}: got a state of {len(state)} parts, expected {len(like)}")
        return _rebuild(like, list(state))

    def _label(self) -> str:
        return type(self).__name__


def names() -> list[str]:
    """The names of all registered cells."""
    return sorted(_registry)


def get(name: str) -> type[Recurrence]:
    """The cell registered as ``name``.

    Raises:
        UserError: there is none; the nearest is named.
    """
    if name not in _registry:
        raise UserError(f"no cell is called '{name}'{suggestion(name, names())}")
    return _registry[name]


def _select(valid: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(valid.view(-1, *[1] * (new.dim() - 1)), new, old)


def _rebuild(like: State, parts: list[Tensor]) -> State:
    make = getattr(type(like), "_make", type(like))
    return make(parts)
