"""Sequence-to-sequence autoencoder of real values; outputs may differ from inputs in size and length."""

from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, dropout, pad

from seqmem.arguments import checked
from seqmem.cells.relu_gru import ReLUGRU, ReLUGRUState
from seqmem.data.batch import Batch
from seqmem.data.masks import masked_mean
from seqmem.data.spec import DataSpec
from seqmem.models.autoencoder import Autoencoder
from seqmem.ops.precision import at_least_float32
from seqmem.tasks import Task

TOLERANCE = 0.25
"""Largest distance to the stop token, in any channel, of an output that counts as the token."""


class Seq2SeqAutoencoder(Autoencoder):
    """GRU encoder and autoregressive GRU decoder, which starts from the encoder's last states.

    In training the inputs of the decoder are the targets (teacher forcing), otherwise its own outputs. There are two ways to
    mark the end of an output:

    * head: a linear map of the decoder's last hidden state gives the logit of "the sequence has ended". It is trained by
      cross-entropy on the targets' steps and ``stop_steps`` more.
    * token: ``stop_steps`` rows of the value ``stop_token`` follow each input and each target. The encoder reads them, and
      the decoder learns them like other values. A signal that stays at that value looks the same as its end.

    The encoding of a sequence is the last state of every layer, in the decoder's order. The loss is the squared error, summed
    over channels, averaged over the valid steps of each row, then over rows. With "token" the stop rows count as valid. With
    "head" the cross-entropy is added, averaged in the same way.

    Args:
        spec: the data set's spec.
        layer_sizes: hidden sizes of the encoder's GRUs.
        symmetric: the decoder has these sizes and takes the encoder's states in reverse order (50:30:30:50), otherwise in the
            same order (50:30:50:30).
        dropout: probability to drop a channel of the encoder's or decoder's inputs at a step, in training.
        stop: how the end of an output is marked: "head" (a learned logit) or "token" (rows of ``stop_token``).
        stop_steps: steps after the last one that train the end of an output.
        stop_token: value of the stop rows.
        go_token: value of every channel of the decoder's first input.

    Raises:
        UserError: an argument has the wrong type or range, or the data set does not fit.
    """

    name = "seq2seq_ae"
    network: "EncoderDecoder"
    longest: Tensor

    @checked
    def __init__(
        self,
        spec: DataSpec,
        layer_sizes: Annotated[list[PositiveInt], Field(min_length=1)] = [50, 30],  # noqa: B006
        symmetric: bool = True,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        stop: Literal["head", "token"] = "head",
        stop_steps: PositiveInt = 5,
        stop_token: float = 0.0,
        go_token: float = 0.0,
    ):
        super().__init__(spec, EncoderDecoder(spec.input_size, spec.output_size, layer_sizes, symmetric, dropout), same=False)
        self.stop, self.stop_steps, self.stop_token, self.go_token = stop, stop_steps, stop_token, go_token
        self.register_buffer("longest", torch.tensor(0))

    def encode(self, batch: Batch) -> Tensor:
        """Return encodings (B, E): the last states of all layers, in the decoder's order."""
        return torch.cat(self.network.ordered(self._states(batch)), -1)

    def centre(self, batch: Batch) -> Tensor:
        """Return the last state (B, H) of the encoder's last layer alone."""
        return self._states(batch)[-1]

    def decode(self, encodings: Tensor, steps: int, lengths: Tensor | None = None) -> Tensor:
        """Return sequences (B, T, D) of T = ``steps``, decoded from the decoder's own outputs; ``lengths`` have no effect."""
        return self._write(encodings, steps, until_stop=False)[0]

    def write(self, encodings: Tensor, max_steps: int | None = None) -> tuple[Tensor, Tensor]:
        """Decode sequences up to the end that the decoder marks.

        Args:
            encodings: (B, E).
            max_steps: limit of a sequence's steps; None for two times the longest target in training.

        Returns:
            outputs (B, T, D) with T steps of the longest sequence, and lengths (B,) int64.
        """
        limit = max_steps or 2 * max(int(self.longest), 1)
        outputs, logits = self._write(encodings, limit + self.stop_steps, until_stop=True)
        ended = logits > 0 if self.stop == "head" else _at_token(outputs, self.stop_token, self.stop_steps)
        lengths = first_true(ended).clamp(max=limit)
        return outputs[:, : int(lengths.max())], lengths

    def learn(self, batch: Batch, task: Task) -> tuple[Tensor, Tensor]:
        """Return outputs (B, T, D) and the loss; the decoder's inputs are the targets in training, else its own outputs."""
        steps = batch.targets.shape[1]
        encodings = self.encode(batch)
        forced, squared, stopping = self._forced(encodings, batch)
        if self.training:
            self.longest.clamp_(min=steps)
            return forced[:, :steps], squared + stopping
        return self.decode(encodings, steps), squared + stopping

    def loss_weight(self, batch: Batch, task: Task) -> float:
        """Return the number of sequences: the loss is a mean over these, of means over their steps."""
        return len(batch)

    def errors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the two parts of the loss: the squared error, and the stop head's cross-entropy (0 without a head)."""
        return self._forced(self.encode(batch), batch)[1:]

    def _states(self, batch: Batch) -> list[Tensor]:
        inputs, lengths = batch.inputs, batch.lengths
        if self.stop == "token":
            inputs, lengths = with_stop(inputs, lengths, self.stop_steps, self.stop_token)
        return self.network.read(inputs, lengths)

    def _forced(self, encodings: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return outputs (B, T + S, D) for the targets as inputs, and the two parts of the loss."""
        targets, lengths = with_stop(batch.targets, batch.output_lengths, self.stop_steps, self.stop_token)
        go = targets.new_full((len(targets), 1, targets.shape[-1]), self.go_token)
        outputs, logits = self.network.write(torch.cat([go, targets[:, :-1]], 1), encodings)
        step = torch.arange(targets.shape[1], device=targets.device)
        ended = step >= lengths[:, None] - self.stop_steps
        squared, known = (outputs - targets).square(), None
        if batch.known is not None:
            known = pad(batch.known, (0, 0, 0, self.stop_steps)) | ended[..., None]
            squared = squared.where(known, 0)
        squared = squared.sum(-1)
        if self.stop == "token":
            return outputs, _mean(squared, step < lengths[:, None], known), squared.new_zeros(())
        wrong = binary_cross_entropy_with_logits(logits, ended.to(logits.dtype), reduction="none")
        return outputs, _mean(squared, ~ended, known), _mean(wrong, step < lengths[:, None])

    def _write(self, encodings: Tensor, steps: int, until_stop: bool) -> tuple[Tensor, Tensor]:
        """Return outputs (B, T, D) and stop logits (B, T) of at most ``steps`` steps; each input is the previous output."""
        states = self.network.split(encodings)
        value = encodings.new_full((encodings.shape[0], self.spec.output_size), self.go_token)
        outputs, logits = [], []
        stopped = torch.zeros(encodings.shape[0], dtype=torch.bool, device=encodings.device)
        for _ in range(steps):
            value, logit, states = self.network.step(value, states)
            outputs.append(value)
            logits.append(logit)
            stopped |= logit > 0
            if until_stop and self.stop == "head" and bool(stopped.all()):
                break
        return torch.stack(outputs, 1), torch.stack(logits, 1)


class EncoderDecoder(nn.Module):
    """Encoder and decoder GRUs, the projection to outputs, and the stop head.

    The projection's weights start from a normal distribution of standard deviation 0.1, truncated at two deviations, and its
    bias at 0.
    """

    def __init__(self, input_size: int, output_size: int, layer_sizes: list[int], symmetric: bool, dropout: float):
        super().__init__()
        self.symmetric, self.dropout = symmetric, dropout
        self.sizes = layer_sizes[::-1] if symmetric else layer_sizes
        self.encoder = nn.ModuleList(ReLUGRU(*widths) for widths in pairwise([input_size, *layer_sizes]))
        self.decoder = nn.ModuleList(ReLUGRU(*widths) for widths in pairwise([output_size, *self.sizes]))
        self.projection = nn.Linear(self.sizes[-1], output_size)
        nn.init.trunc_normal_(self.projection.weight, std=0.1, a=-0.2, b=0.2)
        nn.init.zeros_(self.projection.bias)
        self.stop = nn.Linear(self.sizes[-1], 1)

    def read(self, inputs: Tensor, lengths: Tensor | None) -> list[Tensor]:
        """Return the last state (B, H) of each layer of the encoder for inputs (B, T, C)."""
        states = []
        outputs = dropout(inputs, self.dropout, self.training)
        for layer in self.encoder:
            outputs, state = layer(outputs, lengths=lengths)
            states.append(state.hidden)
        return states

    def ordered(self, states: list[Tensor]) -> list[Tensor]:
        """Return the encoder's states in the order of the decoder's layers."""
        return states[::-1] if self.symmetric else states

    def split(self, encodings: Tensor) -> list[ReLUGRUState]:
        """Split encodings (B, E) into the initial states of the decoder's layers."""
        return [ReLUGRUState(part) for part in encodings.split(self.sizes, -1)]

    def write(self, inputs: Tensor, encodings: Tensor) -> tuple[Tensor, Tensor]:
        """Return the decoder's outputs (B, T, D) and stop logits (B, T) for inputs (B, T, D)."""
        outputs = dropout(inputs, self.dropout, self.training)
        for layer, state in zip(self.decoder, self.split(encodings), strict=True):
            outputs, _ = layer(outputs, state)
        return self.projection(outputs), self.stop(outputs)[..., 0]

    def step(self, value: Tensor, states: list[ReLUGRUState]) -> tuple[Tensor, Tensor, list[ReLUGRUState]]:
        """Return the next output (B, D), its stop logit (B,) and the new states, given the previous output."""
        outputs, after = dropout(value, self.dropout, self.training), []
        for layer, state in zip(self.decoder, states, strict=True):
            assert isinstance(layer, ReLUGRU)
            outputs, state = layer.step(outputs, state)
            after.append(state)
        return self.projection(outputs), self.stop(outputs)[..., 0], after


def with_stop(values: Tensor, lengths: Tensor | None, steps: int, token: float) -> tuple[Tensor, Tensor]:
    """Append ``steps`` stop rows after each row's valid steps (B, T, D), with zeros after them; return the new lengths too."""
    rows, longest, channels = values.shape
    if lengths is None:
        lengths = torch.full((rows,), longest, device=values.device)
    step = torch.arange(longest + steps, device=values.device)[None, :, None]
    end = lengths[:, None, None]
    longer = torch.cat([values, values.new_zeros(rows, steps, channels)], 1)
    stopped = longer.where(step < end, token)
    return stopped.where(step < end + steps, 0), lengths + steps


def find_stop(outputs: Tensor, token: float = 0.0, steps: int = 5, tolerance: float = TOLERANCE) -> Tensor:
    """Find where the stop rows begin: the first step from which ``steps`` rows, or all remaining, are near the token.

    Args:
        outputs: (B, T, D).
        token: value of the stop rows.
        steps: number of stop rows.
        tolerance: largest distance to the token in any channel.

    Returns:
        (B,) int64; T for a row without stop rows.
    """
    return first_true(_at_token(outputs, token, steps, tolerance))


def first_true(found: Tensor) -> Tensor:
    """Return the first True in each row (B, T), or T for a row without one."""
    places = torch.arange(found.shape[1], device=found.device)
    return places.where(found, found.shape[1]).amin(1)


def _at_token(outputs: Tensor, token: float, steps: int, tolerance: float = TOLERANCE) -> Tensor:
    near = ((outputs - token).abs() <= tolerance).all(-1)
    windows = pad(near, (0, steps - 1), value=True).unfold(1, steps, 1)
    return windows.all(-1)


def _mean(values: Tensor, valid: Tensor, known: Tensor | None = None) -> Tensor:
    """Average (B, T) over the valid steps of each row, then over rows; a step counts by the share of its D known values."""
    if known is None:
        return masked_mean(values, valid, valid.sum(1).clamp(min=1)).mean()
    shares = at_least_float32(known.to(values.dtype)).mean(-1)
    counts = shares.where(valid, 0).sum(1)
    return masked_mean(values, valid, counts.where(counts > 0, 1)).mean()
