"""Inner products with patches of a long sequence: a patch is a few steps with all their channels.

The batch is the last dimension: the numbers gathered for one step of a patch are contiguous, and an index is read once for all
rows.

Forward and the gradient of the features are sums of weighted rows of a table, by the fast kernel of
torch.nn.functional.embedding_bag. The gradient of the weights is a product sampled at the entries of a sparse matrix. In a
training step of the layer on a CPU these three take about a third of the time. The rest is mostly the sorting of the weights by
step, and the transposition, concatenation and activation of the outputs.
"""

import warnings
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from seqmem.ops.precision import at_least_float32
from seqmem.ops.transforms import fallback_reason

PIECE = 32 * 2**20
"""Bytes of gathered patches that exist at a time on a GPU."""


def patch_products_reference(features: Tensor, indices: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Reference: o_n = sum over q and k of W_nqk y(i_nq)_k + b_n, with all patches gathered, N p K B numbers.

    Args:
        features: y, (T, K, B) floating point.
        indices: i, (N, p) integers from 0 to T - 1.
        weight: W, (N, p, K).
        bias: b, (N,).

    Returns:
        o, (N, B).
    """
    return torch.einsum("nqkb,nqk->nb", features[indices.long()], weight) + bias[:, None]


class PatchIndex(NamedTuple):
    """Indices of patches in features (T K, B), for forward and backward.

    Attributes:
        indices: (N, p) steps of each patch.
        rows: (N, p K) int32 rows of the features of each patch.
        order: (N p) int32 positions n p + q, sorted by step.
        starts: (T,) int32 first position of each step in ``order``.
    """

    indices: Tensor
    rows: Tensor
    order: Tensor
    starts: Tensor


def patch_index(indices: Tensor, length: int, channels: int) -> PatchIndex:
    """Compute the indices of patches.

    Args:
        indices: (N, p) integers from 0 to T - 1.
        length: T.
        channels: K.
    """
    device = indices.device
    rows = indices[..., None].int() * channels + torch.arange(channels, dtype=torch.int32, device=device)
    steps, order = indices.flatten().long().sort(stable=True)
    starts = torch.searchsorted(steps, torch.arange(length, device=device))
    return PatchIndex(indices, rows.flatten(1), order.int(), starts.int())


class SharedBackward(NamedTuple):
    """Tensors that several backward passes with the same weights share.

    Attributes:
        by_step: (K, N p), :func:`weights_by_step` of each channel, computed once; None for a single backward pass.
        total: (N, p, K) contiguous, to which each backward pass adds the gradient of the weights instead of returning it; None
            to return it.
    """

    by_step: Tensor | None
    total: Tensor | None


def weights_by_step(weight: Tensor, index: PatchIndex, channel: int) -> Tensor:
    """Return the weights (N p,) of one channel, of (N, p, K), sorted by step for the gradient of the features."""
    return weight.flatten(0, 1)[:, channel][index.order]


def patch_products(
    features: Tensor, index: PatchIndex, weight: Tensor, bias: Tensor, shared: SharedBackward | None = None
) -> Tensor:
    """Compute :func:`patch_products_reference` as products with a sparse matrix (N, T K) with p K entries per row.

    Forward and backward need only the memory of their results and of the weights. Differentiable once.

    Args:
        features: y, (T, K, B) floating point.
        index: :func:`patch_index` of i.
        weight: W, (N, p, K), of the features' type.
        bias: b, (N,).
        shared: tensors shared by the backward passes of several calls with the same weights; None for a single call.

    Returns:
        o, (N, B).
    """
    # A sparse matrix cannot have more entries in a row than columns.
    if index.indices.shape[1] > len(features) or fallback_reason():
        return patch_products_reference(features, index.indices, weight, bias)
    return _PatchProducts.apply(features, weight, bias, index, shared)


class _PatchProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, index: PatchIndex, shared: SharedBackward | None):
        ctx.shared = shared
        ctx.save_for_backward(features, weight, *index)
        outputs = embedding_bag(index.rows, features.flatten(0, 1), mode="sum", per_sample_weights=weight.flatten(1))
        return outputs.add_(bias[:, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, *parts = ctx.saved_tensors
        index, shared = PatchIndex(*parts), ctx.shared
        grad = grad.contiguous()
        grad_features = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_features = torch.empty_like(features)
            patches = index.order // index.indices.shape[1]
            by_step = None if shared is None else shared.by_step
            for channel in range(features.shape[1]):
                weights = weights_by_step(weight, index, channel) if by_step is None else by_step[channel]
                sums = embedding_bag(patches, grad, index.starts, mode="sum", per_sample_weights=weights)
                grad_features[:, channel] = sums
        if ctx.needs_input_grad[1]:
            columns = features.flatten(0, 1).t()
            total = None if shared is None else shared.total
            if total is None:
                total = grad_weight = torch.zeros_like(weight, memory_format=torch.contiguous_format)
            _add_sampled_products(total, grad, columns, index.rows)
        return grad_features, grad_weight, grad.sum(1), None, None


def _add_sampled_products(total: Tensor, left: Tensor, right: Tensor, columns: Tensor) -> None:
    """Add to ``total`` the entries of the product of (n, B) and (B, m) in the given (n, c) columns of each row."""
    wide = at_least_float32(total)
    if wide is not total:  # the sampled product does not support half precision
        wide = torch.zeros_like(wide)
        _add_sampled_products(wide, left.to(wide.dtype), right.to(wide.dtype), columns)
        total.add_(wide)
        return
    if total.device.type != "cpu":  # the sparse product of other devices needs a copy of its result
        _add_gathered_products(total, left, right, columns)
        return
    _silence_csr_warnings()
    rows, count = columns.shape
    ends = torch.arange(0, rows * count + 1, count, dtype=columns.dtype, device=columns.device)
    products = torch.sparse_csr_tensor(ends, columns.flatten(), total.view(-1), (rows, right.shape[1]), check_invariants=False)
    torch.sparse.sampled_addmm(products, left, right, out=products)


def _add_gathered_products(total: Tensor, left: Tensor, right: Tensor, columns: Tensor) -> None:
    """Compute what :func:`_add_sampled_products` does from gathered columns, for as many rows at once as fit in ``PIECE``."""
    count, batch = columns.shape[1], left.shape[1]
    rows = max(PIECE // max(count * batch * right.element_size(), 1), 1)
    table, sums = right.t(), total.view(columns.shape)
    for start in range(0, len(columns), rows):
        part = slice(start, start + rows)
        gathered = table.index_select(0, columns[part].flatten()).unflatten(0, (-1, count))
        sums[part].unsqueeze(-1).baddbmm_(gathered, left[part].unsqueeze(-1))


@cache
def _silence_csr_warnings() -> None:
    """Trigger and ignore torch's single warnings of CSR tensors: beta and, before torch 2.13, unchecked indices."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor([0, 1], [0], [1.0], (1, 1), device="cpu", check_invariants=False)
