"""Standardization of data."""

import pytest
import torch
from torch.testing import assert_close

from seqmem.errors import UserError
from seqmem.models.standardization import Standardization


def test_a_small_deviation_from_a_large_mean_is_kept_while_float32_resolves_it():
    steps = torch.linspace(-1, 1, 500, dtype=torch.float64)[:, None]
    found = Standardization.of([(101325 + 0.15 * steps).float(), torch.full((3, 1), 101325.0)])
    assert_close(found.deviation, torch.tensor([0.15 / 3**0.5]), rtol=0.02, atol=0)
    with pytest.raises(UserError, match=r"^channel 0: got values near 1e\+08 with a deviation of .*; subtract a constant"):
        Standardization.of([(1e8 + 9 * steps).float()])
    with pytest.raises(UserError, match=r"^got values near"):
        Standardization.of([(1e8 + 9 * steps[:, 0]).float()])
    assert Standardization.of([torch.full((4, 1), 1e8)]).deviation.item() == 1


def test_series_have_statistics_of_each_channel_and_other_sequences_one():
    series = [torch.tensor([[1.0, 5.0], [3.0, 5.0]]), torch.tensor([[8.0, 5.0]])]
    each = Standardization.of(series)
    assert_close(each.mean, torch.tensor([4.0, 5.0]))
    assert_close(each.deviation, torch.tensor([(26 / 3) ** 0.5, 1.0]))  # a constant channel is only shifted
    assert_close(each(series[1]), torch.tensor([[4 / (26 / 3) ** 0.5, 0.0]]))
    assert_close(each.undo(each(series[0])), series[0])
    numbers = Standardization.of([torch.tensor([1.0, 3.0]), torch.tensor([8.0])])
    assert_close((numbers.mean, numbers.deviation), (each.mean[0], each.deviation[0]))
    with pytest.raises(UserError, match=r"got a tensor of shape \(3, 1\), expected \(T, 2\) or \(B, T, 2\)"):
        each(torch.zeros(3, 1))
