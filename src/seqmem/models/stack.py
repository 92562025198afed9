"""A deep stack of residual blocks around any registered cell or layer.

Blocks as in S4 (Gu, Goel and Re, 2022), LRU (Orvieto et al., 2023) and S5 (Smith, Warrington and Linderman, 2023).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import gelu

from seqmem import cells, sequence
from seqmem.arguments import check, checked, parameters
from seqmem.data.batch import Batch
from seqmem.data.masks import masked, valid_steps
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.layers import Bidirectional
from seqmem.models.base import SequenceModel, refuse_reconstruction
from seqmem.models.inputs import Inputs
from seqmem.models.recurrent import last_steps
from seqmem.sequence import SequenceLayer

Norm = Literal["layer", "batch", "rms", "none"]
FeedForward = Literal["none", "gelu", "glu", "half_glu", "mlp"]
Probability = Annotated[float, Field(ge=0, lt=1)]


class StackNetwork(SequenceModel):
    """Encoder, ``num_layers`` blocks of [norm, mixer, feed-forward, dropout, skip], pooling and a linear head.

    Args:
        spec: the data set it is for.
        mixer: name of a registered cell or layer, see ``seqmem.sequence.names()``.
        mixer_args: the mixer's arguments other than ``input_size``; without ``hidden_size``, or null, that is ``model_size``.
        model_size: D, the width of the blocks' inputs and outputs.
        num_layers: blocks.
        embedding_size: width of a learned embedding of tokens before the encoder; None for the one that the data set names, or
            one-hot if it names none. Only for tokens.
        norm: of each block: over the D channels of a step (layer, rms), or over the batch and its valid steps (batch).
        norm_first: the norm comes before the mixer; else after the skip.
        final_norm: one more norm comes before the head.
        norm_eps: what is added to the variance.
        feed_forward: what follows the mixer's outputs s. gelu: GELU(s). glu: W GELU(s) sigmoid(V GELU(s)). half_glu:
            s sigmoid(W GELU(s)). mlp: a second residual branch with a norm of its own, W GELU(V x). none: nothing.
        expansion: width of the mlp's hidden layer, as a multiple of D.
        gelu_form: exact, or the approximation by tanh that JAX takes by default.
        pooling: how the steps of a sequence become one: their mean, the last one, or none for an output at each step; None for
            mean where the data set expects one output, else none.
        bidirectional: the mixer runs in both directions of time.
        dropout: probability with which a channel is dropped for a whole sequence (Gal and Ghahramani, 2016).

    Raises:
        UserError: an argument of the wrong type or range, an unknown mixer, or one that does not match the data set.
    """

    name = "stack"
    carries = True

    @checked
    def __init__(
        self,
        spec: DataSpec,
        mixer: str = "ema",
        mixer_args: dict[str, Any] = {},  # noqa: B006
        model_size: PositiveInt = 128,
        num_layers: PositiveInt = 4,
        embedding_size: PositiveInt | None = None,
        norm: Norm = "layer",
        norm_first: bool = True,
        final_norm: bool = True,
        norm_eps: PositiveFloat = 1e-5,
        feed_forward: FeedForward = "glu",
        expansion: PositiveInt = 4,
        gelu_form: Literal["exact", "tanh"] = "exact",
        pooling: Literal["mean", "last", "none"] | None = None,
        bidirectional: bool = False,
        dropout: Probability = 0.0,
    ):
        super().__init__()
        refuse_reconstruction(self, spec)
        _refuse_mismatch(spec, mixer, bidirectional, pooling)
        self.spec = spec
        self.pooling = pooling or ("mean" if spec.output_steps == 0 else "none")
        self.inputs = Inputs(spec, embedding_size)
        self.encoder = nn.Linear(self.inputs.size, model_size)
        make_norm = partial(_norm, norm, model_size, norm_eps)
        activation = partial(gelu, approximate="none" if gelu_form == "exact" else "tanh")
        self.blocks = nn.ModuleList(
            Block(
                make_mixer(mixer, mixer_args, model_size, bidirectional),
                model_size,
                make_norm,
                norm_first,
                feed_forward,
                expansion * model_size,
                activation,
                dropout,
            )
            for _ in range(num_layers)
        )
        self.norm = make_norm() if final_norm else Unnormalized()
        self.head = nn.Linear(model_size, spec.output_size)

    @classmethod
    def check(cls, arguments: dict[str, Any]) -> None:
        """Check arguments as a config gives them, without building anything."""
        checked = check(cls, arguments, "model", skip=("spec",))
        try:
            with torch.device("meta"):
                make_mixer(checked["mixer"], checked["mixer_args"], checked["model_size"], checked["bidirectional"])
        except UserError as error:
            raise UserError(str(error) if str(error).startswith("model.") else f"model.mixer_args.{error}") from None

    @classmethod
    def label(cls, arguments: dict[str, Any]) -> str:
        """Return the mixer's name; one that a recurrent network has too is told apart."""
        mixer = str(arguments["mixer"])
        return f"stack_{mixer}" if mixer in cells.names() else mixer

    def forward(self, batch: Batch) -> Tensor:
        """Inputs (B, T, C) -> outputs (B, K) of each row, (B, k, K) at its last k steps, or (B, T, K) at every step."""
        return self.carry(batch)[0]

    def carry(self, batch: Batch, state: Sequence[Any] | None = None) -> tuple[Tensor, list[Any]]:
        """Return the outputs of :meth:`forward` and the state of each block's mixer, which is also what ``state`` holds."""
        hidden = self.encoder(self.inputs(batch, self.encoder.weight.dtype))
        states = []
        for k, block in enumerate(self.blocks):
            hidden, after = block(hidden, None if state is None else state[k], batch.lengths, batch.times)
            states.append(after)
        return self.head(self._pooled(self.norm(hidden, batch.lengths), batch.lengths)), states

    def _pooled(self, hidden: Tensor, lengths: Tensor | None) -> Tensor:
        if self.pooling == "none":
            return last_steps(hidden, self.spec.output_steps, lengths)
        if self.pooling == "last":
            return last_steps(hidden, 0, lengths)
        if lengths is None:
            return hidden.mean(1)
        return masked(hidden, lengths).sum(1) / lengths.clamp(min=1)[:, None]


