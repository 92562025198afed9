"""The contract of every sequence layer: a whole sequence at once, or one step at a time, with the same result."""

from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from seqmem.data.masks import masked
from seqmem.errors import UserError, suggestion
from seqmem.ops import implementations
from seqmem.ops.states import parts, rebuild, select

State = TypeVar("State")

_registry: dict[str, type["SequenceLayer"]] = {}


class SequenceLayer(nn.Module, Generic[State]):
    """Maps sequences (B, T, C) to sequences (B, T, H), and carries a state where it is causal.

    A subclass with a class attribute ``name`` is registered under it. It names the operator of
    :mod:`seqmem.ops.implementations` that computes its whole sequence, and calls the implementation that the table chooses in
    :meth:`fused_forward`. A layer that is computed by plain torch alone overrides :meth:`whole_sequence` instead. Checks of the
    input, times, padding and the step form are inherited.

    Rows are independent in evaluation: neither padding nor the other rows of a batch change a row's result.

    Attributes:
        name: the name that command lines and tables use.
        causal: whether output t depends on inputs 0 to t alone; only such a layer has a step form and carries a state.
        timed: whether the layer uses the times of its steps; for others they are a feature like any other.
        operator: name of the operator in the table of implementations; empty for none.
        input_size: C of the inputs, the channel for ``times`` included: given times join the inputs as first channel.
        output_size: H of the outputs.
        path: how the latest :meth:`forward` was computed: the implementation, and the fallback reason of faster ones.
    """

    name: ClassVar[str]
    causal: ClassVar[bool] = True
    timed: ClassVar[bool] = False
    operator: ClassVar[str] = ""

    input_size: int
    output_size: int
    path: str = "not run yet"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            _registry[cls.name] = cls

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first step: tensors whose first dimension is ``batch_size``, in tuples of any depth."""
        raise NotImplementedError

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None, times: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Compute a whole sequence.

        Args:
            inputs: (B, T, C).
            state: the state before the first step, from an earlier call for example, or a plain tuple of its parts; None for
                the initial one.
            lengths: (B,) int64 valid steps of each row, the rest being padding; None if all T are valid.
            times: (B, T) time of each step in the data's unit, non-decreasing; None if steps are evenly spaced.

        Returns:
            outputs (B, T, H), zero in the padding, and each row's state after its last valid step.

        Raises:
            UserError: shapes that do not match, or a state for a layer that is not causal.
        """
        inputs = self._joined(inputs, times)
        batch_size, steps, _ = inputs.shape
        fresh = state is None
        if not fresh and not self.causal:
            raise UserError(f"{self._label()}: got a state, expected None: the layer is not causal and carries none")
        state = self.initial_state(batch_size) if state is None else self._named(state)
        self._check_rows(batch_size, steps, state, lengths)
        if not torch.compiler.is_exporting():  # an exported program has no branches that depend on values
            self.check_inputs(inputs, state, lengths)
        return self.whole_sequence(inputs, state, lengths, fresh)

    def step(self, inputs: Tensor, state: State | None = None, times: Tensor | None = None) -> tuple[Tensor, State]:
        """Compute one step.

        Args:
            inputs: (B, C).
            state: the state so far; None for the initial one.
            times: (B,) time of this step in the data's unit, or None.

        Returns:
            outputs (B, H) and the new state.

        Raises:
            UserError: the layer is not causal, or shapes do not match.
        """
        if not self.causal:
            raise UserError(f"{self._label()} has no step form: its outputs depend on later inputs")
        outputs, state = self.forward(inputs.unsqueeze(1), state, times=None if times is None else times.unsqueeze(1))
        return outputs.squeeze(1), state

    def whole_sequence(self, inputs: Tensor, state: State, lengths: Tensor | None, fresh: bool) -> tuple[Tensor, State]:
        """Compute checked inputs (B, T, C) by the implementation that the table chooses.

        Args:
            inputs: (B, T, C), ``times`` joined to them.
            state: the state before the first step.
            lengths: (B,) valid steps of each row, or None.
            fresh: ``state`` is the initial state.
        """
        choice = self.choose(inputs)
        self.path = choice.path
        if choice.run is None:
            return self.stepwise_forward(inputs, state, lengths, fresh)
        outputs, state = self.fused_forward(choice.run, masked(inputs, lengths), state, lengths, fresh)
        return masked(outputs, lengths), state

    def choose(self, inputs: Tensor) -> implementations.Choice:
        """Look up the implementation for inputs (B, T, C) of this device, type and these options."""
        return implementations.choose(self.operator, inputs, self.operator_options(), self._label())

    def fallback_reason(self, inputs: Tensor) -> str:
        """Return why no implementation of the operator can run, or an empty string."""
        return self.choose(inputs).fallback_reason

    def operator_options(self) -> dict[str, Any]:
        """Return the settings that decide which implementations can run, see :mod:`seqmem.ops.implementations`."""
        return {}

    def fused_forward(
        self, run: Any, inputs: Tensor, state: State, lengths: Tensor | None, fresh: bool
    ) -> tuple[Tensor, State]:
        """Compute a whole sequence by ``run``, an implementation of :attr:`operator`; other arguments as above."""
        raise NotImplementedError

    @torch.compiler.disable  # a graph of all steps takes minutes to compile
    def stepwise_forward(self, inputs: Tensor, state: State, lengths: Tensor | None, fresh: bool) -> tuple[Tensor, State]:
        """Compute a whole sequence step by step: the reference for every faster implementation."""
        inputs = masked(inputs, lengths)
        outputs = []
        for t in range(inputs.shape[1]):
            output, after = self.step(inputs[:, t], state)
            if lengths is not None:
                valid = t < lengths
                output = select(valid, output, torch.zeros_like(output))
                kept = zip(parts(after), parts(state), strict=True)
                after = rebuild(after, [select(valid, new, old) for new, old in kept])
            state = after
            outputs.append(output)
        return torch.stack(outputs, 1) if outputs else inputs.new_zeros(len(inputs), 0, self.output_size), state

    def check_inputs(self, inputs: Tensor, state: State, lengths: Tensor | None) -> None:
        """Refuse values of inputs (B, T, C) that the layer cannot use, with a UserError that names row and step."""

    def on_epoch(self, epoch: int) -> None:
        """Take the number of a training epoch, from 0, before it begins, or that of a loaded checkpoint."""

    def gates(self, name: str) -> int:
        """Return how many matrices a parameter of this module holds, one above the other: one for each gate."""
        return 1

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
        for part in parts(state):
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

    def _named(self, state: Any) -> State:
        """Return a state given as plain tuples, as a checkpoint holds it, in the structure of the layer's own."""
        like = self.initial_state(0)
        given = parts(state)
        if len(given) != len(parts(like)):
            raise UserError(f"{self._label()}: got a state of {len(given)} parts, expected {len(parts(like))}")
        return rebuild(like, given)

    def _label(self) -> str:
        return type(self).__name__


def names() -> list[str]:
    """Return the names of all registered cells and layers."""
    return sorted(_registry)


def get(name: str) -> type[SequenceLayer]:
    """Return the cell or layer registered as ``name``.

    Raises:
        UserError: there is none; the nearest is named.
    """
    if name not in _registry:
        raise UserError(f"no cell or layer is called '{name}'{suggestion(name, names())}")
    return _registry[name]
