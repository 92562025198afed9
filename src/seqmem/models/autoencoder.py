"""Base class of autoencoders."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from seqmem.arguments import check
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.models.base import SequenceModel
from seqmem.tasks import Task, task_for


class Autoencoder(SequenceModel):
    """An autoencoder of sequences, with encodings of a fixed size. A subclass writes :meth:`encode` and :meth:`decode`.

    Args:
        spec: the data set it is for.
        network: the module that encodes and decodes.
        same: the targets must be the inputs.
        noise: standard deviation of normal noise that is added to the inputs in training; the targets have none (a denoising
            autoencoder, Vincent et al., 2008).
        growth_epochs: number of epochs in which windows of the sequences grow to whole sequences.
        first_window: steps of a window in the first epoch.

    Raises:
        UserError: the data set does not match.
    """

    def __init__(
        self,
        spec: DataSpec,
        network: nn.Module,
        same: bool = True,
        noise: float = 0.0,
        growth_epochs: int = 0,
        first_window: int = 10,
    ):
        super().__init__()
        if not task_for(spec).reconstructs:
            raise UserError(
                f"model.network: {self.name} reconstructs its inputs, and the task of {spec.name} is {spec.task}; "
                "set dataset.reconstruction=true, which ct, digits, sinusoids and uea have, or dataset.task=reconstruction of "
                "files"
            )
        if spec.times:
            raise UserError(f"model.network: {self.name} does not support times of steps, which {spec.name} has")
        if same and spec.input_size != spec.output_size:
            raise UserError(
                f"model.network: {self.name} reconstructs its inputs; {spec.name} has {spec.output_size} channels in targets "
                f"and {spec.input_size} in inputs; did you mean model=seq2seq_ae?"
            )
        self.spec, self.network, self.noise = spec, network, noise
        self.growth_epochs, self.first_window = growth_epochs, first_window
        self._epoch = 0

    @classmethod
    def check(cls, arguments: dict[str, Any]) -> None:
        """Check arguments as a config gives them."""
        check(cls, arguments, "model", skip=("spec",))

    def encode(self, batch: Batch) -> Tensor:
        """Compute encodings (B, E) of the inputs."""
        raise NotImplementedError

    def decode(self, encodings: Tensor, steps: int, lengths: Tensor | None = None) -> Tensor:
        """Compute sequences (B, T, D) of encodings (B, E).

        Args:
            encodings: (B, E).
            steps: T.
            lengths: (B,) valid steps of each row, at most T; None for all.
        """
        raise NotImplementedError

    def forward(self, batch: Batch) -> Tensor:
        """Compute reconstructions (B, T, D); values in the padding have no meaning."""
        return self.decode(self.encode(batch), batch.targets.shape[1], batch.output_lengths)

    def on_epoch(self, epoch: int) -> None:
        """Take the number of the epoch, which windows follow."""
        super().on_epoch(epoch)
        self._epoch = epoch

    @property
    def reads_whole(self) -> bool:
        """Whether this epoch trains on whole sequences, not on windows."""
        return window_size(self._epoch, self.spec.max_length, self.growth_epochs, self.first_window) == self.spec.max_length

    def augment(self, batch: Batch) -> Batch:
        """Cut a window of each sequence while windows grow, and add noise to the inputs."""
        steps = batch.inputs.shape[1]
        size = window_size(self._epoch, steps, self.growth_epochs, self.first_window)
        if size < steps:
            batch = windows(batch, size)
        if self.noise:
            batch = replace(batch, inputs=batch.inputs + self.noise * torch.randn_like(batch.inputs))
        return batch

    def augmented_weight(self, batch: Batch, task: Task) -> float:
        """Return the weight of windows of each sequence; values that may be missing in them count."""
        steps = batch.inputs.shape[1]
        size = window_size(self._epoch, steps, self.growth_epochs, self.first_window)
        if size >= steps:
            return self.loss_weight(batch, task)
        host = batch.on_host
        inputs, targets = host.inputs[:, :size], host.targets[:, :size]
        cut = replace(host, inputs=inputs, targets=targets, lengths=_at_most(size, host.lengths), known=None)
        return self.loss_weight(replace(cut, host=None), task)


def window_size(epoch: int, steps: int, growth_epochs: int, first: int) -> int:
    """Return the steps of a window, which grow by a constant factor from ``first`` to ``steps`` in ``growth_epochs`` epochs."""
    if epoch >= growth_epochs or first >= steps:
        return steps
    return int(first * (steps / first) ** (epoch / growth_epochs))


def windows(batch: Batch, size: int) -> Batch:
    """Cut ``size`` steps at a random place out of each row, or all if it has fewer; inputs and targets at the same place."""
    rows, steps = batch.inputs.shape[:2]
    device = batch.inputs.device
    lengths = torch.full((rows,), steps, device=device) if batch.lengths is None else batch.lengths
    latest = (lengths - size).clamp(min=0)
    starts = (torch.rand(rows, device=device) * (latest + 1)).long().clamp(max=latest)
    taken = starts[:, None] + torch.arange(size, device=device)

    def cut(values: Tensor) -> Tensor:
        return values.gather(1, taken[..., None].expand(-1, -1, values.shape[-1]))

    known = None if batch.known is None else cut(batch.known)
    cut_batch = replace(batch, inputs=cut(batch.inputs), targets=cut(batch.targets), lengths=_at_most(size, batch.lengths))
    cut_batch.known = known
    if batch.host is None or known is not None:  # the host does not know which values the windows have
        return replace(cut_batch, host=None)
    return replace(cut_batch, host=replace(batch.host, lengths=_at_most(size, batch.host.lengths)))


def _at_most(size: int, lengths: Tensor | None) -> Tensor | None:
    return None if lengths is None else lengths.clamp(max=size)
