"""Constants that are computed once and kept on each device."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.testing import assert_close

from seqmem.ops import constants
from seqmem.ops.constants import collected, on_device
from seqmem.ops.legs_modes import legs_modes, legs_real_mode

calls = []


@on_device
def ramp(size, scale):
    calls.append(size)
    return torch.arange(size, dtype=torch.float64) * scale


@on_device
def pair(size):
    return torch.full((size,), 1j, dtype=torch.complex128), torch.arange(size)


@pytest.fixture(autouse=True)
def _no_calls(monkeypatch):
    calls.clear()
    monkeypatch.setattr(constants, "_store", constants._Store())


def test_a_constant_is_computed_once_for_each_type():
    single, double = torch.zeros(1), torch.zeros(1, dtype=torch.float64)
    first = ramp(single, 3, 1 / 3)
    assert first is ramp(single, 3, 1 / 3)
    assert first.dtype == torch.float32
    assert_close(ramp(double, 3, 1 / 3), torch.tensor([0, 1 / 3, 2 / 3], dtype=torch.float64))
    assert calls == [3, 3]
    ramp(single, 4, 1 / 3)
    assert calls == [3, 3, 4]


def test_complex_and_integer_constants_keep_their_kind():
    values, numbers = pair(torch.zeros(1), 2)
    assert (values.dtype, numbers.dtype) == (torch.complex64, torch.int64)


def test_modes_of_the_caller_do_not_persist():
    with torch.inference_mode(), torch.device("meta"):
        value = ramp(torch.zeros(1, device="cpu"), 3, 1.0)
    assert value.device.type == "cpu"
    assert not value.is_inference()
    product = torch.vmap(lambda row: row * ramp(row, 2, 2.0))(torch.ones(5, 2))
    assert_close(product[4], torch.tensor([0.0, 2.0]))
    assert_close(ramp(torch.zeros(1), 2, 2.0) + 0, torch.tensor([0.0, 2.0]))


def test_modes_of_legs_belong_to_the_caller():
    """Whatever the first caller's modes are, and whatever a caller does to them."""
    with FakeTensorMode():
        assert isinstance(legs_modes(7)[0] + 1, FakeTensor)
    with torch.inference_mode(), torch.device("meta"):
        legs_modes(7)
    results = [*legs_modes(7), legs_real_mode(7)]
    assert not any(isinstance(result, FakeTensor) or result.is_inference() or result.is_meta for result in results)
    expected = [result.clone() for result in results]
    for result in results:
        result.zero_()
    assert_close([*legs_modes(7), legs_real_mode(7)], expected, rtol=0, atol=0)


@pytest.mark.parametrize("inside", [True, False])
def test_fake_tensors_of_a_device_that_does_not_exist_get_fake_constants(inside):
    with FakeTensorMode() as mode:
        like = torch.zeros(3, device="cuda")
    if inside:
        with mode:
            value = ramp(like, 3, 1.0) + like
    else:
        value = ramp(like, 3, 1.0) + like
    assert (value.device.type, value.dtype) == ("cuda", torch.float32)
    assert_close(ramp(torch.zeros(1), 3, 1.0), torch.tensor([0.0, 1, 2]))


def test_a_program_holds_the_constant():
    class Model(torch.nn.Module):
        def forward(self, inputs):
            return inputs + ramp(inputs, inputs.shape[1], 0.5)

    inputs = torch.ones(2, 3)
    expected = Model()(inputs)
    assert_close(torch.export.export(Model(), (inputs,)).module()(inputs), expected)
    assert_close(torch.compile(Model(), backend="eager", fullgraph=True)(inputs), expected)


def test_the_latest_used_constants_are_kept(monkeypatch):
    like = torch.zeros(1, dtype=torch.float64)
    monkeypatch.setattr(constants, "MAX_BYTES", 2 * 80)
    for size in (10, 9, 10, 8, 10):
        ramp(like, size, 1.0)
    assert calls == [10, 9, 8]
    ramp(like, 9, 1.0)
    ramp(like, 1000, 1.0)
    ramp(like, 1000, 1.0)
    ramp(like, 10, 1.0)
    assert calls == [10, 9, 8, 9, 1000, 10]


def test_constants_are_collected_for_a_graph():
    like = torch.zeros(1)
    before = ramp(like, 3, 1.0)
    with collected() as found:
        ramp(like, 3, 1.0)
        pair(like, 2)
    ramp(like, 5, 1.0)
    assert len(found) == 3
    assert found[0] is before
