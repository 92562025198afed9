"""Layers under autocast to bfloat16: products in bfloat16; states, scans and all other arithmetic in float32."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seqmem import sequence
from seqmem.ops import extension
from seqmem.ops.states import parts
from tests.layers.test_battery import every_layer

PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}
PERMITTED = PRODUCTS | {"aten::add", "aten::clone"}
"""In bfloat16: also sums of the gradients of an operand that several products share, and copies."""


class Arithmetic(TorchDispatchMode):
    """Names of products, elementwise operations and those of this project, with the types of their operands."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **kwargs or {})
        if torch.Tag.pointwise in func.tags or func._schema.name in PRODUCTS or func.namespace == "seqmem":
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
            self.found |= {(func._schema.name, leaf.dtype) for leaf in tensors}
        return results


def trained(layer, inputs, autocast):
    """Return outputs, the parts of the state and the gradients of the inputs and of each parameter."""
    given = inputs.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        outputs, state = layer(given)
    loss = (outputs.float() * torch.linspace(-1, 1, outputs.numel()).view_as(outputs)).sum()
    return outputs.float(), parts(state), torch.autograd.grad(loss, [given, *layer.parameters()])


@every_layer
def test_products_are_in_bfloat16_and_the_rest_in_float32(name):
    torch.manual_seed(0)
    layer, inputs = sequence.get(name)(6, hidden_size=12), torch.randn(3, 40, 6)
    with Arithmetic() as mode:
        outputs, state, grads = trained(layer, inputs, True)
    half = {operation for operation, dtype in mode.found if dtype == torch.bfloat16}
    assert half & PRODUCTS
    assert half <= PERMITTED
    if not extension.REASON:  # the plain scans have products too, in float32
        assert not {operation for operation, dtype in mode.found if dtype == torch.float32} & PRODUCTS
    assert {part.dtype for part in state} <= {torch.float32, torch.complex64}
    assert {grad.dtype for grad in grads} == {torch.float32}
    exact = trained(layer, inputs, False)
    for found, expected in zip((outputs, *state, *grads), (exact[0], *exact[1], *exact[2]), strict=True):
        # Of the whole, since the derivative of g of minGRU and minLSTM jumps where rounding changes a sign.
        assert (found - expected).norm() <= 0.05 * expected.norm()
