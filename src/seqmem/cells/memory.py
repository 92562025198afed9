"""The HiPPO recurrent network: a gated hidden state that writes to and reads from a linear memory.

Gu, Dao, Ermon, Rudra and Re, "HiPPO: Recurrent Memory with Optimal Polynomial Projections" (2020), section 3.1 and figure 2.
"""

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


class Architecture(TypedDict, total=False):
    """Which of input x, hidden state h and memory m feed what. Missing switches keep their defaults.

    ux, uh, um: what the memory's input u reads (default: x and h).
    hx, hm, hh: what the candidate and the gate read (default: x and m).
    bias: add biases (default: yes).
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

    uxh: [W_ux, W_uh] as one matrix (default kaiming_uniform); ux, uh: that block alone (default: as uxh leaves it).
    um: W_um (default zero). hx, hm, hh: the candidate's blocks, each with its own fans (default xavier_normal).
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
    """hidden: (B, H); memory: (B, M, N); step: (B,) int64, how many steps each row has made."""

    hidden: Tensor
    memory: Tensor
    step: Tensor


class MemoryCell(Recurrence[MemoryState]):
    """A hidden state h in R^H and M memories m of order N, each the coefficients of its inputs so far.

    One step, with a subclass's linear ``update_memory``::

        u = act_m(W_ux x + W_uh h + <W_um, m> + b_u)            in R^M
        m = update_memory(m, u)
        c = act_h(W_hx x + W_hm vec(m) + W_hh h + b_h)
        g = sigmoid(W_gx x + W_gm vec(m) + W_gh h + b_g)
        h = (1 - g) h + g c                                    (gate "N": h = c)

    Parameters: ``weight_ux`` (M, C), ``weight_uh`` (M, H), ``weight_um`` (M, N), ``bias_u`` (M,); ``weight_hx`` (2H, C),
    ``weight_hm`` (2H, M * N), ``weight_hh`` (2H, H), ``bias_h`` (2H,), whose rows hold the candidate's, then the gate's (H rows
    without gate). Those that are switched off are None.

    Args:
        input_size: C.
        hidden_size: H.
        memory_size: M, how many functions are remembered.
        memory_order: N, how many coefficients each; -1 for hidden_size.
        memory_activation: act_m, of the memory inputs.
        hidden_activation: act_h, of the candidate.
        gate: "G" for a gated hidden state, "N" for none.
        memory_output: output [h, vec(m)] instead of h.
        architecture: which of x, h, m feed what, see :class:`Architecture`.
        initializers: of the weights, see :class:`Initializers`.
        zero_bias_init: start b_h at zero.

    Raises:
        UserError: an argument of the wrong type or range.
    """

    operator = "memory_network"

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
        on: dict[str, bool] = {**self.default_architecture, **architecture}  # type: ignore[dict-item]
        if not (on["ux"] or on["uh"] or on["um"]):
            raise UserError("architecture: got ux, uh and um all off, expected at least one of them to feed the memory")
        if not (on["hx"] or on["hm"] or on["hh"]):
            raise UserError("architecture: got hx, hm and hh all off, expected at least one of them to feed the hidden state")
        self.input_size, self.hidden_size = input_size, hidden_size
        self.memory_size = memory_size
        self.memory_order = hidden_size if memory_order == -1 else memory_order
        self.memory_activation, self.hidden_activation = memory_activation, hidden_activation
        self.gate = gate
        self.memory_output = memory_output
        self.output_size = hidden_size + (memory_size * self.memory_order if memory_output else 0)

        widths = {"x": self._features, "h": hidden_size, "m": self.memory_order}
        self._add("u", memory_size, {source: widths[source] for source in "xhm" if on[f"u{source}"]}, on["bias"])
        widths["m"] = memory_size * self.memory_order
        self._add("h", self._rows, {source: widths[source] for source in "xmh" if on[f"h{source}"]}, on["bias"])
        with torch.no_grad():
            self._initialize(initializers, zero_bias_init)

    def gates(self, name: str) -> int:
        """How many gates' rows lie one above the other in a parameter of this module's own: those of the hidden state."""
        return self._rows // self.hidden_size if name.startswith(("weight_h", "bias_h")) else 1

    def _add(self, target: str, rows: int, reads: dict[str, int], bias: bool) -> None:
        for source in "xhm":
            weight = nn.Parameter(torch.empty(rows, reads[source])) if source in reads else None
            self.register_parameter(f"weight_{target}{source}", weight)
        self.register_parameter(f"bias_{target}", nn.Parameter(torch.zeros(rows)) if bias else None)

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
        if self.bias_h is not None:
            candidate, gate = self.bias_h[: self.hidden_size], self.bias_h[self.hidden_size :]
            if not zero_bias_init:
                initialize_bias(candidate, sum(weight.shape[1] for source, weight in to_hidden.items() if source != "h"))
            initialize_bias(gate, sum(weight.shape[1] for weight in to_hidden.values()))

    def initial_state(self, batch_size: int) -> MemoryState:
        """Zero hidden state and memory, step 0."""
        like = next(self.parameters())
        return MemoryState(
            like.new_zeros(batch_size, self.hidden_size),
            like.new_zeros(batch_size, self.memory_size, self.memory_order),
            torch.zeros(batch_size, dtype=torch.int64, device=like.device),
        )

    def update_memory(self, memory: Tensor, memory_input: Tensor, step_size: Any) -> Tensor:
        """Compute the memory's linear update: memory (B, M, N) and its inputs (B, M) -> (B, M, N)."""
        raise NotImplementedError

    def project(self, inputs: Tensor) -> Tensor:
        """Compute the terms of u, the candidate and the gate in x, biases included, side by side: (..., M + 2H)."""
        sizes = (self.memory_size, self._rows)
        return memory_projection(inputs, self.weight_ux, self.bias_u, self.weight_hx, self.bias_h, sizes)

    def advance(self, projected: Tensor, state: MemoryState, scheduled: Any) -> tuple[Tensor, MemoryState]:
        """Compute one step."""
        hidden, memory = self.next_state(projected, state.hidden, state.memory, scheduled)
        output = torch.cat([hidden, memory.flatten(1)], -1) if self.memory_output else hidden
        return output, MemoryState(hidden, memory, state.step + 1)

    def next_state(self, projected: Tensor, hidden: Tensor, memory: Tensor, step_size: Any) -> tuple[Tensor, Tensor]:
        """Compute hidden state (B, H) and memory (B, M, N) after one step."""
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

    def dynamics(self, inputs: Tensor, state: MemoryState, fresh: bool) -> dict[str, Any]:
        """Return the memory's steps over a whole sequence (B, T, C), as :mod:`seqmem.ops.memory_network` takes them."""
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
        """Compute outputs, hidden state and memory by ``run``, given the memory's steps."""
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
        """Channels of the input that are read as x."""
        return self.input_size

    @property
    def _rows(self) -> int:
        return self.hidden_size if self.gate == "N" else 2 * self.hidden_size


def _initialize_joint(blocks: list[Tensor], how: Initializer | None) -> None:
    """Fill blocks (rows, columns) in place as the columns of one matrix; None leaves them."""
    if how is not None and blocks and blocks[0].shape[0] > 0:
        joint = torch.empty(blocks[0].shape[0], sum(block.shape[1] for block in blocks))
        initialize(joint, how)
        for block, part in zip(blocks, joint.split([block.shape[1] for block in blocks], 1), strict=True):
            block.copy_(part)
