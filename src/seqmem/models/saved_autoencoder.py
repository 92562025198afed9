"""An autoencoder of ``quick_train`` in one file: its architecture, its weights, and the units of its data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seqmem.errors import UserError
from seqmem.io import archive
from seqmem.models import CONV_LSTM_AE, LINEAR_AE, LSTM_AE
from seqmem.models.standardized import Standardization, StandardizedDecoder, StandardizedEncoder

ARCHITECTURES: dict[str, type[nn.Module]] = {kind.__name__: kind for kind in (LINEAR_AE, LSTM_AE, CONV_LSTM_AE)}


def save(
    path: Path, kind: str, arguments: Mapping[str, Any], encoder: StandardizedEncoder, decoder: StandardizedDecoder
) -> None:
    """Write the file, whole or not at all.

    Args:
        path: the file.
        kind: name of the architecture.
        arguments: what it was made with; values that JSON can hold.
        encoder: as ``quick_train`` returns it with ``normalize``.
        decoder: the same.

    Raises:
        UserError: it cannot be written.
    """
    weights = {f"encoder/{name}": value for name, value in encoder.encoder.state_dict().items()}
    weights |= {f"decoder/{name}": value for name, value in decoder.decoder.state_dict().items()}
    units = {"mean": encoder.standardization.mean, "deviation": encoder.standardization.deviation}
    archive.write(path, {"architecture": kind, "arguments": dict(arguments)}, weights | units)


def load(path: Path) -> tuple[str, StandardizedEncoder, StandardizedDecoder]:
    """The name of the architecture, the encoder and the decoder.

    Raises:
        UserError: there is no such file, or it is damaged or something else.
    """
    meta, arrays = archive.read(path)
    kind, arguments = meta.get("architecture"), meta.get("arguments")
    if not isinstance(kind, str) or kind not in ARCHITECTURES or not isinstance(arguments, dict):
        raise UserError(f"{path} holds no autoencoder of python -m seqmem.encode")
    try:
        with torch.device("meta"):
            network = ARCHITECTURES[kind](**arguments)
    except (UserError, TypeError, RuntimeError) as error:
        raise UserError(f"{path} is damaged: its arguments make no {kind} ({error})") from None
    wanted = {name.replace(".", "/", 1): tuple(value.shape) for name, value in network.state_dict().items()}
    channels = (arguments["input_dim"],) if kind == "LSTM_AE" else ()
    archive.check_shapes(path, arrays, wanted | dict.fromkeys(("mean", "deviation"), channels))
    network = network.to_empty(device="cpu")
    network.load_state_dict({name.replace("/", "."): arrays[name] for name in wanted})
    units = Standardization(arrays["mean"].float(), arrays["deviation"].float())
    encoder, decoder = (network.get_submodule(half).eval() for half in ("encoder", "decoder"))
    return kind, StandardizedEncoder(units, encoder), StandardizedDecoder(units, decoder)
