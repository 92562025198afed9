"""Tasks on one's own files: regression, forecasting and reconstruction, and times."""

import pytest
import torch

from seqmem.data import SPLITS
from seqmem.errors import UserError
from tests.datasets.files.tables import WHOLE, line, long


def test_values_of_a_regression_are_standardised(load):
    text = "id,x,size,weight\n" + "".join(f"{k},{t},{1000 * k},{k % 3}\n" for k in range(20) for t in range(3))
    data = load(text, task="regression", label_column=["size", "weight"])
    assert (data.spec.output_size, data.spec.task, data.spec.output_steps) == (2, "regression", 0)
    train = data.batch("train", torch.arange(data.sizes["train"])).targets
    torch.testing.assert_close(train.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    assert line(data, "values to predict") == "size from 0 to 19000, weight from 0 to 2"
    raw = load(text, task="regression", label_column="size", standardize=False)
    targets = torch.cat([raw.batch(split, torch.arange(raw.sizes[split])).targets for split in SPLITS])
    assert sorted(targets[:, 0].tolist()) == [1000.0 * k for k in range(20)]
    with pytest.raises(UserError, match=r"line 5, column y: got 1 in series '0', and 2 in its other rows; .*task=forecasting"):
        load("id,v,y\n" + "".join(f"{k},{t},{t}\n" for k in range(5) for t in (2, 2, 2, 1, 2)), task="regression")


def test_forecasts_of_one_series_are_split_by_time(load):
    text = "date,price\n" + "".join(f"2024-01-{day:02},{day}\n" for day in range(1, 31))
    data = load(text, task="forecasting", horizon=2, standardize=False, validation_fraction=0.2, test_fraction=0.2)
    assert data.sizes == {"train": 1, "validation": 1, "test": 1}
    assert "time, the first steps" in line(data, "split by")
    batch = data.batch("train", torch.tensor([0]))
    assert batch.inputs[0, :, 0].tolist() == list(range(1, 17))
    assert batch.targets[0, :, 0].tolist() == list(range(3, 19))
    assert data.batch("test", torch.tensor([0])).inputs[0, :, 0].tolist() == [25, 26, 27, 28]
    cut = load(text, task="forecasting", horizon=2, standardize=False, window=5, timestamp=True, time_scale=1 / 86400)
    batch = cut.batch("train", torch.arange(cut.sizes["train"]))
    assert batch.lengths is None
    assert batch.inputs[:, 0, 0].tolist() == [1, 6, 11, 16]
    assert batch.targets[1, :, 0].tolist() == [8, 9, 10, 11, 12]
    assert batch.times.tolist() == [[0, 1, 2, 3, 4]] * 4
    with pytest.raises(UserError, match=r"dataset\.horizon: got 30, but series 'own' of .*own\.csv has 30 steps"):
        load(text, task="forecasting", horizon=30)
    with pytest.raises(UserError, match=r"expected more than dataset\.horizon=9 in each"):
        load(text, task="forecasting", horizon=9)


def test_reconstruction(load):
    data = load(long(), task="reconstruction", **WHOLE)
    batch = data.batch("train", torch.arange(data.sizes["train"]))
    assert torch.equal(batch.inputs, batch.targets)
    assert batch.labels is not None
    y_alone = load("id,y\n" + "".join(f"{k},{t}\n" for k in range(9) for t in range(3)), task="reconstruction")
    assert line(y_alone, "channels") == "1: y"
    unlabelled = load("id,x\n" + "".join(f"{k},{t}\n" for k in range(9) for t in range(3)), task="reconstruction")
    assert unlabelled.batch("train", torch.tensor([0])).labels is None


def test_times(load):
    text = "id,time,x,label\n" + "".join(f"{k},{1e9 + t},{t},{'ab'[k % 2]}\n" for k in range(10) for t in (0, 0.5, 2))
    assert load(text).batch("train", torch.tensor([0])).times is None
    data = load(text, timestamp=True, time_scale=2.0)
    assert data.spec.times
    assert data.batch("train", torch.tensor([0])).times.tolist() == [[0, 1, 4]]
    with pytest.raises(UserError, match=r"dataset\.timestamp: got true, but .* has no times"):
        load(text.replace("time", "moment"), timestamp=True)
