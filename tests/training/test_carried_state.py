"""Truncated backpropagation: the state is carried from chunk to chunk, the gradient is not, and chunks change no result."""

import math

import pytest
import pytorch_lightning as pl
import torch
from torch.nn.functional import cross_entropy

from seqmem import datasets, models, training
from seqmem.tasks import task_for
from seqmem.training.config import TrainConfig
from seqmem.training.loop.module import SequenceModule
from tests.trials import run_trials

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]

CELLS = ["lstm", *(pytest.param(cell, marks=pytest.mark.slow) for cell in ("gru", "legs"))]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A text of 3001 letters, in which each is likely to follow the one before it in the alphabet."""
    random = torch.Generator().manual_seed(0)
    steps = 1 + (torch.rand(3001, generator=random) < 0.3) * torch.randint(0, 25, (3001,), generator=random)
    path = tmp_path_factory.mktemp("text") / "letters.txt"
    path.write_text("".join(chr(97 + letter) for letter in (steps.cumsum(0) % 26).tolist()))
    return path


def load(path, **arguments):
    return datasets.load({"name": "text", "path": str(path), **arguments})


def module_for(data, cell="lstm", **train):
    torch.manual_seed(0)
    model = models.build({"network": "recurrent", "cell": cell, "cell_args": {"hidden_size": 6}, "num_layers": 2}, data.spec)
    return SequenceModule(model, task_for(data.spec), TrainConfig(**train))


def config(path, **changes):
    plain = {
        "model": {"network": "recurrent", "cell": "lstm", "cell_args": {"hidden_size": 6}},
        "dataset": {"name": "text", "path": str(path), "length": 20},
        "train": {"epochs": 2, "batch_size": 5, "lr": 0.01},
        "runner": {"accelerator": "cpu"},
        "seed": 1,
        "smoke_test": False,
    }
    for key, value in changes.items():
        plain[key] = {**plain[key], **value}
    return training.check_config(plain)


def validated(module, loader):
    trainer = pl.Trainer(
        accelerator="cpu",
        precision="64-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    [found] = trainer.validate(module, loader, verbose=False)
    return found


@pytest.mark.parametrize("cell", CELLS)
def test_bits_per_character_are_the_same_in_one_chunk_and_in_many(cell, path):
    """The validation part has 150 characters, so 149 to predict: the last chunk is shorter at each of these lengths but 149."""
    whole = load(path, length=149)
    assert len(whole.loader("validation", 1)) == 1
    module = module_for(whole, cell).double()
    batch = whole.batch("validation", torch.arange(1))
    exact = cross_entropy(module.model(batch).flatten(0, 1), batch.targets.flatten()).item() / math.log(2)
    for length in (149, 7, 148, 1000):
        found = validated(module, load(path, length=length).loader("validation", 1))
        assert found["val/bpc"] == pytest.approx(exact, rel=1e-12)
        assert found["val/perplexity"] == pytest.approx(2**exact, rel=1e-12)
        assert found["val/loss"] == pytest.approx(exact * math.log(2), rel=1e-6)
    fresh = validated(module, load(path, length=7, step=7).loader("validation", 1))
    assert abs(fresh["val/bpc"] - exact) > 1e-4


def test_a_second_validation_begins_without_a_state(path):
    data = load(path, length=20)
    module = module_for(data).double()
    assert validated(module, data.loader("validation", 1)) == validated(module, data.loader("validation", 1))


def test_the_state_is_carried_and_the_gradient_stops(path):
    """Gradients of the second batch are those of a network that starts from the first batch's state, a constant."""
    data = load(path, length=20)
    module = module_for(data, "gru")
    first, second, *_ = data.loader("train", 4)
    module.log = lambda *_, **__: None
    module.on_train_epoch_start()
    module.training_step(first, 0)
    module.zero_grad()
    module.training_step(second, 1).backward()
    found = [parameter.grad.clone() for parameter in module.model.parameters()]

    _, states = module.model.carry(first)
    constant = [type(state)(*(part.detach() for part in state)) for state in states]
    outputs, _ = module.model.carry(second, constant)
    module.zero_grad()
    cross_entropy(outputs.flatten(0, 1), second.targets.flatten()).backward()
    for one, parameter in zip(found, module.model.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad)

    module.on_train_epoch_start()
    afresh = module.training_step(second, 0)
    expected = cross_entropy(module.model(second).flatten(0, 1), second.targets.flatten())
    torch.testing.assert_close(afresh, expected)
    assert not torch.allclose(afresh, cross_entropy(outputs.flatten(0, 1), second.targets.flatten()))


