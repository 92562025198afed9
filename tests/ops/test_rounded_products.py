"""Products under autocast to bfloat16 on processors without fast ones: operands are rounded, products are in float32."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seqmem.ops import extension, rounded_products
from seqmem.ops.rounded_products import RoundedProducts
from seqmem.training.config import TrainConfig, runner_config
from seqmem.training.loop.precision import fast_products
from tests.layers.igloo.uses import USES, data, make

PRODUCTS = {
    "linear": (lambda x, w: functional.linear(x, w), (2, 5, 7), (3, 7)),
    "linear by keyword": (lambda x, w: functional.linear(x, weight=w, bias=w[:, 0]), (5, 7), (3, 7)),
    "operator": (lambda x, w: x @ w, (2, 5, 7), (7, 3)),
    "method": (lambda x, w: x.matmul(w), (5, 7), (7,)),
    "einsum": (lambda x, w: torch.einsum("btc,kc->btk", x, w), (2, 5, 7), (3, 7)),
    "convolution": (lambda x, w: functional.conv1d(x, w), (2, 5, 9), (3, 5, 2)),
    "batches": (lambda x, w: torch.bmm(x, w), (2, 5, 7), (2, 7, 3)),
    "convolution of volumes": (lambda x, w: functional.conv3d(x, w), (1, 2, 3, 4, 3), (3, 2, 2, 2, 1)),
    "transposed convolution of images": (lambda x, w: functional.conv_transpose2d(x, w), (1, 2, 3, 4), (2, 3, 2, 2)),
    "tensordot": (lambda x, w: torch.tensordot(x, w, 1), (2, 5, 7), (7, 3)),
}
FUNCTIONS = {
    **{name: lambda name=name: PRODUCTS[name][0](*operands(name)) for name in PRODUCTS},
    "transposed convolution of volumes": lambda: functional.conv_transpose3d(
        torch.randn(1, 2, 3, 4, 3), torch.randn(2, 3, 2, 2, 1)
    ),
    "bilinear": lambda: functional.bilinear(torch.randn(2, 3), torch.randn(2, 4), torch.randn(5, 3, 4)),
    "attention": lambda: functional.scaled_dot_product_attention(*torch.randn(3, 2, 2, 5, 4)),
    "attention of several heads": lambda: nn.MultiheadAttention(8, 2)(*torch.randn(3, 5, 2, 8))[0],
    "transformer": lambda: nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)(torch.randn(2, 5, 8)),
    "chain": lambda: torch.linalg.multi_dot([torch.randn(3, 4), torch.randn(4, 5), torch.randn(5, 2)]),
    "sum of products": lambda: torch.addbmm(torch.randn(3, 4), torch.randn(2, 3, 5), torch.randn(2, 5, 4)),
    **{kind: lambda kind=kind: getattr(nn, kind)(3, 4)(torch.randn(2, 5, 3))[0] for kind in ("LSTM", "GRU", "RNN")},
    "packed": lambda: nn.LSTM(3, 4)(nn.utils.rnn.pack_padded_sequence(torch.randn(5, 2, 3), [5, 3]))[0].data,
    **{kind: lambda kind=kind: getattr(nn, kind)(3, 4)(torch.randn(2, 3)) for kind in ("LSTMCell", "GRUCell", "RNNCell")},
}


class Bfloat16(TorchDispatchMode):
    """Names of operations on tensors in bfloat16, conversions aside."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs, results)) if isinstance(leaf, torch.Tensor)]
        if "_to_copy" not in str(func) and any(each.dtype == torch.bfloat16 for each in tensors):
            self.found.add(str(func))
        return results


def operands(name, dtype=torch.float32):
    torch.manual_seed(0)
    _, *shapes = PRODUCTS[name]
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("name", PRODUCTS)
def test_operands_are_rounded_and_products_are_in_float32(name):
    product, x, w = PRODUCTS[name][0], *operands(name)
    with RoundedProducts(), torch.autocast("cpu", torch.bfloat16):
        given = product(x, w)
    assert given.dtype == torch.float32
    rounded = [value.detach().bfloat16().double().requires_grad_() for value in (x, w)]
    expected = product(*rounded)
    assert_close(given.double(), expected, rtol=1e-5, atol=1e-5)
    grads = torch.autograd.grad(given.square().sum(), (x, w))
    for grad, exact in zip(grads, torch.autograd.grad(expected.square().sum(), rounded), strict=True):
        assert_close(grad.double(), exact, rtol=0, atol=1e-5 * exact.abs().max().item())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nothing_is_computed_in_bfloat16(name):
    """Neither by the function nor within it, forward and backward."""
    with Bfloat16() as plain, torch.autocast("cpu", torch.bfloat16):
        FUNCTIONS[name]()
    with RoundedProducts(), Bfloat16() as mode:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = FUNCTIONS[name]()
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs
        if outputs.requires_grad:
            outputs.sum().backward()
    assert not mode.found
    assert plain.found or name == "bilinear"  # which torch computes in float32 itself


