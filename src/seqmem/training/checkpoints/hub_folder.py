"""A trained model as a folder in the layout of a model hub: config.json, preprocessor_config.json and model.safetensors.

Two JSON files and tensors hold the checkpoint that validation chose, without the state of its training. Reading them executes
no code. ``README.md`` next to them is the model card.
"""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from seqmem.errors import UserError, not_installed
from seqmem.io.files import read_json, replacing, write_json

CONFIG, PREPROCESSING, WEIGHTS, CARD = "config.json", "preprocessor_config.json", "model.safetensors", "README.md"

_CARD_KEYS = {"license", "library_name", "model-index", "pipeline_tag"}

_FORMAT = 1  # version of config.json


def is_hub_folder(path: Path) -> bool:
    """Return whether a folder has the files of a published model."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def is_card(path: Path) -> bool:
    """Return whether a file is a model card: text with the YAML header of a hub, which names a licence or a library."""
    if not path.is_file():
        return False
    parts = re.split(r"^---\s*$", path.read_text(encoding="utf-8", errors="replace"), maxsplit=2, flags=re.MULTILINE)
    if len(parts) < 3 or parts[0].strip():
        return False
    try:
        header = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return False
    return isinstance(header, dict) and not _CARD_KEYS.isdisjoint(header)


def check_package() -> None:
    """Raise UserError unless safetensors is installed."""
    if find_spec("safetensors") is None:
        raise UserError(f"{WEIGHTS}: safetensors {not_installed('hub')}")


def write(content: Mapping[str, Any], card: str, description: Mapping[str, Any], folder: Path) -> None:
    """Write a published model into an existing folder; config.json comes last, so that a killed program leaves none.

    Args:
        content: ``config``, ``spec``, ``data``, ``backend``, ``epoch``, ``weights`` and ``preparation`` of a checkpoint.
        card: text of the model card.
        description: of the data.
        folder: where the files are written.

    Raises:
        UserError: a file cannot be written.
    """
    from safetensors.torch import save_file

    # Tensors that share memory would be refused.
    weights = {name: value.detach().clone().contiguous() for name, value in content["weights"].items()}
    with replacing(folder / WEIGHTS) as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    write_json(folder / PREPROCESSING, {"preparation": content["preparation"], "data": dict(description)})
    with replacing(folder / CARD) as temporary:
        temporary.write_text(card, encoding="utf-8")
    header = {"library_name": "seqmem", "format": _FORMAT, "model_type": content["config"]["model"]["network"]}
    saved = {name: content[name] for name in ("config", "spec", "data", "backend", "epoch")}
    write_json(folder / CONFIG, {**header, **saved})


def read(folder: Path) -> dict[str, Any]:
    """Read a published model, as a checkpoint of torch has it.

    Raises:
        UserError: a file is missing, cannot be read or is something else, or safetensors is not installed.
    """
    check_package()
    found = read_json(folder / CONFIG)
    if found.get("library_name") != "seqmem":
        raise UserError(f"{folder / CONFIG}: got library_name={found.get('library_name')}, expected seqmem")
    if found.get("format") != _FORMAT:
        raise UserError(f"{folder / CONFIG}: got format={found.get('format')}, expected {_FORMAT}; a newer seqmem may read it")
    saved = {name: found.get(name) for name in ("config", "spec", "data", "backend")}
    if isinstance(saved["spec"], dict):  # JSON has no tuples
        saved["spec"] = {name: tuple(value) if isinstance(value, list) else value for name, value in saved["spec"].items()}
    preparation = read_json(folder / PREPROCESSING).get("preparation")
    return {
        "hyper_parameters": {**saved, "preparation": preparation},
        "epoch": found.get("epoch"),
        "state_dict": _weights(folder / WEIGHTS),
    }


def _weights(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from None
    except (SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error})") from None
