"""Hierarchical multiscale LSTM (Chung, Ahn and Bengio, 2017): layers that find the boundaries of their inputs' segments."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import linear

from seqmem.arguments import checked
from seqmem.cells.base import Recurrence
from seqmem.data.masks import masked
from seqmem.errors import UserError
from seqmem.ops.loop import run_steps, stacked
from seqmem.ops.multiscale import Boundaries, LayerWeights, flattened, multiscale_step


class HMLSTMState(NamedTuple):
    """hidden: (B, D), h of all layers from the bottom up; memory: (B, D), their c; boundary: (B, L), their z."""

    hidden: Tensor
    memory: Tensor
    boundary: Tensor


class HMLSTM(Recurrence[HMLSTMState]):
    """All L layers as one recurrence; its outputs are the hidden states of all of them, (B, T, D) with D the sum of the sizes.

    With h, c and z of layer l at step t, and what is primed from step t - 1 (equations 2 to 7 of the paper)::

        s = U [h'_l; z'_l h'_{l+1}; z_{l-1} h_{l-1}] + b            where h_0 = x, z_0 = 1, and the top layer has none above
        f, i, o = sigmoid(s), g = tanh(s), p = sigma(a s)           by rows
        c_l, h_l = f c'_l + i g, o tanh(c_l)    if z'_l = 0 and z_{l-1} = 1    UPDATE
                   c'_l, h'_l                   if z'_l = 0 and z_{l-1} = 0    COPY
                   i g, o tanh(c_l)             if z'_l = 1                    FLUSH
        z_l = 1 if p > 0.5 else 0

    The gradient of z with respect to p is taken to be 1 (straight-through). It arrives through z h alone, not through the
    choice of a branch. A soft boundary is p itself: the branches are weighted by (1 - z'_l) z_{l-1}, (1 - z'_l) (1 - z_{l-1})
    and z'_l, for c and h alike, and the gradient is the true one.

    In float32 a p near 1/2 falls to either side of it by rounding, so that two ways of computing the same sequence (step by
    step and in one call, say) may part after some steps; in float64 they agree.

    Parameters of each of the ``layers``, from the bottom up: ``weight`` (4 D_l + 1, D_l + D_{l+1} + D_{l-1}) and ``bias``
    (4 D_l + 1,), whose rows hold f, i, o, g and the detector's (4 D_l without detector). What the bottom layer reads of x is
    apart, ``weight_input`` (4 D_1 + 1, C). Weights start Glorot-uniform, biases at zero but for ``boundary_bias``.

    Args:
        input_size: C.
        hidden_size: D_l, one for all layers or a list of ``num_layers``.
        num_layers: L.
        boundary: "step" as above; "sample": in training z is 1 with probability p, in evaluation as "step"; "soft".
        boundary_activation: sigma; "hard_sigmoid" is max(0, min(1, (a s + 1) / 2)).
        slope: a in the first epoch.
        slope_growth: what is added to a each epoch.
        max_slope: a grows no further.
        boundary_bias: what the detectors' biases start at, one for all or a list of one each from the bottom up: the
            higher, the shorter are the segments that a layer begins with.
        top_detector: the top layer has a detector too, so that it can FLUSH itself; without, its z stays
            what the state before the first step says, 0.
        bias: add b; where there is a normalisation, after it.
        layer_norm: normalise s of each of the four gates, and c where h is made of it (Ba, Kiros and Hinton, 2016, section 3.1;
            the HM-LSTM paper does not say what it normalises). The detector's s is a single number and stays as it is.

    Raises:
        UserError: an argument of the wrong type or range, not as many sizes as layers or biases as detectors, ``slope`` above
            ``max_slope``.
    """

    name = "hmlstm"
    operator = "multiscale"

    slope: Tensor
    layers: Sequence["_Layer"]

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
        self.sizes = hidden_size if isinstance(hidden_size, list) else [hidden_size] * num_layers
        if len(self.sizes) != num_layers:
            raise UserError(f"hidden_size: got {hidden_size}, expected one size or as many as num_layers={num_layers}")
        if slope > max_slope:
            raise UserError(f"slope: got {slope}, expected at most max_slope={max_slope}")
        detectors = num_layers - (not top_detector)
        biases = boundary_bias if isinstance(boundary_bias, list) else [boundary_bias] * detectors
        if len(biases) != detectors or (not biases and boundary_bias):
            raise UserError(f"boundary_bias: got {boundary_bias}, expected one number or as many as detectors, {detectors}")
        if any(biases) and not bias:
            raise UserError(f"boundary_bias: got {boundary_bias}, expected 0 with bias=false")
        self.input_size, self.output_size = input_size, sum(self.sizes)
        self.boundary, self.boundary_activation = boundary, boundary_activation
        self.first_slope, self.slope_growth, self.max_slope = slope, slope_growth, max_slope
        # A tensor, so that a captured graph reads it; it follows from the epoch, so no checkpoint holds it.
        self.register_buffer("slope", torch.tensor(slope), persistent=False)
        layers = []
        for k, size in enumerate(self.sizes):
            above = self.sizes[k + 1] if k + 1 < num_layers else 0
            below = self.sizes[k - 1] if k > 0 else 0
            detects = top_detector or k + 1 < num_layers
            layers.append(_Layer(size, above, below, 0 if k > 0 else input_size, detects, bias, layer_norm))
        self.layers = nn.ModuleList(layers)  # type: ignore[assignment]
        with torch.no_grad():
            for layer, value in zip(layers, biases, strict=False):
                if layer.bias is not None:
                    layer.bias[-1] = value

    def initial_state(self, batch_size: int) -> HMLSTMState:
        """All zero: no layer has found a boundary."""
        weight = self.layers[0].weight
        zeros = weight.new_zeros(batch_size, self.output_size)
        return HMLSTMState(zeros, zeros, weight.new_zeros(batch_size, len(self.sizes)))

    def on_epoch(self, epoch: int) -> None:
        """Set a to min(max_slope, slope + slope_growth epoch)."""
        self.slope.fill_(min(self.max_slope, self.first_slope + self.slope_growth * epoch))

    def project(self, inputs: Tensor) -> Tensor:
        """Compute the bottom layer's terms in x, its bias included."""
        bottom = self.layers[0]
        assert bottom.weight_input is not None
        return linear(inputs, bottom.weight_input, bottom.weights().summed_bias)

    def schedule(self, state: HMLSTMState, steps: int, fresh: bool) -> Sequence[Any]:
        """Return the weights of all layers and the uniform random numbers (B, L) of each step, None if none are drawn."""
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
        """Compute a whole sequence; under autocast only the inputs' projection is in bfloat16."""
        outputs, _, state = self._with_boundaries(run, inputs, state, lengths)
        return outputs, state

    def boundaries(
        self,
        inputs: Tensor,
        state: HMLSTMState | None = None,
        lengths: Tensor | None = None,
        times: Tensor | None = None,
    ) -> Tensor:
        """The boundary indicators z of each step and layer.

        Args:
            inputs: (B, T, C).
            state: as for :meth:`forward`.
            lengths: as for :meth:`forward`.
            times: as for :meth:`forward`.

        Returns:
            (B, T, L), layers from the bottom up, zero where padded.

        Raises:
            UserError: the shapes do not fit together.
        """
        inputs = self._joined(inputs, times)
        state = self.initial_state(inputs.shape[0]) if state is None else self._named(state)
        self._check_rows(inputs.shape[0], inputs.shape[1], state, lengths)
        run = self.choose(inputs).run
        if run is None:
            return self._stepwise_boundaries(inputs, state, lengths)
        return self._with_boundaries(run, inputs, state, lengths)[1]

    @torch.compiler.disable  # as stepwise_forward
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
        """Outputs (B, T, D), boundaries (B, T, L) and the state after."""
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
        """Uniform random numbers, (T, B, L), if boundaries are sampled."""
        if not self._samples():
            return None
        # Drawn on the CPU, so that a seed means the same on every device.
        return torch.rand(steps, *state.boundary.shape, device="cpu").to(state.boundary.device)

    def _samples(self) -> bool:
        return self.boundary == "sample" and self.training

    def capturable(self) -> bool:
        """Return whether no boundary is drawn: a CUDA graph repeats the draws that it was captured with."""
        return not self._samples()


class _Layer(nn.Module):
    """The parameters of one layer."""

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

    def weights(self) -> LayerWeights:
        """Return all but ``weight_input``."""
        norm = self.memory_norm
        return LayerWeights(self.weight, self.bias, self.gain, *((None, None) if norm is None else (norm.weight, norm.bias)))
