"""Inner products with patches: each takes a few steps out of a long sequence, all channels of them.

The batch is the last dimension, so that what is gathered for a position of a patch, all channels of one step, is one run of
memory that a vector unit goes through, and an index is read once for all rows.
"""

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

# Patches whose (patch, position, channel) places are written out at a time.
BLOCK = 8192


def patch_products_reference(features: Tensor, indices: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """o_n = sum over q and k of W_nqk y(i_nq)_k + b_n, with all patches gathered at once: N p K B numbers.

    Args:
        features: y, (T, K, B) floating point.
        indices: i, (N, p) integers from 0 to T - 1.
        weight: W, (N, p, K).
        bias: b, (N,).

    Returns:
        o, (N, B).
    """
    return torch.einsum("nqkb,nqk->nb", features[indices.long()], weight) + bias[:, None]


def patch_products(
    features: Tensor, indices: Tensor, weight: Tensor, bias: Tensor, order: Tensor | None = None, starts: Tensor | None = None
) -> Tensor:
    """:func:`patch_products_reference` as products with a sparse matrix (N, T K), of which p K entries a row are not zero.

    Forward and backward need the memory of their results and of a block of patches. It can be differentiated once.

    Args:
        features: y, (T, K, B) floating point.
        indices: i, (N, p) int32 from 0 to T - 1.
        weight: W, (N, p, K), of the features' type.
        bias: b, (N,).
        order: what :func:`by_step` makes of the indices; None to do it here.
        starts: the same.

    Returns:
        o, (N, B).
    """
    if indices.shape[1] > len(features):  # a sparse matrix cannot have more entries in a row than columns
        return patch_products_reference(features, indices, weight, bias)
    if order is None or starts is None:
        order, starts = by_step(indices, len(features))
    return _PatchProducts.apply(features, indices, weight, bias, order, starts)


def by_step(indices: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """For the way back: which places of the patches read each step.

    Args:
        indices: (N, p) integers.
        length: T.

    Returns:
        (N p,) int32, the places n p + q by the step that they read; and (T,) int32, where those of each step begin in it.
    """
    steps, order = indices.flatten().long().sort(stable=True)
    starts = torch.searchsorted(steps, torch.arange(length, device=steps.device))
    return order.int(), starts.int()


class _PatchProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, indices: Tensor, weight: Tensor, bias: Tensor, order: Tensor, starts: Tensor):
        ctx.save_for_backward(features, indices, weight, order, starts)
        rows = features.flatten(0, 1)
        outputs = features.new_empty(len(indices), features.shape[2])
        for block in _blocks(len(indices)):
            places = _places(indices[block], features)
            outputs[block] = embedding_bag(places, rows, mode="sum", per_sample_weights=weight[block].flatten(1))
        return outputs.add_(bias[:, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, indices, weight, order, starts = ctx.saved_tensors
        grad = grad.contiguous()
        grad_features = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_features = torch.empty_like(features)
            patches = order // indices.shape[1]
            for channel, weights in enumerate(weight.flatten(0, 1)[order].t().contiguous()):
                grad_features[:, channel] = embedding_bag(patches, grad, starts, mode="sum", per_sample_weights=weights)
        if ctx.needs_input_grad[2]:
            grad_weight = torch.empty_like(weight)
            columns = features.flatten(0, 1).t()
            for block in _blocks(len(indices)):
                places = _places(indices[block], features)
                grad_weight[block] = _sampled_products(grad[block], columns, places).view_as(weight[block])
        return grad_features, None, grad_weight, grad.sum(1), None, None


def _blocks(count: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]


def _places(indices: Tensor, features: Tensor) -> Tensor:
    """(n, p) steps -> (n, p K) rows of the features as (T K, B)."""
    channels = features.shape[1]
    return (indices[..., None] * channels + torch.arange(channels, dtype=indices.dtype, device=indices.device)).flatten(1)


def _sampled_products(left: Tensor, right: Tensor, columns: Tensor) -> Tensor:
    """Of the product of (n, B) and (B, m), the entries in the given (n, c) columns of each row, as (n c,)."""
    _beta_warned()
    rows, count = columns.shape
    ends = torch.arange(0, rows * count + 1, count, dtype=columns.dtype, device=columns.device)
    empty = torch.sparse_csr_tensor(
        ends, columns.flatten(), left.new_zeros(rows * count), (rows, right.shape[1]), check_invariants=False
    )
    return torch.sparse.sampled_addmm(empty, left, right, beta=0.0).values()


@cache
def _beta_warned() -> None:
    """Let torch give its one warning that CSR tensors are in beta, unseen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.eye(1, device="cpu").to_sparse_csr()
