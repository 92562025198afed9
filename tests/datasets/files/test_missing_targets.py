"""Values that are missing in one's own files: filled in inputs, and of no account as targets."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import seqmem
from seqmem import datasets
from seqmem.cli import commandline, predict
from seqmem.data import Batch, DataSpec, valid_steps
from seqmem.data.checks import check_batch
from seqmem.errors import UserError
from seqmem.models.autoencoder import windows
from seqmem.models.seq2seq_ae import Seq2SeqAutoencoder
from seqmem.tasks import Reconstruction, task_for
from seqmem.training.evaluation.review import anomaly_scores, sequence_errors
from seqmem.training.loop.rows import own_rows
from tests.datasets.files.tables import loaded
from tests.trials import run_trials

STEPS = 90
TASKS = {
    "forecasting": ("dataset.task=forecasting", "dataset.horizon=3", "dataset.window=8", "model=gru", "model.preset=tiny"),
    "reconstruction": ("dataset.task=reconstruction", "model=lstm_ae", "dataset.split_by=time", "dataset.window=8"),
}


def gappy():
    """(T, 2) of one series, with gaps in each part that also cross the ends of windows."""
    values = np.stack([np.sin(np.arange(STEPS) / 5), np.arange(STEPS) % 7 + 0.5], 1)
    for begin, end, channel in [(5, 9, 0), (14, 26, 1), (63, 66, 0), (66, 68, 1), (76, 80, 0), (79, 90, 1)]:
        values[begin:end, channel] = np.nan
    return values


@pytest.fixture
def file(tmp_path):
    rows = [",".join("" if math.isnan(value) else repr(value) for value in row) for row in gappy().tolist()]
    text = "".join(f"{time},{row}\n" for time, row in enumerate(rows))
    (tmp_path / "gappy.csv").write_text("time,a,b\n" + text)
    return tmp_path / "gappy.csv"


def forecasts(file, **more):
    keys = {"task": "forecasting", "horizon": 3, "window": 8, "standardize": False}
    return loaded(file, **keys, **more)


def whole(data, split):
    return data.batch(split, torch.arange(data.sizes[split]))


def test_inputs_are_filled_before_windows_are_cut(file, tmp_path):
    filled = gappy()
    for step in range(1, STEPS):
        filled[step] = np.where(np.isnan(filled[step]), filled[step - 1], filled[step])
    np.save(tmp_path / "gappy.npy", gappy()[None])
    for path, more in ((file, {}), (tmp_path / "gappy.npy", {"in_memory": False}), (file, {"missing": "mask"})):
        data, begin = forecasts(path, **more), 0
        for split, end in (("train", 62), ("validation", 76), ("test", 90)):
            batch = whole(data, split)
            for row, length in enumerate(batch.row_lengths.tolist()):
                expected = torch.from_numpy(filled[begin : begin + length]).float()
                assert torch.equal(batch.inputs[row, :length, :2], expected)
                begin += length
            begin = end


def by_hand(outputs, batch, scale=(1.0, 1.0)):
    """Squared errors and squares of the targets that are in the file: the loss, the normalised error and the weight."""
    errors, squares = [], []
    for row, length in enumerate(batch.row_lengths.tolist()):
        for step in range(length):
            for channel in range(2):
                target = batch.targets_or_nan[row, step, channel].item()
                if not math.isnan(target):
                    errors.append(((outputs[row, step, channel].item() - target) * scale[channel]) ** 2)
                    squares.append(target**2)
    return sum(errors) / len(errors), math.sqrt(sum(errors) / sum(squares)), len(errors) / 2


def test_the_targets_are_those_of_the_file(file):
    values, begin = torch.from_numpy(gappy()).float(), 62 + 14
    batch = whole(forecasts(file), "test")
    assert batch.known.shape == batch.targets.shape
    assert batch.targets.isfinite().all()
    for row, length in enumerate(batch.row_lengths.tolist()):
        later = values[begin + 3 : begin + 3 + length]
        assert torch.equal(batch.targets_or_nan[row, :length].nan_to_num(-9), later.nan_to_num(-9))
        begin += length
    assert whole(forecasts(file, missing="mean"), "test").known.equal(batch.known)


def test_loss_metrics_weights_and_gradients_count_only_known_targets(file):
    data = forecasts(file)
    task, metrics, weighted = task_for(data.spec), task_for(data.spec).metrics(), []
    for split in ("train", "test"):
        batch = whole(data, split)
        outputs = torch.randn(batch.targets.shape, generator=torch.Generator().manual_seed(0))
        loss, _, weight = by_hand(outputs, batch)
        for given in (batch, replace(batch, host=batch)):
            outputs.requires_grad_().grad = None
            found = task.loss(outputs, given)
            found.backward()
            assert found.item() == pytest.approx(loss)
            assert task.weight(given) == weight
            assert outputs.grad.isfinite().all()
            assert (outputs.grad != 0).equal(batch.known & valid_steps(batch.row_lengths, outputs.shape[1])[..., None])
        outputs = outputs.detach()
        parts = [batch.rows(slice(row, row + 1)) for row in range(len(batch))]
        weights = [task.weight(part) for part in parts]
        losses = [task.loss(outputs[row : row + 1], part).item() for row, part in enumerate(parts)]
        assert np.average(losses, weights=weights) == pytest.approx(loss)
        shares = [own_rows(batch, task.weight, rank, 2)[1] for rank in range(2)]
        assert sum(shares) == pytest.approx(2)
        if split == "test":
            for row, part in enumerate(parts):
                task.update(metrics, outputs[row : row + 1], part)
            mse, nrmse, _ = by_hand(outputs, batch)
            weighted = [value.item() for value in metrics.compute().values()]
            assert weighted == pytest.approx([mse, nrmse])
            assert task.predictions(outputs, batch)["target"].isnan().equal(~batch.known)


def test_a_reconstruction_in_units_of_its_channels_counts_known_values():
    scale, known = torch.tensor([2.0, 5.0]), torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(1)) > 0.4
    targets = torch.linspace(-1, 2, 24).view(3, 4, 2)
    batch = Batch(targets, targets, torch.tensor([4, 2, 3]), known=known)
    task = Reconstruction(DataSpec("own", 2, 2, "reconstruction", None, 4), scale)
    outputs, metrics = targets.cos(), task.metrics()
    task.update(metrics, outputs, batch)
    assert metrics.compute()["mse"].item() == pytest.approx(by_hand(outputs, batch, scale.tolist())[0])
    nothing = replace(batch, known=torch.zeros_like(known))
    assert (task.loss(outputs, nothing).item(), task.weight(nothing)) == (0, 0)


@pytest.mark.parametrize("task", TASKS)
def test_a_trial_scores_what_is_in_the_file(task, file, tmp_path):
    given = ["dataset=files", f"dataset.path={file}", *TASKS[task], "train.epochs=1", "runner.accelerator=cpu"]
    config = commandline.compose([*given, "train.batch_size=2"])
    data = datasets.load(config["dataset"])
    [trial] = run_trials(config, data, tmp_path)
    model, batch = seqmem.load(trial.path), whole(data, "test")
    assert batch.known is not None
    assert not batch.known.all()
    with torch.no_grad():
        outputs = model(batch)
    loss, nrmse, _ = by_hand(outputs, batch)
    result = trial.read_record()["result"]
    assert result["test/loss"] == pytest.approx(loss, rel=1e-5)
    wanted = {"test/nrmse": nrmse} if task == "forecasting" else {"test/mse": loss}
    assert {name: result[name] for name in wanted} == pytest.approx(wanted, rel=1e-5)


def test_errors_of_an_autoencoder_count_known_values():
    spec = DataSpec("own", 2, 2, "reconstruction", None, 6)
    inputs = torch.linspace(-1, 1, 36).view(3, 6, 2)
    known = torch.ones(3, 6, 2, dtype=torch.bool)
    batch = Batch(inputs, inputs, torch.tensor([6, 4, 5]), known=known)
    for stop in ("head", "token"):
        torch.manual_seed(0)
        model = Seq2SeqAutoencoder(spec, stop=stop)
        for one, other in zip(model.errors(batch), model.errors(replace(batch, known=None)), strict=True):
            torch.testing.assert_close(one, other)
        some = known.clone()
        some[0, 2:4, 0] = some[1] = False
        with torch.no_grad():
            outputs = model._forced(model.encode(batch), batch)[0]
        stops = model.stop_steps if stop == "token" else 0
        expected = []
        for row, length in enumerate([6, 4, 5]):
            valid = [(step, c) for step in range(length) for c in range(2) if some[row, step, c]]
            ends = [(step, c) for step in range(length, length + stops) for c in range(2)]
            errors = [(outputs[row, step, c] - inputs[row, step, c]).square().item() for step, c in valid]
            errors += [(outputs[row, step, c] - model.stop_token).square().item() for step, c in ends]
            expected.append(2 * sum(errors) / max(len(errors), 1))
        found = model.errors(replace(batch, known=some))[0]
        assert found.item() == pytest.approx(sum(expected) / 3, rel=1e-5)
        found.backward()
        assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())

    def doubled(batch):
        return 2 * batch.inputs

    errors = sequence_errors(doubled, replace(batch, known=some))
    assert errors[0].item() == pytest.approx(inputs[0][some[0]].square().mean().item())
    assert errors[1].isnan()
    assert anomaly_scores(errors[[0, 2]], errors).isfinite().all()
    marked = Batch(inputs, inputs, known=inputs > 0)
    cut = windows(replace(marked, host=marked), 3)
    assert cut.known.equal(cut.targets > 0)
    assert cut.on_host is cut


def test_predicted_errors_leave_out_missing_values(file, tmp_path):
    given = ["dataset=files", f"dataset.path={file}", *TASKS["reconstruction"], "train.epochs=1", "runner.accelerator=cpu"]
    config = commandline.compose(given)
    [trial] = run_trials(config, datasets.load(config["dataset"]), tmp_path)
    (tmp_path / "new.csv").write_text("time,a,b\n0,0.5,1\n1,,2\n2,,\n3,0.1,3\n")
    predict.main([str(trial.path), str(tmp_path / "new.csv"), "--out", str(tmp_path / "out.csv")])
    rows = [line.split(",") for line in (tmp_path / "out.csv").read_text().splitlines()[1:]]
    preparation = datasets.load(config["dataset"]).preparation()
    wanted = ((float(rows[1][3]) - 2) / preparation["deviation"][1]) ** 2
    assert float(rows[1][4]) == pytest.approx(wanted, rel=1e-4)
    assert [row[4] == "" for row in rows] == [False, False, True, False]


def test_a_split_without_a_target_is_refused(tmp_path):
    """The test split begins at step 76, and its targets 3 steps later."""

    def load(*known):
        rows = [f"{k}\n" if k < 76 or k in known else "NA\n" for k in range(90)]
        (tmp_path / "own.csv").write_text("a\n" + "".join(rows))
        return forecasts(tmp_path / "own.csv")

    for known in ([76], [78], [76, 77, 78]):
        with pytest.raises(UserError, match=r"no value of the test split after the first dataset.horizon=3 steps of each"):
            load(*known)
    for known in ([79], [76, 77, 79], [76, 88]):
        assert whole(load(*known), "test").known.sum() == 1


def test_a_split_without_a_value_and_a_wrong_mask_are_refused(tmp_path):
    (tmp_path / "own.csv").write_text("a\n" + "".join(f"{k}\n" for k in range(76)) + "NA\n" * 14)
    with pytest.raises(UserError, match=r"own.csv: got no value of the test split, expected one that is not missing"):
        forecasts(tmp_path / "own.csv")
    values = torch.zeros(2, 3, 1)
    with pytest.raises(UserError, match=r"known: got the shape \(2, 3\) .* torch.float32 targets of shape \(2, 3, 1\)"):
        check_batch(Batch(values, values, known=torch.ones(2, 3, dtype=torch.bool)))
    assert check_batch(Batch(values, values, known=values == 0)) is None
