"""Derivatives in forward mode and by torch.func, activation checkpointing, and export of cells that never ran."""

import copy

import pytest
import torch
from torch.autograd import forward_ad
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from seqmem import cells, sequence
from seqmem.cells import HMLSTM, time_invariant
from seqmem.layers.igloo import IGLOO1D
from seqmem.ops import extension, implementations
from tests.cells.test_battery import make, sample

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch's forward mode

NAMES = [*cells.names(), "ema", "mingru", "minlstm", "rglru", "igloo"]


def layer_and_inputs(name, batch=2, steps=4):
    """A small layer in float64 that returns outputs, and inputs of it."""
    if name in cells.names():
        layer, inputs = make(name), sample(name, batch, steps)
    else:
        torch.manual_seed(0)
        igloo = name == "igloo"
        layer = IGLOO1D((steps, 3), 4, 2, return_sequences=True, patch_size=2) if igloo else sequence.get(name)(3, 4)
        layer = layer.double()
        inputs = torch.randn(batch, steps, 3, dtype=torch.float64)

    def run(given):
        outputs = layer(given)
        return outputs if name == "igloo" else outputs[0]

    return layer, inputs, run


def reverse_mode(run, inputs, direction, cotangent):
    """The directional derivative of ``cotangent . run`` by backward, which the compiled path has."""
    given = inputs.clone().requires_grad_()
    [gradient] = torch.autograd.grad((run(given) * cotangent).sum(), given)
    return (gradient * direction).sum()


def dual(run, inputs, direction):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(run(forward_ad.make_dual(inputs, direction))).tangent.clone()


def test_forward_mode_gives_the_tangent():
    for name in NAMES:
        layer, inputs, run = layer_and_inputs(name)
        direction, cotangent = torch.randn_like(inputs), torch.randn_like(run(inputs))
        expected = reverse_mode(run, inputs, direction, cotangent)
        _, tangent = torch.func.jvp(run, (inputs,), (direction,))
        assert_close((tangent * cotangent).sum(), expected, msg=name)
        assert_close(dual(run, inputs, direction), tangent, msg=name)
        layer.requires_grad_(False)
        assert_close(dual(run, inputs, direction), tangent, msg=name)


def test_torch_func_goes_through_every_layer():
    for name in NAMES:
        layer, inputs, run = layer_and_inputs(name, 2, 3)
        weights = dict(layer.named_parameters())

        def loss(weights, inputs, layer=layer, name=name):
            outputs = torch.func.functional_call(layer, weights, (inputs,))
            return (outputs if name == "igloo" else outputs[0]).square().sum()

        expected = torch.autograd.grad(run(inputs).square().sum(), list(weights.values()), materialize_grads=True)
        found = torch.func.grad(loss)(weights, inputs)
        assert_close(list(found.values()), list(expected), msg=name)
        of_each_row = torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, inputs[:, None])
        assert_close([gradient.sum(0) for gradient in of_each_row.values()], list(expected), msg=name)
        stacked = {key: torch.stack([value, 2 * value]) for key, value in weights.items()}
        both = torch.func.vmap(loss, (0, None))(stacked, inputs)
        doubled = {key: 2 * value for key, value in weights.items()}
        assert_close(both, torch.stack([loss(weights, inputs), loss(doubled, inputs)]), msg=name)


def test_jacobians_by_both_modes_agree():
    for name in ("legs", "tlsi", "hmlstm", "relu_gru", "dtriv", "ema"):
        if name == "dtriv":
            name, changes = "exprnn", {"method": "dtriv"}
            cell, inputs = make(name, **changes), sample(name, 1, 3)
            run = lambda given, cell=cell: cell(given)[0]  # noqa: E731
        else:
            _, inputs, run = layer_and_inputs(name, 1, 3)
        reverse = torch.func.jacrev(run)(inputs)
        assert_close(torch.func.jacfwd(run)(inputs), reverse, msg=name)
        assert reverse.any()
    cell, inputs, run = layer_and_inputs("lstm", 1, 2)
    hessian = torch.func.hessian(lambda given: run(given).sum())(inputs)
    with extension.reference_only("a second derivative"):
        assert_close(hessian, torch.autograd.functional.hessian(lambda given: run(given).sum(), inputs))