def test_other_products_do_not_change():
    product, x, w = PRODUCTS["linear"][0], *operands("linear")
    with RoundedProducts():
        assert torch.equal(product(x, w), functional.linear(x, w))
        with torch.autocast("cpu", torch.bfloat16):
            assert product(x.double(), w.double()).dtype == torch.float64
            assert (x + 0.1).dtype == torch.float32
        with torch.autocast("cpu", torch.float16):
            assert product(x, w).dtype == torch.float16


def test_a_given_output_is_written():
    """Without rounding: autocast leaves products with ``out`` alone too."""
    x, w = (operand.detach() for operand in operands("operator"))
    out = torch.zeros(2, 5, 3)
    with RoundedProducts(), torch.autocast("cpu", torch.bfloat16):
        assert torch.matmul(x, w, out=out) is out
    assert torch.equal(out, x @ w)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")  # in torch
def test_transforms_round_the_same():
    product, x, w = PRODUCTS["linear"][0], *operands("linear")
    with RoundedProducts(), torch.autocast("cpu", torch.bfloat16):
        expected = product(x, w)
        gradients = torch.autograd.grad(expected.sum(), (x, w))
        x, w = x.detach(), w.detach()
        assert_close(torch.func.grad(lambda *pair: product(*pair).sum(), argnums=(0, 1))(x, w), gradients)
        assert_close(torch.func.vmap(product, in_dims=(0, None))(x, w), expected.detach())
        values, tangents = torch.func.jvp(lambda x: product(x, w), (x,), (torch.ones_like(x),))
        assert_close(values, expected.detach())
        assert_close(tangents, product(torch.ones_like(x), w))
        with forward_ad.dual_level():
            tangents_of_duals = forward_ad.unpack_dual(product(forward_ad.make_dual(x, torch.ones_like(x)), w)).tangent
        assert_close(tangents_of_duals, tangents)
        x[0, 0, 0] = -torch.inf
        assert_close(torch.func.vmap(product, in_dims=(0, None))(x, w), product(x, w))


def test_what_backward_recomputes_is_rounded_as_well():
    layer, found = make(USES["each step"]).float(), []
    for rows in (2, 100):  # recomputed for two rows at a time, or all at once without recomputation
        layer._chunk_rows = lambda _, part=rows: part
        inputs = data().float().requires_grad_()
        with RoundedProducts():
            with torch.autocast("cpu", torch.bfloat16):
                outputs = layer(inputs)
            found.append(torch.autograd.grad(outputs.sum(), [inputs, *layer.parameters()]))
    for recomputed, kept in zip(*found, strict=True):
        assert_close(recomputed, kept, rtol=0, atol=1e-4 * kept.abs().max().item())


def test_training_takes_them_where_they_are_faster(monkeypatch):
    runner = runner_config({"name": "pl", "ntrials": 1, "accelerator": "cpu"})
    for reason, products, precision, expected in (
        ("", "rounded", "bf16-mixed", True),
        ("", "vectors", "bf16-mixed", False),
        ("", "rounded", "32-true", False),
        ("no library", "rounded", "bf16-mixed", False),
    ):
        monkeypatch.setattr(extension, "REASON", reason)
        monkeypatch.setattr(torch.ops.seqmem, "bfloat16_products", lambda products=products: products, raising=False)
        assert isinstance(fast_products(TrainConfig(precision=precision), runner), RoundedProducts) == expected
        assert rounded_products.products_are_rounded() == (not reason and products == "rounded")
    monkeypatch.setattr(extension, "REASON", "")
    monkeypatch.setattr(torch.ops.seqmem, "bfloat16_products", lambda: "rounded", raising=False)
    assert not isinstance(fast_products(TrainConfig(precision="bf16-mixed", compile=True), runner), RoundedProducts)
