"""sequitur's ``quick_train``: an autoencoder in one line."""

import sys
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from seqmem.arguments import check
from seqmem.data.sequences import as_list
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.models import CONV_LSTM_AE, LINEAR_AE, LSTM_AE
from seqmem.models.autoencoder import Autoencoder
from seqmem.models.sequitur_models import FlatAutoencoder, FrameAutoencoder, SeriesAutoencoder
from seqmem.models.standardization import Standardization, StandardizedDecoder, StandardizedEncoder
from seqmem.training.config import TrainConfig
from seqmem.training.loop.in_memory import fit_sequences


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

    The learning rate falls along half a cosine to a hundredth. Where a model reads series, the first part of the epochs is
    trained on windows of them that grow from 10 steps to the whole: a decoder that is asked for 150 steps from the start learns
    their mean and stays there. The last epoch is always one of whole series.

    Args:
        model: LINEAR_AE for sequences of numbers (L,), all of one length; LSTM_AE for series (T, C), CONV_LSTM_AE for series of
            frames (T, H, W) or (T, D, H, W), of any length.
        train_set: a list of such tensors, a padded tensor of them, or a data set (:func:`seqmem.data.sequences.as_list`).
        encoding_dim: E, the size of an encoding.
        verbose: print the loss after each epoch.
        lr: learning rate in the first epoch.
        epochs: passes over the training set.
        clip_value: largest norm of the gradient; None does not clip.
        denoise: add noise to the inputs in training; the targets have none.
        device: where to train, and where encoder and decoder are then; None for a GPU if there is one.
        batch_size: sequences in a batch; None for a tenth of them, at most 100.
        lengths: (n,) valid steps of each sequence of a padded tensor.
        noise: standard deviation of that noise, in standard deviations of the data if ``normalize``.
        normalize: train on values of mean 0 and deviation 1 in each channel of series, or over all values of others; encoder
            and decoder take and give the data's own.
        validation: part of the sequences that is not trained on, but chooses the epoch whose weights are returned.
        patience: stop after so many epochs without a better one in validation; None for never.
        growth: part of the epochs in which windows grow.
        optimizer: muon (:class:`seqmem.training.optimisation.muon.Muon`), with which recurrences learn in fewer steps, or adam.
        **kwargs: arguments of ``model``.

    Returns:
        encoder (a sequence, or a batch with lengths, to encodings); decoder (encodings to sequences, as long as what was
        encoded last or as ``seq_len`` says); the encodings (E,) of the training set, without gradient; for each epoch the mean
        squared error of a value in training, of windows while these grow.

    Raises:
        UserError: an argument of the wrong type or range, or sequences that ``model`` does not take.
    """
    settings = locals()
    elsewhere = ("model", "train_set", "lengths", "kwargs")
    check(quick_train, {name: value for name, value in settings.items() if name not in elsewhere}, "quick_train", elsewhere)
    if patience is not None and validation == 0:
        raise UserError(f"quick_train: got patience={patience} without a validation set, expected validation above 0")
    kind = next((kind for kind in _kinds if isinstance(model, type) and issubclass(model, kind)), None)
    if kind is None:
        raise UserError(f"quick_train: got model={getattr(model, '__name__', model)}; choose from: {_names}")
    where = _device(device)
    sequences = as_list(train_set, lengths)
    adapter, dimensions, argument, shape = _kinds[kind]
    if sequences[0].dim() not in dimensions:
        raise UserError(f"{kind.__name__}: got sequences of shape {tuple(sequences[0].shape)}, expected {shape}")
    if kind is LINEAR_AE and (odd := next((x for x in sequences if len(x) != len(sequences[0])), None)) is not None:
        raise UserError(f"LINEAR_AE: got sequences of {len(sequences[0])} and {len(odd)} numbers, expected one length")
    step = tuple(sequences[0].shape[1:])
    size = {LINEAR_AE: len(sequences[0]), LSTM_AE: step[-1] if step else 0, CONV_LSTM_AE: step}[kind]
    network = model(**{argument: size}, encoding_dim=encoding_dim, **kwargs)

    trained, held = _split(len(sequences), validation)
    standardization = Standardization.of([sequences[k] for k in trained]) if normalize else None
    ready = [(x if standardization is None else standardization(x)).reshape(len(x), -1) for x in sequences]
    spec = DataSpec(
        name="sequences",
        input_size=ready[0].shape[1],
        output_size=ready[0].shape[1],
        task="reconstruction",
        output_steps=None,
        max_length=max(map(len, ready)),
        frame=step if kind is CONV_LSTM_AE else None,
    )
    growing = 0 if kind is LINEAR_AE else min(int(growth * epochs), epochs - 1)
    autoencoder = adapter(spec, network, noise=noise if denoise else 0.0, growth_epochs=growing)
    config = TrainConfig(
        optimizer=optimizer,
        lr=lr,
        schedule="cosine",
        epochs=epochs,
        batch_size=batch_size or min(100, -(-len(trained) // 10)),
        gradient_clip_val=clip_value or 0.0,
    )
    losses = fit_sequences(
        autoencoder,
        [ready[k] for k in trained],
        config,
        validation=[ready[k] for k in held],
        patience=patience,
        scale=None if standardization is None else standardization.deviation.expand(spec.input_size),
        device=where,
        progress_bar=sys.stdout.isatty(),
        on_epoch=lambda epoch, loss: print(f"Epoch: {epoch + 1}, Loss: {loss}") if verbose else None,
    )
    encoder, decoder = network.get_submodule("encoder"), network.get_submodule("decoder")
    if standardization is not None:
        encoder, decoder = StandardizedEncoder(standardization, encoder), StandardizedDecoder(standardization, decoder)
    encoder, decoder = encoder.to(where).eval(), decoder.to(where).eval()
    with torch.no_grad():
        encodings = [encoder(sequence.to(where)) for sequence in sequences]
    return encoder, decoder, encodings, losses


_kinds: dict[type[nn.Module], tuple[type[Autoencoder], tuple[int, ...], str, str]] = {
    LINEAR_AE: (FlatAutoencoder, (1,), "input_dim", "(L,)"),
    LSTM_AE: (SeriesAutoencoder, (2,), "input_dim", "(T, C)"),
    CONV_LSTM_AE: (FrameAutoencoder, (3, 4), "input_dims", "(T, H, W) or (T, D, H, W)"),
}
_names = ", ".join(kind.__name__ for kind in _kinds)


def _device(given: str | torch.device | None) -> torch.device:
    try:
        where = torch.device(given or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=where)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"quick_train.device: got '{given}', which cannot be used ({str(error).splitlines()[0]})") from None
    return where


def _split(count: int, part: float) -> tuple[list[int], list[int]]:
    """Places of the sequences to train on, in order, and of those for validation."""
    size = round(count * part)
    if part > 0 and not 0 < size < count:
        raise UserError(f"quick_train: got validation={part} of {count} sequences, expected at least one, and one to train on")
    held = set(torch.randperm(count)[:size].tolist())
    return [k for k in range(count) if k not in held], sorted(held)
