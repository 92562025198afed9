"""A model that reads long sequences in parts has the outputs of the model that reads them whole."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from seqmem import models
from seqmem.data import IGNORE_INDEX, Batch, DataSpec
from seqmem.models.in_parts import InParts, bounds

MODELS = {
    "gru": {"network": "recurrent", "cell": "gru", "cell_args": {"hidden_size": 5}, "num_layers": 2},
    "legs": {"network": "recurrent", "cell": "legs", "cell_args": {"hidden_size": 5, "memory_order": 4}},
    "hmlstm": {"network": "hmlstm", "cell_args": {"hidden_size": 4, "num_layers": 2}, "output_embedding_size": 4},
    "stack": {"network": "stack", "mixer": "lru", "mixer_args": {"hidden_size": 6}, "model_size": 6, "num_layers": 2},
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("output_steps", [0, 3, None])
def test_outputs_are_those_of_whole_sequences(name, output_steps):
    torch.manual_seed(0)
    pooling = {"pooling": "last"} if name == "stack" and output_steps == 0 else {}
    spec = DataSpec("made", 2, 4, "classification", output_steps=output_steps, max_length=23, times=name == "gru")
    model = models.build(MODELS[name] | pooling, spec).double().eval()
    times = torch.rand(3, 23, dtype=torch.float64).cumsum(1) if spec.times else None
    batch = Batch(torch.randn(3, 23, 2, dtype=torch.float64), torch.zeros(3, 4, dtype=torch.int64), times=times)
    whole = model(batch)
    for steps in (1, 5, 22, 23, 40):
        torch.testing.assert_close(InParts(model, steps)(batch), whole, rtol=1e-9, atol=1e-10)
    lengths = torch.tensor([23, 4, 11])
    padded = Batch(batch.inputs, batch.targets, lengths=lengths, times=times)
    torch.testing.assert_close(InParts(model, 5)(padded), model(padded))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "forward", None)  # equally long sequences are not read whole
        found = InParts(model, 5)(replace(batch, lengths=torch.full((3,), 23)))
    torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-10)


def test_outputs_at_places_are_those_of_whole_sequences():
    torch.manual_seed(0)
    spec = DataSpec("made", 2, 4, "classification", output_steps=None, max_length=23, sparse_targets=True)
    places = torch.tensor([[0, 6, 7, 8, 22], [20, 21, 22, 0, 0], [3, 0, 0, 0, 0]])  # the last zeros are padding
    targets = torch.where(places > 0, 1, IGNORE_INDEX)
    targets[0, 0] = 2
    for name in ("gru", "stack"):
        model = models.build(MODELS[name], spec).double().eval()
        batch = Batch(torch.randn(3, 23, 2, dtype=torch.float64), targets, places=places)
        whole = model(batch)
        assert whole.shape == (3, 5, 4)
        for steps in (1, 5, 22, 23):
            found = InParts(model, steps)(batch)
            counted = targets != IGNORE_INDEX
            torch.testing.assert_close(found[counted], whole[counted], rtol=1e-9, atol=1e-10)


def test_parts_cover_the_steps_and_are_long_enough_for_the_outputs():
    for fewest in range(1, 5):
        for length in range(fewest, 30):
            for steps in range(fewest, 12):
                found = bounds(length, steps, fewest)
                sizes = [end - begin for begin, end in pairwise(found)]
                assert (found[0], found[-1]) == (0, length)
                assert min(sizes) >= fewest
                assert max(sizes) < steps + fewest
