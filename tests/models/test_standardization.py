"""Standardization of data."""

import pytest
import torch
from torch.testing import assert_close

from seqmem.errors import UserError
from seqmem.models.standardization import Standardization


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
