"""The timestamped HiPPO-LegS network as its original code runs it: a dense triangular solve for each row and step."""

import torch
from torch import Tensor

from seqmem.cells import TLSI
from seqmem.ops import transition


class DenseTimestamped(torch.nn.Module):
    """A tlsi cell's recurrence with its own weights, by matrices (B, N, N) of every step.

    Args:
        cell: a tlsi cell with the default architecture (u reads x and h, candidate and gate read x and m).
    """

    def __init__(self, cell: TLSI):
        super().__init__()
        self.cell = cell
        kind = cell.weight_ux.dtype
        a, b = transition("legs", cell.memory_order)
        self.register_buffer("a", a.to(kind))
        self.register_buffer("b", b.to(kind))

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs (B, T, C) with positive times as first channel -> outputs (B, T, H)."""
        cell, identity = self.cell, torch.eye(len(self.b), dtype=inputs.dtype)
        hidden = inputs.new_zeros(inputs.shape[0], cell.hidden_size)
        memory = inputs.new_zeros(inputs.shape[0], cell.memory_order)
        weight_u = torch.cat([cell.weight_ux, cell.weight_uh], 1)
        weight_h = torch.cat([cell.weight_hx, cell.weight_hm], 1)
        before = torch.zeros_like(inputs[:, 0, 0])
        outputs = []
        for step in inputs.unbind(1):
            time, x = step[:, 0], step[:, 1:]
            size = ((time - before) / time)[:, None]
            u = torch.nn.functional.linear(torch.cat([x, hidden], 1), weight_u, cell.bias_u)
            explicit = memory + size / 2 * (memory @ self.a.T) + size * u * self.b
            implicit = identity - size[..., None] / 2 * self.a
            memory = torch.linalg.solve_triangular(implicit, explicit[..., None], upper=False)[..., 0]
            read = torch.nn.functional.linear(torch.cat([x, memory], 1), weight_h, cell.bias_h)
            candidate, gate = read.chunk(2, 1)
            gate = torch.sigmoid(gate)
            hidden = (1 - gate) * hidden + gate * torch.tanh(candidate)
            before = time
            outputs.append(hidden)
        return torch.stack(outputs, 1)
