"""Inputs that depend on the training split: a finished trial's model gets those of its own training."""

import pytest
import torch

from seqmem import datasets
from seqmem.errors import UserError


def inputs(data, split="test"):
    return data.batch(split, torch.arange(data.sizes[split])).inputs


@pytest.mark.parametrize("name", datasets.names("train_samples"))
def test_the_number_of_training_sequences_changes_no_input_of_a_test(name, load_small):
    trained = load_small(name)
    again = load_small(name, trained.preparation(), train_samples=5)
    assert torch.equal(inputs(again), inputs(trained))
    assert again.preparation() == trained.preparation()
    assert again.spec == trained.spec


def test_words_have_the_tokens_of_the_training(load_small):
    """Without the trial's vocabulary they would have others, and nothing would show it but the accuracy."""
    trained = load_small("imdb", vocabulary_size=20, train_samples=None)
    few = load_small("imdb", vocabulary_size=20, train_samples=5)
    assert not torch.equal(inputs(few), inputs(trained))
    for arguments in ({"vocabulary_size": 1000}, {"vocabulary_size": 5}, {"validation_fraction": 0.5}):
        assert torch.equal(inputs(load_small("imdb", trained.preparation(), train_samples=None, **arguments)), inputs(trained))


def test_series_are_standardised_by_the_statistics_of_the_training(load_small):
    trained = load_small("ct")
    masked = load_small("ct", trained.preparation(), padding="mask")
    lengths = masked.batch("test", torch.arange(masked.sizes["test"])).lengths
    valid = torch.arange(inputs(masked).shape[1]) < lengths[:, None]
    assert torch.equal(inputs(masked)[valid], inputs(trained)[:, : valid.shape[1]][valid])
    assert not torch.equal(inputs(load_small("ct", padding="mask")), inputs(masked))
    drawn = load_small("uea")
    assert torch.equal(inputs(load_small("uea", drawn.preparation(), validation_fraction=0.6)), inputs(drawn))
    assert not torch.equal(inputs(load_small("uea", validation_fraction=0.6)), inputs(drawn))


def test_a_series_of_another_delay_is_shifted_by_the_mean_of_the_training(load_small):
    trained, other = load_small("mackey_glass"), load_small("mackey_glass", tau=25.0)
    shifted = load_small("mackey_glass", trained.preparation(), tau=25.0)
    means = [data.preparation()["mean"] for data in (trained, other)]
    assert means[0] != means[1]
    torch.testing.assert_close(inputs(shifted), inputs(other) + means[1] - means[0], rtol=1e-5, atol=1e-6)


def test_a_trial_without_a_value_is_named(load_small):
    with pytest.raises(
        UserError, match=r"^imdb: got a checkpoint without vocabulary, expected that of its training; train again$"
    ):
        load_small("imdb", {"words": []})


def test_other_channels_are_refused(load_small):
    with pytest.raises(UserError, match=r"^dataset\.problem: got series of 3 channels, expected 2 as in the training$"):
        load_small("uea", {"mean": [0.0, 0.0], "deviation": [1.0, 1.0]})
