"""IGLOO1D: a sequence is represented by what many small patches of it, taken from anywhere, add up to."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad

from seqmem.arguments import checked
from seqmem.errors import UserError
from seqmem.layers.igloo.checks import check_sequences, check_whole
from seqmem.layers.igloo.recompute import PartByPart, generator_of
from seqmem.layers.igloo.sampling import draw_local_patches, draw_patches
from seqmem.layers.igloo.stack import DILATION, FeatureMap, Patches, Stack, dropped

WORKING_SET = 8 * 2**20
"""Bytes of feature maps and outputs that are worked on at a time, in some ten copies."""

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

    The patches are drawn from ``seed`` alone. They are buffers: a state dict holds them, and loading it brings them back. One
    of a layer for another T, or with patches that look beyond their step, is refused with a UserError.

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

    steps: Tensor

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
            check_sequences(shape[0], stretch_factor, nb_sequences, max_pooling_kernel)
        else:
            check_whole(shape[0], stretch_factor, nb_sequences, max_pooling_kernel)
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
                Patches(draw_patches(random, lighthouses, nb_patches, patch_size, backbone), lighthouses, steps, filters, lit),
                Patches(draw_local_patches(random, ends, local, patch_size, stretch_factor), ends, steps, filters, self._wanted)
                if local
                else None,
                nn.Linear(filters, nb_patches + local) if return_sequences and add_residual else None,
                stretch_factor,
                blocks,
            )
            stacks.append(stack)
        self.stacks = nn.ModuleList(stacks)
        # In the state dict, since patches of a shorter sequence fit a longer one.
        self.register_buffer("steps", torch.tensor(shape[0]))
        self.pool = max_pooling_kernel
        self.output_size = nb_stacks * (nb_patches + local)
        self._numbers_of_a_row = nb_stacks * (shape[0] * filters + len(ends) * (nb_patches + local) // len(lit))
        at_a_time = WORKING_SET // (4 * self._numbers_of_a_row)
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
            UserError: the shapes do not fit, or a length is not between 0 and T'.
        """
        if inputs.dim() != 3 or inputs.shape[1] > self.shape[0] or inputs.shape[2] != self.shape[1]:
            steps, channels = self.shape
            raise UserError(f"IGLOO1D: got inputs of shape {tuple(inputs.shape)}, expected (B, at most {steps}, {channels})")
        if lengths is not None and lengths.shape != inputs.shape[:1]:
            raise UserError(f"IGLOO1D: got lengths of shape {tuple(lengths.shape)}, expected ({len(inputs)},)")
        if torch.compiler.is_exporting():
            return torch.cat([self.represent(inputs, lengths, None, block) for block in range(len(self._wanted))], 1)
        if lengths is not None and not bool(((lengths >= 0) & (lengths <= inputs.shape[1])).all()):
            raise UserError(f"IGLOO1D: got lengths {lengths.tolist()}, expected each between 0 and T'={inputs.shape[1]}")
        rows = self._at_a_time(len(inputs))
        seeds = torch.zeros(0, dtype=torch.int64)
        if self.training and self.dropout > 0:
            seeds = torch.randint(2**62, (-(-len(inputs) // rows),))
        if len(inputs) <= rows and len(self._wanted) == 1:
            return self.represent(inputs, lengths, generator_of(inputs, seeds, 0), 0)
        return PartByPart.apply(self, rows, inputs, lengths, seeds, *self.parameters())

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

    def _at_a_time(self, rows: int) -> int:
        """Few of all rows, since copies of theirs come on top; more where the parameters outweigh these anyway."""
        light = sum(parameter.numel() for parameter in self.parameters()) // self._numbers_of_a_row
        part = max(rows // 4, light) if len(self._wanted) == 1 else max(rows // 10, light // 8)
        return min(self._rows, max(part, 1))

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
        below = inputs = inputs.permute(1, 2, 0)
        outputs = []
        for number, stack in enumerate(self._stacks()):
            features = stack.features(below, valid, generator)
            if self.pool > 1 and number == 0:
                features = max_pool2d(features.flatten(1)[None], (self.pool, 1))[0].unflatten(1, features.shape[1:])
                valid = None if valid is None else max_pool2d(valid[None].to(features.dtype), (self.pool, 1))[0] > 0
            responses = stack(features, block)
            outputs.append(responses if self.return_sequences else dropped(responses[:, 0], self.dropout, generator))
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
        # Before any part is loaded, so that the layer is left whole.
        saved = state_dict.get(f"{prefix}steps", self.steps)
        if saved.tolist() != self.shape[0]:
            raise UserError(f"{prefix}steps: got a state for sequences of {saved.tolist()} steps, expected {self.shape[0]}")
        for name, patches in self.named_modules(prefix=prefix.removesuffix(".")):
            key = f"{name}.indices"
            if isinstance(patches, Patches) and key in state_dict:
                patches.check_indices(state_dict[key], key)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
