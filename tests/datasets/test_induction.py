"""The induction task against its definition, by counting and by reading each sequence step by step."""

import numpy as np
import pytest
import torch

from seqmem import datasets
from seqmem.errors import UserError

from .counts import assert_frequencies


def drawn(count, **arguments):
    data = datasets.load({"name": "induction", "validation_samples": count, **arguments})
    batch = data.batch("validation", torch.arange(count))
    return data, batch.inputs, batch.targets


@pytest.mark.parametrize(("length", "alphabet"), [(256, 16), (3, 3), (10, 5), (1000, 16)])
def test_the_answer_is_the_symbol_after_the_trigger(length, alphabet):
    data, inputs, targets = drawn(200, length=length, alphabet=alphabet)
    assert inputs.shape == (200, length + 1)
    assert (data.spec.output_steps, data.spec.max_length, data.spec.input_size) == (0, length + 1, alphabet)
    for row, target in zip(inputs.tolist(), targets.tolist(), strict=True):
        trigger = row[-1]
        assert trigger == alphabet - 1
        assert row.count(trigger) == 2
        place = row.index(trigger)
        assert place <= length - 3
        assert row[place + 1] == target
        assert min(row) >= 0


def test_places_and_symbols_are_uniform():
    _, inputs, targets = drawn(6000, length=12, alphabet=6)
    text = inputs[:, :-1].numpy()
    places = (text == 5).argmax(1)
    assert_frequencies(np.bincount(places, minlength=12), [0.1] * 10 + [0, 0])
    assert_frequencies(np.bincount(text[text != 5], minlength=6), [0.2] * 5 + [0])
    joint = np.bincount(places * 5 + targets.numpy(), minlength=50)
    assert_frequencies(joint, np.full(50, 1 / 50))
    neighbours = text[:, 10] * 5 + text[:, 11]  # no trigger stands there
    assert_frequencies(np.bincount(neighbours, minlength=25), np.full(25, 1 / 25))


def test_a_text_without_room_is_refused():
    with pytest.raises(UserError, match=r"^dataset\.length: got 2, expected greater than or equal to 3$"):
        datasets.check({"name": "induction", "length": 2})
