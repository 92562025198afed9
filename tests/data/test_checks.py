"""Values that a GPU could not refuse with a message are refused on the CPU."""

import pytest
import torch

from seqmem.data.batch import Batch
from seqmem.data.checks import check_batch
from seqmem.errors import UserError

INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64)


def batch(**changes):
    given = {"lengths": torch.tensor([4, 2, 0]), "times": torch.arange(12.0).view(3, 4)}
    return Batch(torch.zeros(3, 4, 1), torch.zeros(3, 4, 1), **{**given, **changes})


def test_padding_may_hold_any_time():
    times = torch.arange(12.0).view(3, 4)
    times[1, 2:], times[2] = float("nan"), -1
    check_batch(batch(times=times))
    check_batch(batch(lengths=None, times=None))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": torch.tensor([4, 5, 0])}, "lengths: got 5 in row 1 of a batch, expected between 0 and T=4"),
        ({"lengths": torch.tensor([4, 2, -1])}, "lengths: got -1 in row 2 of a batch, expected between 0 and T=4"),
        ({"target_lengths": torch.tensor([9, 2, 0])}, "target_lengths: got 9 in row 0"),
        ({"times": torch.tensor([0, 2, 1, 3.0]).repeat(3, 1)}, "times: got 1 after 2 at step 2 of row 0"),
        ({"times": torch.tensor([0, 123456.9, 123456.7, 3e5]).repeat(3, 1)}, r"times: got 123456\.7 after 123456\.9 at step 2"),
        ({"times": torch.tensor([0, 2, torch.inf, 3]).repeat(3, 1)}, "times: got inf after 2 at step 2 of row 0"),
        ({"times": torch.tensor([torch.nan, 0, 1, 3]).repeat(3, 1)}, "times: got nan after nan at step 0 of row 0"),
        (
            {"times": (1e9 + torch.arange(4.0, dtype=torch.float64)).repeat(3, 1)},
            "times: got times of row 0 of a batch that are the same in torch.float32 at steps 0 and 1",
        ),
    ],
)
def test_wrong_values_are_refused_with_their_row(changes, message):
    with pytest.raises(UserError, match=message):
        check_batch(batch(**changes))


def test_float64_times_may_be_close():
    times = (1e9 + torch.arange(4.0, dtype=torch.float64)).repeat(3, 1)
    check_batch(batch(times=times), torch.float64)


def test_other_devices_are_left_alone():
    check_batch(batch(lengths=torch.tensor([9, 9, 9])).to("meta"))


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_lengths_of_any_integer_type_are_compared_with_many_steps(dtype):
    lengths = torch.tensor([100, 5]).to(dtype)
    for steps in (300, 70_000):
        given = Batch(torch.zeros(2, steps, 1), torch.zeros(2, steps, 1), lengths, torch.arange(steps).expand(2, -1).double())
        check_batch(given)
    with pytest.raises(UserError, match="lengths: got 100 in row 0 of a batch, expected between 0 and T=9"):
        check_batch(Batch(torch.zeros(2, 9, 1), torch.zeros(2, 9, 1), lengths))
