"""The gated cell called grus in HiPPO's code, whose gate closes over time."""

from typing import NamedTuple

import torch
from torch import Tensor

from seqmem.cells.mgu import MGU


class GRUSState(NamedTuple):
    """State: ``hidden`` (B, H); ``step`` (B,) int64, the number of past steps of each row."""

    hidden: Tensor
    step: Tensor


class GRUS(MGU):
    """An MGU whose gate is divided by the number of steps. With candidate c and gate g of MGU, step t from 0 computes::

        h~ = (1 - g) h + g c
        h' = (1 - g / (t + 1)) h + g / (t + 1) h~

    As in the original code the gate is applied twice, so that its effect is g^2 / (t + 1). Arguments, parameters and errors are
    those of :class:`seqmem.cells.mgu.MGU`.
    """

    name = "grus"
    operator = ""
    hidden_is_output = True

    def initial_state(self, batch_size: int) -> GRUSState:  # type: ignore[override]
        """Return a zero hidden state at step 0."""
        (hidden,) = super().initial_state(batch_size)
        return GRUSState(hidden, torch.zeros(batch_size, dtype=torch.int64, device=hidden.device))

    def advance(self, projected: Tensor, state: GRUSState, scheduled: None) -> tuple[Tensor, GRUSState]:  # type: ignore[override]
        """Compute one step."""
        candidate, gate = self.candidate_and_gate(projected, state.hidden)
        gated = torch.lerp(state.hidden, candidate, gate)
        hidden = torch.lerp(state.hidden, gated, gate / (state.step + 1)[:, None])
        return hidden, GRUSState(hidden, state.step + 1)
