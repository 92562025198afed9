"""Gradient accumulation: the steps of batches several times as large."""

import pytest
import torch

from seqmem import datasets
from seqmem.cli import commandline
from seqmem.training.loop.accumulation import Window
from tests.training.test_carried_state import load, module_for
from tests.trials import run_trials, saved

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

REBER = ["dataset=reber", "dataset.length=14", "dataset.shortest=9", "dataset.train_samples=70", "dataset.seed=3"]
REBER += ["dataset.validation_samples=9", "dataset.test_samples=9"]
STEPS = ["train.schedule=cosine", "train.schedule_interval=step", "train.warmup_steps=2", "train.gradient_clip_val=0.3"]
CASES = {
    "padding": [*REBER, "model=lstm", "model.preset=tiny", *STEPS],
    "penalty": [
        "dataset=digits",
        "train.limit_val_batches=2",
        "train.limit_test_batches=1",
        "model=igloo",
        "model.preset=tiny",
    ],
}


@pytest.mark.parametrize("case", ["padding", pytest.param("penalty", marks=pytest.mark.slow)])
def test_it_equals_batches_several_times_as_large(case, tmp_path):
    """The last step of an epoch has fewer batches, and the last batch fewer rows; strings have different lengths."""
    keys = [*CASES[case], "train.optimizer=sgd", "train.lr=0.5", "train.precision=64-true", "train.epochs=2"]
    keys += ["train.eval_batch_size=9", "train.limit_val_batches=2", "train.limit_test_batches=1"]
    small, large = (
        commandline.compose(
            [
                *keys,
                f"train.batch_size={size}",
                f"train.accumulate_grad_batches={count}",
                f"train.limit_train_batches={168 // size}",
            ]
        )
        for size, count in ((8, 3), (24, 1))
    )
    data = datasets.load(small["dataset"])
    folders = [run_trials(config, data, tmp_path)[0] for config in (small, large)]
    one, other = (saved(folder, "last.ckpt") for folder in folders)
    assert one["global_step"] == other["global_step"] == 2 * -(-min(data.sizes["train"], 168) // 24)
    assert one["lr_schedulers"] == other["lr_schedulers"]
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(value, other["state_dict"][name], rtol=1e-9, atol=1e-11)
    rows, expected = (folder.read_metrics() for folder in folders)
    assert rows["step"].tolist() == expected["step"].tolist()
    torch.testing.assert_close(rows["val/loss"].tolist(), expected["val/loss"].tolist(), rtol=1e-9, atol=0)


def test_batches_count_by_their_targets_and_ones_without_any_count_nothing():
    weight = torch.nn.Parameter(torch.zeros(()))
    window = Window(4)
    assert window.state() == []
    for count, slope in ((2, 1.0), (0, 5.0), (6, 3.0)):
        (weight * slope * window.add(count) / 4).backward()
    again = Window(4)
    again.restore(window.state())
    assert again.total == 4.0
    again.rescale([weight])
    assert weight.grad == (2 * 1.0 + 6 * 3.0) / 8
    assert again.state() == []
    weight.grad = None
    empty = Window(2)
    for _ in range(2):
        (weight * empty.add(0) / 2).backward()
    empty.rescale([weight])
    assert weight.grad == 0


def test_the_state_of_a_text_is_carried_through_a_step_of_several_batches(tmp_path):
    """The gradient is the mean over the batches' characters; it stops between them as in steps of one batch."""
    path = tmp_path / "letters.txt"
    path.write_text("the quick brown fox jumps over the lazy dog " * 30)
    data = load(path, length=20)
    module = module_for(data, accumulate_grad_batches=2)
    first, second, *_ = data.loader("train", 4)
    module.log = lambda *_, **__: None
    module.on_train_epoch_start()
    for k, batch in enumerate((first, second)):
        (module.training_step(batch, k) / 2).backward()
    module.window.rescale(module.parameters())
    found = [parameter.grad.clone() for parameter in module.model.parameters()]
    module.zero_grad()
    outputs, states = module.model.carry(first)
    loss = module.task.loss(outputs, first)
    constant = [type(state)(*(part.detach() for part in state)) for state in states]
    ((loss + module.task.loss(module.model.carry(second, constant)[0], second)) / 2).backward()
    for one, parameter in zip(found, module.model.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad)
