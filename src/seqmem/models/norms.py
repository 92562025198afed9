"""Norms over channels or steps with the signature ``norm(values (B, T, D), lengths)``."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from seqmem.data.masks import valid_steps

Norm = Literal["layer", "batch", "rms", "none"]


def make_norm(kind: Norm, size: int, eps: float, momentum: float = 0.1, affine: bool = True, shift: bool = True) -> nn.Module:
    """Build a norm of values of ``size`` channels.

    Args:
        kind: layer or rms over a step's channels, batch over all valid steps, or none.
        size: D.
        eps: constant that is added to the variance.
        momentum: weight of a batch in the running statistics of a batch norm.
        affine: the norm has a learned scale, and shift except for rms.
        shift: whether a layer norm with a scale has a shift.
    """
    match kind:
        case "layer":
            return StepNorm(nn.LayerNorm(size, eps=eps, elementwise_affine=affine, bias=shift))
        case "rms":
            return StepNorm(nn.RMSNorm(size, eps=eps, elementwise_affine=affine))
        case "batch":
            return BatchNorm(size, eps, momentum, affine)
        case _:
            return Unnormalized()


class Unnormalized(nn.Module):
    """The identity, with the signature of a norm."""

    def forward(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        """Return ``values``."""
        return values


class StepNorm(nn.Module):
    """Layer or root mean square normalisation over the channels of each step."""

    def __init__(self, norm: nn.LayerNorm | nn.RMSNorm):
        super().__init__()
        self.norm = norm

    def forward(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        """Normalise values (B, T, D), under autocast too in the precision of the weights."""
        return self.norm(values if self.norm.weight is None else values.to(self.norm.weight.dtype))


class BatchNorm(nn.Module):
    """Batch normalisation over the valid steps of all rows; padding does not affect the statistics."""

    def __init__(self, size: int, eps: float, momentum: float = 0.1, affine: bool = True):
        super().__init__()
        self.norm = nn.BatchNorm1d(size, eps=eps, momentum=momentum, affine=affine)

    def forward(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        """Normalise values (B, T, D); in training the padding becomes zero."""
        if lengths is None or not self.training:
            return self._normalized(values.flatten(0, 1)).view_as(values)
        valid = valid_steps(lengths, values.shape[1])
        if values.is_cuda:  # where the host does not know the number of valid steps
            return self._normalized_where(valid[..., None], values)
        return torch.zeros_like(values).masked_scatter(valid[..., None], self._normalized(values[valid]))

    def _normalized_where(self, valid: Tensor, values: Tensor) -> Tensor:
        """Compute what :meth:`_normalized` returns for the valid steps (B, T, 1) of values (B, T, D), and zeros elsewhere."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        assert norm.momentum is not None
        wide = values.to(norm.running_mean.dtype).where(valid, 0)
        count = valid.sum()
        several = count > 1
        mean = wide.sum((0, 1)) / count
        centred = (wide - mean).where(valid, 0)
        squares = centred.square().sum((0, 1))
        with torch.no_grad():
            share = several * norm.momentum
            norm.running_mean.copy_(torch.where(several, norm.running_mean.lerp(mean, share), norm.running_mean))
            unbiased = squares / (count - 1).clamp(min=1)
            norm.running_var.copy_(torch.where(several, norm.running_var.lerp(unbiased, share), norm.running_var))
            norm.num_batches_tracked += several
        mean = torch.where(several, mean, norm.running_mean)
        variance = torch.where(several, squares / count, norm.running_var)
        outputs = (wide - mean) * (variance + norm.eps).rsqrt()
        if norm.affine:
            outputs = outputs * norm.weight + norm.bias
        return outputs.where(valid, 0).to(values.dtype)

    def _normalized(self, steps: Tensor) -> Tensor:
        """Normalise steps (n, D); a single step has no variance, so that the running statistics replace its own."""
        if self.training and len(steps) < 2:
            norm = self.norm
            return batch_norm(steps, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        return self.norm(steps)