class Block(nn.Module):
    """A residual branch with the mixer, and for ``mlp`` a second one with the feed-forward.

    Args:
        mixer: the sequence layer.
        size: D.
        make_norm: makes a norm over D channels.
        norm_first: the norm comes before the branch instead of after the skip.
        feed_forward: see :class:`StackNetwork`.
        width: of the mlp's hidden layer.
        activation: GELU.
        dropout: probability with which a channel is dropped for a whole sequence.
    """

    def __init__(
        self,
        mixer: SequenceLayer,
        size: int,
        make_norm: Callable[[], nn.Module],
        norm_first: bool,
        feed_forward: FeedForward,
        width: int,
        activation: Callable[[Tensor], Tensor],
        dropout: float,
    ):
        super().__init__()
        self.norm_first, self.feed_forward, self.activation = norm_first, feed_forward, activation
        self.norm, self.mixer = make_norm(), mixer
        self.project = nn.Linear(mixer.output_size, size) if mixer.output_size != size else nn.Identity()
        self.dropout = SequenceDropout(dropout)
        self.mixing = nn.Linear(size, 2 * size if feed_forward == "glu" else size) if "glu" in feed_forward else None
        self.second_norm, self.mlp = None, None
        if feed_forward == "mlp":
            self.second_norm = make_norm()
            self.mlp = nn.ModuleList([nn.Linear(size, width), nn.Linear(width, size)])

    def forward(self, inputs: Tensor, state: Any, lengths: Tensor | None, times: Tensor | None) -> tuple[Tensor, Any]:
        """Inputs (B, T, D) and the mixer's state -> outputs (B, T, D) and the state after."""
        mixed, state = self.mixer(
            self.norm(inputs, lengths) if self.norm_first else inputs,
            state,
            lengths=lengths,
            times=times if self.mixer.timed else None,
        )
        outputs = inputs + self.dropout(self._mixed(self.project(mixed)))
        outputs = outputs if self.norm_first else self.norm(outputs, lengths)
        if self.mlp is not None and self.second_norm is not None:
            hidden = self.second_norm(outputs, lengths) if self.norm_first else outputs
            hidden = self.mlp[1](self.dropout(self.activation(self.mlp[0](hidden))))
            outputs = outputs + self.dropout(hidden)
            outputs = outputs if self.norm_first else self.second_norm(outputs, lengths)
        return outputs, state

    def _mixed(self, outputs: Tensor) -> Tensor:
        """What ``feed_forward`` computes of the mixer's outputs within the branch."""
        if self.feed_forward in ("none", "mlp"):
            return outputs
        activated = self.activation(outputs)
        if self.mixing is None:
            return activated
        dropped = self.dropout(activated)
        if self.feed_forward == "half_glu":
            return outputs * torch.sigmoid(self.mixing(dropped))
        value, gate = self.mixing(dropped).chunk(2, -1)
        return value * torch.sigmoid(gate)


