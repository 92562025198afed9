"""The lean loop: the steps of a plain loop and of Lightning's, and the parts that both loops use."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import CatMetric, MetricCollection

from seqmem import HMLSTMNetwork, models, quick_train
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.models import LINEAR_AE, NDS2SAEFactory
from seqmem.tasks import task_for
from seqmem.training.config import TrainConfig
from seqmem.training.loop.best import BestWeights
from seqmem.training.loop.clipping import clip_gradients
from seqmem.training.loop.lean import LeanLoop, Observer, state_on_cpu, trained_on
from seqmem.training.loop.module import SequenceModule
from seqmem.training.loop.quiet import quiet_lightning

SPEC = DataSpec("made up", 3, 2, "regression", None, 5)
SETTINGS = TrainConfig(lr=0.05, wd=0.1, gradient_clip_val=0.5, epochs=3, schedule="cosine", final_lr=0.01, warmup_steps=2)


class Penalised(models.RecurrentNetwork):
    """With a penalty, and inputs that training changes."""

    def penalty(self):
        return 0.1 * self.head[0].weight.square().sum()

    def augment(self, batch):
        return Batch(batch.inputs + 0.1, batch.targets)


def model():
    torch.manual_seed(0)
    return Penalised(SPEC, "gru", {"hidden_size": 4})


def batches(epoch=0):
    random = torch.Generator().manual_seed(1)
    return [Batch(torch.randn(2, 5, 3, generator=random), torch.randn(2, 5, 2, generator=random)) for _ in range(4)]


def lean(settings=SETTINGS, advice="try less"):
    trained = model()
    return LeanLoop(trained, task_for(SPEC), settings, advice, steps_per_epoch=4)


@pytest.fixture(scope="module")
def weights():
    """Of the lean loop after SETTINGS."""
    loop = lean()
    loop.run(batches, range(3), Observer())
    return loop.model.state_dict()


def test_its_steps_are_those_of_a_plain_loop(weights):
    """Loss plus penalty, clipping, Adam with weight decay, and a cosine with a warm-up, written out."""
    trained = model()
    optimizer = torch.optim.Adam(trained.parameters(), lr=0.05, weight_decay=0.1)
    for epoch in range(3):
        for k, batch in enumerate(batches()):
            cosine = 0.2 + 0.8 * (1 + np.cos(np.pi * epoch / 2)) / 2
            optimizer.param_groups[0]["lr"] = 0.05 * cosine * min((4 * epoch + k + 1) / 2, 1)
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(trained(trained.augment(batch)), batch.targets) + trained.penalty()
            loss.backward()
            nn.utils.clip_grad_norm_(trained.parameters(), 0.5)
            optimizer.step()
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(weights[name], value)


def test_cudnn_multiplies_as_in_lightnings_loop(monkeypatch):
    """torch lets cuDNN alone round to TF32; Lightning's loop gives it the precision of other products."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen = []

    class Precision(Observer):
        def on_step(self, batch, outputs, loss):
            seen.append(torch.backends.cudnn.allow_tf32)

    lean().run(batches, range(1), Precision())
    assert seen == [False] * 4
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
def test_lightning_takes_the_same_steps_bit_for_bit(weights):
    module = SequenceModule(model(), task_for(SPEC), SETTINGS)
    with quiet_lightning():
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, DataLoader(batches(), batch_size=None))
    for name, value in module.model.state_dict().items():
        assert torch.equal(weights[name], value), name


def test_the_three_interfaces_use_it(tmp_path, monkeypatch):
    used = []
    run = LeanLoop.run

    def counted(self, given, epochs, observer):
        used.append((type(self.model).__name__, len(epochs)))
        run(self, given, epochs, observer)

    monkeypatch.setattr(LeanLoop, "run", counted)
    quick_train(LINEAR_AE, torch.randn(3, 4), 2, epochs=2)
    HMLSTMNetwork(hidden_state_sizes=3, num_layers=1).train(np.zeros((1, 2, 3, 1)), np.zeros((1, 2, 3, 1)), verbose=False)
    factory = NDS2SAEFactory()
    factory.layer_sizes = [2]
    factory.set_output(tmp_path / "a.zip")
    sequences = [np.zeros((3, 1))]
    factory.build().train(lambda _: (sequences, sequences, True), lambda _: (sequences, sequences, True), 4, 1)
    assert used == [("FlatAutoencoder", 2), ("MultiscaleNetwork", 3), ("Seq2SeqAutoencoder", 4)]


class Noisy(Penalised):
    """With inputs that training changes at random."""

    def augment(self, batch):
        return Batch(batch.inputs + torch.randn_like(batch.inputs), batch.targets)


