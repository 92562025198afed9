"""The contract of every sequence layer: whole sequences and single steps with the same result."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Generic, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from seqmem import plugins
from seqmem.arguments import complete_docstrings, describe_arguments
from seqmem.data.masks import masked
from seqmem.errors import UserError, suggestion
from seqmem.ops import implementations
from seqmem.ops.export import exporting
from seqmem.ops.lengths import checked_lengths
from seqmem.ops.loop import run_steps, stacked
from seqmem.sequence import checks

State = TypeVar("State")

_registry: dict[str, type["SequenceLayer"]] = {}
_state_forms: WeakKeyDictionary["SequenceLayer", tuple[torch.dtype | None, Any]] = WeakKeyDictionary()
"""The type of a layer's weights, and the form of its state: a new initial state at every step would cost as much as a step."""


class SequenceLayer(nn.Module, Generic[State]):
    """Map sequences (B, T, C) to sequences (B, T, H), and carry a state if the layer is causal.

    A subclass with a class attribute ``name`` is registered under it. It names an operator of
    :mod:`seqmem.ops.implementations`, and its :meth:`fused_forward` calls the implementation that the table chooses. A layer of
    plain torch operations overrides :meth:`whole_sequence` instead. The base class checks the inputs, joins the times, masks
    the padding and derives the step form.

    While forward-mode differentiation or a transform of torch.func is active, operators without these derivatives are replaced
    by plain torch operations: cells then run step by step.

    Rows are independent in evaluation: neither padding nor the other rows of a batch change a row's result.

    Attributes:
        name: the name for command lines and tables.
        causal: output t depends on inputs 0 to t alone; only a causal layer has a step form and carries a state.
        timed: the layer uses the times of its steps; for other layers times are a feature like any other.
        rescales: a call's ``rate`` multiplies the layer's step size; other layers refuse a rate other than 1. Only such a layer
            gets ``rate`` in :meth:`whole_sequence`, and its :meth:`fused_forward` and own ``step`` take it as last argument.
        both_directions: class of the layer's own form for both directions of time, with the same arguments; None for two
            copies, :class:`seqmem.layers.Bidirectional`.
        operator: name of the operator in the table of implementations; empty for none.
        optional_state: buffers that a state dict may lack, as those of earlier versions do.
        input_size: C, which includes the channel of the times: times passed to a call become the first channel.
        output_size: H.
        given_arguments: arguments of a constructor that is :func:`seqmem.arguments.checked`, defaults filled in.
        path: the implementation that computed the latest sequence; if it ran step by step, also the fallback reason.
    """

    name: ClassVar[str]
    causal: ClassVar[bool] = True
    timed: ClassVar[bool] = False
    rescales: bool = False
    both_directions: "ClassVar[type[SequenceLayer[Any]] | None]" = None
    operator: ClassVar[str] = ""
    optional_state: ClassVar[tuple[str, ...]] = ()

    input_size: int
    output_size: int
    given_arguments: Mapping[str, Any] = MappingProxyType({})
    path: str = "not run yet"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.operator and cls.operator not in implementations.TABLE:
            known = suggestion(cls.operator, implementations.TABLE)
            raise UserError(f"{cls.__name__}.operator: got '{cls.operator}', expected the name of an operator{known}")
        if "name" in cls.__dict__:
            plugins.register(_registry, cls)
        complete_docstrings(cls)

    def extra_repr(self) -> str:
        """Return the sizes, and other arguments of the constructor that differ from their defaults, for ``print``."""
        return describe_arguments(self) or f"input_size={self.input_size}, output_size={self.output_size}"

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first step.

        It consists of tensors whose first dimension is ``batch_size``, in tuples of any depth. A part may be complex.
        """
        raise NotImplementedError

    def forward(
        self,
        inputs: Tensor,
        state: State | None = None,
        lengths: Tensor | None = None,
        times: Tensor | None = None,
        rate: float = 1.0,
    ) -> tuple[Tensor, State]:
        """Compute a whole sequence.

        Args:
            inputs: (B, T, C) in the type of the weights; under autocast in any floating-point type but float64.
            state: the state before the first step, for example that of an earlier call, or its parts in tuples and lists; None
                for the initial state.
            lengths: (B,) integer valid steps of each row, the rest being padding; None if all T are valid.
            times: (B, T) time of each step in the data's unit, non-decreasing; None if steps are evenly spaced.
            rate: time between two steps, as a multiple of that in training: 0.5 for inputs that were sampled twice as often. A
                number of Python or NumPy.

        Returns:
            outputs (B, T, H), zero in the padding, and each row's state after its last valid step.

        Raises:
            UserError: shapes or types that do not match, a state for a layer that is not causal, or a rate other than 1 for a
                layer that does not rescale.
        """
        fresh = state is None
        rescaling = self._rescaling(rate)
        inputs, state, lengths = self._prepared(inputs, state, lengths, times)
        return self.whole_sequence(inputs, state, lengths, fresh, **rescaling)

    def step(
        self, inputs: Tensor, state: State | None = None, times: Tensor | None = None, rate: float = 1.0
    ) -> tuple[Tensor, State]:
        """Compute one step.

        Args:
            inputs: (B, C).
            state: the state before the step; None for the initial state.
            times: (B,) time of the step in the data's unit; None if steps are evenly spaced.
            rate: as for :meth:`forward`.

        Returns:
            outputs (B, H) and the state after the step.

        Raises:
            UserError: the layer is not causal, or as for :meth:`forward`.
        """
        self._check_step(inputs, times)
        times = None if times is None else times.unsqueeze(1)
        outputs, state = self.forward(inputs.unsqueeze(1), state, times=times, rate=rate)
        return outputs.squeeze(1), state

    def whole_sequence(
        self, inputs: Tensor, state: State, lengths: Tensor | None, fresh: bool, rate: float = 1.0
    ) -> tuple[Tensor, State]:
        """Compute checked inputs (B, T, C) by the implementation that the table chooses.

        Args:
            inputs: (B, T, C), joined with the times.
            state: the state before the first step.
            lengths: (B,) valid steps of each row, or None.
            fresh: ``state`` is the initial state.
            rate: as for :meth:`forward`; 1 if the layer does not rescale.
        """
        choice = self.choose(inputs)
        self.path = choice.path
        rescaling = self._rescaling(rate)
        if choice.run is not None:
            outputs, state = self.fused_forward(choice.run, masked(inputs, lengths), state, lengths, fresh, **rescaling)
            return masked(outputs, lengths), state
        if type(self).step is SequenceLayer.step:  # which would call this method again
            raise NotImplementedError(
                f"{self._label()}: no implementation can run ({choice.fallback_reason}), and the layer defines neither "
                "whole_sequence nor step"
            )
        return self.stepwise_forward(inputs, state, lengths, fresh, **rescaling)

    def choose(self, inputs: Tensor) -> implementations.Choice:
        """Look up the implementation for the device of inputs (B, T, C), the type of the weights and the layer's options."""
        dtype = checks.weight_type(self) or inputs.dtype
        if inputs.dtype != dtype:  # under autocast
            inputs = inputs[:0].to(dtype)
        return implementations.choose(self.operator, inputs, self.operator_options(), self._label())

    def fallback_reason(self, inputs: Tensor) -> str:
        """Return why no implementation of the operator can run, or an empty string."""
        return self.choose(inputs).fallback_reason

    def operator_options(self) -> dict[str, Any]:
        """Return the settings that the operator's fallback reasons in :mod:`seqmem.ops.implementations` depend on."""
        return {}

    def fused_forward(
        self, run: Any, inputs: Tensor, state: State, lengths: Tensor | None, fresh: bool
    ) -> tuple[Tensor, State]:
        """Compute a whole sequence by ``run``, an implementation of :attr:`operator`.

        Arguments and results are those of :meth:`whole_sequence`. Padded inputs are zero, except in a
        :class:`seqmem.cells.Recurrence`, whose operators mask their inputs themselves.
        """
        raise NotImplementedError

    @torch.compiler.disable  # a graph of all steps takes minutes to compile
    def stepwise_forward(
        self, inputs: Tensor, state: State, lengths: Tensor | None, fresh: bool, rate: float = 1.0
    ) -> tuple[Tensor, State]:
        """Compute a whole sequence step by step: the reference for every faster implementation."""
        step = partial(self.step, **self._rescaling(rate))
        items = masked(inputs, lengths).unbind(1)
        outputs, state = run_steps(step, items, state, lengths, inputs.shape[1])
        return stacked(outputs, inputs, self.output_size), state

    def check_inputs(self, inputs: Tensor, state: State, lengths: Tensor | None) -> None:
        """Refuse values of inputs (B, T, C) that the layer cannot use, with a UserError that names row and step."""

    def on_epoch(self, epoch: int) -> None:
        """Receive the number of the training epoch, from 0, that begins or that a loaded checkpoint belongs to."""

    def on_depth(self, block: int, blocks: int) -> None:
        """Receive the place of this layer, from 0, among the blocks of a new stack: initial values may depend on it."""

    def release_first(self) -> "SequenceLayer[Any] | None":
        """Return a part of this layer that a block of a stack applies to its inputs instead, before the norm; None for none.

        The layer then no longer applies it. Its outputs have as many channels as the block's inputs.
        """
        return None

    def gates(self, name: str) -> int:
        """Return the number of matrices, one for each gate, that are stacked in a parameter of this module."""
        return 1

    def _prepared(
        self, inputs: Tensor, state: State | None, lengths: Tensor | None, times: Tensor | None
    ) -> tuple[Tensor, State, Tensor | None]:
        """Check the arguments of :meth:`forward`, and return inputs, state and lengths for :meth:`whole_sequence`."""
        checks.check_tensor(self._label(), inputs)
        given = inputs
        inputs = self._joined(given, times)
        checks.check_type(self._label(), given, self)
        batch_size, steps, _ = inputs.shape
        if state is None:
            state = self.initial_state(batch_size)
        elif not self.causal:
            raise UserError(f"{self._label()}: got a state, expected None: the layer is not causal and carries none")
        else:
            state = self._checked_state(state, batch_size)
        lengths = checked_lengths(self._label(), lengths, batch_size, steps, inputs.device)
        if not exporting():  # an exported program has no branches that depend on values
            self.check_inputs(inputs, state, lengths)
        return inputs, state, lengths

    def _checked_state(self, state: State, batch_size: int) -> State:
        if torch.compiler.is_compiling():
            return checks.checked_state(self._label(), state, self.initial_state(0), batch_size)
        dtype = checks.weight_type(self)
        known, form = _state_forms.get(self, (None, None))
        if form is None or known != dtype or not checks.has_form(state, form, batch_size):
            like = self.initial_state(0)
            state = checks.checked_state(self._label(), state, like, batch_size)
            _state_forms[self] = dtype, checks.state_form(like)
        return state

    def _joined(self, inputs: Tensor, times: Tensor | None) -> Tensor:
        """Return inputs (B, T, C) with the times as first channel."""
        if inputs.dim() != 3:
            raise UserError(f"{self._label()}: got inputs of shape {tuple(inputs.shape)}, expected (B, T, C)")
        if times is not None:
            checks.check_times(self._label(), times, tuple(inputs.shape[:2]))
            inputs = torch.cat([times.unsqueeze(-1).to(inputs.dtype), inputs], -1)
        if inputs.shape[-1] != self.input_size:
            given = f"{inputs.shape[-1]} channels" if times is None else f"{inputs.shape[-1] - 1} channels and times, one more"
            raise UserError(f"{self._label()}: got inputs with {given}, expected input_size={self.input_size}")
        return inputs

    def _check_step(self, inputs: Tensor, times: Tensor | None) -> None:
        if not self.causal:
            raise UserError(f"{self._label()} has no step form: its outputs depend on later inputs")
        checks.check_tensor(self._label(), inputs)
        if inputs.dim() != 2:
            raise UserError(f"{self._label()}: got inputs of one step of shape {tuple(inputs.shape)}, expected (B, C)")
        if times is not None:
            checks.check_times(self._label(), times, tuple(inputs.shape[:1]))

    def _rescaling(self, rate: float) -> dict[str, Any]:
        """Return ``rate`` as a keyword argument if the layer takes it."""
        rate = checks.checked_rate(self._label(), rate, self.rescales)
        return {"rate": rate} if self.rescales else {}

    def _label(self) -> str:
        return type(self).__name__


def names() -> list[str]:
    """Return the names of all registered cells and layers; importing ``seqmem.models`` registers all of this project."""
    return sorted(_registry)


def get(name: str) -> type[SequenceLayer]:
    """Return the cell or layer registered as ``name``.

    Raises:
        UserError: no cell or layer has this name; the message suggests the nearest one.
    """
    if name not in _registry:
        raise UserError(f"no cell or layer is called '{name}'{suggestion(name, names())}")
    return _registry[name]
