"""Evaluations of a finished trial: the same numbers again, different data, and boundary rates by hand."""

import pytest
import torch

from seqmem import datasets
from seqmem.errors import UserError
from seqmem.training.checkpoints.files import read_checkpoint, restore
from seqmem.training.evaluation.excerpt import Excerpt
from seqmem.training.evaluation.measure import evaluate
from tests.trials import run_trials

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

SIGNALS = {"name": "sinusoids", "length": 30, "horizon": 2, "train_samples": 12, "validation_samples": 5, "test_samples": 7}
HMLSTM = {
    "network": "hmlstm",
    "cell": "hmlstm",
    "cell_args": {"hidden_size": [3, 4], "num_layers": 2, "slope": 1.0, "slope_growth": 0.5},
    "output_embedding_size": 5,
}
LSTM = {"network": "recurrent", "cell": "lstm", "cell_args": {"hidden_size": 4}}


def trial(tmp_path, dataset, model=HMLSTM, **train):
    config = {
        "model": model,
        "dataset": dataset,
        "train": {"epochs": 3, "batch_size": 3, "lr": 0.01, **train},
        "runner": {"ntrials": 1, "accelerator": "cpu"},
        "seed": 1,
        "smoke_test": False,
    }
    data = datasets.load(dataset)
    [folder] = run_trials(config, data, tmp_path)
    return config, data, folder


@pytest.fixture(scope="module")
def signals(tmp_path_factory):
    return trial(tmp_path_factory.mktemp("signals"), SIGNALS)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "words.txt").write_text("the quick brown fox jumps over the lazy dog " * 40)
    return trial(folder, {"name": "text", "path": str(folder / "words.txt"), "length": 13}, epochs=1)


@pytest.mark.parametrize("model", ["hmlstm", "lstm"])
def test_a_restored_model_measures_what_the_trial_measured(model, signals, tmp_path):
    config, data, folder = signals if model == "hmlstm" else trial(tmp_path, SIGNALS, LSTM)
    record = folder.read_record()
    checkpoint = read_checkpoint(folder.path)
    assert checkpoint.path == folder.checkpoints / "best.ckpt"
    assert checkpoint.folder == folder.path
    assert (checkpoint.epoch, checkpoint.config, checkpoint.spec) == (record["best_epoch"], config, data.spec)
    module = restore(checkpoint, config["train"], data.spec)
    tested = evaluate(module, data, config)
    assert tested == {name: value for name, value in record["result"].items() if name.startswith("test/")}
    assert evaluate(module, data, config, "validation")["val/mse"] == record["result"]["val/mse"]
    limited = {**config, "train": {**config["train"], "limit_test_batches": 1}}
    assert evaluate(module, data, limited)["test/mse"] != tested["test/mse"]


def test_rates_are_counted_by_hand_and_follow_the_epochs_slope(signals):
    config, data, folder = signals
    last = read_checkpoint(folder.checkpoints / "last.ckpt")
    module = restore(last, config["train"], data.spec)
    assert module.model.layers[0].slope.item() == 1.0 + 2 * 0.5
    measured = evaluate(module, data, config, "validation")
    whole = data.batch("validation", torch.arange(5))
    by_hand = (module.eval().model.boundaries(whole) > 0.5).float().mean((0, 1))
    rates = [measured[f"val/boundary_rate_{k}"] for k in (1, 2)]
    assert rates == pytest.approx(by_hand.tolist(), rel=1e-6)
    assert folder.read_metrics()["val/boundary_rate_1"].iloc[-1] == pytest.approx(rates[0], rel=1e-6)


def test_boundary_rates_leave_padding_out_and_are_computed_for_a_number_of_steps(signals, monkeypatch):
    config, data, folder = signals
    module = restore(read_checkpoint(folder.path), config["train"], data.spec)
    logged = {}
    monkeypatch.setattr(module, "log", lambda name, value, **keywords: logged.setdefault(name, []).append((value, keywords)))
    batch = data.batch("test", torch.arange(2))
    batch.lengths = torch.tensor([28, 9])
    results = module.eval().test_step(batch, 0)
    [(rate, keywords)] = logged["test/boundary_rate_1"]
    both = torch.cat([results["boundaries"][0, :, 0], results["boundaries"][1, :9, 0]])
    assert rate.compute().item() == pytest.approx((both > 0.5).float().mean().item())
    assert rate.weight == 37
    assert keywords["on_epoch"]
    module.boundary_steps = 50
    assert "boundaries" in module.test_step(batch, 1)
    assert "boundaries" not in module.test_step(batch, 2)
    module.on_test_epoch_start()
    assert "boundaries" in module.test_step(batch, 0)


def test_different_data_can_be_read_if_they_have_the_same_shape(signals):
    config, _, folder = signals
    checkpoint = read_checkpoint(folder.path)
    longer = datasets.load({**SIGNALS, "length": 50, "horizon": 1})
    assert evaluate(restore(checkpoint, config["train"], longer.spec), longer, config)["test/mse"] > 0
    several = datasets.load({**SIGNALS, "channels": 2})
    with pytest.raises(
        UserError, match=r"sinusoids has input_size=2, expected input_size=1, since the model of .* was trained on"
    ):
        restore(checkpoint, config["train"], several.spec)


def test_an_excerpt_is_one_sequence_of_the_split(signals):
    config, data, folder = signals
    module = restore(read_checkpoint(folder.path), config["train"], data.spec)
    excerpt = Excerpt(data.spec, sequence=4, steps=20)
    evaluate(module, data, config, callbacks=[excerpt])
    targets, outputs, boundaries = excerpt.parts()
    alone = data.batch("test", torch.tensor([4]))
    with torch.no_grad():
        torch.testing.assert_close(outputs, module.eval()(alone)[0, :20])
        assert torch.equal(boundaries, module.model.boundaries(alone)[0, :20])
    assert torch.equal(targets, alone.targets[0, :20])
    absent = Excerpt(data.spec, sequence=7, steps=20)
    evaluate(module, data, config, callbacks=[absent])
    with pytest.raises(UserError, match="sequence: got 7, expected less than 7, the sequences that were read"):
        absent.parts()


@pytest.mark.parametrize("rows", [1, 2])
def test_boundaries_of_a_text_do_not_depend_on_its_chunks(rows, text):
    config, _, folder = text
    found = []
    for length in (13, 5):
        again = datasets.load({**config["dataset"], "length": length})
        module = restore(read_checkpoint(folder.path), config["train"], again.spec)
        excerpt = Excerpt(again.spec, 0, 35)
        settings = {**config, "train": {**config["train"], "eval_batch_size": rows}}
        measured = evaluate(module, again, settings, callbacks=[excerpt])
        found.append((*excerpt.parts(), measured))
    assert len(found[0][0]) == 35
    for one, other in zip(found[0][:3], found[1][:3], strict=True):
        torch.testing.assert_close(one, other)
    if rows == 1:
        assert found[0][3] == pytest.approx(found[1][3], rel=1e-5)
