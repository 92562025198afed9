"""Standardisation of channels by the training split, kept for later inputs."""

import pytest
import torch

from seqmem import datasets
from seqmem.data.preparation import Preparation
from seqmem.errors import UserError
from tests.datasets.files.tables import NAMES, everything, line, long


def test_constant_channels_are_shifted_alone(load):
    data = load("id,x,c,label\n" + "".join(f"{k},{k},7.1,{'ab'[k % 2]}\n{k},2,7.1,\n" for k in range(10)))
    assert line(data, "channels") == "2: x, c; constant in training: c"
    assert all(abs(step[1]) < 1e-6 for inputs, _ in everything(data) for step in inputs)


def test_channels_are_standardised_by_the_training_split(load):
    data = load(long(40))
    batch = data.batch("train", torch.arange(data.sizes["train"]))
    steps = torch.cat([row[:length] for row, length in zip(batch.inputs, batch.lengths.tolist(), strict=True)])
    torch.testing.assert_close(steps.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(steps.std(0, correction=0), torch.ones(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("standardize", [True, False])
def test_channels_of_zeros_are_prepared_as_in_the_training(tmp_path, standardize):
    path = tmp_path / "zeros.csv"
    path.write_text("id,time,a,label\n" + "\n".join(f"{name},{t},0,{k % 2}" for k, name in enumerate(NAMES) for t in range(3)))
    arguments = {"name": "files", "path": str(path), "standardize": standardize}
    saved = datasets.load(arguments).preparation()
    assert saved["mean"] == [0.0]
    again = datasets.load(arguments, preparation=saved)
    assert again.preparation() == saved
    with pytest.raises(UserError, match=rf"dataset.standardize: got {not standardize}, expected {standardize} as in"):
        datasets.load({**arguments, "standardize": not standardize}, preparation=saved)


def test_a_preparation_without_the_number_of_columns_is_one_of_an_earlier_version(load):
    saved = load("\n".join(f"{k % 2},{k},{k + 1}" for k in range(20)), label_column="0").preparation()
    assert (saved.pop("column_count"), saved.pop("optional_columns")) == (3, ["0"])
    assert Preparation.loaded(saved).column_count is None


def test_steps_of_overlapping_windows_count_once(load):
    """In the statistics, and in the numbers of the table, which are those of the file."""
    text = "x\n" + "".join(f"{'NA' if k % 15 == 3 else k * k % 97}\n" for k in range(300))
    keys = {"task": "forecasting", "horizon": 40}
    data = load(text, window=20, **keys)
    assert line(data, "missing values").startswith("20 of 300 (6.7%)")
    whole = load(text, window=300, **keys).preparation()
    assert data.preparation() == whole
    train = [k * k % 97 for k in range(210) if k % 15 != 3]
    assert whole["mean"] == pytest.approx([sum(train) / len(train)])


@pytest.mark.parametrize(
    ("value", "standardize", "expected"),
    [
        ("1e200", True, "channel x: got values so large that their squares overflow"),
        ("1e40", False, r"channel x: got 1e\+40, which is beyond the range of float32"),
    ],
)
def test_values_beyond_a_range_are_refused(load, value, standardize, expected):
    text = long(20).replace("s3,1,3.25", f"s3,1,{value}")
    with pytest.raises(UserError, match=expected):
        load(text, split_seed=1, standardize=standardize)


def test_values_to_predict_beyond_a_range_are_refused(load):
    text = long(20, label=lambda k: f"{1e39 if k % 2 else k}")
    with pytest.raises(UserError, match=r"value to predict label: got 1e\+39, which is beyond the range of float32"):
        load(text, task="regression", standardize=False)
