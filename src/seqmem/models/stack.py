"""A deep stack of residual blocks around any registered cell or layer.

The blocks are those of S4 (Gu, Goel and Re, 2022), LRU (Orvieto et al., 2023) and S5 (Smith, Warrington and Linderman, 2023).
"""

import math
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import gelu

from seqmem import cells, sequence
from seqmem.arguments import check, checked, checked_width, parameters
from seqmem.data.batch import Batch
from seqmem.data.masks import last_steps, masked, masked_mean, valid_steps
from seqmem.data.places import output_steps
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.layers.bidirectional import Bidirectional, unsupported_reason
from seqmem.models.base import SequenceModel, check_states, refuse_reconstruction
from seqmem.models.blocks import Block, BlockSettings, DropoutMask, FeedForward, MLPSettings
from seqmem.models.inputs import Inputs
from seqmem.models.norms import Norm, Unnormalized, make_norm
from seqmem.sequence import SequenceLayer
from seqmem.tasks import task_for

Probability = Annotated[float, Field(ge=0, lt=1)]


class StackNetwork(SequenceModel):
    """Encoder, ``num_layers`` blocks of [norm, mixer, feed-forward, dropout, skip], pooling and a linear head.

    Args:
        spec: spec of the data set.
        mixer: name of a registered cell or layer, see ``seqmem.sequence.names()``.
        mixer_args: arguments of the mixer other than ``input_size``; a missing or null ``hidden_size`` is ``model_size``.
        model_size: D, the width of the blocks' inputs and outputs.
        num_layers: number of blocks.
        embedding_size: width of a learned embedding of tokens; None for the data set's own, or one-hot if it has none. Only for
            tokens.
        norm: layer, rms, rms_unit_offset, batch (over all valid steps) or none. rms_unit_offset is rms with the scale 1 + w, as
            in Griffin: weight decay pulls w to 0, and so the scale to 1.
        norm_first: the norm precedes the mixer; else it follows the skip.
        final_norm: one more norm precedes the head.
        norm_eps: constant that is added to the variance.
        norm_momentum: smallest weight of a batch in the running statistics of a batch norm. The first batches have larger ones,
            see :class:`seqmem.models.norms.BatchNorm`.
        norm_affine: the norms have a learned scale, and shift except for rms and rms_unit_offset.
        norm_shift: a layer norm has a learned shift.
        bias_decay: biases and the parameters of norms have weight decay.
        feed_forward: the map after the mixer. Of its outputs s, gelu: GELU(s). glu: W GELU(s) sigmoid(V GELU(s)). half_glu:
            s sigmoid(W GELU(s)), which S5 calls half_glu2. half_glu1: y sigmoid(W y) of y = GELU(s). mlp: a second residual
            branch W GELU(V x) with its own norm. gated_mlp: this branch is W (GELU(V x) * (U x)). none: s.
        expansion: width of the mlp's hidden layer, as a multiple of D.
        expansion_multiple: the mlp's width is rounded up to a multiple of it.
        mlp_bias: the mlp's maps have biases.
        mlp_init: initial weights of the mlp: torch's defaults, or small as in xLSTM. These have variances 2 / (5 D), and
            (2 / num_layers)^2 / D for W.
        gelu_form: exact, or the tanh approximation that is the default of JAX.
        pooling: mean or last step, or none for outputs at several steps; None to fit the data set. With one output per sequence
            that is mean, or last where the output belongs to the last step.
        bidirectional: the mixer runs in both directions of time.
        rescale: multiply the step size of a mixer that has one by the batch's rate, so that a model can be evaluated at another
            sampling rate than that of training.
        dropout: probability of dropping a channel.
        dropout_mask: a mask for each sequence (Gal and Ghahramani, 2016), or for each step.

    Raises:
        UserError: an argument of the wrong type or range, an unknown mixer, or a setting that the data set does not support.
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
        norm_momentum: Annotated[float, Field(gt=0, le=1)] = 0.1,
        norm_affine: bool = True,
        norm_shift: bool = True,
        bias_decay: bool = True,
        feed_forward: FeedForward = "glu",
        expansion: PositiveFloat = 4.0,
        expansion_multiple: Annotated[int, Field(ge=1, lt=2**31)] = 1,
        mlp_bias: bool = True,
        mlp_init: Literal["torch", "small"] = "torch",
        gelu_form: Literal["exact", "tanh"] = "exact",
        pooling: Literal["mean", "last", "none"] | None = None,
        bidirectional: bool = False,
        rescale: bool = True,
        dropout: Probability = 0.0,
        dropout_mask: DropoutMask = "sequence",
    ):
        super().__init__()
        refuse_reconstruction(self, spec)
        _refuse_mismatch(spec, mixer, bidirectional, pooling)
        self.spec, self.rescale = spec, rescale
        self.pooling = pooling or ("none" if spec.output_steps != 0 else "last" if spec.answers_at_end else "mean")
        if spec.contiguous and self.pooling == "mean":
            raise UserError(
                "model.pooling: got mean, expected last: the mean over the steps of a piece is not that of the sequence"
            )
        self.inputs = Inputs(spec, embedding_size)
        self.encoder = nn.Linear(self.inputs.size, model_size)
        new_norm = partial(make_norm, norm, model_size, norm_eps, norm_momentum, norm_affine, norm_shift)
        activation = partial(gelu, approximate="none" if gelu_form == "exact" else "tanh")
        width = _mlp_width(expansion, model_size, expansion_multiple)
        std = None if mlp_init == "torch" else ((2 / (5 * model_size)) ** 0.5, 2 / (num_layers * model_size**0.5))
        mlp = MLPSettings(width, mlp_bias, std)
        settings = BlockSettings(model_size, new_norm, norm_first, feed_forward, mlp, activation, dropout, dropout_mask)
        mixers = [make_mixer(mixer, mixer_args, model_size, bidirectional) for _ in range(num_layers)]
        for k, layer in enumerate(mixers):
            layer.on_depth(k, num_layers)
        self._causal = all(layer.causal for layer in mixers)
        self.blocks = nn.ModuleList(Block(layer, settings) for layer in mixers)
        self.norm = new_norm() if final_norm else Unnormalized()
        self.head = nn.Linear(model_size, spec.output_size)
        if not bias_decay:
            _exempt_from_decay(self)

    @classmethod
    def check(cls, arguments: dict[str, Any]) -> None:
        """Check arguments as a config gives them, without building anything."""
        checked = check(cls, arguments, "model", skip=("spec",))
        _refuse_arguments_of_another(checked["mixer"], checked["mixer_args"])
        _mlp_width(checked["expansion"], checked["model_size"], checked["expansion_multiple"])
        try:
            with torch.device("meta"):
                make_mixer(checked["mixer"], checked["mixer_args"], checked["model_size"], checked["bidirectional"])
        except UserError as error:
            raise UserError(str(error) if str(error).startswith("model.") else f"model.mixer_args.{error}") from None

    @classmethod
    def label(cls, arguments: dict[str, Any]) -> str:
        """Return the mixer's name; a cell's gets a prefix, since that name means its recurrent network."""
        mixer = str(arguments["mixer"])
        return f"stack_{mixer}" if mixer in cells.names() else mixer

    def forward(self, batch: Batch) -> Tensor:
        """Compute outputs: (B, K) for each row, (B, k, K) at its last k steps, or (B, T, K) at every step."""
        return self.carry(batch)[0]

    def carry(self, batch: Batch, state: Sequence[Any] | None = None) -> tuple[Tensor, list[Any]]:
        """Compute the outputs of :meth:`forward` and the list of the blocks' states, from such a list.

        A block whose mixer is not causal has the state None.

        Raises:
            UserError: a state for mixers that are not causal, for outputs that are means over the steps, or without one part
                for each block.
        """
        if state is not None and not self._causal:
            raise UserError("stack: got a state, expected None: its mixers are not causal and carry none")
        if state is not None and self.pooling == "mean":
            raise UserError(
                "stack: got a state, expected None: with pooling=mean the outputs for a piece are not those of the sequence; "
                "pooling=last carries a state"
            )
        check_states(self.name, state, len(self.blocks))
        lengths, rate = batch.lengths, batch.rate if self.rescale else 1.0
        hidden = self.encoder(masked(self.inputs(batch, self.encoder.weight.dtype), lengths))
        states = []
        for k, block in enumerate(self.blocks):
            hidden, after = block(hidden, None if state is None else state[k], lengths, batch.times, rate)
            states.append(after)
        return self.head(self._pooled(self.norm(hidden, lengths), batch)), states

    def embed(self, batch: Batch) -> Tensor:
        """Return the inputs in floating point, see :meth:`SequenceModel.embed`."""
        return self.inputs.embed(batch, self.encoder.weight.dtype)

    def initial_state(self, batch_size: int) -> list[Any]:
        """Return the initial states of the blocks, None for those that are not causal."""
        return [block.initial_state(batch_size) for block in self.blocks if isinstance(block, Block)]

    def _pooled(self, hidden: Tensor, batch: Batch) -> Tensor:
        lengths = batch.lengths
        if self.pooling == "none":
            return output_steps(hidden, batch, self.spec.output_steps)
        if self.pooling == "last":
            return last_steps(hidden, 0, lengths)
        if lengths is None:
            return hidden.mean(1)
        return masked_mean(hidden, valid_steps(lengths, hidden.shape[1])[..., None], lengths.clamp(min=1)[:, None])


def _mlp_width(expansion: float, size: int, multiple: int) -> int:
    """Return the width of the mlp's hidden layer, rounded up to a multiple."""
    return checked_width("model.expansion", expansion, "model_size", size, lambda w: multiple * math.ceil(w / multiple))


