"""Complex numbers as trailing pairs of reals, (..., 2): arithmetic, and linear maps to and from real channels.

Operators on pairs need no complex tensors, which formats such as ONNX do not have. Under autocast the linear
maps multiply in its type, with results in float32.
"""

import torch
from torch import Tensor

from seqmem.ops.precision import mixed_linear


def product(a: Tensor, b: Tensor) -> Tensor:
    """Multiply pairs, broadcast over their leading dimensions."""
    (a_re, a_im), (b_re, b_im) = a.unbind(-1), b.unbind(-1)
    return torch.stack([a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re], -1)


def quotient(a: Tensor, b: Tensor) -> Tensor:
    """Divide pairs, broadcast over their leading dimensions."""
    (a_re, a_im), (b_re, b_im) = a.unbind(-1), b.unbind(-1)
    square = b_re.square() + b_im.square()
    return torch.stack([(a_re * b_re + a_im * b_im) / square, (a_im * b_re - a_re * b_im) / square], -1)


def exp(values: Tensor) -> Tensor:
    """Compute the exponential of pairs."""
    real, imaginary = values.unbind(-1)
    return real.exp()[..., None] * torch.stack([imaginary.cos(), imaginary.sin()], -1)


def expm1(values: Tensor) -> Tensor:
    """Compute exp(z) - 1 of pairs without cancellation for small z."""
    real, imaginary = values.unbind(-1)
    less_one = real.expm1() * imaginary.cos() - 2 * (imaginary / 2).sin().square()
    return torch.stack([less_one, real.exp() * imaginary.sin()], -1)


def from_real(inputs: Tensor, weight: Tensor) -> Tensor:
    """Compute W x, (..., N, 2), for real inputs (..., C) and pairs W (N, C, 2), as one real product."""
    return mixed_linear(inputs, weight.transpose(1, 2).flatten(0, 1)).unflatten(-1, (len(weight), 2))


def real_part(values: Tensor, weight: Tensor) -> Tensor:
    """Compute Re(W z), (..., H), for pairs z (..., N, 2) and W (H, N, 2), as one real product."""
    real, imaginary = weight.unbind(-1)
    return mixed_linear(values.flatten(-2), torch.stack([real, -imaginary], -1).flatten(1))
