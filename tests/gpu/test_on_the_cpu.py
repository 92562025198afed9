"""The tests of a device work, and the implementations for a GPU pass them where they can run on the CPU."""

import pytest
import torch

from seqmem.ops import extension, implementations
from tests.gpu import test_layers
from tests.gpu.layers import CPU, Pass, check, exact_layer, on, reference, run, sample
from tests.gpu.rows import use_rows_for_cuda
from tests.gpu.test_layers import F32, LENGTHS

without_reference = pytest.mark.skipif(extension.FORCED, reason=extension.REASON)
SOME = ["legs", "lstm", "mgu", "mamba"]
CALLS = [
    test_layers.test_inference_mode_before_training,
    test_layers.test_values_without_gradients,
    test_layers.test_gradients_of_several_batches_add_up,
    test_layers.test_several_calls_before_one_backward,
    test_layers.test_two_layers_take_turns,
    test_layers.test_updated_weights_are_used,
    test_layers.test_padding_has_no_influence,
]


@without_reference
@pytest.mark.parametrize("name", SOME)
def test_implementations_for_a_gpu(name, monkeypatch):
    torch.manual_seed(0)
    graphs = use_rows_for_cuda(monkeypatch)
    layer = on(exact_layer(name), CPU, F32)
    layer(sample(name, 2, 3).float())
    rows = implementations.TABLE.get(layer.operator, ())
    assert not rows or layer.path in {row.name for row in rows}
    for start, lengths in (("initial", None), ("carried", LENGTHS)):
        test_layers.test_values_and_gradients(name, start, lengths, torch.float64, CPU)
    for call in CALLS:
        call(name, CPU)
    if not rows:
        assert graphs.replayed > graphs.made > 0


def test_a_wrong_gradient_is_found():
    expected = Pass([torch.ones(3, 4)], [torch.ones(5), torch.full((2,), 1e-9)])
    check(expected, expected, 1e-9)
    check(expected, Pass(expected.values, [torch.ones(5), torch.zeros(2)]), 1e-5)
    with pytest.raises(AssertionError, match="gradient 0 of shape"):
        check(Pass(expected.values, [torch.full((5,), 1.01), torch.zeros(2)]), expected, 1e-3)
    with pytest.raises(AssertionError, match="value 0 of shape"):
        check(Pass([torch.full((3, 4), torch.nan)], expected.gradients), expected, 1e-3)


def test_cells_of_one_size_do_not_share_constants(monkeypatch):
    """Cells of different measures come and go, and the memory of the first ones is used again."""
    use_rows_for_cuda(monkeypatch)
    sizes = {"hidden_size": 3, "memory_order": 9}
    inputs = torch.randn(2, 11, 3, dtype=torch.float64)
    expected = {name: reference(exact_layer(name, **sizes), inputs) for name in ("legs", "lagts", "legt", "lagt")}
    for name in [*expected] * 6:
        check(run(exact_layer(name, **sizes), inputs), expected[name], 1e-9)
