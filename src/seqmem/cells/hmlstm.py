"""Hierarchical multiscale LSTM: layers that detect boundaries of segments (Chung, Ahn and Bengio, 2017)."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import linear

from seqmem.arguments import checked
from seqmem.cells.base import Recurrence
from seqmem.data.masks import masked
from seqmem.data.transfer import copied
from seqmem.errors import UserError
from seqmem.ops.loop import run_steps, stacked
from seqmem.ops.multiscale import Boundaries, LayerWeights, flattened, multiscale_step


class HMLSTMState(NamedTuple):
    """State of all layers from the bottom up: ``hidden`` (B, D), h; ``memory`` (B, D), c; ``boundary`` (B, L), z."""

    hidden: Tensor
    memory: Tensor
    boundary: Tensor


class HMLSTM(Recurrence[HMLSTMState]):
    """All L layers as one recurrence, whose outputs are their hidden states (B, T, D), D being the sum of the sizes.

    With h, c and z of layer l at step t, and primed values of step t - 1 (equations 2 to 7 of the paper)::

        s = U [h'_l; z'_l h'_{l+1}; z_{l-1} h_{l-1}] + b            where h_0 = x, z_0 = 1, and the top layer has none above
        f, i, o = sigmoid(s), g = tanh(s), p = sigma(a s)           by rows
        c_l, h_l = f c'_l + i g, o tanh(c_l)    if z'_l = 0 and z_{l-1} = 1    UPDATE
                   c'_l, h'_l                   if z'_l = 0 and z_{l-1} = 0    COPY
                   i g, o tanh(c_l)             if z'_l = 1                    FLUSH
        z_l = 1 if p > 0.5 else 0

    The gradient of z with respect to p is defined as 1 (straight-through). It flows through z h only, not through the choice of
    a branch. A soft boundary is p itself: c and h are sums of the three branches with weights (1 - z'_l) z_{l-1},
    (1 - z'_l) (1 - z_{l-1}) and z'_l, and their gradient is exact.

    In float32 rounding may put a p near 1/2 on either side of it. Two implementations, such as the compiled call and the loop,
    may then diverge after some steps; in float64 they agree.

    Parameters of each of the ``layers``, from the bottom up: ``weight`` (4 D_l + 1, D_l + D_{l+1} + D_{l-1}) and ``bias``
    (4 D_l + 1,) hold the rows of f, i, o, g and the detector (4 D_l rows without detector). The bottom layer's weights of x are
    a separate parameter, ``weight_input`` (4 D_1 + 1, C). Initial weights are Glorot-uniform; initial biases are zero, except
    for ``boundary_bias``.

    Args:
        input_size: C.
        hidden_size: D_l, one size for all layers or a list of ``num_layers`` sizes.
        num_layers: L.
        boundary: "step": z is 1 if p > 1/2; "sample": 1 with probability p, in training; "soft": z is p.
        boundary_activation: sigma; "hard_sigmoid" is max(0, min(1, (a s + 1) / 2)).
        slope: a in the first epoch.
        slope_growth: increment of a per epoch.
        max_slope: upper limit of a.
        boundary_bias: initial biases of the detectors, one for all or a list from the bottom up. Higher values mean shorter
            initial segments.
        top_detector: the top layer has a detector too, so that it can FLUSH itself. Without, its z remains that of the initial
            state, 0.
        bias: add b; with layer normalisation, after it.
        layer_norm: normalise s of each of the four gates, and c in the computation of h (Ba, Kiros and Hinton, 2016, section
            3.1; the HM-LSTM paper does not specify the details). The detector's s is a single number and is not normalised.
            With few input channels and hundreds of steps, gradients of fresh weights grow exponentially with T, up to infinity
            in float32: take False there, or a ``boundary_bias`` of -1.

    Raises:
        UserError: an argument of the wrong type or range, a wrong number of sizes or biases, ``slope`` above ``max_slope``, or
            a layer of one unit with ``layer_norm``, whose norm would be zero.
    """

    name = "hmlstm"
    operator = "multiscale"
    optional_state = ("slope",)

    slope: Tensor
    layers: Sequence["_Layer"]
    _epoch = 0

    @checked
    def __init__(
        self,
        input_size: PositiveInt,
        hidden_size: PositiveInt | list[PositiveInt] = 256,
        num_layers: PositiveInt = 3,
        boundary: Literal["step", "sample", "soft"] = "step",
        boundary_activation: Literal["hard_sigmoid", "sigmoid"] = "hard_sigmoid",
        slope: PositiveFloat = 1.0,
        slope_growth: NonNegativeFloat = 0.0,
        max_slope: PositiveFloat = 5.0,
        boundary_bias: float | list[float] = 0.0,
        top_detector: bool = False,
        bias: bool = True,
        layer_norm: bool = True,
    ):
        super().__init__()
        if slope > max_slope:
            raise UserError(f"slope: got {slope}, expected at most max_slope={max_slope}")
        self.sizes = _layer_sizes(hidden_size, num_layers)
        if layer_norm and 1 in self.sizes:
            raise UserError(
                f"hidden_size: got {hidden_size}, expected at least 2 with layer_norm=true: the norm of one unit is zero"
            )
        biases = _detector_biases(boundary_bias, num_layers if top_detector else num_layers - 1, bias)
        self.input_size, self.output_size = input_size, sum(self.sizes)
        self.boundary, self.boundary_activation = boundary, boundary_activation
        self.first_slope, self.slope_growth, self.max_slope = slope, slope_growth, max_slope
        self.register_buffer("slope", torch.tensor(slope))  # a tensor, so that a CUDA graph uses its current value
        neighbours = zip([0, *self.sizes], self.sizes, [*self.sizes[1:], 0], strict=False)
        self.layers = nn.ModuleList(  # type: ignore[assignment]
            _Layer(size, above, below, 0 if k > 0 else input_size, k < len(biases), bias, layer_norm)
            for k, (below, size, above) in enumerate(neighbours)
        )
        with torch.no_grad():
            for layer, value in zip(self.layers, biases, strict=False):
                if layer.bias is not None:
                    layer.bias[-1] = value

    def initial_state(self, batch_size: int) -> HMLSTMState:
        """Return zeros: no layer has detected a boundary."""
        weight = self.layers[0].weight
        sizes = (self.output_size, self.output_size, len(self.sizes))
        return HMLSTMState(*(weight.new_zeros(batch_size, size) for size in sizes))

    def on_epoch(self, epoch: int) -> None:
        """Set a to min(max_slope, slope + slope_growth epoch)."""
        self._epoch = epoch
        self.slope.fill_(self._slope())

    def _slope(self) -> float:
        return min(self.max_slope, self.first_slope + self.slope_growth * self._epoch)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        weight = state_dict.get(f"{prefix}layers.0.weight", self.slope)
        missing = {f"{prefix}slope": torch.full((), self._slope(), dtype=weight.dtype, device=weight.device)}
        super()._load_from_state_dict({**missing, **state_dict}, prefix, *arguments)

    def project(self, inputs: Tensor) -> Tensor:
        """Compute the bottom layer's terms in x, with its bias unless it follows a normalisation."""
        bottom = self.layers[0]
        assert bottom.weight_input is not None
        return linear(inputs, bottom.weight_input, bottom.weights().summed_bias)

    def schedule(self, state: HMLSTMState, steps: int, fresh: bool) -> Sequence[Any]:
        """Return for each step the weights of all layers and uniform random numbers (B, L), None if none are drawn."""
        draws = self._draws(state, steps)
        weights = [layer.weights() for layer in self.layers]
        return [(weights, None if draws is None else draws[t]) for t in range(steps)]

    def advance(self, projected: Tensor, state: HMLSTMState, scheduled: Any) -> tuple[Tensor, HMLSTMState]:
        """Compute one step of all layers, from the bottom up."""
        weights, draws = scheduled
        boundaries = Boundaries(self.slope, self.boundary == "soft", self.boundary_activation == "hard_sigmoid")
        after = HMLSTMState(*multiscale_step(projected, *state, weights, self.sizes, boundaries, draws))
        return after.hidden, after

    def fused_forward(
        self, run: Any, inputs: Tensor, state: HMLSTMState, lengths: Tensor | None, fresh: bool
    ) -> tuple[Tensor, HMLSTMState]:
        """Compute a whole sequence; under autocast only the projection of the inputs is in bfloat16."""
        outputs, _, state = self._with_boundaries(run, inputs, state, lengths)
        return outputs, state

    def boundaries(
        self,
        inputs: Tensor,
        state: HMLSTMState | None = None,
        lengths: Tensor | None = None,
        times: Tensor | None = None,
    ) -> Tensor:
        """Compute the boundary indicators z of each step and layer.

        Args:
            inputs: (B, T, C).
            state: as for :meth:`forward`.
            lengths: as for :meth:`forward`.
            times: as for :meth:`forward`.

        Returns:
            (B, T, L), layers from the bottom up, zero in the padding.

        Raises:
            UserError: shapes or types that do not match.
        """
        inputs, state, lengths = self._prepared(inputs, state, lengths, times)
        run = self.choose(inputs).run
        if run is None:
            return self._stepwise_boundaries(inputs, state, lengths)
        return self._with_boundaries(run, inputs, state, lengths)[1]

    @torch.compiler.disable  # for the reason of stepwise_forward
    def _stepwise_boundaries(self, inputs: Tensor, state: HMLSTMState, lengths: Tensor | None) -> Tensor:
        steps = inputs.shape[1]
        items = zip(masked(inputs, lengths).unbind(1), self.schedule(state, steps, False), strict=True)

        def step(item: Any, before: HMLSTMState) -> tuple[Tensor, HMLSTMState]:
            _, after = self.advance(self.project(item[0]), before, item[1])
            return after.boundary, after

        found, _ = run_steps(step, items, state, lengths, steps)
        return stacked(found, inputs, len(self.sizes))

    def _with_boundaries(
        self, run: Any, inputs: Tensor, state: HMLSTMState, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor, HMLSTMState]:
        """Compute outputs (B, T, D), boundaries (B, T, L) and the state after the last step."""
        bottom = self.layers[0]
        assert bottom.weight_input is not None
        projected = linear(masked(inputs, lengths), bottom.weight_input).to(state.hidden.dtype)
        draws = self._draws(state, inputs.shape[1])
        outputs, boundaries, *after = run(
            projected,
            *state,
            lengths,
            None if draws is None else draws.to(projected),
            flattened([layer.weights() for layer in self.layers]),
            self.slope,
            self.sizes,
            top_detector=self.layers[-1].detects,
            bias=bottom.bias is not None,
            layer_norm=bottom.gain is not None,
            soft=self.boundary == "soft",
            hard_sigmoid=self.boundary_activation == "hard_sigmoid",
        )
        return outputs, boundaries, HMLSTMState(*after)

    def _draws(self, state: HMLSTMState, steps: int) -> Tensor | None:
        """Draw uniform random numbers (T, B, L) if boundaries are sampled."""
        if not self._samples():
            return None
        # Drawn on the CPU, so that a seed yields the same numbers on every device.
        return copied(torch.rand(steps, *state.boundary.shape, device="cpu"), state.boundary.device)

    def _samples(self) -> bool:
        return self.boundary == "sample" and self.training


class _Layer(nn.Module):
    """The parameters of one layer with ``size`` units.

    ``above`` and ``below`` are the sizes of its neighbours, ``inputs`` is C for the bottom layer and 0 for the others.
    """

    def __init__(self, size: int, above: int, below: int, inputs: int, detects: bool, bias: bool, normalized: bool):
        super().__init__()
        rows = 4 * size + detects
        joint = torch.empty(rows, size + above + below + inputs)
        nn.init.xavier_uniform_(joint)
        columns = size + above + below
        self.weight = nn.Parameter(joint[:, :columns].clone())
        self.weight_input = nn.Parameter(joint[:, columns:].clone()) if inputs else None
        self.bias = nn.Parameter(torch.zeros(rows)) if bias else None
        self.gain = nn.Parameter(torch.ones(4 * size)) if normalized else None
        self.memory_norm = nn.LayerNorm(size, bias=bias) if normalized else None
        self.size, self.detects = size, detects

    def extra_repr(self) -> str:
        """Return the number of units, and whether the layer detects boundaries, for ``print``."""
        return f"size={self.size}, detects={self.detects}"

    def weights(self) -> LayerWeights:
        """Return all parameters except ``weight_input``."""
        norm = self.memory_norm
        return LayerWeights(self.weight, self.bias, self.gain, *((None, None) if norm is None else (norm.weight, norm.bias)))


def _layer_sizes(hidden_size: int | list[int], num_layers: int) -> list[int]:
    sizes = hidden_size if isinstance(hidden_size, list) else [hidden_size] * num_layers
    if len(sizes) != num_layers:
        raise UserError(f"hidden_size: got {hidden_size}, expected one size or as many as num_layers={num_layers}")
    return sizes


def _detector_biases(boundary_bias: float | list[float], detectors: int, bias: bool) -> list[float]:
    biases = boundary_bias if isinstance(boundary_bias, list) else [boundary_bias] * detectors
    if len(biases) != detectors or (not biases and boundary_bias):
        raise UserError(f"boundary_bias: got {boundary_bias}, expected one number or as many as detectors, {detectors}")
    if any(biases) and not bias:
        raise UserError(f"boundary_bias: got {boundary_bias}, expected 0 with bias=false")
    return biases
