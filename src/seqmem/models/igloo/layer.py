"""IGLOO1D: a sequence is represented by what many small patches of it, taken from anywhere, add up to."""

from collections.abc import Iterator, Mapping
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
from seqmem.ops.patches import PatchIndex, WaysBack, patch_index, patch_products, weights_by_step

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
        # Each block makes the feature maps again, so that its outputs have to be more than these.
        count = max(len(ends) * (nb_patches + local) // (4 * steps * filters), 1)
        size = -(-len(lighthouses) // count)
        lit = [slice(start, min(start + size, len(lighthouses))) for start in range(0, len(lighthouses), size)]
        # Steps of the sequence, and the same among those that have outputs; the first lighthouse may stand before these.
        blocks = [slice(max(int(lighthouses[b.start]), first), int(lighthouses[b.stop - 1]) + stretch_factor) for b in lit]
        self._wanted = [slice(block.start - first, block.stop - first) for block in blocks]
        random = np.random.default_rng(seed)
        stacks: list[Stack] = []
        for number in range(nb_stacks):
            chained = number > 0 and not return_sequences
            stack = Stack(
                FeatureMap(
                    filters if chained else shape[1], filters, conv1d_kernel, DILATION if number else 1, padding_style, DR
                ),
                Patches(draw_patches(random, lighthouses, nb_patches, patch_size, backbone), steps, filters, lit),
                Patches(draw_local_patches(random, ends, local, patch_size, stretch_factor), steps, filters, self._wanted)
                if local
                else None,
                nn.Linear(filters, nb_patches + local) if return_sequences and add_residual else None,
                stretch_factor,
                blocks,
            )
            stacks.append(stack)
        self.stacks = nn.ModuleList(stacks)
        self.pool = max_pooling_kernel
        self.output_size = nb_stacks * (nb_patches + local)
        numbers_of_a_row = shape[0] * filters + len(ends) * (nb_patches + local) // len(lit)
        at_a_time = WORKING_SET // (4 * nb_stacks * numbers_of_a_row)
        # The outputs are most of the memory where there are blocks of them, and copies of those of 16 rows too much of it.
        self._rows = ROWS[1] if at_a_time >= ROWS[1] and len(lit) == 1 else ROWS[0]

    @torch.compiler.disable  # it is a few large operators, of which the largest is no graph's
    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Represent sequences.

        A large batch goes through a few rows, and many outputs a block of steps, at a time, of which nothing is kept but the
        inputs and outputs: the way back goes forward through them once more. The memory of a training step is then that of the
        inputs, outputs and parameters, their gradients, and of what is worked on at a time.

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
        if torch.compiler.is_exporting():
            return torch.cat([self.represent(inputs, lengths, None, block) for block in range(len(self._wanted))], 1)
        seeds = torch.zeros(0, dtype=torch.int64)
        if self.training and self.dropout > 0:
            seeds = torch.randint(2**62, (-(-len(inputs) // self._rows),))
        if len(inputs) <= self._rows and len(self._wanted) == 1:
            return self.represent(inputs, lengths, _generator(inputs, seeds, 0), 0)
        return _PartByPart.apply(self, self._rows, inputs, lengths, seeds, *self.parameters())

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

    def parts(self, rows: int, at_a_time: int) -> Iterator[tuple[int, slice, list[tuple[int, slice]]]]:
        """Blocks of steps: number, where their outputs are, and for each the numbered parts of a batch."""
        slices = [slice(start, start + at_a_time) for start in range(0, rows, at_a_time)]
        for number, wanted in enumerate(self._wanted):
            yield number, wanted, list(enumerate(slices))

    def represent(self, inputs: Tensor, lengths: Tensor | None, generator: torch.Generator | None, block: int) -> Tensor:
        """:meth:`forward` of all rows at once, for one block of steps.

        What is to be dropped is drawn from ``generator``; None drops nothing.
        """
        given = inputs.shape[1]
        inputs, valid = self._aligned(inputs, lengths)
        below = inputs = inputs.permute(2, 1, 0)
        outputs = []
        for number, stack in enumerate(self._stacks()):
            features = stack.features(below, valid, generator)
            if self.pool > 1 and number == 0:
                features = max_pool2d(features, (self.pool, 1))
                valid = None if valid is None else max_pool2d(valid[None].to(features.dtype), (self.pool, 1))[0] > 0
            responses = stack(features, block)
            outputs.append(responses if self.return_sequences else _dropped(responses[:, 0], self.dropout, generator))
            below = inputs if self.return_sequences else features
        output = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
        if not self.return_sequences:
            return output
        wanted = self._wanted[block]
        if valid is not None:
            output = output.where(valid[len(valid) - self._wanted[-1].stop :][wanted].t()[..., None], 0)
        return output if self.aligns_ends else output[:, : max(given - wanted.start, 0)]

    def output_shape(self, inputs: Tensor) -> tuple[int, ...]:
        """Of the outputs of some inputs."""
        if not self.return_sequences:
            return len(inputs), self.output_size
        return len(inputs), self._wanted[-1].stop if self.aligns_ends else inputs.shape[1], self.output_size

    def place(self, part: slice, wanted: slice) -> slice | tuple[slice, slice]:
        """Where outputs of some rows and steps are among all."""
        return (part, wanted) if self.return_sequences else part

    def _aligned(self, inputs: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Rows brought to T steps, (B, T, C), and which of these are theirs, (T, B), None if all are."""
        missing = self.shape[0] - inputs.shape[1]
        step = torch.arange(self.shape[0], device=inputs.device)[:, None]
        if lengths is None:
            if missing == 0:
                return inputs, None
            padded = pad(inputs, (0, 0, missing, 0) if self.aligns_ends else (0, 0, 0, missing))
            valid = step >= missing if self.aligns_ends else step < inputs.shape[1]
            return padded, valid.expand(-1, inputs.shape[0])
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
        blocks: of the S steps, which are answered at a time.
    """

    indices: Tensor
    rows: Tensor
    order: Tensor
    starts: Tensor

    def __init__(self, indices: np.ndarray, length: int, filters: int, blocks: list[slice]):
        super().__init__()
        steps, count, size = indices.shape
        self.length, self.blocks = length, blocks
        self.register_buffer("indices", torch.from_numpy(indices))
        self.weight = nn.Parameter(torch.empty(steps, count, size, filters))
        self.bias = nn.Parameter(torch.empty(steps, count))
        nn.init.normal_(self.weight, std=(2 / (steps * (count + size * filters))) ** 0.5)
        nn.init.normal_(self.bias, std=(2 / (steps + count)) ** 0.5)
        self.shared: WaysBack | None = None
        self._sort()

    def forward(self, features: Tensor, number: int) -> Tensor:
        """(T, K, B) -> (S', L, B) of a block of S' steps."""
        weight, bias = self.weight[self.blocks[number]], self.bias[self.blocks[number]]
        answers = patch_products(
            features.to(weight.dtype), self._index(number), weight.flatten(0, 1), bias.flatten(), self.shared
        )
        return leaky_relu(answers, SLOPE, inplace=True).unflatten(0, bias.shape)

    @contextmanager
    def unchanged(self, number: int, total: Tensor | None) -> Iterator[None]:
        """The weights stay as they are: several ways back from a block share what they can, and add to ``total``."""
        steps = self.blocks[number]
        by_step = weights_by_step(self.weight[steps].detach().flatten(0, 1), self._index(number))
        self.shared = WaysBack(by_step, None if total is None else total[steps].flatten(0, 1))
        try:
            yield
        finally:
            self.shared = None

    def _index(self, number: int) -> PatchIndex:
        steps, places = self.blocks[number], self.indices[0].numel()
        return PatchIndex(
            self.indices[steps].flatten(0, 1),
            self.rows[steps].flatten(0, 1),
            self.order[places * steps.start : places * steps.stop],
            self.starts[number],
        )

    def _sort(self) -> None:
        indexes = [patch_index(self.indices[steps].flatten(0, 1), self.length, self.weight.shape[-1]) for steps in self.blocks]
        rows = torch.cat([index.rows for index in indexes]).unflatten(0, self.indices.shape[:2])
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("order", torch.cat([index.order for index in indexes]), persistent=False)
        self.register_buffer("starts", torch.stack([index.starts for index in indexes]), persistent=False)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        name = f"{prefix}indices"
        if name in state_dict and state_dict[name].max() >= self.length:
            error_msgs.append(
                f"{name}: got patches up to step {state_dict[name].max()}, wanted steps below {self.length}; the saved layer "
                "is of longer sequences"
            )
            return
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        self._sort()


class Stack(nn.Module):
    """A feature map, and the patches that take their steps from it.

    Args:
        features: makes the map.
        global_patches: of each lighthouse, or of the sequence.
        local_patches: of each wanted step, or None.
        residual: of each wanted step's features, or None.
        stretch: distance of two lighthouses.
        blocks: of the steps, which are answered at a time.
    """

    def __init__(
        self,
        features: FeatureMap,
        global_patches: Patches,
        local_patches: Patches | None,
        residual: nn.Linear | None,
        stretch: int,
        blocks: list[slice],
    ):
        super().__init__()
        self.features = features
        self.global_patches, self.local_patches, self.residual = global_patches, local_patches, residual
        self.stretch, self.blocks = stretch, blocks

    def forward(self, features: Tensor, number: int) -> Tensor:
        """A map (K, T, B) -> outputs (B, n, M) of a block of n steps."""
        by_time = features.transpose(0, 1).contiguous()
        steps = self.blocks[number]
        outputs = self.global_patches(by_time, number)
        if self.stretch > 1:
            outputs = outputs.repeat_interleave(self.stretch, 0)[steps.start - steps.stop :]
        outputs = outputs.permute(2, 0, 1)
        if self.local_patches is not None:
            outputs = torch.cat([outputs, self.local_patches(by_time, number).permute(2, 0, 1)], -1)
        if self.residual is None:
            return outputs
        # Rows of a matrix: with more dimensions the bias would be added in a second copy.
        near = features[:, steps].permute(2, 1, 0)
        mapped = leaky_relu(self.residual(near.flatten(0, 1)), SLOPE, inplace=True)
        return leaky_relu(outputs + mapped.unflatten(0, near.shape[:2]), SLOPE, inplace=True)


class _PartByPart(torch.autograd.Function):
    """:meth:`IGLOO1D.represent` of a few rows and a block of steps at a time, forward and, from the inputs again, backward."""

    @staticmethod
    def forward(
        ctx: Any, layer: IGLOO1D, rows: int, inputs: Tensor, lengths: Tensor | None, seeds: Tensor, *parameters: Tensor
    ):
        device = inputs.device.type
        ctx.layer, ctx.rows, ctx.has_lengths = layer, rows, lengths is not None
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        # The parameters are saved for autograd's check that nothing has changed them before the way back.
        ctx.save_for_backward(seeds, inputs, *([] if lengths is None else [lengths]), *parameters)
        outputs = inputs.new_empty(0)
        for block, wanted, parts in layer.parts(len(inputs), rows):
            for number, part in parts:
                own = None if lengths is None else lengths[part]
                made = layer.represent(inputs[part], own, _generator(inputs, seeds, number), block)
                if block == number == 0:
                    outputs = made.new_empty(layer.output_shape(inputs))
                outputs[layer.place(part, wanted)] = made
                del made
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        seeds, inputs, *rest = ctx.saved_tensors
        lengths = rest.pop(0) if ctx.has_lengths else None
        trained = [p for p, needed in zip(rest, ctx.needs_input_grad[5:], strict=True) if needed]
        totals = {p: torch.zeros_like(p, memory_format=torch.contiguous_format) for p in trained}
        grad_inputs = torch.zeros_like(inputs) if ctx.needs_input_grad[2] else None
        for block, wanted, parts in ctx.layer.parts(len(inputs), ctx.rows):
            with ExitStack() as stack:
                for patches in ctx.layer.patches():
                    stack.enter_context(patches.unchanged(block, totals.get(patches.weight)))
                for number, part in parts:
                    own = None if lengths is None else lengths[part]
                    given = inputs[part].detach().requires_grad_(grad_inputs is not None)
                    with torch.enable_grad(), torch.autocast(*ctx.autocast):
                        made = ctx.layer.represent(given, own, _generator(inputs, seeds, number), block)
                    wrt = [*trained, *([] if grad_inputs is None else [given])]
                    # Patches have added the gradients of their weights themselves, and none comes back.
                    found = torch.autograd.grad(made, wrt, grad[ctx.layer.place(part, wanted)], allow_unused=True)
                    if grad_inputs is not None:
                        grad_inputs[part] += found[-1]
                    for total, share in zip(totals.values(), found, strict=False):
                        if share is not None:
                            total += share
                    del made, found
        gradients = iter(totals.values())
        return (
            None,
            None,
            grad_inputs,
            None,
            None,
            *(next(gradients) if needed else None for needed in ctx.needs_input_grad[5:]),
        )


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