def test_random_numbers_of_a_step_follow_from_its_own_seed():
    """Whatever was drawn before, and also after a break. The global state is left alone, for the caller and for its batches."""

    def trained(seed, epochs, drawn):
        torch.manual_seed(0)
        model = Noisy(SPEC, "gru", {"hidden_size": 4}, dropout=0.5)
        torch.rand(drawn)
        loop, before, seen = LeanLoop(model, task_for(SPEC), TrainConfig(lr=0.05), "", seed=seed), torch.get_rng_state(), []

        def watched(epoch):
            for batch in batches():
                seen.append(torch.get_rng_state())
                yield batch

        for part in epochs:
            loop.run(watched, part, Observer())
        assert all(torch.equal(state, before) for state in [*seen, torch.get_rng_state()])
        return model.state_dict()

    first = trained(3, [range(2)], drawn=0)
    for epochs, drawn in (([range(2)], 7), ([range(1), range(1, 2)], 1)):
        for name, value in trained(3, epochs, drawn).items():
            assert torch.equal(first[name], value), name
    assert not torch.equal(trained(4, [range(2)], 0)["head.0.weight"], first["head.0.weight"])


def test_an_observer_sees_each_step_and_may_stop():
    class Stopping(Observer):
        def __init__(self):
            self.calls = []

        def on_epoch_start(self, epoch):
            self.calls.append(f"start {epoch}")

        def on_step(self, batch, outputs, loss):
            assert not outputs.requires_grad
            self.calls.append(f"{loss.item():.3g}")

        def on_epoch_end(self, epoch):
            self.calls.append(f"end {epoch}")
            return epoch == 6

    observer, loop = Stopping(), lean()
    with torch.no_grad():
        loop.run(lambda _: batches()[:1], range(5, 9), observer)
    assert [call for call in observer.calls if " " in call] == ["start 5", "end 5", "start 6", "end 6"]
    assert len(observer.calls) == 6


def test_a_loss_that_is_not_finite_ends_it_in_one_line():
    loop = lean(advice="try a smaller lr")
    spoiled = batches()[:2]
    spoiled[1].targets[:] = float("nan")
    message = r"loss became nan at batch 1 of epoch 3 \(step 1, learning rate .*, norm of the gradient before [0-9.]+\); "
    with pytest.raises(
        UserError, match=message + "first not finite: the targets of the data, row 0, time step 0: nan; correct the data, "
    ):
        loop.run(lambda _: spoiled, range(2, 5), Observer())


def test_gradients_are_clipped():
    for algorithm, expected in [("norm", [0.6, -0.8]), ("value", [1.0, -1.0])]:
        weight = nn.Parameter(torch.zeros(2))
        weight.grad = torch.tensor([3.0, -4.0])
        clip_gradients([weight], 0, algorithm)
        assert weight.grad.tolist() == [3, -4]
        clip_gradients([weight], 1.0, algorithm)
        assert weight.grad.tolist() == pytest.approx(expected, abs=1e-6)


def test_the_best_weights_are_kept_and_patience_ends():
    layer, best = nn.Linear(1, 1), BestWeights(patience=2)
    stops = []
    for k, error in enumerate([3.0, 1.0, 2.0, float("nan")]):
        nn.init.constant_(layer.weight, k)
        stops.append(best.update(error, layer))
    best.restore(layer)
    assert layer.weight.item() == 1
    assert stops == [False, False, False, True]
    assert not any(BestWeights(None).update(1.0, layer) for _ in range(9))


def test_a_model_comes_back_to_the_cpu_however_it_ends():
    layer = nn.Linear(1, 1).eval()

    def fail():
        with trained_on(torch.device("meta"), layer) as device:
            assert device.type == layer.weight.device.type == "meta"
            layer.to_empty(device="cpu")
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()
    assert layer.training


def test_a_saved_state_leaves_the_optimiser_as_it_is():
    layer = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    saved = state_on_cpu(optimizer)
    assert torch.equal(saved["state"][0]["exp_avg"], optimizer.state[layer.weight]["exp_avg"])
    saved["state"][0].clear()
    assert "exp_avg" in optimizer.state[layer.weight]


def test_a_metric_that_lists_tensors_continues_on_the_device():
    module = SequenceModule(models.RecurrentNetwork(SPEC), task_for(SPEC), SETTINGS)
    module.train_metrics = MetricCollection({"all": CatMetric()})
    module.train_metrics.update(torch.ones(3))
    gathered = module.within_epoch()
    assert isinstance(gathered["metrics"]["all"]["value"], list)
    module.to("meta").continue_epoch(gathered)
    assert [part.device.type for part in module.train_metrics["all"].value] == ["meta"]
