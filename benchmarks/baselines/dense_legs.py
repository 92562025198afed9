"""HiPPO-LegS network as in the original code: a dense N x N update per step, with stored matrices for every step."""

import torch
from torch import Tensor

from seqmem.cells import LegS
from seqmem.ops import transition


class DenseLegS(torch.nn.Module):
    """Recurrence of a LegS cell with its weights, step by step in Python with dense matrices.

    Args:
        cell: LegS cell with the default architecture: u from x and h, candidate and gate from x and m.
        steps: length of the longest sequence, T; A and B of each step are stored, T * N * (N + 1) numbers.
    """

    def __init__(self, cell: LegS, steps: int):
        super().__init__()
        self.cell = cell
        dtype, device = cell.weight_ux.dtype, cell.weight_ux.device
        a, b = (constant.to(device) for constant in transition("legs", cell.memory_order))
        identity = torch.eye(len(b), dtype=a.dtype, device=device)
        t = torch.arange(1, steps, dtype=a.dtype, device=device)[:, None, None]
        implicit = identity - a / (2 * t)
        self.register_buffer("a", torch.linalg.solve_triangular(implicit, a / t, upper=False).to(dtype))
        self.register_buffer("b", torch.linalg.solve_triangular(implicit, b[:, None] / t, upper=False).to(dtype))

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs (B, T, C) -> outputs (B, T, H)."""
        cell = self.cell
        hidden = inputs.new_zeros(inputs.shape[0], cell.hidden_size)
        memory = inputs.new_zeros(inputs.shape[0], cell.memory_size, cell.memory_order)
        weight_u = torch.cat([cell.weight_ux, cell.weight_uh], 1)
        weight_h = torch.cat([cell.weight_hx, cell.weight_hm], 1)
        outputs = []
        for t, x in enumerate(inputs.unbind(1)):
            u = torch.nn.functional.linear(torch.cat([x, hidden], 1), weight_u, cell.bias_u).unsqueeze(-1)
            if t == 0:
                memory = torch.nn.functional.pad(u, (0, cell.memory_order - 1))
            else:
                memory = memory + memory @ self.a[t - 1].T + u @ self.b[t - 1].T
            projected = torch.nn.functional.linear(torch.cat([x, memory.flatten(1)], 1), weight_h, cell.bias_h)
            candidate, gate = projected.chunk(2, 1)
            gate = torch.sigmoid(gate)
            hidden = (1 - gate) * hidden + gate * torch.tanh(candidate)
            outputs.append(hidden)
        return torch.stack(outputs, 1)
