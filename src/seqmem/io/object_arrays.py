"""Arrays of NumPy files; those of Python objects are read without executing code from the file."""

import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from seqmem.errors import UserError
from seqmem.io.array_pickles import load_array
from seqmem.io.tables import UNKNOWN

_largest = 2**40


def read_array(where: str, file: BinaryIO) -> np.ndarray:
    """Read an array in NumPy's format.

    Args:
        where: the file, and the array's name in it, for messages.
        file: open, at the array's beginning.

    Returns:
        The array; of type object if it holds arrays of different shapes, or texts.

    Raises:
        UserError: it is not an array, is damaged, or holds other objects than arrays of numbers and texts.
    """
    content = file.read()
    try:
        stream = io.BytesIO(content)
        shape, _, dtype = _header(stream)
        if not dtype.hasobject:
            return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
        array = load_array(stream)
    except UserError:
        raise
    except Exception as error:  # a hostile pickle raises any type
        raise UserError(
            f"{where} cannot be read ({str(error) or type(error).__name__}); expected an array of numbers, or of arrays of "
            "numbers"
        ) from None
    if array.shape != tuple(shape):
        raise UserError(f"{where} cannot be read; expected an array of numbers, or of arrays of numbers")
    return array


def _header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if int(np.prod(shape, dtype=object)) * dtype.itemsize > _largest:
        raise ValueError(f"its header declares the shape {shape}")
    return shape, fortran, dtype


def header(path: Path) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Return shape, whether it is in Fortran's order, type and place of the numbers of a .npy file.

    Raises:
        UserError: the file cannot be read, or is not such a file.
    """
    try:
        with open(path, "rb") as file:
            shape, fortran, dtype = _header(file)
            return shape, fortran, dtype, file.tell()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from None
    except Exception as error:
        raise UserError(f"{path} cannot be read ({error}); expected a .npy file of NumPy") from None


def series_of_objects(where: str, array: np.ndarray) -> list[np.ndarray]:
    """Return the series (T, C) of an array of objects (n,), each an array (T,) or (T, C) or a list of numbers.

    Raises:
        UserError: an element is something else; the message names its index.
    """
    if array.ndim != 1:
        raise UserError(f"{where}: got objects of shape {array.shape}, expected (n,), an array (T, C) for each series")
    return [_series(f"{where}[{k}]", each) for k, each in enumerate(array)]


def _series(where: str, each: Any) -> np.ndarray:
    try:
        found = np.asarray(each, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{where}: got a {type(each).__name__}, expected numbers (T,) or (T, C)") from None
    return as_series(where, found)


def as_series(where: str, array: np.ndarray) -> np.ndarray:
    """Return an array (T,) or (T, C) of numbers as (T, C).

    Raises:
        UserError: it is not one, or has no step.
    """
    if array.dtype.kind not in "fiub" or array.ndim not in (1, 2) or array.size == 0:
        raise UserError(
            f"{where}: got shape {array.shape} of {array.dtype}, expected numbers (T,) or (T, C) of at least one step"
        )
    return array[:, None] if array.ndim == 1 else array


def strings(where: str, array: np.ndarray, count: int) -> list[str | None]:
    """Return an array (n,) of numbers or texts as texts; None for a mark of a missing text, and for NaN.

    Raises:
        UserError: it has a different shape.
    """
    if array.shape not in ((count,), (count, 1)):
        raise UserError(f"{where}: got shape {array.shape}, expected ({count},), one for each series")
    return [_string(value) for value in array.reshape(-1).tolist()]


def _string(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if value is None or value != value:
        return None
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
    return None if text.lower() in UNKNOWN else text
