"""sequitur's ``quick_train``: an autoencoder in one line."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from seqmem.arguments import check
from seqmem.data.seeds import Seed, generator
from seqmem.data.sequences import as_list
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.models import CONV_LSTM_AE, LINEAR_AE, LSTM_AE
from seqmem.models.autoencoder import Autoencoder
from seqmem.models.sequitur_models import FlatAutoencoder, FrameAutoencoder, SeriesAutoencoder
from seqmem.models.standardization import Standardization, StandardizedDecoder, StandardizedEncoder
from seqmem.training.config import TrainConfig
from seqmem.training.loop.in_memory import fit_sequences
from seqmem.training.loop.lean import own_random_state


def quick_train(
    model: type[nn.Module],
    train_set: Any,
    encoding_dim: PositiveInt,
    verbose: bool = False,
    lr: PositiveFloat = 1e-3,
    epochs: PositiveInt = 50,
    clip_value: PositiveFloat | None = 1,
    denoise: bool = False,
    device: str | torch.device | None = None,
    *,
    batch_size: PositiveInt | None = None,
    lengths: Any = None,
    noise: NonNegativeFloat = 0.1,
    normalize: bool = True,
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    patience: PositiveInt | None = None,
    growth: Annotated[float, Field(ge=0, le=1)] = 0.75,
    optimizer: Literal["muon", "adam"] = "muon",
    seed: Seed | None = None,
    **kwargs: Any,
) -> tuple[nn.Module, nn.Module, list[Tensor], list[float]]:
    """Train an autoencoder with one line of code.

        >>> import torch
        >>> from seqmem import quick_train
        >>> from seqmem.models import LSTM_AE
        >>> train_set = [torch.randn(length, 3) for length in (5, 9, 4, 9)]
        >>> encoder, decoder, encodings, losses = quick_train(LSTM_AE, train_set, encoding_dim=4, epochs=2)
        >>> decoder(encoder(torch.randn(7, 3))).shape
        torch.Size([7, 3])

    The learning rate falls along half a cosine to a hundredth. The first part of the epochs trains on windows of the series,
    which grow from 10 steps to the whole: a decoder that begins with series of 150 steps learns their mean and no more. The
    last epoch always trains on whole series. LINEAR_AE has no windows.

    The validation set, the order of the batches, the windows and the noise follow from ``seed`` alone. Without a ``seed`` they
    are those of seed 0, and the initial weights come from torch's global generator (``torch.manual_seed`` reproduces them).
    With a ``seed`` the weights follow from it, too, and the global generator is neither read nor changed.

    Args:
        model: LINEAR_AE for sequences of numbers (L,), all of one length; LSTM_AE for series (T, C), CONV_LSTM_AE for series of
            frames (T, H, W) or (T, D, H, W), of any length.
        train_set: a list of such tensors, a padded tensor of them, or a data set (:func:`seqmem.data.sequences.as_list`).
        encoding_dim: E, the size of an encoding.
        verbose: print the loss after each epoch.
        lr: learning rate in the first epoch.
        epochs: passes over the training set.
        clip_value: largest norm of the gradient; None does not clip.
        denoise: add noise to the inputs in training, but not to the targets.
        device: of the training, and of the returned encoder and decoder; None for a GPU if there is one.
        batch_size: sequences in a batch; None for a tenth of them, at most 100.
        lengths: (n,) valid steps of each sequence of a padded tensor.
        noise: standard deviation of that noise, in standard deviations of the data if ``normalize``.
        normalize: train on values of mean 0 and deviation 1, in each channel of series, or over all values of others. Encoder
            and decoder take and return values in the data's units.
        validation: fraction of the sequences that is not trained on, and chooses the epoch whose weights are returned.
        patience: stop after this number of epochs without a better one in validation; None for never.
        growth: fraction of the epochs in which windows grow.
        optimizer: muon (:class:`seqmem.training.optimisation.muon.Muon`), with which recurrences learn in fewer steps, or adam.
        seed: of everything that is random; None as described above.
        **kwargs: arguments of ``model``.

    Returns:
        The encoder, of a sequence or of a batch with lengths; the decoder, whose sequences have the length of the last encoded
        one, or ``seq_len`` steps; the encodings (E,) of the training set, without gradient; for each epoch the mean squared
        error of a value in training, of windows while these grow.

    Raises:
        UserError: an argument of the wrong type or range; sequences that ``model`` does not take, or of a scale whose squares
            exceed float32; or a loss that is not finite.
    """
    given = {name: value for name, value in locals().items() if name not in _CHECKED_ELSEWHERE}
    check(quick_train, given, "quick_train", _CHECKED_ELSEWHERE)
    if patience is not None and validation == 0:
        raise UserError(f"quick_train: got patience={patience} without a validation set, expected validation above 0")
    kind = _kind_of(model)
    chosen = _device(device)
    sequences = as_list(train_set, lengths)
    kind.check(sequences)
    with nullcontext() if seed is None else own_random_state(torch.device("cpu"), seed, "weights"):
        network = model(**{kind.argument: kind.size(sequences)}, encoding_dim=encoding_dim, **kwargs)

    trained, held_out = _split(len(sequences), validation, seed or 0)
    standardization = Standardization.of([sequences[k] for k in trained]) if normalize else None
    inputs = [(x if standardization is None else standardization(x)).reshape(len(x), -1) for x in sequences]
    _check_scale(sequences, inputs, normalize)
    spec = _spec(inputs, tuple(sequences[0].shape[1:]) if kind.frames else None)
    growth_epochs = min(int(growth * epochs), epochs - 1) if kind.grows else 0
    losses = fit_sequences(
        kind.adapter(spec, network, noise=noise if denoise else 0.0, growth_epochs=growth_epochs),
        [inputs[k] for k in trained],
        TrainConfig(
            optimizer=optimizer,
            lr=lr,
            schedule="cosine",
            epochs=epochs,
            batch_size=batch_size or min(100, -(-len(trained) // 10)),
            gradient_clip_val=clip_value or 0.0,
        ),
        validation=[inputs[k] for k in held_out],
        patience=patience,
        scale=None if standardization is None else standardization.deviation.expand(spec.input_size),
        seed=seed or 0,
        device=chosen,
        progress_bar=sys.stdout.isatty(),
        on_epoch=lambda epoch, loss: print(f"Epoch: {epoch + 1}, Loss: {loss}") if verbose else None,
    )
    encoder, decoder = _halves(network, standardization, chosen)
    with torch.no_grad():
        encodings = [encoder(sequence.to(chosen)) for sequence in sequences]
    return encoder, decoder, encodings, losses


_CHECKED_ELSEWHERE = ("model", "train_set", "lengths", "kwargs")


@dataclass(frozen=True)
class _Kind:
    """Settings of an architecture in its training.

    Attributes:
        model: the architecture.
        adapter: the autoencoder that trains it.
        dimensions: possible numbers of dimensions of a sequence.
        argument: name of the architecture's argument for the size of a sequence or of a step.
        shape: of a sequence, for messages.
        grows: the training begins with windows of the sequences.
        frames: a step is a frame.
    """

    model: type[nn.Module]
    adapter: type[Autoencoder]
    dimensions: tuple[int, ...]
    argument: str
    shape: str
    grows: bool = True
    frames: bool = False

    def check(self, sequences: Sequence[Tensor]) -> None:
        """Check the shapes of sequences, whose steps are known to be alike."""
        name, first = self.model.__name__, sequences[0]
        if first.dim() not in self.dimensions:
            raise UserError(f"{name}: got sequences of shape {tuple(first.shape)}, expected {self.shape}")
        other = next((x for x in sequences if len(x) != len(first)), None)
        if not self.grows and other is not None:
            raise UserError(f"{name}: got sequences of {len(first)} and {len(other)} numbers, expected one length")

    def size(self, sequences: Sequence[Tensor]) -> int | tuple[int, ...]:
        """Return the value of ``argument``."""
        first = sequences[0]
        if self.frames:
            return tuple(first.shape[1:])
        return first.shape[-1]


_kinds = (
    _Kind(LINEAR_AE, FlatAutoencoder, (1,), "input_dim", "(L,)", grows=False),
    _Kind(LSTM_AE, SeriesAutoencoder, (2,), "input_dim", "(T, C)"),
    _Kind(CONV_LSTM_AE, FrameAutoencoder, (3, 4), "input_dims", "(T, H, W) or (T, D, H, W)", frames=True),
)


def _kind_of(model: type[nn.Module]) -> _Kind:
    for kind in _kinds:
        if isinstance(model, type) and issubclass(model, kind.model):
            return kind
    names = ", ".join(kind.model.__name__ for kind in _kinds)
    raise UserError(f"quick_train: got model={getattr(model, '__name__', model)}; choose from: {names}")


def _spec(inputs: Sequence[Tensor], frame: tuple[int, ...] | None) -> DataSpec:
    return DataSpec(
        name="sequences",
        input_size=inputs[0].shape[1],
        output_size=inputs[0].shape[1],
        task="reconstruction",
        output_steps=None,
        max_length=max(map(len, inputs)),
        frame=frame,
    )


def _halves(network: nn.Module, standardization: Standardization | None, device: torch.device) -> tuple[nn.Module, nn.Module]:
    """Return encoder and decoder on the device; with a standardisation they take and return values in the data's units."""
    encoder, decoder = network.get_submodule("encoder"), network.get_submodule("decoder")
    if standardization is not None:
        encoder, decoder = StandardizedEncoder(standardization, encoder), StandardizedDecoder(standardization, decoder)
    return encoder.to(device).eval(), decoder.to(device).eval()