def make_mixer(name: str, arguments: dict[str, Any], size: int, bidirectional: bool) -> SequenceLayer:
    """Build a registered cell or layer for inputs of ``size`` channels, with as many outputs if it has ``hidden_size``.

    Raises:
        UserError: an unknown name or argument, or a layer that cannot be bidirectional.
    """
    layer = _mixer_class(name)
    given = dict(arguments)
    if "hidden_size" in parameters(layer) and given.get("hidden_size") is None:
        given["hidden_size"] = size
    check(layer, given, "model.mixer_args", skip=("input_size",))
    width = size + layer.timed  # the times join the inputs as one more channel
    if not bidirectional:
        return layer(input_size=width, **given)
    reason = unsupported_reason(layer)
    if reason:
        raise UserError(f"model.bidirectional: got true, expected false: the mixer {name} {reason}")
    return Bidirectional(layer, width, **given) if layer.both_directions is None else layer.both_directions(width, **given)


def _refuse_arguments_of_another(mixer: str, arguments: Collection[str]) -> None:
    """Refuse all arguments of another layer, which a file such as cfg/model/ema.yaml gives in ``mixer_args``."""
    own = parameters(_mixer_class(mixer))
    for name in sequence.names():
        others = parameters(sequence.get(name), ("input_size",)).keys()
        if others <= set(arguments) and not others <= own.keys():
            raise UserError(
                f"model.mixer: got '{mixer}', expected '{name}', whose arguments model.mixer_args holds; "
                f"did you mean model=stack model.mixer={mixer}?"
            )


