"""HiPPO memories with a fixed time scale and a constant step: LegT, the Legendre Memory Unit, LagT."""

from functools import lru_cache
from math import sqrt
from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from seqmem.arguments import checked, extends
from seqmem.cells.memory import Architecture, Initializers, MemoryCell, MemoryState
from seqmem.ops import DiscretizationName, canonical_discretization, discretize, transition
from seqmem.ops.constants import constant, on_device
from seqmem.ops.precision import full_precision


class TimeInvariantCell(MemoryCell):
    """A memory cell with dm/dt = A m + B u in steps of ``dt``, where A and B are those of a subclass's ``measure``.

    A step is one product with a matrix that is computed once, in float64. The window of LegT and LMU is 1 / dt steps long.

    Args:
        dt: step size.
        discretization: discretization of the memory's equation: forward, backward, bilinear, zoh, an alias (euler, tustin,
            ...), or alpha of the general bilinear transform, from 0 (forward) to 1 (backward).
        measure_args: arguments of the measure, see :func:`seqmem.ops.transition`.
        trainable_scale: 0 keeps A and B fixed. s > 0 makes the discretised A and B parameters: ``weight_a`` (N, N) and
            ``weight_b`` (N,) hold them divided by sqrt(s), so that they learn s times as fast as other parameters by gradient
            descent, and sqrt(s) times by Adam. Sequences then run step by step.
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
        dt: PositiveFloat = 0.01,
        discretization: DiscretizationName = "zoh",
        measure_args: dict[str, float] = {},  # noqa: B006
        trainable_scale: NonNegativeFloat = 0.0,
        **shared: Any,
    ):
        super().__init__(input_size, **shared)
        self.dt, self.discretization = dt, canonical_discretization(discretization)
        self.measure_args = dict(measure_args)
        self.trainable_scale = trainable_scale
        transition(self.measure, 1, **measure_args)
        if trainable_scale > 0:
            A, B = self._exact_step()
            self.weight_a = nn.Parameter(torch.empty(A.shape))
            self.weight_b = nn.Parameter(torch.empty(B.shape))
            with torch.no_grad():
                self.weight_a.copy_(A / sqrt(trainable_scale))
                self.weight_b.copy_(B / sqrt(trainable_scale))

    def schedule(self, state: MemoryState, steps: int, fresh: bool) -> list[tuple[Tensor, Tensor]]:
        """Return A_d (N, N) and B_d (N,), the same at each step."""
        if self.trainable_scale > 0:
            scale = sqrt(self.trainable_scale)
            return [((self.weight_a * scale).to(state.memory), (self.weight_b * scale).to(state.memory))] * steps
        return [_discretized_on_device(state.memory, *self._key())] * steps

    def update_memory(self, memory: Tensor, memory_input: Tensor, step_size: tuple[Tensor, Tensor]) -> Tensor:
        """Compute one step of the memory, in its own precision under autocast too."""
        A, B = step_size
        with full_precision(memory.device):
            return memory @ A.T + memory_input[..., None] * B

    def operator_options(self) -> dict[str, Any]:
        """Return whether A and B are learned."""
        return super().operator_options() | {"learned_step": self.trainable_scale > 0}

    def dynamics(self, inputs: Tensor, state: MemoryState, fresh: bool) -> dict[str, Any]:
        """Return A_d and B_d."""
        A, B = self._exact_step()
        return {"step": A, "drive": B}

    def _exact_step(self) -> tuple[Tensor, Tensor]:
        return _discretized(*self._key())

    def _key(self) -> tuple[Any, ...]:
        """Return the arguments of :func:`_discretized`."""
        return self.measure, self.memory_order, self.dt, self.discretization, tuple(sorted(self.measure_args.items()))


class LegT(TimeInvariantCell):
    """HiPPO-LegT (Gu et al., 2020, theorem 1): Legendre polynomials on a sliding window."""

    name = "legt"
    measure = "legt"


class LMUT(TimeInvariantCell):
    """HiPPO-LegT in the normalisation of the Legendre Memory Unit."""

    name = "lmut"
    measure = "lmu"


class LagT(TimeInvariantCell):
    """HiPPO-LagT (Gu et al., 2020, theorem 1): Laguerre polynomials on an exponentially weighted past."""

    name = "lagt"
    measure = "lagt"


class LegST(TimeInvariantCell):
    """The matrices of LegS with a fixed step size: an ablation."""

    name = "legst"
    measure = "legs"


class LegSN(TimeInvariantCell):
    """LegST with noise N(0, 1) / N added to each entry of A, an ablation of HiPPO's code.

    Args:
        noise_seed: seed of the noise, which is independent of the seed of the parameters.
        shared: the arguments of :class:`TimeInvariantCell`.
    """

    name = "legsn"
    measure = "legs"

    @checked
    @extends(TimeInvariantCell.__init__)
    def __init__(self, input_size: PositiveInt, noise_seed: NonNegativeInt = 0, **shared: Any):
        self.noise_seed = noise_seed
        super().__init__(input_size, **shared)

    def _key(self) -> tuple[Any, ...]:
        return *super()._key(), self.noise_seed


_LMU_ARCHITECTURE = Architecture(ux=True, uh=True, um=True, hx=True, hm=True, hh=True, bias=False)
_LMU_INITIALIZERS = Initializers(
    uxh="kaiming_uniform", ux="one", uh="zero", um="zero", hx="zero", hm="xavier_normal", hh="zero"
)


class LMU(TimeInvariantCell):
    """The Legendre Memory Unit of HiPPO's code: gated, and without biases.

    Args:
        theta: length of the window.
        dt: length of a step, in the unit of theta.
        shared: the arguments of :class:`TimeInvariantCell`.
    """

    name = "lmu"
    measure = "lmu"
    default_architecture = _LMU_ARCHITECTURE
    default_initializers = _LMU_INITIALIZERS

    @checked
    @extends(TimeInvariantCell.__init__)
    def __init__(self, input_size: PositiveInt, theta: PositiveFloat = 100.0, dt: PositiveFloat = 1.0, **shared: Any):
        super().__init__(input_size, dt=dt / theta, **shared)


class LMUPlain(LMU):
    """The Legendre Memory Unit without gate or bias (Voelker, Kajic and Eliasmith, 2019, equations 1 to 7).

    Args:
        gate: "N" for no gate, as in the paper, or "G".
        shared: the arguments of :class:`LMU`.
    """

    name = "lmu_plain"

    @checked
    @extends(LMU.__init__)
    def __init__(self, input_size: PositiveInt, gate: Literal["G", "N"] = "N", **shared: Any):
        super().__init__(input_size, gate=gate, **shared)


@torch.compiler.assume_constant_result
def _discretized(*key: Any) -> tuple[Tensor, Tensor]:
    return _exact(*key)


@on_device
def _discretized_on_device(*key: Any) -> tuple[Tensor, Tensor]:
    return _exact(*key)


@lru_cache(maxsize=16)
@constant
def _exact(
    measure: str,
    order: int,
    dt: float,
    discretization: Any,
    measure_args: tuple[tuple[str, float], ...],
    noise_seed: int | None = None,
) -> tuple[Tensor, Tensor]:
    A, B = transition(measure, order, **dict(measure_args))
    if noise_seed is not None:
        generator = torch.Generator().manual_seed(noise_seed)
        A = A + torch.randn(A.shape, generator=generator, dtype=A.dtype) / order
    return discretize(A, B, dt, discretization)
