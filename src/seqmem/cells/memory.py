"""The HiPPO recurrent network: a gated hidden state coupled to a linear memory.

Gu, Dao, Ermon, Rudra and Re, "HiPPO: Recurrent Memory with Optimal Polynomial Projections" (2020), section 3.1 and figure 2.
"""

from itertools import chain
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from typing_extensions import TypedDict

from seqmem.arguments import checked
from seqmem.cells.base import Recurrence
from seqmem.cells.initializers import Initializer, initialize, initialize_bias
from seqmem.errors import UserError
from seqmem.ops.activations import Activation
from seqmem.ops.memory_network import memory_network_step, memory_projection
from seqmem.ops.precision import at_least_float32


class Architecture(TypedDict, total=False):
    """Switches for the connections between input x, hidden state h and memory m. Missing ones keep their defaults.

    Attributes:
        ux: the memory's input u depends on x (default true).
        uh: u depends on h (default true).
        um: u depends on m (default false).
        hx: the candidate and the gate depend on x (default true).
        hm: the candidate and the gate depend on m (default true).
        hh: the candidate and the gate depend on h (default false).
        bias: add biases (default true).
    """

    __pydantic_config__ = {"extra": "forbid"}  # type: ignore[misc] # noqa: RUF012

    ux: bool
    uh: bool
    um: bool
    hx: bool
    hm: bool
    hh: bool
    bias: bool


class Initializers(TypedDict, total=False):
    """Initialisers of the weights. Missing ones keep their defaults.

    Attributes:
        uxh: initialiser of [W_ux, W_uh] as one matrix (default kaiming_uniform).
        ux: initialiser of W_ux that replaces that of uxh (default none).
        uh: initialiser of W_uh that replaces that of uxh (default none).
        um: initialiser of W_um (default zero).
        hx: initialiser of the candidate's W_hx with its own fans (default xavier_normal).
        hm: initialiser of the candidate's W_hm with its own fans (default xavier_normal).
        hh: initialiser of the candidate's W_hh with its own fans (default xavier_normal).
    """

    __pydantic_config__ = {"extra": "forbid"}  # type: ignore[misc] # noqa: RUF012

    uxh: Initializer
    ux: Initializer | None
    uh: Initializer | None
    um: Initializer
    hx: Initializer
    hm: Initializer
    hh: Initializer


DEFAULT_ARCHITECTURE = Architecture(ux=True, uh=True, um=False, hx=True, hm=True, hh=False, bias=True)
DEFAULT_INITIALIZERS = Initializers(
    uxh="kaiming_uniform", ux=None, uh=None, um="zero", hx="xavier_normal", hm="xavier_normal", hh="xavier_normal"
)


class MemoryState(NamedTuple):
    """State: ``hidden`` (B, H); ``memory`` (B, M, N), at least float32; ``step`` (B,) int64, past steps of each row."""

    hidden: Tensor
    memory: Tensor
    step: Tensor