def _device(given: str | torch.device | None) -> torch.device:
    try:
        device = torch.device(given or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"quick_train.device: got '{given}', which cannot be used ({str(error).splitlines()[0]})") from None
    return device


def _split(count: int, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Return the indices of the sequences to train on, in order, and of those for validation."""
    size = round(count * fraction)
    if fraction > 0 and not 0 < size < count:
        raise UserError(
            f"quick_train: got validation={fraction} of {count} sequences, expected at least one, and one to train on"
        )
    held_out = set(generator(seed, "validation").permutation(count)[:size].tolist())
    return [k for k in range(count) if k not in held_out], sorted(held_out)


def _check_scale(sequences: Sequence[Tensor], inputs: Sequence[Tensor], normalize: bool) -> None:
    """Check that float32 can represent the inputs of the training, and without ``normalize`` their squares.

    Args:
        sequences: in the data's units.
        inputs: standardized with ``normalize``, else the same values.
        normalize: as for :func:`quick_train`.
    """
    peak = max(sequence.abs().max().item() for sequence in sequences)
    if not all(each.isfinite().all() for each in inputs):
        raise UserError(f"quick_train: got values up to {peak:g}, which float32 cannot standardize; rescale them")
    if not normalize and peak > 0 and not 1e-18 <= peak <= 1e18:
        raise UserError(
            f"quick_train: got values up to {peak:g} with normalize=False, expected 1e-18 to 1e18, the values whose squares "
            "float32 can hold; use normalize=True"
        )
