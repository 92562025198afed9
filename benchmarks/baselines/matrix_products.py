"""Matrix products of a recurrent network by ``torch.mm``, without its other arithmetic.

It is not a lower bound on the time of a training step: ``torch.mm`` arranges the weights anew at each time step, and a sequence
in one call arranges them once.
"""

import torch


class MatrixProducts:
    """Products of states and weights, one call a time step in each direction, and the weight gradient in chunks of 98 steps.

    Args:
        state_size: K, size of the state that the gates multiply: N for LegS, H for LSTM and GRU.
        gates: G, rows of the weight: 2H for LegS, 4H for LSTM, 3H for GRU.
        batch_size: B.
        steps: T.
        dtype: type of all matrices.
    """

    def __init__(self, state_size: int, gates: int, batch_size: int, steps: int, dtype: torch.dtype = torch.float32):
        self.weight = torch.randn(gates, state_size).to(dtype)
        self.states = torch.randn(steps, batch_size, state_size).to(dtype)
        self.gradients = torch.randn(steps, batch_size, gates).to(dtype)
        self.gates = torch.empty(batch_size, gates, dtype=dtype)
        self.state_gradient = torch.empty(batch_size, state_size, dtype=dtype)

    def __call__(self) -> torch.Tensor:
        """Run all products once; return the weight gradient (G, K)."""
        forward, backward = self.weight.T, self.weight
        for state in self.states.unbind(0):
            torch.mm(state, forward, out=self.gates)
        for gradient in self.gradients.unbind(0):
            torch.mm(gradient, backward, out=self.state_gradient)
        total = torch.zeros_like(self.weight)
        for gradients, states in zip(self.gradients.split(98), self.states.split(98), strict=True):
            total += gradients.flatten(0, 1).T @ states.flatten(0, 1)
        return total
