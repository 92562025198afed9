"""IGLOO1D: a sequence is represented by what many small patches of it, taken from anywhere, add up to."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, leaky_relu, max_pool2d, pad

from seqmem.arguments import checked
from seqmem.errors import UserError
from seqmem.models.igloo.drawing import draw_local_patches, draw_patches
from seqmem.ops.patches import PatchIndex, patch_index, patch_products, weights_by_step

SLOPE = 0.1
"""Of the leaky ReLU below 0."""

DILATION = 3
"""Of the convolutions of the further stacks."""

WORKING_SET = 8 * 2**20
"""Bytes of feature maps and outputs that are worked on at a time, in some ten copies."""

FEW_TAPS = 4
"""Up to so many taps a convolution takes less time and memory as one product for each."""

ROWS = (8, 16)
"""Rows of a batch that are worked on at a time: with fewer, products with patches take as long, with more hardly less a row."""


_L2REG = 1e-5


class IGLOO1D(nn.Module):
    """IGLOO (Sourkov, "IGLOO: Slicing the Feature Space to Represent Long Sequences", 2018).

    A causal convolution with K filters makes a feature map y of the inputs. A patch takes p steps of it, all channels of
    each, and answers phi(<W, patch> + b), phi being a leaky ReLU of slope 0.1; each patch has weights of its own. Three uses::

        IGLOO1D((T, C), L, K, return_sequences=False)                  # (B, T, C) -> (B, L), the sequence as a whole
        IGLOO1D((T, C), L, K, return_sequences=True)                   # (B, T, C) -> (B, T, L + L'), each step and its past
        IGLOO1D((T, C), L, K, return_sequences=True, nb_sequences=10)  # (B, T, C) -> (B, 10, L + L'), the last 10 steps

    As a whole: L patches of all T steps, of which the first are the backbone, windows that cover every step.

    Each step: L global patches of the steps 0 to t, drawn anew and with new weights at every ``stretch_factor``-th step (a
    lighthouse) and valid until the next; and L' = max(floor(psy L), p - 1, 1) local patches of the step and its near past, at
    least the 4 p steps before it. With ``add_residual`` the outputs are phi(patches + phi(A y + a)).

    With ``nb_stacks`` > 1 further feature maps, with patches of their own, add their outputs as channels: convolutions of
    dilation 3, of the feature map of the stack before (as a whole) or of the inputs (each step).

    Rows may be shorter than T: padding has no influence, on the rows that have it or on others. It counts as zero, in the
    inputs and in the feature map. Each step: a row begins at step 0, and outputs beyond its end are zero. Otherwise (as a
    whole, the last steps) a row ends at step T - 1, so that the last n steps are its own last n.

    The patches are drawn from ``seed`` alone. They are buffers: a state dict holds them, and loading it brings them back.

    Departures from the original, all where that goes against its own description: ``build_backbone`` counts, the residual
    convolution is trained, local patches are more than the step before where every step is a lighthouse, and they and the
    residual are there for the last n steps too, with any stretch factor.

    Args:
        shape: (T, C), steps of the longest sequence and channels.
        nb_patches: L.
        nb_filters_conv1d: K.
        return_sequences: an output for each step instead of one for the sequence.
        patch_size: p, steps in a patch.
        padding_style: "causal", or "same" for a convolution that also sees the steps to come.
        stretch_factor: s, the distance of two lighthouses; divides T. Only for sequences.
        nb_stacks: feature maps.
        l2reg: the sum of squares of all patches' W and b, times this, is :meth:`penalty`.
        conv1d_kernel: taps of the convolutions.
        max_pooling_kernel: maxima of so many steps take the place of the steps; what is left of T at its end has none. Only as
            a whole.
        DR: probability with which a channel of a feature map is dropped for a whole sequence and, as a whole, an output.
        add_residual: as above; as a whole it has no meaning.
        nb_sequences: n, the last steps alone have outputs; -1 for all of them.
        build_backbone: the first patches of each lighthouse cover all its past; None for yes as a whole and no for each step.
        psy: local patches as a part of L; 0 for none. As a whole it has no meaning.
        l2_reg: another spelling of ``l2reg``; None where that one is given.
        seed: of the patches.

    Attributes:
        output_size: channels of the outputs.

    Raises:
        UserError: an argument of the wrong type or range, or arguments that do not go together; it states both.
    """

    @checked
    def __init__(
        self,
        shape: tuple[PositiveInt, PositiveInt],
        nb_patches: PositiveInt,
        nb_filters_conv1d: PositiveInt,
        return_sequences: bool,
        patch_size: PositiveInt = 4,
        padding_style: Literal["causal", "same"] = "causal",
        stretch_factor: PositiveInt = 1,
        nb_stacks: PositiveInt = 1,
        l2reg: NonNegativeFloat = _L2REG,
        conv1d_kernel: PositiveInt = 3,
        max_pooling_kernel: PositiveInt = 1,
        DR: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        add_residual: bool = True,
        nb_sequences: int = -1,
        build_backbone: bool | None = None,
        psy: NonNegativeFloat = 0.15,
        l2_reg: NonNegativeFloat | None = None,
        seed: NonNegativeInt = 0,
    ):
        super().__init__()
        if l2_reg is not None and l2reg not in (_L2REG, l2_reg):
            raise UserError(f"l2reg and l2_reg mean the same, got {l2reg} and {l2_reg}; give one of them")
        if return_sequences:
            _check_sequences(shape[0], stretch_factor, nb_sequences, max_pooling_kernel)
        else:
            _check_whole(shape[0], stretch_factor, nb_sequences, max_pooling_kernel)
        self.shape, self.return_sequences = shape, return_sequences
        self.l2reg = l2reg if l2_reg is None else l2_reg
        self.dropout = DR
        # What ends at the last step, and not what begins at the first, is alike in rows of all lengths.
        self.aligns_ends = not return_sequences or nb_sequences > 0
        steps, filters = shape[0] // max_pooling_kernel, nb_filters_conv1d
        first = steps - nb_sequences if nb_sequences > 0 else 0 if return_sequences else steps - 1
        ends = np.arange(first, steps)
        lighthouses = np.arange(first // stretch_factor, -(-steps // stretch_factor)) * stretch_factor
        backbone = not return_sequences if build_backbone is None else build_backbone
        local = max(int(psy * nb_patches), patch_size - 1, 1) if return_sequences and psy > 0 else 0
        random = np.random.default_rng(seed)
        stacks: list[Stack] = []
        for number in range(nb_stacks):
            chained = number > 0 and not return_sequences
            stack = Stack(
                FeatureMap(
                    filters if chained else shape[1], filters, conv1d_kernel, DILATION if number else 1, padding_style, DR
                ),
                Patches(draw_patches(random, lighthouses, nb_patches, patch_size, backbone), steps, filters),
                Patches(draw_local_patches(random, ends, local, patch_size, stretch_factor), steps, filters) if local else None,
                nn.Linear(filters, nb_patches + local) if return_sequences and add_residual else None,
                stretch_factor,
                len(ends),
            )
            stacks.append(stack)
        self.stacks = nn.ModuleList(stacks)
        self.pool = max_pooling_kernel
        self.output_size = nb_stacks * (nb_patches + local)
        numbers_of_a_row = shape[0] * filters + len(lighthouses) * nb_patches + len(ends) * local
        at_a_time = WORKING_SET // (4 * nb_stacks * numbers_of_a_row)
        self._rows = ROWS[1] if at_a_time >= ROWS[1] else ROWS[0]

    @torch.compiler.disable  # it is a few large operators, of which the largest is no graph's
    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Represent sequences.

        A large batch goes through a few rows at a time, of which nothing is kept but the inputs and outputs: the way back goes
        forward through them once more. The memory of a training step is then that of the inputs, outputs and parameters, their
        gradients, and of what is worked on at a time.

        Args:
            inputs: (B, T', C) with T' <= T.
            lengths: (B,) int64 valid steps of each row, the rest being padding; None if all T' are valid.

        Returns:
            (B, L) as a whole, else (B, n, L + L') or (B, T', L + L'), zero where padded; nb_stacks times as many channels.

        Raises:
            UserError: the shapes do not fit.
        """
        if inputs.dim() != 3 or inputs.shape[1] > self.shape[0] or inputs.shape[2] != self.shape[1]:
            steps, channels = self.shape
            raise UserError(f"IGLOO1D: got inputs of shape {tuple(inputs.shape)}, wanted (B, at most {steps}, {channels})")
        if lengths is not None and lengths.shape != inputs.shape[:1]:
            raise UserError(f"IGLOO1D: got lengths of shape {tuple(lengths.shape)}, wanted ({len(inputs)},)")
        seeds = torch.zeros(0, dtype=torch.int64)
        if self.training and self.dropout > 0:
            seeds = torch.randint(2**62, (-(-len(inputs) // self._rows),))
        if len(inputs) <= self._rows:
            return self.represent(inputs, lengths, _generator(inputs, seeds, 0))
        return _RowByRow.apply(self, self._rows, inputs, lengths, seeds, *self.parameters())

    def penalty(self) -> Tensor:
        """What a training loss has to add: ``l2reg`` times the sum of squares of the patches' weights and biases, a scalar."""
        parameters = [parameter.flatten() for patches in self.patches() for parameter in patches.parameters()]
        return self.l2reg * torch.stack([parameter.dot(parameter) for parameter in parameters]).sum()

    def patches(self) -> list["Patches"]:
        """Global and local patches of all stacks."""
        return [module for module in self.modules() if isinstance(module, Patches)]

    def _stacks(self) -> Iterator["Stack"]:
        for stack in self.stacks:
            assert isinstance(stack, Stack)
            yield stack

    def represent(self, inputs: Tensor, lengths: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """:meth:`forward` of all rows at once, with what is to be dropped drawn from ``generator``; None drops nothing."""
        given = inputs.shape[1]
        inputs, valid = self._aligned(inputs, lengths)
        below = inputs = inputs.permute(2, 1, 0)
        outputs = []
        for number, stack in enumerate(self._stacks()):
            features = stack.features(below, valid, generator)
            if self.pool > 1 and number == 0:
                features = max_pool2d(features, (self.pool, 1))
                valid = None if valid is None else max_pool2d(valid[None].to(features.dtype), (self.pool, 1))[0] > 0
            responses = stack(features)
            outputs.append(responses if self.return_sequences else _dropped(responses[:, 0], self.dropout, generator))
            below = inputs if self.return_sequences else features
        output = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
        if not self.return_sequences:
            return output
        if valid is not None:
            output = output.where(valid[-output.shape[1] :].t()[..., None], 0)
        return output if self.aligns_ends else output[:, :given]

    def _aligned(self, inputs: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Rows brought to T steps, (B, T, C), and which of these are theirs, (T, B), None if all are."""
        missing = self.shape[0] - inputs.shape[1]
        step = torch.arange(self.shape[0], device=inputs.device)[:, None]
        if lengths is None:
            if missing == 0:
                return inputs, None
            padded = pad(inputs, (0, 0, missing, 0) if self.aligns_ends else (0, 0, 0, missing))
            valid = step >= missing if self.aligns_ends else step < inputs.shape[1]
            return padded, valid.expand(-1, len(inputs))
        inputs = pad(inputs, (0, 0, 0, missing))
        if not self.aligns_ends:
            valid = step < lengths
        else:
            valid = step >= self.shape[0] - lengths
            source = (step + lengths) % self.shape[0]
            inputs = inputs.gather(1, source.t()[..., None].expand_as(inputs))
        return inputs.where(valid.t()[..., None], 0), valid


class FeatureMap(nn.Module):
    """A convolution over time, its leaky ReLU, and dropout of whole channels; the batch is the last dimension.

    Weights start Glorot-uniform, biases zero.

    Args:
        channels: C.
        filters: K.
        kernel: taps.
        dilation: steps between two taps.
        style: "causal" or "same".
        dropout: probability with which a channel is dropped for a whole sequence.
    """

    def __init__(self, channels: int, filters: int, kernel: int, dilation: int, style: str, dropout: float):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(filters, channels, kernel))
        self.bias = nn.Parameter(torch.zeros(filters))
        nn.init.xavier_uniform_(self.weight)
        self.dilation, self.dropout = dilation, dropout
        span = dilation * (kernel - 1)
        self.before = span if style == "causal" else span // 2
        self.after = span - self.before

    def forward(self, inputs: Tensor, valid: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """(C, T, B) -> (K, T, B), zero where ``valid`` (T, B) is not; drops nothing without a generator."""
        padded = pad(inputs, (0, 0, self.before, self.after))
        convolve = self._by_taps if self.weight.shape[-1] <= FEW_TAPS else self._at_once
        features = leaky_relu(convolve(padded), SLOPE, inplace=True)
        features = _dropped(features, self.dropout, generator, shared=1)
        return features if valid is None else features.where(valid, 0)

    def _by_taps(self, padded: Tensor) -> Tensor:
        # Time is the slow dimension, so a tap is a product with one stretch of the inputs as they lie in memory.
        rows, steps = padded.shape[2], padded.shape[1] - self.before - self.after
        columns, features = padded.flatten(1), self.bias[:, None]
        for tap, weight in enumerate(self.weight.unbind(-1)):
            features = torch.addmm(features, weight, columns.narrow(1, tap * self.dilation * rows, steps * rows))
        return features.unflatten(1, (steps, rows))

    def _at_once(self, padded: Tensor) -> Tensor:
        # One image whose columns are the rows of the batch.
        return conv2d(padded[None], self.weight[..., None], self.bias, dilation=(self.dilation, 1))[0]


class Patches(nn.Module):
    """Answers phi(<W, patch> + b) of patches, each with weights of its own.

    The weights start normal, with the variances of Glorot's rule for the original's arrays (1, S, L, p K) and (1, S, L).

    Args:
        indices: (S, L, p) int32, the steps that each of L patches of S steps takes.
        length: steps that there are.
        filters: K, channels.
    """

    indices: Tensor
    rows: Tensor
    order: Tensor
    starts: Tensor

    def __init__(self, indices: np.ndarray, length: int, filters: int):
        super().__init__()
        steps, count, size = indices.shape
        self.length = length
        self.register_buffer("indices", torch.from_numpy(indices))
        self.weight = nn.Parameter(torch.empty(steps, count, size, filters))
        self.bias = nn.Parameter(torch.empty(steps, count))
        nn.init.normal_(self.weight, std=(2 / (steps * (count + size * filters))) ** 0.5)
        nn.init.normal_(self.bias, std=(2 / (steps + count)) ** 0.5)
        self.by_step: Tensor | None = None
        self._sort()

    def forward(self, features: Tensor) -> Tensor:
        """(T, K, B) -> (S, L, B)."""
        weight, bias = self.weight.flatten(0, 1), self.bias.flatten()
        answers = patch_products(features.to(weight.dtype), self._index(), weight, bias, self.by_step)
        return leaky_relu(answers, SLOPE, inplace=True).unflatten(0, self.bias.shape)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """The weights stay as they are: what several ways back need of them is made once."""
        self.by_step = weights_by_step(self.weight.detach().flatten(0, 1), self._index())
        try:
            yield
        finally:
            self.by_step = None

    def _index(self) -> PatchIndex:
        return PatchIndex(self.indices.flatten(0, 1), self.rows, self.order, self.starts)

    def _sort(self) -> None:
        index = patch_index(self.indices.flatten(0, 1), self.length, self.weight.shape[-1])
        for name in ("rows", "order", "starts"):
            self.register_buffer(name, getattr(index, name), persistent=False)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._sort()


class Stack(nn.Module):
    """A feature map, and the patches that take their steps from it.

    Args:
        features: makes the map.
        global_patches: of each lighthouse, or of the sequence.
        local_patches: of each wanted step, or None.
        residual: of each wanted step's features, or None.
        stretch: distance of two lighthouses.
        wanted: how many of the last steps have outputs.
    """

    def __init__(
        self,
        features: FeatureMap,
        global_patches: Patches,
        local_patches: Patches | None,
        residual: nn.Linear | None,
        stretch: int,
        wanted: int,
    ):
        super().__init__()
        self.features, self.global_patches, self.local_patches, self.residual = (
            features,
            global_patches,
            local_patches,
            residual,
        )
        self.stretch, self.wanted = stretch, wanted

    def forward(self, features: Tensor) -> Tensor:
        """A map (K, T, B) -> outputs (B, n, M) of the last n steps."""
        by_time = features.transpose(0, 1).contiguous()
        answers = self.global_patches(by_time).repeat_interleave(self.stretch, 0)
        outputs = answers[len(answers) - self.wanted :].permute(2, 0, 1)
        if self.local_patches is not None:
            outputs = torch.cat([outputs, self.local_patches(by_time).permute(2, 0, 1)], -1)
        if self.residual is None:
            return outputs
        near = leaky_relu(self.residual(features[:, -self.wanted :].permute(2, 1, 0)), SLOPE, inplace=True)
        return leaky_relu(outputs + near, SLOPE, inplace=True)


class _RowByRow(torch.autograd.Function):
    """:meth:`IGLOO1D.represent` of a few rows at a time, forward and, from the inputs again, backward."""

    @staticmethod
    def forward(
        ctx: Any, layer: IGLOO1D, rows: int, inputs: Tensor, lengths: Tensor | None, seeds: Tensor, *parameters: Tensor
    ):
        device = inputs.device.type
        ctx.layer, ctx.rows, ctx.has_lengths = layer, rows, lengths is not None
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        # The parameters are saved for autograd's check that nothing has changed them before the way back.
        ctx.save_for_backward(seeds, inputs, *([] if lengths is None else [lengths]), *parameters)
        outputs = None
        for number, part in enumerate(_parts(len(inputs), rows)):
            own = None if lengths is None else lengths[part]
            made = layer.represent(inputs[part], own, _generator(inputs, seeds, number))
            if outputs is None:
                outputs = made.new_empty(len(inputs), *made.shape[1:])
            outputs[part] = made
            del made
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        seeds, inputs, *rest = ctx.saved_tensors
        lengths = rest.pop(0) if ctx.has_lengths else None
        trained = [p for p, wanted in zip(rest, ctx.needs_input_grad[5:], strict=True) if wanted]
        totals = [torch.zeros_like(p) for p in trained]
        grad_inputs = torch.empty_like(inputs) if ctx.needs_input_grad[2] else None
        with ExitStack() as stack:
            for patches in ctx.layer.patches():
                stack.enter_context(patches.unchanged())
            for number, part in enumerate(_parts(len(inputs), ctx.rows)):
                own = None if lengths is None else lengths[part]
                given = inputs[part].detach().requires_grad_(grad_inputs is not None)
                with torch.enable_grad(), torch.autocast(*ctx.autocast):
                    made = ctx.layer.represent(given, own, _generator(inputs, seeds, number))
                found = torch.autograd.grad(made, [*trained, *([] if grad_inputs is None else [given])], grad[part])
                if grad_inputs is not None:
                    grad_inputs[part] = found[-1]
                for total, share in zip(totals, found, strict=False):
                    total += share
                del made, found
        gradients = iter(totals)
        return (
            None,
            None,
            grad_inputs,
            None,
            None,
            *(next(gradients) if wanted else None for wanted in ctx.needs_input_grad[5:]),
        )


def _parts(count: int, rows: int) -> list[slice]:
    return [slice(start, start + rows) for start in range(0, count, rows)]


def _generator(inputs: Tensor, seeds: Tensor, number: int) -> torch.Generator | None:
    """What is dropped in a part of the batch, the same each time; None where there are no seeds."""
    return torch.Generator(inputs.device).manual_seed(int(seeds[number])) if len(seeds) else None


def _dropped(values: Tensor, probability: float, generator: torch.Generator | None, shared: int | None = None) -> Tensor:
    """Each value, or all along the dimension ``shared`` together, becomes 0 with a probability; the others make up for it."""
    if generator is None:
        return values
    like = values if shared is None else values.narrow(shared, 0, 1)
    return values * torch.empty_like(like).bernoulli_(1 - probability, generator=generator).div_(1 - probability)


def _check_sequences(steps: int, stretch_factor: int, nb_sequences: int, max_pooling_kernel: int) -> None:
    if steps % stretch_factor:
        nearest = min((s for s in range(1, steps + 1) if steps % s == 0), key=lambda s: abs(s - stretch_factor))
        raise UserError(
            f"stretch_factor: got {stretch_factor}, wanted a divisor of the {steps} steps; the nearest is {nearest}"
        )
    if nb_sequences != -1 and not 1 <= nb_sequences <= steps:
        raise UserError(f"nb_sequences: got {nb_sequences}, wanted -1 for all steps, or 1 to {steps}, the steps that there are")
    if max_pooling_kernel != 1:
        raise UserError(f"max_pooling_kernel: got {max_pooling_kernel}, wanted 1, since return_sequences keeps every step")


def _check_whole(steps: int, stretch_factor: int, nb_sequences: int, max_pooling_kernel: int) -> None:
    for name, given, neutral in (("stretch_factor", stretch_factor, 1), ("nb_sequences", nb_sequences, -1)):
        if given != neutral:
            raise UserError(
                f"{name}: got {given}, wanted {neutral}, since a sequence as a whole has one output; "
                "return_sequences=True has one for each step"
            )
    if max_pooling_kernel > steps:
        raise UserError(f"max_pooling_kernel: got {max_pooling_kernel}, wanted at most {steps}, the steps that there are")
