"""Compiled programs read results and gradients by the shapes and strides of fake kernels: those of every layer's operators."""

import pytest
import torch
from torch._subclasses.fake_tensor import MetadataMismatchError

from seqmem.ops import extension
from seqmem.ops.states import parts
from tests.gpu.layers import NAMES, exact_layer, loss_of, sample
from tests.ops.registered import compared_with_fake_kernels

pytestmark = [
    pytest.mark.skipif(bool(extension.REASON), reason=extension.REASON),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),  # in torch
]


@pytest.mark.parametrize("name", NAMES)
def test_fake_kernels_have_the_strides_of_the_operators(name):
    """In forward and backward, with and without padding."""
    layer = exact_layer(name)
    for lengths in (None, torch.tensor([7, 3, 0])):
        inputs = sample(name, 3, 7).requires_grad_()
        with compared_with_fake_kernels():
            outputs, state = layer(inputs, None, lengths)
            loss_of([outputs, *parts(state)]).backward()
        assert inputs.grad.shape == inputs.shape


def test_wrong_strides_are_found():
    with torch.library._scoped_library("seqmem", "FRAGMENT") as library:
        library.define("turned(Tensor x) -> Tensor")
        library.impl("turned", lambda x: x.T.contiguous().T, "CPU")
        library._register_fake("turned", torch.empty_like)
        with pytest.raises(MetadataMismatchError, match="Stride mismatch"), compared_with_fake_kernels():
            torch.ops.seqmem.turned(torch.ones(2, 3))
