"""A GPU that is not there: tensors that say they are on a GPU, and a watch over what would wait for it.

torch's fake tensors of a CUDA device have no backward on a machine without CUDA, so these are meta tensors. What is created on
a CUDA device or moved to one becomes such a tensor. To Python it says that it is on a GPU that no machine has, so that no cache
confuses it with a tensor of a real one.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from seqmem.ops import constants

CUDA = torch.device("cuda", 99)
SOURCES = str(Path(__file__).parents[1] / "src" / "seqmem")

_aten = torch.ops.aten
_SHAPE_OF_VALUES = {  # the shape of the result depends on values, which the host has to read
    _aten.nonzero,
    _aten.masked_select,
    _aten._unique2,
    _aten.unique_consecutive,
    _aten.unique_dim,
    _aten.bincount,
}
_TAKES_CONSTANTS_OF_THE_HOST = {"seqmem.memory_chunks", "seqmem.memory_chunks_backward"}
"""Operators that keep what follows from a CPU tensor on the GPU as long as that tensor lives."""


class Wait(NamedTuple):
    """What would wait for the GPU.

    Attributes:
        what: the operation.
        module: class of the innermost module that runs, or the autograd node.
        place: file and line below ``src/seqmem``; empty outside of it.
        code: name of the function at that line.
    """

    what: str
    module: str
    place: str
    code: str

    def __str__(self) -> str:
        return f"{self.what} in {self.module}, {self.place or 'outside of seqmem'} ({self.code})"


class Waits(list[Wait]):
    """What would wait for the GPU.

    Attributes:
        largest: bytes of the largest tensor that was made there.
    """

    largest = 0


class PretendedGPU(TorchFunctionMode):
    """Meta tensors pretend to be on a GPU, and generators for one are those of the host."""

    def __enter__(self) -> Self:
        """Begin to pretend."""
        self._generator, self._apply = torch.Generator, BackwardCFunction.apply
        torch.Generator = _Generator  # type: ignore[misc]
        BackwardCFunction.apply = lambda node, *args: self._backward(node, *args)  # type: ignore[method-assign]
        self._cast = constants._cast
        constants._cast = self._constant  # constants are computed in a thread, where nothing is pretended
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        """End it."""
        super().__exit__(*error)
        torch.Generator = self._generator  # type: ignore[misc]
        BackwardCFunction.apply = self._apply  # type: ignore[method-assign]
        constants._cast = self._cast

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace cuda by meta in arguments, and meta by cuda in what a tensor says of itself."""
        kwargs = kwargs or {}
        attribute = getattr(func, "__self__", None) if getattr(func, "__name__", "") == "__get__" else None
        if attribute is Tensor.device:
            device = func(*args)
            return CUDA if device.type == "meta" else device
        if attribute is Tensor.is_cuda:
            return Tensor.is_meta.__get__(args[0])
        if attribute is Tensor.is_meta:
            return False
        if func is Tensor.get_device:
            return CUDA.index if _on_gpu(args[0]) else -1
        if func is Tensor.cuda:
            return args[0].to("meta")
        if func is Tensor.pin_memory:
            return _pinned(args[0])
        new = {key: _meta(value) for key, value in kwargs.items()}
        if func is torch.empty and new.pop("pin_memory", False):
            return _pinned(func(*args, **new))
        if func in (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor):
            values, own = (args[1], args[0].device) if func is Tensor.new_tensor else (args[0], None)
            place = new.get("device") or own
            if place is not None and torch.device(place).type == "meta" and not _on_gpu(values):
                _note("a tensor made of values of the host")
        if func in (Tensor.numpy, Tensor.__array__) and _on_gpu(args[0]):
            _note("a copy to the host")
            return torch.zeros(args[0].shape, dtype=args[0].dtype).numpy()
        return func(*(_meta(value) for value in args), **new)

    def _constant(self, value: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
        return self._cast(value, torch.device("meta") if device == CUDA else device, dtype)

    def _backward(self, node: Any, *args: Any) -> Any:
        """Run backward of a torch.autograd.Function: the engine, as a function of torch, is called without this mode."""
        TorchFunctionMode.__enter__(self)
        try:
            return self._apply(node, *args)
        finally:
            TorchFunctionMode.__exit__(self, None, None, None)


class _Generator(torch.Generator):
    def __new__(cls, device: Any = "cpu") -> Self:
        return super().__new__(cls, "cpu")


class _Watch(TorchDispatchMode):
    """Notes each operation that waits for the GPU, and goes on with a value that passes for its result."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = Waits()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            result = self._run(func, args, kwargs)
            for tensor in tree_flatten(result)[0]:
                if isinstance(tensor, Tensor) and tensor.is_meta:
                    self.waits.largest = max(self.waits.largest, tensor.numel() * tensor.element_size())
            return result

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        there = [tensor for tensor in tensors if tensor.is_meta]
        operation = func.overloadpacket
        if operation is _aten._to_copy or operation is _aten.copy_:
            return self._copied(func, args, kwargs)
        if not there:
            return func(*args, **kwargs)
        if operation is _aten._fused_sgd_:
            return None  # which torch has not written for meta tensors
        if operation is _aten._local_scalar_dense:
            self.note("item() or bool()")
            return {torch.bool: False}.get(args[0].dtype, 1.0 if args[0].is_floating_point() else 1)
        if operation in (_aten.equal, _aten.allclose):
            self.note(str(operation))
            return True
        if operation in (_aten._linalg_check_errors, _aten.linalg_matrix_exp) or func is _aten.repeat_interleave.Tensor:
            self.note(str(operation))
        if operation in _SHAPE_OF_VALUES:
            self.note(str(operation))
            return self._of_any_shape(operation, args)
        if any(tensor.dim() > 0 and not tensor.is_meta for tensor in tensors):
            if str(operation) not in _TAKES_CONSTANTS_OF_THE_HOST:
                self.note(f"{operation} of tensors of the host and of the GPU")
            args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))
        if operation in (_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_):
            return self._indexed(func, args, kwargs)
        return func(*args, **kwargs)

    def _copied(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run a copy, and note one between the host and the GPU."""
        if func.overloadpacket is _aten.copy_:
            target, source = args[:2]
            if target.is_meta != source.is_meta:
                if not (
                    _is_pinned(target if source.is_meta else source) and (kwargs.get("non_blocking") or args[2:] == (True,))
                ):
                    self.note(f"a copy to the {'GPU' if target.is_meta else 'host'}")
                return target if target.is_meta else target.zero_()
            return func(*args, **kwargs)
        given = kwargs.get("device")
        to = args[0].device if given is None else torch.device(given)
        if (to.type == "meta") == args[0].is_meta:
            return func(*args, **kwargs)
        if to.type != "meta" or not (kwargs.get("non_blocking") and _is_pinned(args[0])):
            self.note(f"a copy to the {'GPU' if to.type == 'meta' else 'host'}")
        return torch.zeros_like(args[0], dtype=kwargs.get("dtype"), device=to)

    def _indexed(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an index, and note a mask, whose number of true elements the host has to read."""
        masks = [k for k, index in enumerate(args[1]) if index is not None and index.dtype in (torch.bool, torch.uint8)]
        if not masks:
            return func(*args, **kwargs)
        if len(args) > 2 and args[2].numel() == 1:
            return args[0].clone() if func.overloadpacket is _aten.index_put else args[0]  # a masked_fill
        self.note("an index by a mask")
        if len(args) > 2:
            return args[0].clone() if func.overloadpacket is _aten.index_put else args[0]
        [place], mask = masks, args[1][masks[0]]
        values = args[0].flatten(place, place + mask.dim() - 1)
        return values.clone()

    @staticmethod
    def _of_any_shape(operation: Any, args: Any) -> Any:
        """Return a result whose shape is that of as many values as there can be."""
        values = args[0]
        if operation is _aten.nonzero:
            return values.new_zeros(values.numel(), values.dim(), dtype=torch.int64)
        flat = values.new_empty(values.numel())
        return flat if operation in (_aten.masked_select, _aten.bincount) else (flat, flat.long(), flat.long())

    def note(self, what: str) -> None:
        """Keep what waits, with the module and the line."""
        wait = Wait(what, *_place())
        if wait not in self.waits:
            self.waits.append(wait)


_watches: list[_Watch] = []
_addresses: set[int] = set()  # of pinned tensors, from and to which a copy does not wait


@contextmanager
def watched() -> Iterator[Waits]:
    """Yield a list that gets what waits for the GPU in the block."""
    watch = _Watch()
    _watches.append(watch)
    try:
        with watch:
            yield watch.waits
    finally:
        _watches.pop()


def moved(value: Any) -> Any:
    """Return a module, or the tensors of any structure, on the GPU."""
    if isinstance(value, nn.Module):
        return value.to(CUDA)
    return tree_map_only(Tensor, lambda tensor: tensor.to(CUDA), value)


def _note(what: str) -> None:
    if _watches:
        _watches[-1].note(what)


def _pinned(tensor: Tensor) -> Tensor:
    pinned = tensor.clone()
    _addresses.add(pinned.data_ptr())
    return pinned


def _is_pinned(tensor: Tensor) -> bool:
    return tensor.data_ptr() in _addresses


def _meta(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("meta") if value.type == "cuda" else value
    return "meta" if isinstance(value, str) and value.startswith("cuda") else value


def _on_gpu(value: Any) -> bool:
    with torch._C.DisableTorchFunction():
        return isinstance(value, Tensor) and value.is_meta


def _place() -> tuple[str, str, str]:
    """Return the innermost module, line and function of the project that run."""
    module = place = code = ""
    frame: Any = sys._getframe(2)
    while frame is not None and not (module and place):
        name = frame.f_code.co_filename
        if not place and name.startswith(SOURCES):
            place, code = f"{name[len(SOURCES) + 1 :]}:{frame.f_lineno}", frame.f_code.co_name
        if not module and isinstance(frame.f_locals.get("self"), nn.Module):
            module = type(frame.f_locals["self"]).__name__
        frame = frame.f_back
    node = torch._C._current_autograd_node()
    return module if node is None else f"backward of {node.name()}", place, code
