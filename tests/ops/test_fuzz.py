"""Fuzz tests: every compiled operator with unusual layouts, and with wrong tensors and numbers.

A call either raises an error with a message, or returns the same results as for contiguous tensors, leaves its arguments
unchanged, and returns new memory. ``make sanitize`` detects reads beyond a tensor.
"""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seqmem.ops import extension
from tests.ops.drawn_calls import INTEGERS, NUMBERS, OPERATORS, SCANS, Call, Draw, draw_call

pytestmark = pytest.mark.skipif(bool(extension.REASON), reason=f"no compiled operators: {extension.REASON}")

QUIET = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large)


def spread(tensor, step=3, offset=1):
    """The same numbers with gaps, in a storage with an offset."""
    storage = torch.full((offset + step * max(1, tensor.numel()),), 7, dtype=tensor.dtype)
    strides = [step * stride for stride in torch.empty(tensor.shape, device="meta").stride()]
    view = torch.as_strided(storage, tensor.shape, strides, offset)
    return view.copy_(tensor)


def permuted(tensor):
    """The same numbers with the dimensions of the storage reversed."""
    backwards = tuple(reversed(range(tensor.dim())))
    return tensor.permute(backwards).contiguous().permute(backwards)


def overlapping(tensor):
    """A tensor of the same shape whose elements share memory."""
    return torch.as_strided(torch.rand(1 + sum(tensor.shape)).to(tensor.dtype), tensor.shape, [1] * tensor.dim(), 0)


LAYOUTS = {
    "spread": spread,
    "permuted": permuted,
    "overlapping": overlapping,
    # Integers are lengths, and 0 is one of any number of steps.
    "expanded": lambda tensor: tensor.new_full((), tensor.is_floating_point()).expand(tensor.shape),
    "offset": lambda tensor: spread(tensor, step=1),
    "negative": lambda tensor: torch._neg_view(tensor) if tensor.is_floating_point() else tensor,
    "zero": lambda tensor: torch._efficientzerotensor(tensor.shape, dtype=tensor.dtype),
}

MISTAKES = {
    "one dimension less": lambda tensor: tensor.sum(0) if tensor.dim() else tensor[None],
    "one dimension more": lambda tensor: tensor[None],
    "longer": lambda tensor: torch.cat([tensor, tensor[..., :1]], -1) if tensor.dim() and tensor.shape[-1] else tensor[None],
    "shorter": lambda tensor: tensor[..., 1:] if tensor.dim() else tensor[None],
    "empty": lambda tensor: tensor.new_empty(0),
    "first longer": lambda tensor: torch.cat([tensor, tensor]) if tensor.dim() else tensor[None],
    "flat": lambda tensor: tensor.flatten(),
    "huge": lambda tensor: tensor.new_ones(()).expand(*[1] * (tensor.dim() - 1), 2**61) if tensor.dim() else tensor[None],
    "half": lambda tensor: tensor.half(),
    "bfloat16": lambda tensor: tensor.bfloat16(),
    "float": lambda tensor: tensor.float(),
    "double": lambda tensor: tensor.double(),
    "integer": lambda tensor: tensor.long(),
    "boolean": lambda tensor: tensor.bool(),
    "complex": lambda tensor: torch.complex(tensor.float(), tensor.float()),
    "meta": lambda tensor: tensor.to("meta"),
    "sparse": lambda tensor: tensor.to_sparse(),
}

SCALARS = {
    "int": INTEGERS,
    "SymInt": st.sampled_from([-(2**63), -1, 0, 2**62, 2**63 - 1]),
    "float": NUMBERS,
    "bool": st.booleans(),
    "str": st.text(max_size=5),
    "List[int]": st.lists(st.sampled_from([-1, 0, 1, 3, 2**24, 2**62, 2**63 - 1]), max_size=4),
}


def changed(draw, call, changes, max_changes):
    """Change up to ``max_changes`` tensors of a call."""
    tensors = call.tensors()
    for name in draw(st.lists(st.sampled_from(sorted(tensors)), min_size=1, max_size=max_changes, unique=True)):
        tensors[name] = changes[draw(st.sampled_from(sorted(changes)))](tensors[name])
    return Call(call.operator, call.arguments | tensors)


def same(one, other):
    return torch.equal(torch.nan_to_num(one), torch.nan_to_num(other)) and torch.equal(one.isnan(), other.isnan())


def check_layouts(name, data):
    torch.manual_seed(0)
    d = Draw(data.draw)
    try:
        call = draw_call(d, name)
        call()
    except (RuntimeError, ValueError) as error:
        if not str(error).strip():
            raise
        return
    call = changed(data.draw, call, LAYOUTS, 3)
    expected = call.contiguous()()
    before = {name: tensor.clone() for name, tensor in call.tensors().items()}
    results = call()
    assert len(results) == len(expected)
    for result, value in zip(results, expected, strict=True):
        assert result.shape == value.shape
        assert same(result, value)
    for key, tensor in call.tensors().items():
        assert same(tensor, before[key]), f"{key} was changed"
    stored = [tensor for tensor in call.tensors().values() if not tensor._is_zerotensor() and tensor.numel() > 0]
    given = {tensor.untyped_storage().data_ptr() for tensor in stored}
    own = [tensor.untyped_storage().data_ptr() for tensor in results if tensor.numel() > 0]
    assert given.isdisjoint(own), "a result shares memory with an argument"
    assert len(set(own)) == len(own), "results share memory"


def check_mistakes(name, data):
    torch.manual_seed(0)
    d = Draw(data.draw)
    try:
        call = draw_call(d, name)
        if data.draw(st.booleans()):
            call = changed(data.draw, call, MISTAKES | LAYOUTS, 3)
        else:
            scalars = [argument for argument in call.operator._schema.arguments if str(argument.type) in SCALARS]
            argument = data.draw(st.sampled_from(scalars or list(call.operator._schema.arguments)))
            call.arguments[argument.name] = data.draw(SCALARS[str(argument.type)]) if scalars else None
        results = call()
    except (RuntimeError, ValueError, IndexError) as error:
        if not str(error).strip():
            raise
        return
    assert any(tensor.is_meta for tensor in call.tensors().values()) == any(result.is_meta for result in results)
    if not any(result.is_meta for result in results):
        for result, value in zip(results, call.contiguous()(), strict=True):
            assert same(result, value)


def test_every_operator_is_found():
    packets = {name.partition(".")[0] for name in OPERATORS}
    assert packets >= {*extension.UPDATES, extension.ANY_MEASURE, *extension.SEQUENCES, *extension.SCANS}
    assert set(SCANS) == set(extension.SCANS)
    backward = {f"{name}_backward" for name in (*extension.SEQUENCES, *extension.SCANS)}
    assert backward | {f"{name}_adjoint" for name in extension.UPDATES} <= packets


def run(check, name, examples, **options):
    settings(max_examples=examples, deadline=None, database=None, suppress_health_check=QUIET, **options)(
        given(st.data())(lambda data: check(name, data))
    )()


@pytest.mark.parametrize("name", OPERATORS)
def test_a_few_calls(name):
    run(check_layouts, name, 8, derandomize=True)
    run(check_mistakes, name, 8, derandomize=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATORS)
def test_many_calls(name):
    run(check_layouts, name, 100)
    run(check_mistakes, name, 100)
