"""Files of trained autoencoders: architecture, weights, and the standardization of the data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seqmem.errors import UserError
from seqmem.io import archive
from seqmem.models.conv_lstm_ae import CONV_LSTM_AE
from seqmem.models.linear_ae import LINEAR_AE
from seqmem.models.lstm_ae import LSTM_AE
from seqmem.models.standardization import Standardization, StandardizedDecoder, StandardizedEncoder

ARCHITECTURES: dict[str, type[nn.Module]] = {kind.__name__: kind for kind in (LINEAR_AE, LSTM_AE, CONV_LSTM_AE)}


def save(
    path: Path,
    kind: str,
    arguments: Mapping[str, Any],
    encoder: StandardizedEncoder,
    decoder: StandardizedDecoder,
    channels: Sequence[str] = (),
) -> None:
    """Write an autoencoder to a file, atomically.

    Args:
        path: the file.
        kind: name of the architecture, a key of ``ARCHITECTURES``.
        arguments: the architecture's arguments, as values that JSON can represent.
        encoder: as ``quick_train`` returns it with ``normalize``.
        decoder: the same.
        channels: names of the channels that it was trained on; empty if they have none.

    Raises:
        UserError: the file cannot be written.
    """
    weights = {f"encoder/{name}": value for name, value in encoder.encoder.state_dict().items()}
    weights |= {f"decoder/{name}": value for name, value in decoder.decoder.state_dict().items()}
    statistics = {"mean": encoder.standardization.mean, "deviation": encoder.standardization.deviation}
    meta = {"architecture": kind, "arguments": dict(arguments), "channels": list(channels)}
    archive.write(path, meta, weights | statistics)


def channels_of(path: Path) -> list[str]:
    """Return the names of the channels that an autoencoder was trained on; empty if they are not known.

    Raises:
        UserError: the file cannot be read.
    """
    meta, _ = archive.read(path)
    names = meta.get("channels")
    return list(map(str, names)) if isinstance(names, list) else []


def load(path: Path) -> tuple[str, StandardizedEncoder, StandardizedDecoder]:
    """Read the name of the architecture, the encoder and the decoder from a file.

    Raises:
        UserError: the file does not exist, is damaged, or is not an autoencoder.
    """
    meta, arrays = archive.read(path)
    kind, arguments = meta.get("architecture"), meta.get("arguments")
    if not isinstance(kind, str) or kind not in ARCHITECTURES or not isinstance(arguments, dict):
        raise UserError(f"{path} is not an autoencoder saved by seqmem encode")
    try:
        with torch.device("meta"):
            network = ARCHITECTURES[kind](**arguments)
    except (UserError, TypeError, RuntimeError) as error:
        raise UserError(f"{path} is damaged: its arguments do not fit a {kind} ({error})") from None
    shapes = {name.replace(".", "/", 1): tuple(value.shape) for name, value in network.state_dict().items()}
    channels = (arguments["input_dim"],) if kind == "LSTM_AE" else ()
    archive.check_shapes(path, arrays, shapes | dict.fromkeys(("mean", "deviation"), channels))
    network = network.to_empty(device="cpu")
    network.load_state_dict({name.replace("/", "."): arrays[name] for name in shapes})
    standardization = Standardization(arrays["mean"].float(), arrays["deviation"].float())
    encoder, decoder = (network.get_submodule(half).eval() for half in ("encoder", "decoder"))
    return kind, StandardizedEncoder(standardization, encoder), StandardizedDecoder(standardization, decoder)
