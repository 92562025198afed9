"""ONNX models of exported programs: translated by torch.onnx, checked with onnxruntime."""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from seqmem.errors import UserError, not_installed

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def missing() -> list[str]:
    """Return the packages of the extra ``onnx`` that are not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def check_packages() -> None:
    """Raise UserError unless the packages of the extra ``onnx`` are installed."""
    if missing():
        raise UserError(f"--format onnx: {missing()[0]} {not_installed('onnx')}")


def save(
    exported: ExportedProgram,
    label: str,
    names: Sequence[str],
    outputs: Sequence[str],
    description: Mapping[str, Any],
    path: Path,
) -> None:
    """Translate a program and write it as an ONNX model in one file.

    Args:
        exported: of torch's own operators.
        label: name of the model in messages.
        names: of the inputs.
        outputs: names of what it returns.
        description: written into the model's metadata, under the key ``seqmem``.
        path: the file.

    Raises:
        UserError: torch.onnx cannot translate the model, or ONNX cannot hold it.
    """
    from seqmem.cli.onnx_functions import TRANSLATIONS

    try:
        with _quietly():
            translated = torch.onnx.export(
                exported,
                dynamo=True,
                input_names=list(names),
                output_names=list(outputs),
                custom_translation_table=TRANSLATIONS,
                verbose=False,
            )
            assert translated is not None
            _name_sizes(translated.model)
            translated.model.metadata_props["seqmem"] = json.dumps(description)
            translated.save(path, external_data=False)
    except OSError:
        raise
    except Exception as error:  # torch and onnx raise many types
        raise UserError(f"{label} cannot be translated to ONNX ({_reason(error)}); --format pt2 can hold it") from None


def load(path: Path) -> "Session":
    """Load an ONNX model.

    Raises:
        UserError: onnxruntime refuses it.
    """
    try:
        return Session(path)
    except Exception as error:
        raise UserError(f"onnxruntime cannot load the ONNX model ({_first_line(error)})") from None


class Session:
    """An ONNX model that takes and returns tensors.

    Args:
        path: the file.
    """

    def __init__(self, path: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors: it warns of constants that it removes
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        self._names = [given.name for given in self._session.get_inputs()]

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs of inputs in the model's order."""
        given = {name: tensor.numpy() for name, tensor in zip(self._names, tensors, strict=True)}
        return tuple(map(torch.from_numpy, self._session.run(None, given)))


def _name_sizes(model: Any) -> None:
    """Call the free sizes of the inputs B and T, instead of torch's own names of them."""
    names: dict[str, str] = {}
    for value in model.graph.inputs:
        for size, name in zip(value.shape, ("B", "T"), strict=False):
            if not isinstance(size, int) and size.value is not None:
                names.setdefault(size.value, name)
    for value in (*model.graph.inputs, *model.graph.outputs):
        for k, size in enumerate(value.shape):
            if not isinstance(size, int) and size.value in names:
                value.shape[k] = names[size.value]


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence what torch.onnx and onnxscript say about their own steps."""
    names = ("torch.onnx", "onnxscript", "onnx_ir")
    before = {name: logging.getLogger(name).level for name in names}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in names:
                logging.getLogger(name).setLevel(logging.ERROR)
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _reason(error: BaseException) -> str:
    """Return the innermost cause of an error, which names the operator."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].strip()
