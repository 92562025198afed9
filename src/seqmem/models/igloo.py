"""IGLOO as a network: the layer and a linear head."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from seqmem.arguments import check, checked
from seqmem.data.batch import Batch
from seqmem.data.masks import check_steps
from seqmem.data.places import at_places
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.layers.igloo import IGLOO1D
from seqmem.models.base import SequenceModel, refuse_reconstruction
from seqmem.models.inputs import Inputs


class IGLOONetwork(SequenceModel):
    """:class:`seqmem.layers.igloo.IGLOO1D` and a linear head, for any data set with labels or targets.

    The data set chooses between one output per sequence, one per step, and one for each of the last steps.

    Args:
        spec: the data set's spec.
        nb_patches: L; None for the number of steps, or for 50 where several steps have an output.
        nb_filters_conv1d: K, filters of every convolution.
        embedding_size: width of a learned embedding of tokens; None for the data set's own, or one-hot if it has none. Only
            for tokens.
        seed: of the patches; None to take it from torch's random state, so that each trial has different patches.

    The other arguments are those of the layer. Its penalty, weighted by ``l2reg``, is added to the training loss.

    Raises:
        UserError: an argument has the wrong type or range, or does not fit the data set or another argument.
    """

    name = "igloo"
    bounded = True

    @checked
    def __init__(
        self,
        spec: DataSpec,
        nb_patches: PositiveInt | None = None,
        nb_filters_conv1d: PositiveInt = 16,
        patch_size: PositiveInt = 4,
        padding_style: Literal["causal", "same"] = "causal",
        stretch_factor: PositiveInt = 1,
        nb_stacks: PositiveInt = 1,
        l2reg: NonNegativeFloat = 1e-5,
        conv1d_kernel: PositiveInt = 3,
        max_pooling_kernel: PositiveInt = 1,
        DR: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        add_residual: bool = True,
        build_backbone: bool | None = None,
        psy: NonNegativeFloat = 0.15,
        l2_reg: NonNegativeFloat | None = None,
        embedding_size: PositiveInt | None = None,
        seed: NonNegativeInt | None = None,
    ):
        super().__init__()
        refuse_reconstruction(self, spec)
        if padding_style != "causal" and spec.output_steps is None:
            raise UserError(
                f"model.padding_style: got {padding_style!r}, expected 'causal', since an output of {spec.name} may not "
                "depend on later steps"
            )
        self.inputs = Inputs(spec, embedding_size)
        try:
            self.layer = IGLOO1D(
                (spec.max_length, self.inputs.size),
                nb_patches or (spec.max_length if spec.output_steps == 0 else 50),
                nb_filters_conv1d,
                return_sequences=spec.output_steps != 0,
                patch_size=patch_size,
                padding_style=padding_style,
                stretch_factor=stretch_factor,
                nb_stacks=nb_stacks,
                l2reg=l2reg,
                conv1d_kernel=conv1d_kernel,
                max_pooling_kernel=max_pooling_kernel,
                DR=DR,
                add_residual=add_residual,
                nb_sequences=spec.output_steps or -1,
                build_backbone=build_backbone,
                psy=psy,
                l2_reg=l2_reg,
                seed=int(torch.randint(2**31, (), device="cpu")) if seed is None else seed,
            )
        except UserError as error:
            raise UserError(f"model.{error}") from None
        self.head = nn.Linear(self.layer.output_size, spec.output_size)

    @classmethod
    def check(cls, arguments: dict[str, Any]) -> None:
        """Check arguments as a config gives them."""
        check(cls, arguments, "model", skip=("spec",))

    def forward(self, batch: Batch) -> Tensor:
        """Return outputs (B, K) at each row's end, (B, k, K) at its last k steps, or (B, T, K) at every step."""
        check_steps(batch.inputs, self.inputs.spec.output_steps)
        return self.head(at_places(self.layer(self.inputs(batch, self.head.weight.dtype), batch.lengths), batch))

    def penalty(self) -> Tensor:
        """Return the layer's penalty."""
        return self.layer.penalty()
