"""Norms over channels or steps with the signature ``norm(values (B, T, D), lengths)``."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, rms_norm

from seqmem.data.masks import valid_steps
from seqmem.ops.precision import at_least_float32

Norm = Literal["layer", "batch", "rms", "rms_unit_offset", "none"]


def make_norm(kind: Norm, size: int, eps: float, momentum: float = 0.1, affine: bool = True, shift: bool = True) -> nn.Module:
    """Build a norm of values of ``size`` channels.

    Args:
        kind: layer or rms over a step's channels, batch over all valid steps, or none; rms_unit_offset is rms with the scale
            1 + w, which weight decay pulls to 1.
        size: D.
        eps: constant that is added to the variance.
        momentum: smallest weight of a batch in the running statistics of a batch norm.
        affine: the norm has a learned scale, and shift except for rms and rms_unit_offset.
        shift: whether a layer norm with a scale has a shift.
    """
    match kind:
        case "layer":
            return StepNorm(nn.LayerNorm(size, eps=eps, elementwise_affine=affine, bias=shift))
        case "rms":
            return StepNorm(nn.RMSNorm(size, eps=eps, elementwise_affine=affine))
        case "rms_unit_offset":
            return StepNorm((UnitOffsetRMSNorm if affine else nn.RMSNorm)(size, eps=eps, elementwise_affine=affine))
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


class UnitOffsetRMSNorm(nn.RMSNorm):
    """Root mean square normalisation with the scale 1 + ``weight``, zero at first (De et al., "Griffin", 2024)."""

    def reset_parameters(self) -> None:
        """Set the scale to 1."""
        nn.init.zeros_(self.weight)

    def forward(self, values: Tensor) -> Tensor:
        """Normalise values over their last dimension."""
        return rms_norm(values, self.normalized_shape, 1 + self.weight, self.eps)


class BatchNorm(nn.Module):
    """Batch normalisation over the valid steps of all rows; padding does not affect the statistics.

    Batch n = 1, 2 ... of the training has the weight max(momentum, 10 / (9 + n)) in the running statistics, which evaluation
    uses. This is polynomial-decay averaging with eta = 9 (Shamir and Zhang, "Stochastic Gradient Descent for Non-smooth
    Optimization", 2013) until the weight is the momentum. The first batch replaces the initial statistics, which would
    otherwise dominate the first 1 / momentum batches, and those of the first weights are forgotten soon.
    """

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
        norm, (running_mean, running_var, _) = self.norm, self._statistics()
        wide = at_least_float32(values.to(running_mean.dtype)).where(valid, 0)  # sums over time overflow in float16
        count = valid.sum()
        several = count > 1
        mean = wide.sum((0, 1)) / count
        centred = (wide - mean).where(valid, 0)
        squares = centred.square().sum((0, 1))
        mean = torch.where(several, mean, running_mean)
        unbiased = squares / (count - 1).clamp(min=1)
        unbiased = torch.where(several, unbiased, running_var)
        self._average(mean.to(running_mean.dtype), unbiased.to(running_var.dtype), several)
        variance = torch.where(several, squares / count, running_var)
        outputs = (wide - mean) * (variance + norm.eps).rsqrt()
        if norm.affine:
            outputs = outputs * norm.weight + norm.bias
        return outputs.where(valid, 0).to(values.dtype)

    def _normalized(self, steps: Tensor) -> Tensor:
        """Normalise steps (n, D); a single step has no variance, so that the running statistics replace its own."""
        norm, (running_mean, running_var, _) = self.norm, self._statistics()
        if not self.training or len(steps) < 2:
            return batch_norm(steps, running_mean, running_var, norm.weight, norm.bias, eps=norm.eps)
        mean, unbiased = torch.zeros_like(running_mean), torch.zeros_like(running_var)
        outputs = batch_norm(steps, mean, unbiased, norm.weight, norm.bias, training=True, momentum=1.0, eps=norm.eps)
        self._average(mean, unbiased, 1)
        return outputs

    @torch.no_grad()
    def _average(self, mean: Tensor, unbiased: Tensor, batches: Tensor | int) -> None:
        """Average the statistics of a batch into the running ones.

        ``batches`` is 0 for a batch without statistics of its own, whose ``mean`` and ``unbiased`` are the running ones.
        """
        running_mean, running_var, seen = self._statistics()
        seen += batches
        assert self.norm.momentum is not None
        weight = (10 / (9 + seen.to(mean.dtype))).clamp(min=self.norm.momentum)
        running_mean.lerp_(mean, weight)
        running_var.lerp_(unbiased, weight)

    def _statistics(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the running mean and variance, and the number of batches."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        return norm.running_mean, norm.running_var, norm.num_batches_tracked
