"""Cells and their captured time loops, for the tests beside this file."""

import torch
from torch import nn

from seqmem import cells
from seqmem.cells import Recurrence
from seqmem.ops.states import parts


class Nested(Recurrence):
    """A cell whose state has a complex part and a nested one, and whose steps differ by numbers."""

    input_size, output_size = 3, 2
    numbers = False

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3))

    def initial_state(self, batch_size):
        real = self.weight.new_zeros(batch_size, 2)
        return real, [torch.complex(real, real), torch.zeros(batch_size, dtype=torch.int64)]

    def schedule(self, state, steps, fresh):
        return [t if self.numbers else None for t in range(steps)]

    def project(self, inputs):
        return inputs @ self.weight.T

    def advance(self, projected, state, scheduled):
        h, [z, count] = state
        z = (0.5 + 0.3j) * z + projected
        h = torch.tanh(h + z.real * z.imag + projected)
        return h, (h, [z, count + 1])


def sample(cell, steps, batch_size=2, **options):
    inputs = torch.randn(batch_size, steps, 3, dtype=torch.float64, **options)
    if cell.timed:
        inputs[..., 0] = inputs[..., 0].abs().cumsum(1)
    return inputs


def loss_of(outputs, state):
    return outputs.square().sum() + sum(part.abs().square().sum() for part in parts(state))


def stepwise(cell, inputs, state=None, lengths=None):
    return cell.stepwise_forward(inputs, cell.initial_state(len(inputs)) if state is None else state, lengths, False)


def looped(loop, cell, inputs, state=None, lengths=None):
    return loop(inputs, cell.initial_state(len(inputs)) if state is None else state, lengths)


def gradients(result, leaves):
    found = torch.autograd.grad(loss_of(*result), leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(found, leaves, strict=True)]


def make(name):
    if name == "nested":
        return Nested().double()
    arguments = {"gru": {"reset_after": False}, "hmlstm": {"hidden_size": [4, 5], "num_layers": 2, "boundary": "soft"}}
    kind = cells.get(name.split()[0])
    learned = {"trainable_scale": 1.0} if name.endswith("learned") else {}
    return kind(3, **{"hidden_size": 5, **arguments.get(name, {}), **learned}).double()
