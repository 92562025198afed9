"""Muon's step against its formula."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from seqmem import cells
from seqmem.errors import UserError
from seqmem.training.config import TrainConfig
from seqmem.training.optimisation.build import optimizer_for
from seqmem.training.optimisation.muon import Muon, equalized


def test_singular_values_come_near_one_and_vectors_stay():
    for shape in [(7, 3), (3, 8)]:
        torch.manual_seed(0)
        left, _, right = torch.linalg.svd(torch.randn(4, *shape, dtype=torch.float64), full_matrices=False)
        matrices = left * torch.linspace(0.1, 1, min(shape), dtype=torch.float64) @ right
        result = equalized(matrices, 3)
        values = left.mT @ result @ right.mT
        assert_close(values, torch.diag_embed(values.diagonal(dim1=1, dim2=2)), atol=1e-9, rtol=0)
        assert values.diagonal(dim1=1, dim2=2).min() > 0.5
        assert values.diagonal(dim1=1, dim2=2).max() < 1.3
        assert_close(equalized(matrices[:, :, :1], 3), nn.functional.normalize(matrices[:, :, :1], dim=1))
        assert equalized(torch.zeros(1, *shape), 3).eq(0).all()
        assert equalized(torch.full((1, *shape), 1e-25), 3).eq(0).all()  # the squares of which underflow


def test_a_weight_whose_gradient_has_vanished_comes_to_rest():
    for shape in [(8, 8), ()]:
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(shape))
        optimizer = Muon([weight], lr=0.01)
        for k in range(600):
            weight.grad = torch.randn(shape) if k == 0 else torch.zeros(shape)
            optimizer.step()
            if k == 400:
                rest = weight.detach().clone()
        assert weight.isfinite().all()
        assert_close(weight.detach(), rest, rtol=0, atol=0)


def test_parameters_it_cannot_move_are_refused_or_left():
    with pytest.raises(UserError, match=r"got a parameter of shape \(9, 4\), expected rows for 2 blocks"):
        Muon([{"params": [nn.Parameter(torch.ones(9, 4))], "blocks": 2}])
    with pytest.raises(UserError, match=r"got a parameter of torch\.complex64, expected real numbers"):
        Muon([nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))])
    empty, half = nn.Parameter(torch.ones(0, 3)), nn.Parameter(torch.ones(3, 3, dtype=torch.bfloat16))
    empty.grad, half.grad = torch.ones(0, 3), torch.eye(3, dtype=torch.bfloat16)
    Muon([empty, half], lr=0.1).step()
    assert half.dtype == torch.bfloat16
    assert half.diagonal().lt(1).all()


def test_steps_are_those_of_the_formula_gate_by_gate():
    torch.manual_seed(0)
    shapes = {"two gates": (6, 4), "as many": (6, 4), "bias": (6,), "kernel": (6, 2, 3), "number": ()}
    weights = {name: nn.Parameter(torch.randn(shape, dtype=torch.float64)) for name, shape in shapes.items()}
    expected = {name: weight.detach().clone() for name, weight in weights.items()}
    momenta = {name: torch.zeros_like(weight) for name, weight in expected.items()}
    settings = {"lr": 0.1, "weight_decay": 0.5, "momentum": 0.7, "iterations": 2}
    gated = [weights[name] for name in ("two gates", "as many", "bias")]
    optimizer = Muon([{"params": gated, "blocks": 2}, {"params": [weights["kernel"], weights["number"]]}], **settings)
    for _ in range(3):
        for name, weight in weights.items():
            weight.grad = torch.randn_like(weight)
            momenta[name] = 0.7 * momenta[name] + weight.grad
            ahead = weight.grad + 0.7 * momenta[name]
            blocks = ahead.reshape(1, 6, 6) if name == "kernel" else ahead.reshape(1, 1, 1) if name == "number" else None
            blocks = torch.stack(ahead.reshape(6, -1).chunk(2)) if blocks is None else blocks
            step = max(blocks.shape[1:]) ** 0.5 * equalized(blocks, 2).reshape(ahead.shape)
            expected[name] = (1 - 0.1 * 0.5) * expected[name] - 0.1 * step
        assert optimizer.step(lambda: torch.tensor(2.0)) == 2
    for name, weight in weights.items():
        assert_close(weight.detach(), expected[name])


def test_a_weights_step_has_the_size_of_the_learning_rate():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(64, 16))
    weight.grad = torch.randn_like(weight)
    Muon([weight], lr=0.01).step()
    assert weight.detach().square().mean().sqrt() == pytest.approx(0.01, rel=0.3)


def test_it_resumes_from_its_state_and_leaves_parameters_without_a_gradient():
    torch.manual_seed(0)
    start, unused = torch.randn(4, 4), nn.Parameter(torch.ones(3))
    gradients = torch.randn(4, 4, 4)
    found = []
    for stopped in (False, True):
        weight = nn.Parameter(start.clone())
        optimizer = Muon([weight, unused], lr=0.1)
        for k, gradient in enumerate(gradients):
            if stopped and k == 2:
                state = optimizer.state_dict()
                optimizer = Muon([weight, unused], lr=7.0)
                optimizer.load_state_dict(state)
            weight.grad = gradient
            optimizer.step()
        found.append(weight.detach())
    assert_close(found[0], found[1], rtol=0, atol=0)
    assert unused.eq(1).all()


def test_cells_of_each_kind_learn_with_it():
    torch.manual_seed(0)
    for name in ("exprnn", "hmlstm", "legs", "lstm", "relu_gru", "tlsi"):
        cell = cells.get(name)(2)
        optimizer = optimizer_for(cell, TrainConfig(optimizer="muon", lr=1e-3))
        inputs = torch.rand(3, 7, 2)
        inputs[..., 0] = inputs[..., 0].cumsum(1)
        before = [parameter.detach().clone() for parameter in cell.parameters()]
        cell(inputs)[0].square().mean().backward()
        optimizer.step()
        assert all(parameter.isfinite().all() for parameter in cell.parameters()), name
        assert any((parameter != old).any() for parameter, old in zip(cell.parameters(), before, strict=True)), name
