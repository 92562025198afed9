"""Pickles of arrays, read without executing code and without trusting their content.

A pickle calls functions that it names, and hands over the state of the objects that they return. Here each of the functions
that arrays are pickled with is replaced by one of this module, which keeps what it is given; arrays are made of it afterwards.
"""

import pickle
import re
from typing import Any, BinaryIO, Literal

import numpy as np


def load_array(file: BinaryIO) -> np.ndarray:
    """Read a pickled array of numbers, texts or such arrays.

    Raises:
        Exception: of any type, if the pickle is damaged or holds something else.
    """
    found = _array_of(_Unpickler(file).load())
    if not isinstance(found, np.ndarray):
        raise pickle.UnpicklingError(f"it holds a {type(found).__name__}")
    return found


class _Type:
    """A type of numbers, texts or objects, as ``numpy.dtype`` is pickled."""

    def __init__(self, name: Any, *_: Any):
        if not isinstance(name, str) or not re.fullmatch(r"[biufSU?]\d*|O8?", name):
            raise pickle.UnpicklingError(f"it holds a type {name!r}")
        self.name, self.order = name, "="

    def __setstate__(self, state: Any) -> None:
        _, order, *parts = state
        if order not in ("<", ">", "|", "=") or any(part is not None for part in parts[:3]):
            raise pickle.UnpicklingError("it holds a type of several fields")
        self.order = order

    def dtype(self) -> np.dtype:
        """Return the type of NumPy."""
        native = np.dtype(self.name)
        return native if self.order in "|=" else native.newbyteorder("<" if self.order == "<" else ">")


class _Array:
    """An array, as ``numpy.ndarray`` is pickled."""

    def __init__(self, *_: Any):
        self.shape: tuple[int, ...] = ()
        self.type = _Type("O")
        self.order: Literal["C", "F"] = "C"
        self.data: Any = None

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.type, is_fortran, self.data = state
        self.order = "F" if is_fortran else "C"

    def array(self) -> np.ndarray:
        """Return the array of NumPy."""
        if not isinstance(self.type, _Type) or not isinstance(self.shape, tuple):
            raise pickle.UnpicklingError("it holds an array without a type or a shape")
        if self.type.name.startswith("O"):
            if not isinstance(self.data, list):
                raise pickle.UnpicklingError("it holds an array of objects without a list of them")
            elements = np.empty(len(self.data), object)
            for k, element in enumerate(self.data):
                elements[k] = _array_of(element)
        else:
            elements = np.frombuffer(self.data, self.type.dtype()).copy()
        return elements.reshape(self.shape, order=self.order)


def _array_of(value: Any) -> Any:
    return value.array() if isinstance(value, _Array) else value


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, kind, order == "F", data))
    return array


def _scalar(kind: _Type, data: bytes) -> Any:
    return np.frombuffer(data, kind.dtype())[0].item()


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it holds bytes in {encoding!r}")
    return text.encode("latin1")


_functions = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
    **{(f"{core}.multiarray", "_reconstruct"): _Array for core in ("numpy.core", "numpy._core")},
    **{(f"{core}.multiarray", "scalar"): _scalar for core in ("numpy.core", "numpy._core")},
    **{(f"{core}.numeric", "_frombuffer"): _from_buffer for core in ("numpy.core", "numpy._core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a function that arrays are pickled with."""
        if (module, name) not in _functions:
            raise pickle.UnpicklingError(f"it holds a {module}.{name}")
        return _functions[module, name]