def test_a_path_names_the_transform(monkeypatch):
    cell, inputs, run = layer_and_inputs("gru")
    torch.func.jvp(run, (inputs,), (inputs,))
    assert cell.path == "step by step (a transform of torch.func is active)" or extension.REASON
    dual(run, inputs, inputs)
    assert cell.path == "step by step (forward-mode differentiation is active)" or extension.REASON
    run(inputs)
    assert cell.path == "one compiled call" or extension.REASON
    with forward_ad.dual_level():
        [_, graph, _] = implementations.LOOPS
        monkeypatch.setattr(torch.Tensor, "is_cuda", True)
        assert graph.fallback_reason(inputs, True) == "forward-mode differentiation is active"


def test_checks_of_values_apply_within_vmap():
    cell, inputs, _ = layer_and_inputs("tlsi")
    many = torch.stack([inputs, inputs])
    many[1, 1, 2, 0] = -1
    with pytest.raises(cells.base.UserError, match="TLSI: got a wrong time at step 2 of row 1"):
        torch.func.vmap(lambda given: cell(given)[0])(many)
    lengths = torch.tensor([[4, 2], [5, 1]])
    with pytest.raises(cells.base.UserError, match=r"got lengths \[5\], expected each between 0 and T=4"):
        torch.func.vmap(lambda given: cell(inputs, lengths=given)[0])(lengths)
    good = lengths.clamp(max=4)
    found = torch.func.vmap(lambda given: cell(inputs, lengths=given)[0])(good)
    assert_close(found, torch.stack([cell(inputs, lengths=each)[0] for each in good]))


def test_activation_checkpointing_has_the_same_gradients():
    for name in NAMES:
        layer, inputs, run = layer_and_inputs(name)
        results = []
        for forward in (run, lambda given, run=run: checkpoint(run, given, use_reentrant=False)):
            given = inputs.clone().requires_grad_()
            results.append(torch.autograd.grad(forward(given).square().sum(), [given, *layer.parameters()]))
        assert all(torch.equal(*pair) for pair in zip(*results, strict=True)), name


def test_a_cell_that_never_ran_is_exported_and_transformed():
    for name in ("lmu", "legsn"):
        cell, inputs = make(name).requires_grad_(False), sample(name, 2, 4)
        time_invariant._exact.cache_clear()
        program = torch.export.export(cell, (inputs,), strict=False).module()
        assert_close(program(inputs)[0], cell(inputs)[0])
        time_invariant._exact.cache_clear()
        _, tangent = torch.func.jvp(lambda given, cell=cell: cell(given)[0], (inputs,), (inputs,))
        assert tangent.any()
        time_invariant._exact.cache_clear()
        with torch.inference_mode():
            make(name)(inputs)
        make(name)(inputs)[0].sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_float64(dtype):
    """Of 20 steps, in value and with finite gradients; the cells with matrix exponentials became NaN after three."""
    for name, changes in [(name, {}) for name in NAMES[:-1]] + [
        ("orthogonal", {"method": "dtriv"}),
        ("exprnn", {"method": "cayley"}),
    ]:
        if name not in cells.names():
            torch.manual_seed(0)
            layer, inputs = sequence.get(name)(3, 8).to(dtype), torch.randn(2, 20, 3).to(dtype)
        else:
            layer, inputs = make(name, dtype=dtype, **changes), sample(name, 2, 20).to(dtype)
        if isinstance(layer, HMLSTM):
            layer.boundary = "soft"  # a rounded step would be a different one
        exact = copy.deepcopy(layer).double()
        outputs, state = layer(inputs / 4 if name in ("exprnn", "orthogonal") else inputs)
        expected, _ = exact((inputs / 4 if name in ("exprnn", "orthogonal") else inputs).double())
        assert outputs.dtype == dtype, name
        error = (outputs.double() - expected).norm() / expected.norm()
        assert error < (0.1 if dtype == torch.bfloat16 else 0.02), (name, error)
        outputs.float().square().mean().backward()
        assert all(parameter.grad.isfinite().all() for parameter in layer.parameters()), name
        again, _ = layer(inputs[:, :0], state)
        assert again.shape == (2, 0, layer.output_size)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_igloo_in_half_precision(dtype):
    torch.manual_seed(0)
    for rows in (2, 40):  # all at once, and in chunks
        for sequences in (True, False):
            layer = IGLOO1D((12, 3), 6, 4, return_sequences=sequences, patch_size=3).to(dtype)
            inputs = torch.randn(rows, 12, 3).to(dtype)
            exact = copy.deepcopy(layer).double()
            results = []
            for each in (layer, exact):
                outputs = each(inputs.to(each.stacks[0].features.weight.dtype))
                gradients = torch.autograd.grad(outputs.square().mean(), list(each.parameters()))
                results.append([value.double() for value in (outputs, *gradients)])
            for given, expected in zip(*results, strict=True):
                assert (given - expected).norm() < 0.05 * expected.norm()
