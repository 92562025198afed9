"""Implementations ("sides") of a cell's or layer's forward and backward on a device, with the same weights and inputs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from benchmarks.baselines.dense_legs import DenseLegS
from benchmarks.gpu.timing import products
from seqmem import layers, sequence
from seqmem.cells import LegS

OURS = "seqmem"
LOOP = "torch, step by step"
DENSE = "original (dense)"
LAYERS = tuple(name for name in sequence.names() if sequence.get(name).__module__.startswith(f"{layers.__name__}."))
"""Layers that are parallel over time, such as ``lru`` and ``mamba``."""
CUDNN = {"lstm": "torch.nn.LSTM", "gru": "torch.nn.GRU"}
THRESHOLDS = ("hmlstm",)
"""Cells whose boundaries flip by rounding, so that sides cannot be compared over a whole sequence."""

Result = tuple[Tensor, list[Tensor]]
"""Outputs (B, T, H) and the gradients of the parameters."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of a case: H, T and B."""

    hidden: int = 512
    steps: int = 784
    batch: int = 100


class CellCase:
    """A cell or layer on a device, and its sides.

    Args:
        name: of the cell or layer.
        sizes: H, T and B.
        device: cuda or cpu.
    """

    def __init__(self, name: str, sizes: Sizes, device: str):
        torch.manual_seed(0)
        self.name, self.sizes, self.device = name, sizes, device
        make = sequence.get(name)
        self.cell = make(input_size=1 + make.timed, hidden_size=sizes.hidden).to(device)
        inputs = torch.randn(sizes.batch, sizes.steps, 1)
        if make.timed:
            inputs = torch.cat([torch.rand_like(inputs).cumsum(1), inputs], -1)
        self.inputs = inputs.to(device)
        self.cotangent = torch.randn(sizes.batch, sizes.steps, self.cell.output_size).to(device)

    @property
    def title(self) -> str:
        """Name of the case in tables."""
        return f"{self.name}, hidden {self.sizes.hidden}, length {self.sizes.steps}, batch {self.sizes.batch}"

    def forward(self, side: str) -> tuple[Callable[[], Tensor], list[nn.Parameter]]:
        """Return a side's forward, which maps nothing to outputs (B, T, H), and its parameters."""
        own = list(self.cell.parameters())
        if side == OURS:
            return lambda: self.cell(self.inputs)[0], own
        if side == LOOP:
            state = self.cell.initial_state(len(self.inputs))
            return lambda: self.cell.stepwise_forward(self.inputs, state, None, True)[0], own
        if side == DENSE:
            assert isinstance(self.cell, LegS)
            dense = DenseLegS(self.cell, self.sizes.steps)
            return lambda: dense(self.inputs), own
        if side == CUDNN.get(self.name):
            network = self._torch_nn()
            return lambda: network(self.inputs)[0], list(network.parameters())
        raise ValueError(f"{self.name} has no side {side}")

    def evaluation(self, side: str, precision: str) -> Callable[[], Tensor]:
        """Return a side's forward without gradients."""
        forward, _ = self.forward(side)

        def call() -> Tensor:
            with torch.no_grad(), torch.autocast(self.device, torch.bfloat16, enabled=precision == "bf16"):
                return forward()

        return call

    def training(self, side: str, precision: str) -> Callable[[], Result]:
        """Return a side's forward and backward."""
        forward, parameters = self.forward(side)

        def call() -> Result:
            with torch.autocast(self.device, torch.bfloat16, enabled=precision == "bf16"):
                outputs = forward()
            gradients = torch.autograd.grad(outputs, parameters, self.cotangent.to(outputs.dtype))
            return outputs.detach(), list(gradients)

        return call

    @cached_property
    def reference(self) -> Result:
        """Outputs and gradients in strict float32."""
        with products("float32"):
            return self.training(OURS, "float32")()

    def difference(self, found: Result) -> float:
        """Return the largest relative norm of a difference from the reference; NaN if a value is NaN."""
        pairs = [(found[0], self.reference[0]), *zip(found[1], self.reference[1], strict=True)]
        errors = [((one.float() - other).norm() / other.norm().clamp(min=1e-30)) for one, other in pairs]
        return torch.stack(errors).max().item()

    def _torch_nn(self) -> nn.Module:
        """Return torch's own layer with copies of the weights, which cuDNN needs as one block, in the same order."""
        network = getattr(nn, self.name.upper())(1, self.sizes.hidden, batch_first=True).to(self.device)
        with torch.no_grad():
            for name, parameter in self.cell.named_parameters():
                getattr(network, f"{name}_l0").copy_(parameter)
        assert [name for name, _ in network.named_parameters()] == [f"{name}_l0" for name, _ in self.cell.named_parameters()]
        return network
