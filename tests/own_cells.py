"""A plugin as a user would write it: tests copy this file, with a module next to it, to the user's folder."""

from typing import NamedTuple

import torch
from own_helper import FACTOR
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from seqmem.arguments import checked
from seqmem.cells import Recurrence
from seqmem.data import SPLITS, Batch, DataSet, DataSpec, Provenance, Seed, generator, sha256


class State(NamedTuple):
    hidden: Tensor


class Leaky(Recurrence[State]):
    name = "leaky"
    hidden_is_output = True

    @checked
    def __init__(self, input_size: PositiveInt, hidden_size: PositiveInt = 256, tau: PositiveFloat = 10.0):
        super().__init__()
        self.input_size, self.output_size, self.tau = input_size, hidden_size, tau * FACTOR
        self.inward = torch.nn.Linear(input_size, hidden_size)

    def initial_state(self, batch_size):
        return State(self.inward.weight.new_zeros(batch_size, self.output_size))

    def project(self, inputs):
        return self.inward(inputs)

    def advance(self, projected, state, scheduled):
        hidden = state.hidden + (torch.tanh(projected) - state.hidden) / self.tau
        return hidden, State(hidden)


class Majority(DataSet):
    name = "majority"

    @checked
    def __init__(self, length: PositiveInt = 50, seed: Seed = 0, num_workers: NonNegativeInt = 0):
        bits = {split: generator(seed, "majority", split).integers(0, 2, (500, length)) for split in SPLITS}
        self.bits = {split: torch.from_numpy(array) for split, array in bits.items()}
        spec = DataSpec("majority", 2, 2, "classification", output_steps=0, max_length=length, tokens=True)
        provenance = Provenance(seed, {split: sha256(array) for split, array in bits.items()})
        super().__init__(spec, dict.fromkeys(SPLITS, 500), provenance, num_workers)

    def batch(self, split, indices):
        bits = self.bits[split][indices]
        return Batch(bits, (2 * bits.sum(1) > bits.shape[1]).long())
