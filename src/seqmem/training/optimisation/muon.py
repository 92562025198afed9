"""Muon: momentum with its singular values made equal (Jordan et al., 2024)."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from seqmem.errors import UserError

# x -> a x + b x^3 + c x^5 of each singular value x, with the published numbers. Three iterations bring 0.02 to 1 near 1.
_A, _B, _C = 3.4445, -4.7750, 2.0315


class Muon(Optimizer):
    """m = momentum m + g; w = (1 - lr weight_decay) w - lr sqrt(max(R, C)) O(g + momentum m).

    O keeps about the singular vectors of a matrix (R, C) and brings its singular values near 1, by a few iterations of Newton
    and Schulz. Elements then have a root mean square of 1 / sqrt(max(R, C)), so that ``lr`` is the size of a weight's step, as
    in Adam. A tensor of more dimensions is the matrix of its first dimension and all others. A vector is scaled to norm 1.

    torch.optim.Muon takes matrices only, one by one and in bfloat16, which on a CPU takes longer than such a model. Here
    matrices of one shape are batched. A parameter may also be several matrices, as the gradients of a recurrence's gates differ
    in size. (The layers of an HM-LSTM are one matrix each.)

    Args:
        params: parameters, or groups of them; a group's ``blocks`` is the number of matrices in each, one above the other.
        lr: learning rate.
        weight_decay: decoupled, as in AdamW.
        momentum: of the gradients, Nesterov's.
        iterations: of Newton and Schulz.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.8,
        iterations: int = 3,
    ):
        settings = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "iterations": iterations, "blocks": 1}
        super().__init__(params, settings)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters.

        Raises:
            UserError: one is complex, or its rows cannot be divided into ``blocks`` matrices.
        """
        super().add_param_group(param_group)
        blocks = self.param_groups[-1]["blocks"]
        for parameter in self.param_groups[-1]["params"]:
            if parameter.is_complex():
                raise UserError(f"muon: got a parameter of {parameter.dtype}, expected real numbers")
            if blocks > 1 and (parameter.dim() == 0 or len(parameter) % blocks):
                raise UserError(f"muon: got a parameter of shape {tuple(parameter.shape)}, expected rows for {blocks} blocks")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; return the result of ``closure``."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            batches: dict[tuple[Any, ...], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.numel() > 0:
                    batches.setdefault((parameter.shape, parameter.dtype, parameter.device), []).append(parameter)
            for parameters in batches.values():
                self._step(parameters, group)
        return loss

    def _step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Take one step of parameters of one shape."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        momenta = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, gradients)
        nesterov = torch.stack(torch._foreach_add(gradients, momenta, alpha=group["momentum"]))
        nesterov = nesterov.to(torch.promote_types(nesterov.dtype, torch.float32))
        rows, columns = (nesterov.shape[1] // group["blocks"], nesterov[0, 0].numel()) if nesterov.dim() > 1 else (1, 1)
        matrices = nesterov.reshape(-1, rows, columns)
        steps = equalized(matrices, group["iterations"]).mul_(group["lr"] * math.sqrt(max(matrices.shape[1:])))
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_sub_(parameters, list(steps.view_as(nesterov).to(parameters[0].dtype).unbind()))


def equalized(matrices: Tensor, iterations: int) -> Tensor:
    """Return matrices (n, R, C) with the singular values of each brought near 1; zero where their squares underflow."""
    norms = matrices.norm(dim=(1, 2), keepdim=True)
    least = 16 * torch.finfo(matrices.dtype).tiny ** 0.5
    result = torch.where(norms > least, matrices / norms.clamp(min=least), 0)
    if min(matrices.shape[1:]) == 1:
        return result
    tall = matrices.shape[1] > matrices.shape[2]
    if tall:
        result = result.mT
    for _ in range(iterations):
        gram = result @ result.mT
        result = torch.baddbmm(result, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), result, beta=_A)
    return (result.mT if tall else result).contiguous()