class SequenceDropout(nn.Module):
    """Dropout with one mask for all steps of a sequence."""

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, values: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        if not self.training or self.probability == 0:
            return values
        kept = 1 - self.probability
        return values * (torch.empty_like(values[:, :1]).bernoulli_(kept) / kept)


class Unnormalized(nn.Module):
    """No norm."""

    def forward(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        """Return ``values``."""
        return values


class StepNorm(nn.Module):
    """A norm over the channels of each step: layer or root mean square."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return self.norm(values)


class BatchNorm(nn.Module):
    """Batch normalisation over the valid steps of all rows; padding has no influence on the statistics."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.norm = nn.BatchNorm1d(size, eps=eps)

    def forward(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        if lengths is None or not self.training:
            return self.norm(values.flatten(0, 1)).view_as(values)
        valid = valid_steps(lengths, values.shape[1])
        return torch.zeros_like(values).masked_scatter(valid[..., None], self.norm(values[valid]))


def make_mixer(name: str, arguments: dict[str, Any], size: int, bidirectional: bool) -> SequenceLayer:
    """Make a registered cell or layer for inputs of ``size`` channels, and outputs of as many where it has ``hidden_size``.

    Raises:
        UserError: an unknown name, or an argument that it does not take.
    """
    try:
        layer = sequence.get(name)
    except UserError as error:
        raise UserError(f"model.mixer: {error}") from None
    given = dict(arguments)
    if "hidden_size" in parameters(layer) and given.get("hidden_size") is None:
        given["hidden_size"] = size
    check(layer, given, "model.mixer_args", skip=("input_size",))
    width = size + layer.timed  # a channel of times joins the inputs
    return Bidirectional(layer, width, **given) if bidirectional else layer(input_size=width, **given)


def _norm(kind: Norm, size: int, eps: float) -> nn.Module:
    match kind:
        case "layer":
            return StepNorm(nn.LayerNorm(size, eps=eps))
        case "rms":
            return StepNorm(nn.RMSNorm(size, eps=eps))
        case "batch":
            return BatchNorm(size, eps)
        case _:
            return Unnormalized()


def _refuse_mismatch(spec: DataSpec, mixer: str, bidirectional: bool, pooling: str | None) -> None:
    """Refuse settings that make no sense on a data set, with a sentence that names both."""
    if mixer in sequence.names() and sequence.get(mixer).timed and not spec.times:
        raise UserError(
            f"model.mixer: {mixer} uses the times of its steps, and {spec.name} has none; dataset=ct dataset.timestamp=true "
            "has them"
        )
    if bidirectional and spec.contiguous:
        raise UserError(f"model.bidirectional: got true, expected false: the batches of {spec.name} continue each other")
    if bidirectional and spec.output_steps is None and spec.task in ("forecasting", "language_modelling"):
        raise UserError(f"model.bidirectional: got true, expected false: {spec.name} asks for what follows each step")
    if pooling in ("mean", "last") and spec.output_steps != 0:
        raise UserError(f"model.pooling: got {pooling}, expected none: {spec.name} expects outputs at several steps")