def _exempt_from_decay(network: nn.Module) -> None:
    """Set the weight decay of all biases and of the parameters of norms, such as the gain of HM-LSTM's gates, to 0."""
    modules: Iterable[Any] = network.modules()
    for module in modules:
        is_norm = isinstance(module, nn.LayerNorm | nn.RMSNorm | nn.BatchNorm1d)
        names = tuple(name for name, _ in module.named_parameters(recurse=False) if is_norm or "bias" in name or name == "gain")
        given = getattr(module, "no_decay", ())
        if names and given is not True:
            module.no_decay = (*given, *names)


def _mixer_class(name: str) -> type[SequenceLayer]:
    try:
        return sequence.get(name)
    except UserError as error:
        raise UserError(f"model.mixer: {error}") from None


def _refuse_mismatch(spec: DataSpec, mixer: str, bidirectional: bool, pooling: str | None) -> None:
    """Refuse settings that the data set does not support, with a message that names both."""
    layer = _mixer_class(mixer)
    if layer.timed and not spec.times:
        raise UserError(
            f"model.mixer: {mixer} requires the times of the steps, and {spec.name} has none; "
            "dataset=ct dataset.timestamp=true has times"
        )
    if bidirectional or not layer.causal:
        expected = "model.bidirectional: got true, expected false" if bidirectional else f"model.mixer: {mixer} is not causal"
        if spec.contiguous:
            raise UserError(f"{expected}: the batches of {spec.name} continue each other")
        if spec.output_steps is None and (spec.later_targets or task_for(spec).predicts_following):
            raise UserError(f"{expected}: {spec.name} predicts the values after each step")
    if pooling in ("mean", "last") and spec.output_steps != 0:
        raise UserError(f"model.pooling: got {pooling}, expected none: {spec.name} expects outputs at several steps")
    if pooling == "none" and spec.output_steps == 0:
        raise UserError(f"model.pooling: got none, expected mean or last: {spec.name} expects one output for each sequence")
