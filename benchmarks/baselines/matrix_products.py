"""The bare matrix products that a recurrent network cannot avoid, and nothing else: a floor for the time of training it."""

import torch


class BareProducts:
    """State to gates at every step, its transpose at every step, and the weight gradient in a few large pieces.

    Args:
        state_size: K, what the gates read of the state (the memory order for LegS, H for LSTM).
        gates: G, rows of the weight (2H for LegS, 4H for LSTM, 3H for GRU).
        batch_size: B.
        steps: T.
        dtype: of all matrices.
    """

    def __init__(self, state_size: int, gates: int, batch_size: int, steps: int, dtype: torch.dtype = torch.float32):
        self.weight = torch.randn(gates, state_size).to(dtype)
        self.states = torch.randn(steps, batch_size, state_size).to(dtype)
        self.gradients = torch.randn(steps, batch_size, gates).to(dtype)
        self.gates = torch.empty(batch_size, gates, dtype=dtype)
        self.back = torch.empty(batch_size, state_size, dtype=dtype)

    def __call__(self) -> torch.Tensor:
        """Run them once; the weight gradient (G, K)."""
        forward, backward = self.weight.T, self.weight
        for state in self.states.unbind(0):
            torch.mm(state, forward, out=self.gates)
        for gradient in self.gradients.unbind(0):
            torch.mm(gradient, backward, out=self.back)
        total = torch.zeros_like(self.weight)
        for gradients, states in zip(self.gradients.split(98), self.states.split(98), strict=True):
            total += gradients.flatten(0, 1).T @ states.flatten(0, 1)
        return total