def test_the_rows_of_a_smaller_last_batch_keep_their_states(path):
    data = load(path, length=20)
    module = module_for(data).double()
    batches = list(data.loader("train", 50, None))
    assert [len(batch) for batch in batches] == [50, 50, 35]
    module.log = lambda *_, **__: None
    losses = [module.training_step(batch, k).item() for k, batch in enumerate(batches)]
    inputs = torch.cat([batch.inputs[:35] for batch in batches], 1)
    logits = module.model(type(batches[0])(inputs, None))[:, -20:]
    assert losses[-1] == pytest.approx(cross_entropy(logits.flatten(0, 1), batches[-1].targets.flatten()).item(), rel=1e-12)


def test_splits_have_states_of_their_own(path):
    data = load(path, length=20)
    module = module_for(data)
    module.log = lambda *_, **__: None
    first, second, *_ = data.loader("train", 1)
    module.training_step(first, 0)
    before = module.states.before("train", first, module.model)[0][0].clone()
    module.on_validation_epoch_start()
    module.validation_step(second, 0)
    assert torch.equal(module.states.before("train", second, module.model)[0][0], before)


def test_training_learns_and_leaves_no_state_behind(path, tmp_path):
    data = load(path, length=20)
    [folder] = run_trials(config(path, train={"epochs": 2, "lr": 0.1}), data, tmp_path)
    record = folder.read_record()
    assert record["metric"] == "bpc"
    assert set(record["result"]) == {"val/bpc", "test/loss", "test/bpc", "test/perplexity"}
    assert record["result"]["test/bpc"] < 4
    assert record["result"]["test/perplexity"] == pytest.approx(2 ** record["result"]["test/bpc"], rel=1e-5)
    assert record["result"]["test/loss"] == pytest.approx(record["result"]["test/bpc"] * math.log(2), rel=1e-5)
    metrics = folder.read_metrics()
    assert metrics["val/bpc"].idxmin() == record["best_epoch"]
    checkpoint = torch.load(folder.checkpoints / "last.ckpt", weights_only=True)
    model = models.build(config(path)["model"], data.spec)
    assert set(checkpoint["state_dict"]) == {f"model.{name}" for name in model.state_dict()}


@pytest.mark.parametrize(("given", "expected"), [({}, 1), ({"eval_batch_size": 3}, 3)])
def test_evaluation_reads_one_text_by_default(given, expected, path, tmp_path, monkeypatch):
    seen = set()
    monkeypatch.setattr(SequenceModule, "on_test_batch_start", lambda self, batch, k: seen.add(len(batch)))
    few = {f"limit_{split}_batches": 2 for split in ("train", "val", "test")}
    run_trials(config(path, train={"epochs": 1, **few, **given}), load(path, length=20), tmp_path)
    assert max(seen) == expected


@pytest.mark.slow
def test_compiling_changes_no_result(path, tmp_path):
    results = []
    for compile in (False, True):
        settings = config(path, train={"epochs": 1, "compile": compile})
        [folder] = run_trials(settings, load(path, length=20), tmp_path / str(compile))
        results.append(folder.read_record()["result"])
    assert results[0] == pytest.approx(results[1], rel=1e-4)


@pytest.mark.parametrize("cell", CELLS)
def test_the_state_is_not_carried_from_the_end_of_the_text_to_its_start(cell, path):
    """Each row alone, chunk by chunk, with a fresh state where the text begins."""
    data = load(path, length=20)
    module = module_for(data, cell).double()
    module.log = lambda *_, **__: None
    loader = data.loader("train", 4, seed=1)
    batches = list(loader)
    start = data.batch("train", torch.arange(1)).inputs
    wrapped = [k for k, batch in enumerate(batches) if k > 0 and (batch.inputs == start).all(1).any()]
    assert wrapped, "another seed, in whose order a row comes to the end of the text in its midst"
    found = [module.training_step(batch, k).item() for k, batch in enumerate(batches)]
    losses, states = [], {}
    for batch in batches:
        rows = []
        for row in range(len(batch)):
            alone = batch.rows(slice(row, row + 1))
            before = None if torch.equal(alone.inputs, start) else states.get(row)
            outputs, states[row] = module.model.carry(alone, before)
            rows.append(module.task.loss(outputs, alone))
        losses.append(torch.stack(rows).mean().item())
    assert found == pytest.approx(losses, rel=1e-9)
