"""Timestamped HiPPO-LegS network as in the original code: a dense triangular solve per row and step."""

import torch
from torch import Tensor

from seqmem.cells import TLSI
from seqmem.ops import transition


class DenseTimestamped(torch.nn.Module):
    """Recurrence of a tlsi cell with its weights, with matrices (B, N, N) at every step.

    Args:
        cell: tlsi cell with the default architecture: u from x and h, candidate and gate from x and m.
    """

    def __init__(self, cell: TLSI):
        super().__init__()
        self.cell = cell
        dtype = cell.weight_ux.dtype
        a, b = transition("legs", cell.memory_order)
        self.register_buffer("a", a.to(dtype))
        self.register_buffer("b", b.to(dtype))

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs (B, T, C) with positive times as first channel -> outputs (B, T, H)."""
        cell, identity = self.cell, torch.eye(len(self.b), dtype=inputs.dtype)
        hidden = inputs.new_zeros(inputs.shape[0], cell.hidden_size)
        memory = inputs.new_zeros(inputs.shape[0], cell.memory_order)
        weight_u = torch.cat([cell.weight_ux, cell.weight_uh], 1)
        weight_h = torch.cat([cell.weight_hx, cell.weight_hm], 1)
        previous_time = torch.zeros_like(inputs[:, 0, 0])
        outputs = []
        for step in inputs.unbind(1):
            time, x = step[:, 0], step[:, 1:]
            step_size = ((time - previous_time) / time)[:, None]
            u = torch.nn.functional.linear(torch.cat([x, hidden], 1), weight_u, cell.bias_u)
            explicit = memory + step_size / 2 * (memory @ self.a.T) + step_size * u * self.b
            implicit = identity - step_size[..., None] / 2 * self.a
            memory = torch.linalg.solve_triangular(implicit, explicit[..., None], upper=False)[..., 0]
            projected = torch.nn.functional.linear(torch.cat([x, memory], 1), weight_h, cell.bias_h)
            candidate, gate = projected.chunk(2, 1)
            gate = torch.sigmoid(gate)
            hidden = (1 - gate) * hidden + gate * torch.tanh(candidate)
            previous_time = time
            outputs.append(hidden)
        return torch.stack(outputs, 1)
