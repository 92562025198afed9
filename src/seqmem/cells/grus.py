"""The gated cell that HiPPO's code calls grus: its gate closes as time goes on."""

from typing import NamedTuple

import torch
from torch import Tensor

from seqmem.cells.mgu import MGU


class GRUSState(NamedTuple):
    """hidden: (B, H); step: (B,) int64, how many steps each row has made."""

    hidden: Tensor
    step: Tensor


class GRUS(MGU):
    """Step t (from 0), with the candidate c and the gate g of :class:`seqmem.cells.mgu.MGU`::

        h' = (1 - g) h + g c
        h = (1 - g / (t + 1)) h + g / (t + 1) h'

    The original applies its gate twice, so what remains of it is g^2 / (t + 1), and this is kept for its results. Arguments,
    parameters and errors are those of MGU.
    """

    name = "grus"
    operator = ""

    def initial_state(self, batch_size: int) -> GRUSState:  # type: ignore[override]
        """Zero hidden state, step 0."""
        (hidden,) = super().initial_state(batch_size)
        return GRUSState(hidden, torch.zeros(batch_size, dtype=torch.int64, device=hidden.device))

    def advance(self, projected: Tensor, state: GRUSState, scheduled: None) -> tuple[Tensor, GRUSState]:  # type: ignore[override]
        """Compute one step."""
        candidate, gate = self.candidate_and_gate(projected, state.hidden)
        gated = torch.lerp(state.hidden, candidate, gate)
        hidden = torch.lerp(state.hidden, gated, gate / (state.step + 1)[:, None])
        return hidden, GRUSState(hidden, state.step + 1)
