"""Scans and convolutions by the fastest implementation for their tensors, for loops and layers outside of this project.

    >>> import torch
    >>> from seqmem.ops.functional import diagonal_scan
    >>> h, last = diagonal_scan(torch.rand(16), torch.randn(2, 100, 16))
    >>> h.shape, last.shape
    (torch.Size([2, 100, 16]), torch.Size([2, 16]))

:data:`seqmem.ops.implementations.TABLE` chooses by device, type and transforms of torch.func, as for the layers. Arguments,
results and errors are those of the reference. Lengths have any integer type, and are checked before: each is between 0 and T.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from seqmem.ops.causal_convolution import causal_convolution_reference
from seqmem.ops.diagonal_scan import diagonal_scan_reference
from seqmem.ops.diagonal_ssm import diagonal_ssm_reference
from seqmem.ops.implementations import required
from seqmem.ops.lengths import checked_lengths
from seqmem.ops.minimal_gates import minimal_gates_reference
from seqmem.ops.oscillators import oscillator_scan_reference
from seqmem.ops.selective_scan import selective_scan_reference

__all__ = ["causal_convolution", "diagonal_scan", "diagonal_ssm", "minimal_gates", "oscillators", "selective_scan"]

Function = TypeVar("Function", bound=Callable[..., Any])


def _fastest(operator: str, reference: Function, inputs: str, summary: str) -> Function:
    """Return a function with the arguments of a reference, whose implementation the tensor named ``inputs`` decides."""
    signature = inspect.signature(reference)
    place, last = map(list(signature.parameters).index, (inputs, "lengths"))

    @wraps(reference)
    def call(*args: Any, **kwargs: Any) -> Any:
        if inputs not in kwargs and len(args) <= place:
            signature.bind(*args, **kwargs)  # names the missing argument
        decisive = kwargs[inputs] if inputs in kwargs else args[place]
        if decisive.dim() > 2:
            rows, steps = decisive.shape[:2]
            if "lengths" in kwargs:
                kwargs["lengths"] = checked_lengths(operator, kwargs["lengths"], rows, steps, decisive.device)
            elif len(args) > last:
                lengths = checked_lengths(operator, args[last], rows, steps, decisive.device)
                args = (*args[:last], lengths, *args[last + 1 :])
        return required(operator, decisive)(*args, **kwargs)

    call.__name__ = call.__qualname__ = operator
    call.__module__ = __name__
    call.__doc__ = f"{summary}\n{inspect.cleandoc(reference.__doc__ or '').partition(chr(10))[2]}"
    return cast(Function, call)


causal_convolution = _fastest(
    "causal_convolution", causal_convolution_reference, "inputs", "Compute a causal convolution of each channel."
)
diagonal_scan = _fastest("diagonal_scan", diagonal_scan_reference, "b", "Compute h_t = a_t h_{t-1} + b_t, elementwise.")
diagonal_ssm = _fastest(
    "diagonal_ssm",
    diagonal_ssm_reference,
    "inputs",
    "Compute s_t = a s_{t-1} + b x_t and y_t = Re(sum_m c_m s_t,m) + skip x_t for each channel.",
)
minimal_gates = _fastest(
    "minimal_gates",
    minimal_gates_reference,
    "projected",
    "Compute h_t = a_t h_{t-1} + i_t g(k_h), with g(k) = k + 1/2 for k >= 0 and sigmoid(k) below.",
)
oscillators = _fastest(
    "oscillators",
    oscillator_scan_reference,
    "driven",
    "Compute the velocities z' = u - A y and positions y' = z of P oscillators.",
)
selective_scan = _fastest("selective_scan", selective_scan_reference, "inputs", "Compute the selective scan of Mamba.")
