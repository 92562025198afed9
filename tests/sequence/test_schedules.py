"""Schedules as tensors: every item comes back, and what steps share is kept once."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from seqmem.sequence.schedules import item_at, split_schedule


class Pair(NamedTuple):
    first: Any
    second: Any


def same(found, expected):
    if isinstance(expected, Tensor):
        return torch.equal(found, expected)
    if isinstance(expected, tuple | list):
        return type(found) is type(expected) and all(map(same, found, expected))
    return found == expected


A, B = torch.ones(2), torch.zeros(3)
CASES = {
    "nothing": ([None] * 3, 0, 0),
    "one tensor": ([A] * 3, 1, 0),
    "a tensor at each step": ([A, B[:2], 2 * A], 0, 1),
    "a parameter and tensors": ([torch.nn.Parameter(A), B[:2]], 0, 1),
    "one tuple": ([(A, None, "name", B)] * 2, 2, 0),
    "equal tuples": ([(A, [None, B]), (A, [None, B])], 2, 0),
    "mixed": ([Pair([A, B], (torch.tensor(1.0 * t), 3)) for t in range(4)], 2, 1),
    "equal numbers": ([(1.5, A), (1.5, B[:2])], 0, 1),
}


@pytest.mark.parametrize("case", CASES)
def test_every_item_comes_back(case):
    items, shared, stepwise = CASES[case]
    schedule = split_schedule(items)
    assert (len(schedule.shared), len(schedule.stepwise)) == (shared, stepwise)
    for start in (0, 1):
        given = [values[start:] for values in schedule.stepwise]
        for step, item in enumerate(items[start:]):
            assert same(item_at(schedule.form, schedule.shared, given, step), item)


@pytest.mark.parametrize(
    "items", [[1, 2], [(A, 0.5), (A, 0.25)], [None, "a"], [A, None], [None, A], [1.0, A], [(A,), (A, B)], [A, B], [(A,), [A]]]
)
def test_values_that_differ_have_no_form(items):
    assert split_schedule(items) is None


def test_forms_are_told_apart():
    forms = [repr(split_schedule(items).form) for items in ([A, A], [A, B[:2]], [0, 0], [(A,), (A,)], [[A], [A]])]
    assert len(set(forms)) == 5
