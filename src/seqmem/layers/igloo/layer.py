"""IGLOO1D: a sequence represented by many weighted patches of a few steps each."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad

from seqmem.arguments import checked, complete_docstrings, describe_arguments
from seqmem.errors import UserError
from seqmem.layers.igloo.checks import check_sequence_output, check_single_output
from seqmem.layers.igloo.feature_map import FeatureMap, apply_dropout
from seqmem.layers.igloo.layout import Layout, make_layout
from seqmem.layers.igloo.patched_map import Stack
from seqmem.layers.igloo.patches import Patches
from seqmem.layers.igloo.recompute import Recomputed, dropout_generator
from seqmem.layers.igloo.sampling import sample_local_patches, sample_patches
from seqmem.ops.export import exporting
from seqmem.ops.lengths import checked_lengths
from seqmem.ops.transforms import fallback_reason
from seqmem.sequence.checks import check_tensor, check_type
from seqmem.sequence.time_chunks import weights_of

WORKING_SET = 8 * 2**20
"""Bytes of feature maps and outputs in one chunk; some ten copies of them exist at a time."""

CHUNK_ROWS = (8, 16)
"""Rows in a chunk: fewer take as long per product, more gain little per row."""

GPU_CHUNK_ROWS = (32, 64)
"""The same on a GPU, whose warps each work on 32 rows."""

DILATION = 3
"""Dilation of the convolutions of every stack after the first."""

_L2REG = 1e-5


@complete_docstrings
class IGLOO1D(nn.Module):
    """IGLOO layer (Sourkov, "IGLOO: Slicing the Feature Space to Represent Long Sequences", 2018).

    A causal convolution with K filters computes a feature map y of the inputs. A patch holds p steps of y with all their
    channels. Its output is phi(<W, patch> + b) with its own W and b; phi is a leaky ReLU of slope 0.1. Three uses::

        IGLOO1D((T, C), L, K, return_sequences=False)                  # (B, T, C) -> (B, L), one output per sequence
        IGLOO1D((T, C), L, K, return_sequences=True)                   # (B, T, C) -> (B, T, L + L'), one per step
        IGLOO1D((T, C), L, K, return_sequences=True, nb_sequences=10)  # (B, T, C) -> (B, 10, L + L'), the last 10 steps

    One output per sequence: L patches of all T steps. The first of them are the backbone, windows that cover every step.

    One output per step: L global patches of the steps 0 to t. They and their weights change at every ``stretch_factor``-th
    step (a lighthouse). L' = max(floor(psy L), p - 1, 1) local patches hold the step and its recent past, at least the 4 p
    steps before it. With ``add_residual`` the outputs are phi(patches + phi(A y + a)).

    With ``nb_stacks`` > 1, further feature maps with patches of their own add their outputs as channels. Their convolutions
    have dilation 3. Their input is the previous stack's feature map (one output per sequence) or the layer's input (one per
    step).

    Rows may be shorter than T. Padding counts as zero in the inputs and in the feature map, so it changes no output. With one
    output per step, a row begins at step 0, and outputs after its end are zero. Otherwise a row ends at step T - 1, so that
    the last n outputs are those of its own last n steps.

    The patches depend on ``seed`` alone. They are buffers of the state dict. Loading refuses those of a layer for a different
    T, or with patches of later steps.

    Differences from the original, each where it contradicts its own description: ``build_backbone`` has an effect, the
    residual convolution is trained, local patches reach further back than one step, and local patches and residual also exist
    for the last n steps, with any stretch factor.

    Args:
        shape: (T, C), steps of the longest sequence and channels.
        nb_patches: L.
        nb_filters_conv1d: K.
        return_sequences: one output per step instead of one per sequence.
        patch_size: p, steps in a patch.
        padding_style: "causal", or "same" for a convolution that also sees later steps.
        stretch_factor: s, steps between two lighthouses; divides T. Only with one output per step.
        nb_stacks: number of feature maps.
        l2reg: weight of the squared weights and biases of the patches in the training loss. See :meth:`penalty`.
        conv1d_kernel: taps of the convolutions.
        max_pooling_kernel: steps of the first feature map in one maximum; remaining steps are dropped. Only with one output
            per sequence.
        DR: probability to drop a channel of a feature map for a whole sequence, and an output with one per sequence.
        add_residual: add a linear map of each step's own features. No effect with one output per sequence.
        nb_sequences: n, the number of last steps that have an output; -1 for all.
        build_backbone: first patches cover a lighthouse's whole past; None for True if a sequence has one output. Else None is
            False.
        psy: local patches as a fraction of L; 0 for none. No effect with one output per sequence.
        l2_reg: alias of ``l2reg``; None if that one is given.
        seed: of the patches.

    Attributes:
        output_size: channels of the outputs.

    Raises:
        UserError: an argument has the wrong type or range, or arguments contradict each other.
    """

    steps: Tensor
    given_arguments: Mapping[str, Any] = MappingProxyType({})

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
            raise UserError(f"l2_reg: got {l2_reg}, expected {l2reg}, the value of its alias l2reg; give one of them")
        check = check_sequence_output if return_sequences else check_single_output
        check(shape[0], stretch_factor, nb_sequences, max_pooling_kernel)
        self.shape, self.return_sequences = shape, return_sequences
        self.l2reg = l2reg if l2_reg is None else l2_reg
        self.dropout, self.pool = DR, max_pooling_kernel
        self.aligns_ends = not return_sequences or nb_sequences > 0
        steps, filters = shape[0] // max_pooling_kernel, nb_filters_conv1d
        backbone = not return_sequences if build_backbone is None else build_backbone
        local = max(int(psy * nb_patches), patch_size - 1, 1) if return_sequences and psy > 0 else 0
        outputs = nb_sequences if nb_sequences > 0 else steps if return_sequences else 1
        layout = make_layout(steps, stretch_factor, outputs, nb_patches + local, filters)
        self.blocks = layout.blocks

        random = np.random.default_rng(seed)
        self.stacks = nn.ModuleList()
        for number in range(nb_stacks):
            channels = filters if number > 0 and not return_sequences else shape[1]
            dilation = DILATION if number > 0 else 1
            stack = Stack(
                FeatureMap(channels, filters, conv1d_kernel, dilation, padding_style, DR),
                _global_patches(layout, random, nb_patches, patch_size, filters, backbone),
                _local_patches(layout, random, local, patch_size, filters),
                nn.Linear(filters, nb_patches + local) if return_sequences and add_residual else None,
                stretch_factor,
                [block.steps for block in layout.blocks],
            )
            self.stacks.append(stack)
        # In the state dict, since the patches of a shorter sequence would also fit a longer one.
        self.register_buffer("steps", torch.tensor(shape[0]))
        self.output_size = nb_stacks * (nb_patches + local)
        self._row_numel = nb_stacks * (shape[0] * filters + outputs * (nb_patches + local) // len(layout.blocks))

    def extra_repr(self) -> str:
        """Return the constructor's arguments for ``print``."""
        return describe_arguments(self)

    @torch.compiler.disable  # a few large operators; the largest one cannot be part of a graph
    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Represent sequences.

        Large batches and outputs are computed for a few rows and one block of steps at a time. Only inputs and outputs are
        kept; backward computes the activations again. A training step needs the memory of inputs, outputs, parameters, their
        gradients, and one chunk. If a parametrization or a hook computes a weight, autograd keeps the activations of all rows.

        Args:
            inputs: (B, T', C) with T' <= T.
            lengths: (B,) int64 valid steps of each row; the rest is padding. None if all T' are valid.

        Returns:
            (B, L) with one output per sequence, else (B, n, L + L') or (B, T', L + L'), zero where padded; with
            ``nb_stacks`` times as many channels.

        Raises:
            UserError: the shapes do not fit, or a length is not between 0 and T'.
        """
        lengths = self._checked(inputs, lengths)
        if exporting():
            return self._all_blocks(inputs, lengths, torch.zeros(0, dtype=torch.int64))
        if len(inputs) == 0:
            return self._no_rows(inputs, lengths)
        rows = self._chunk_rows(len(inputs))
        seeds = torch.zeros(0, dtype=torch.int64)
        if self.training and self.dropout > 0:
            seeds = torch.randint(2**62, (-(-len(inputs) // rows),))
        if fallback_reason() or not self._weights_are_parameters():
            return self._all_blocks(inputs, lengths, seeds)
        if len(inputs) <= rows and len(self.blocks) == 1:
            return self.forward_block(inputs, lengths, dropout_generator(inputs, seeds, 0), 0)
        names, values = zip(*weights_of(self), strict=True)
        return Recomputed.apply(self, rows, names, inputs, lengths, seeds, *values)

    def penalty(self) -> Tensor:
        """Return ``l2reg`` times the sum of squares of the patches' weights and biases, to add to a training loss."""
        parameters = [parameter.flatten() for patches in self.patches() for parameter in patches.parameters()]
        return self.l2reg * torch.stack([parameter.dot(parameter) for parameter in parameters]).sum()

    def patches(self) -> list[Patches]:
        """Return the global and local patches of all stacks."""
        return [module for module in self.modules() if isinstance(module, Patches)]

    def forward_block(self, inputs: Tensor, lengths: Tensor | None, generator: torch.Generator | None, block: int) -> Tensor:
        """Compute :meth:`forward` for one block of steps, all rows at once.

        Args:
            inputs: as in :meth:`forward`.
            lengths: as in :meth:`forward`.
            generator: source of dropout's random numbers; None drops nothing.
            block: number of the block.
        """
        steps = inputs.shape[1]
        inputs, valid = self._align(inputs, lengths)
        below = inputs = inputs.permute(1, 2, 0)
        outputs = []
        for number, stack in enumerate(self._stacks()):
            features = stack.features(below, valid, generator)
            if self.pool > 1 and number == 0:
                features = max_pool2d(features.flatten(1)[None], (self.pool, 1))[0].unflatten(1, features.shape[1:])
                valid = None if valid is None else max_pool2d(valid[None].to(features.dtype), (self.pool, 1))[0] > 0
            responses = stack(features, block)
            outputs.append(responses if self.return_sequences else apply_dropout(responses[:, 0], self.dropout, generator))
            below = inputs if self.return_sequences else features
        output = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
        return self._mask_outputs(output, valid, steps, block) if self.return_sequences else output

    def output_shape(self, inputs: Tensor) -> tuple[int, ...]:
        """Return the shape of :meth:`forward`'s outputs for some inputs."""
        if not self.return_sequences:
            return len(inputs), self.output_size
        return len(inputs), self.blocks[-1].outputs.stop if self.aligns_ends else inputs.shape[1], self.output_size

    def output_place(self, rows: slice, block: int) -> slice | tuple[slice, slice]:
        """Return the index of some rows' outputs in one block among all outputs."""
        return (rows, self.blocks[block].outputs) if self.return_sequences else rows

    def _stacks(self) -> Iterator[Stack]:
        for stack in self.stacks:
            assert isinstance(stack, Stack)
            yield stack

    def _weights_are_parameters(self) -> bool:
        """Return whether no parametrization or hook computes a weight: to compute it again may give other values."""
        return all(child._parameters.keys() >= {"weight", "bias"} for stack in self.stacks for child in stack.children())

    def _all_blocks(self, inputs: Tensor, lengths: Tensor | None, seeds: Tensor) -> Tensor:
        """Compute all rows and blocks at once, with torch's operations alone and one seed of dropout."""
        blocks = [
            self.forward_block(inputs, lengths, dropout_generator(inputs, seeds, 0), block) for block in range(len(self.blocks))
        ]
        return torch.cat(blocks, 1)

    def _no_rows(self, inputs: Tensor, lengths: Tensor | None) -> Tensor:
        """Compute B = 0 rows from one row of zeros, since torch's pooling refuses an empty batch. Gradients are zero."""
        row = torch.cat([inputs, inputs.new_zeros(1, *inputs.shape[1:])])
        lengths = None if lengths is None else lengths.new_zeros(1)
        return self._all_blocks(row, lengths, torch.zeros(0, dtype=torch.int64))[:0]

    def _checked(self, inputs: Tensor, lengths: Tensor | None) -> Tensor | None:
        """Check inputs and lengths, and return the lengths as int64."""
        label = type(self).__name__
        check_tensor(label, inputs)
        steps, channels = self.shape
        if inputs.dim() != 3 or inputs.shape[1] > steps or inputs.shape[2] != channels:
            raise UserError(f"{label}: got inputs of shape {tuple(inputs.shape)}, expected (B, at most {steps}, {channels})")
        check_type(label, inputs, self)
        return checked_lengths(label, lengths, inputs.shape[0], inputs.shape[1], inputs.device)

    def _chunk_rows(self, rows: int) -> int:
        """Return the rows of a chunk: a fraction of the batch, since their copies add to its memory.

        The fraction is larger where the parameters outweigh these copies.
        """
        few, many = GPU_CHUNK_ROWS if self.steps.is_cuda else CHUNK_ROWS
        single = len(self.blocks) == 1
        # With several blocks, the outputs are most of the memory, and 16 rows of them are too much.
        most = many if single and WORKING_SET // (4 * self._row_numel) >= many else few
        light = sum(parameter.numel() for parameter in self.parameters()) // self._row_numel
        part = max(rows // 4, light) if single else max(rows // 10, light // 8)
        return min(most, max(part, 1))

    def _align(self, inputs: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Pad rows to T steps (B, T, C), and return which of them are valid (T, B), or None if all are."""
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

    def _mask_outputs(self, output: Tensor, valid: Tensor | None, steps: int, block: int) -> Tensor:
        """Set the outputs of padding to zero, and cut those after the last of the given steps."""
        outputs = self.blocks[block].outputs
        if valid is not None:
            first = len(valid) - self.blocks[-1].outputs.stop
            output = output.where(valid[first:][outputs].t()[..., None], 0)
        return output if self.aligns_ends else output[:, : max(steps - outputs.start, 0)]

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
        # Checked before any part is loaded, so that an error leaves the layer unchanged.
        saved = state_dict.get(f"{prefix}steps", self.steps)
        if saved.tolist() != self.shape[0]:
            raise UserError(f"{prefix}steps: got a state for sequences of {saved.tolist()} steps, expected {self.shape[0]}")
        for name, patches in self.named_modules(prefix=prefix.removesuffix(".")):
            key = f"{name}.indices"
            if isinstance(patches, Patches) and key in state_dict:
                patches.check_indices(state_dict[key], key)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)


def _global_patches(
    layout: Layout, random: np.random.Generator, count: int, size: int, filters: int, backbone: bool
) -> Patches:
    indices = sample_patches(random, layout.lighthouses, count, size, backbone)
    return Patches(indices, layout.lighthouses, layout.steps, filters, [block.lighthouses for block in layout.blocks])


def _local_patches(layout: Layout, random: np.random.Generator, count: int, size: int, filters: int) -> Patches | None:
    if count == 0:
        return None
    indices = sample_local_patches(random, layout.outputs, count, size, layout.stretch)
    return Patches(indices, layout.outputs, layout.steps, filters, [block.outputs for block in layout.blocks])
