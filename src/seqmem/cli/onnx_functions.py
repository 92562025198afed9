"""ONNX functions for operations of torch that torch.onnx does not translate: linear equations and matrix exponentials."""

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import DOUBLE, script
from onnxscript import opset18 as op

# Everything within is float64: torch.onnx notes the types of one export in a function, and uses it in the next one.
Real: Any = DOUBLE[...]

_DOUBLE = 11  # onnx.TensorProto.DOUBLE
_INT64 = 7
_TERMS = 20  # of the series of a matrix whose norm is at most a half: exact in float64


@script(default_opset=op)
def solution(matrix: Real, right: Real) -> Real:
    """Solve A X = R by Gauss-Jordan elimination without pivoting, for A (..., N, N) and R (..., N, M).

    No pivoting is needed where the symmetric part of A is positive definite, up to a diagonal similarity. It is for I - a A
    with the A of every HiPPO measure, and for I - A / 2 with a skew-symmetric A.
    """
    size = op.Gather(op.Shape(matrix), -1)
    indices = op.Range(0, size, 1)
    for k in range(size):
        index = op.Reshape(k, [1])
        row = op.Gather(matrix, index, axis=-2)
        pivot = op.Gather(row, index, axis=-1)
        unit = op.CastLike(op.Unsqueeze(op.Equal(indices, k), [1]), matrix)
        factor = op.Div(op.Sub(op.Gather(matrix, index, axis=-1), unit), pivot)
        right_row = op.Gather(right, index, axis=-2)
        matrix = op.Sub(matrix, op.MatMul(factor, row))
        right = op.Sub(right, op.MatMul(factor, right_row))
    return right


@script(default_opset=op)
def exponential(matrix: Real) -> Real:
    """Compute exp(A) of A (N, N) by a series of A / 2^k and k squarings."""
    norm = op.ReduceMax(op.ReduceSum(op.Abs(matrix), [-1], keepdims=0), keepdims=0)
    one = op.CastLike(1.0, matrix)
    two = op.CastLike(2.0, matrix)
    exponent = op.Ceil(op.Div(op.Log(op.Max(op.Mul(norm, two), one)), op.Log(two)))
    scaled = op.Div(matrix, op.Pow(two, exponent))
    identity = op.EyeLike(matrix)
    total = identity
    for k in range(_TERMS):
        total = op.Add(identity, op.Div(op.MatMul(scaled, total), op.CastLike(_TERMS - k, matrix)))
    squarings = op.Cast(exponent, to=_INT64)
    for _ in range(squarings):
        total = op.MatMul(total, total)
    return total


def _solve(matrix: Any, right: Any, left: bool = True, check_errors: bool = False) -> tuple[Any]:
    a, r = op.Cast(matrix, to=_DOUBLE), op.Cast(right, to=_DOUBLE)
    if left:
        found = solution(a, r)
    else:  # X A = R
        rank = len(right.shape)
        found = _transposed(solution(_transposed(a, len(matrix.shape)), _transposed(r, rank)), rank)
    return (op.CastLike(found, right),)


def _transposed(matrix: Any, rank: int) -> Any:
    *batch, row, column = range(rank)
    return op.Transpose(matrix, perm=[*batch, column, row])


def _exponential(matrix: Any) -> Any:
    return op.CastLike(exponential(op.Cast(matrix, to=_DOUBLE)), matrix)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten._linalg_solve_ex.default: _solve,
    torch.ops.aten.linalg_matrix_exp.default: _exponential,
}
"""What ``custom_translation_table`` of torch.onnx.export takes."""