class MemoryCell(Recurrence[MemoryState]):
    """A hidden state h in R^H and M memories of order N, each the coefficients of its past inputs.

    One step, with a subclass's linear ``update_memory``::

        u = act_m(W_ux x + W_uh h + <W_um, m> + b_u)            in R^M
        m' = update_memory(m, u)
        c = act_h(W_hx x + W_hm vec(m') + W_hh h + b_h)
        g = sigmoid(W_gx x + W_gm vec(m') + W_gh h + b_g)
        h' = (1 - g) h + g c                                    (gate "N": h' = c)

    Parameters: ``weight_ux`` (M, C), ``weight_uh`` (M, H), ``weight_um`` (M, N), ``bias_u`` (M,); ``weight_hx`` (2H, C),
    ``weight_hm`` (2H, M * N), ``weight_hh`` (2H, H) and ``bias_h`` (2H,), which hold the rows of the candidate, then those of
    the gate (H rows without gate). A parameter that is switched off is None. With parameters in half precision the memory is in
    float32: half precision would round the changes of late steps to nothing.

    Args:
        input_size: C.
        hidden_size: H.
        memory_size: M, the number of functions to remember.
        memory_order: N, the number of coefficients of each; -1 for hidden_size.
        memory_activation: act_m, the activation of the memory's inputs.
        hidden_activation: act_h, the activation of the candidate.
        gate: "G" for a gated hidden state, "N" for none.
        memory_output: output [h, vec(m)] instead of h.
        architecture: connections between x, h and m. See :class:`Architecture`.
        initializers: initialisers of the weights. See :class:`Initializers`.
        zero_bias_init: start b_u and b_h at zero; the gate's bias has its own rule.

    Raises:
        UserError: an argument of the wrong type or range.
    """

    operator = "memory_network"
    hidden_is_output = True

    default_architecture: ClassVar[Architecture] = DEFAULT_ARCHITECTURE
    default_initializers: ClassVar[Initializers] = DEFAULT_INITIALIZERS

    weight_ux: Tensor | None
    weight_uh: Tensor | None
    weight_um: Tensor | None
    bias_u: Tensor | None
    weight_hx: Tensor | None
    weight_hm: Tensor | None
    weight_hh: Tensor | None
    bias_h: Tensor | None

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
    ):
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.memory_size = memory_size
        self.memory_order = hidden_size if memory_order == -1 else memory_order
        self.memory_activation, self.hidden_activation = memory_activation, hidden_activation
        self.gate = gate
        self.memory_output = memory_output
        self.hidden_is_output = self.hidden_is_output and not memory_output
        self.output_size = hidden_size + (memory_size * self.memory_order if memory_output else 0)
        self._add_weights(architecture)
        with torch.no_grad():
            self._initialize(initializers, zero_bias_init)

    def gates(self, name: str) -> int:
        """Return the number of gates whose rows are stacked in a parameter of this module."""
        return self._rows // self.hidden_size if name.startswith(("weight_h", "bias_h")) else 1

    def _add_weights(self, chosen: Architecture) -> None:
        """Register the parameters of all connections, None for those that are switched off."""
        on: dict[str, bool] = {**self.default_architecture, **chosen}  # type: ignore[dict-item]
        for target, name in (("u", "memory"), ("h", "hidden state")):
            if not any(on[f"{target}{source}"] for source in "xhm"):
                off = "ux, uh and um" if target == "u" else "hx, hm and hh"
                raise UserError(f"architecture: got {off} all off, expected at least one of them to feed the {name}")
        of_memory = {"x": self._features, "h": self.hidden_size, "m": self.memory_order}
        of_hidden = {**of_memory, "m": self.memory_size * self.memory_order}
        for target, rows, widths in (("u", self.memory_size, of_memory), ("h", self._rows, of_hidden)):
            for source, width in widths.items():
                weight = nn.Parameter(torch.empty(rows, width)) if on[f"{target}{source}"] else None
                self.register_parameter(f"weight_{target}{source}", weight)
            self.register_parameter(f"bias_{target}", nn.Parameter(torch.zeros(rows)) if on["bias"] else None)

    def _initialize(self, chosen: Initializers, zero_bias_init: bool) -> None:
        how: dict[str, Initializer | None] = {**self.default_initializers, **chosen}  # type: ignore[dict-item]
        to_memory = {source: weight for source in "xhm" if (weight := getattr(self, f"weight_u{source}")) is not None}
        to_hidden = {source: weight for source in "xmh" if (weight := getattr(self, f"weight_h{source}")) is not None}
        _initialize_joint([to_memory[source] for source in "xh" if source in to_memory], how["uxh"])
        _initialize_joint([weight[self.hidden_size :] for weight in to_hidden.values()], "kaiming_normal")
        for source, weight in to_memory.items():
            _initialize_joint([weight], how.get(f"u{source}"))
        for source, weight in to_hidden.items():
            _initialize_joint([weight[: self.hidden_size]], how[f"h{source}"])
        if self.bias_u is not None:
            initialize_bias(self.bias_u, sum(weight.shape[1] for source, weight in to_memory.items() if source != "m"))
            if zero_bias_init:  # after the draw, which later random numbers follow
                nn.init.zeros_(self.bias_u)
        if self.bias_h is not None:
            candidate, gate = self.bias_h[: self.hidden_size], self.bias_h[self.hidden_size :]
            if not zero_bias_init:
                initialize_bias(candidate, sum(weight.shape[1] for source, weight in to_hidden.items() if source != "h"))
            initialize_bias(gate, sum(weight.shape[1] for weight in to_hidden.values()))

    def initial_state(self, batch_size: int) -> MemoryState:
        """Return a zero hidden state and memory at step 0."""
        replicated = getattr(self, "_former_parameters", {})  # those of a replica of torch.nn.DataParallel
        like = next(chain(self.parameters(), replicated.values()))
        return MemoryState(
            like.new_zeros(batch_size, self.hidden_size),
            at_least_float32(like.new_zeros(batch_size, self.memory_size, self.memory_order)),
            torch.zeros(batch_size, dtype=torch.int64, device=like.device),
        )

    def update_memory(self, memory: Tensor, memory_input: Tensor, step_size: Any) -> Tensor:
        """Compute the memory (B, M, N) after one step, from the memory before it and its inputs (B, M)."""
        raise NotImplementedError

    def project(self, inputs: Tensor) -> Tensor:
        """Compute the terms of u, the candidate and the gate in x, biases included: (..., C) -> (..., M + 2H)."""
        sizes = (self.memory_size, self._rows)
        return memory_projection(inputs, self.weight_ux, self.bias_u, self.weight_hx, self.bias_h, sizes)

    def advance(self, projected: Tensor, state: MemoryState, scheduled: Any) -> tuple[Tensor, MemoryState]:
        """Compute one step."""
        hidden, memory = self.next_state(projected, state.hidden, state.memory, scheduled)
        output = torch.cat([hidden, memory.flatten(1).to(hidden.dtype)], -1) if self.memory_output else hidden
        return output, MemoryState(hidden, memory, state.step + 1)

    def next_state(self, projected: Tensor, hidden: Tensor, memory: Tensor, step_size: Any) -> tuple[Tensor, Tensor]:
        """Compute the hidden state (B, H) and the memory (B, M, N) after one step."""
        return memory_network_step(
            projected,
            hidden,
            memory,
            lambda before, memory_input: self.update_memory(before, memory_input, step_size),
            weight_uh=self.weight_uh,
            weight_um=self.weight_um,
            weight_hm=self.weight_hm,
            weight_hh=self.weight_hh,
            memory_activation=self.memory_activation,
            hidden_activation=self.hidden_activation,
        )

    def operator_options(self) -> dict[str, Any]:
        """Return whether the hidden state feeds the candidate and the gate."""
        return {"hidden_feeds_gates": self.weight_hh is not None}

    def dynamics(self, inputs: Tensor, state: MemoryState, fresh: bool) -> dict[str, Any]:
        """Return the arguments of :mod:`seqmem.ops.memory_network` for the memory's steps over inputs (B, T, C)."""
        raise NotImplementedError

    def fused_forward(
        self, run: Any, inputs: Tensor, state: MemoryState, lengths: Tensor | None, fresh: bool
    ) -> tuple[Tensor, MemoryState]:
        """Compute a whole sequence."""
        outputs, hidden, memory = self.run_network(run, inputs, state, lengths, self.dynamics(inputs, state, fresh))
        return outputs, MemoryState(hidden, memory, state.step + (inputs.shape[1] if lengths is None else lengths))

    def run_network(
        self, run: Any, inputs: Tensor, state: Any, lengths: Tensor | None, dynamics: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute outputs, hidden state and memory by ``run``, with the ``dynamics`` of :meth:`dynamics`."""
        return run(
            inputs,
            state.hidden,
            state.memory,
            lengths,
            **dynamics,
            weight_ux=self.weight_ux,
            weight_uh=self.weight_uh,
            weight_um=self.weight_um,
            bias_u=self.bias_u,
            weight_hx=self.weight_hx,
            weight_hm=self.weight_hm,
            weight_hh=self.weight_hh,
            bias_h=self.bias_h,
            memory_activation=self.memory_activation,
            hidden_activation=self.hidden_activation,
            gated=self.gate == "G",
            memory_output=self.memory_output,
        )

    @property
    def _features(self) -> int:
        """Number of channels of x."""
        return self.input_size

    @property
    def _rows(self) -> int:
        return self.hidden_size if self.gate == "N" else 2 * self.hidden_size


def _initialize_joint(blocks: list[Tensor], how: Initializer | None) -> None:
    """Initialise blocks (rows, columns) in place as the columns of one matrix; None leaves them unchanged."""
    if how is not None and blocks and blocks[0].shape[0] > 0:
        joint = torch.empty(blocks[0].shape[0], sum(block.shape[1] for block in blocks))
        initialize(joint, how)
        for block, part in zip(blocks, joint.split([block.shape[1] for block in blocks], 1), strict=True):
            block.copy_(part)
