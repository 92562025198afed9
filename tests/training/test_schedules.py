"""Learning rates by their formulas, in the optimiser, and over a whole training."""

import pytest
import torch
from torch import nn

from seqmem import models
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.tasks import task_for
from seqmem.training.config import TrainConfig
from seqmem.training.loop.module import SequenceModule
from seqmem.training.optimisation.build import schedule_for
from seqmem.training.optimisation.schedules import Constant, Cosine, Exponential, InverseTime, Schedule


def rates(steps_per_epoch=4, **settings):
    """The learning rate of each step of a training, as both loops step the schedule."""
    train = TrainConfig(lr=0.1, **settings)
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=train.lr)
    schedule = schedule_for(optimizer, train, lambda: steps_per_epoch)
    found = []
    for _ in range(train.epochs):
        for _ in range(steps_per_epoch):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if schedule is not None and schedule[1] == "step":
                schedule[0].step()
        if schedule is not None and schedule[1] == "epoch":
            schedule[0].step()
    return found


def test_rates_are_their_formulas():
    """At the first, middle and last of five epochs, and beyond."""
    for schedule, expected in [
        (Constant(), [0.1, 0.1, 0.1, 0.1]),
        (Exponential(), [0.1, 0.01, 0.001, 0.001]),
        (Cosine(), [0.1, 0.0505, 0.001, 0.001]),
        (InverseTime(0.5), [0.1, 0.05, 0.1 / 3, 0.1 / 4.5]),
    ]:
        assert [schedule.rate(count, 5, 0.1, 0.001) for count in (0, 2, 4, 7)] == pytest.approx(expected)
        assert schedule.rate(0, 1, 0.1, 0.001) == 0.1


def test_the_last_epoch_or_step_trains_at_the_final_rate():
    for schedule in ["cosine", "exponential"]:
        by_epoch = rates(epochs=5, schedule=schedule, final_lr=0.002)
        assert by_epoch[:4] == [0.1] * 4
        assert by_epoch[-4:] == pytest.approx([0.002] * 4)
        assert len({round(rate, 12) for rate in by_epoch}) == 5
        by_step = rates(epochs=5, schedule=schedule, final_lr=0.002, schedule_interval="step")
        assert by_step[0] == 0.1
        assert by_step[-1] == pytest.approx(0.002)
        assert by_step == sorted(by_step, reverse=True)
        assert len(set(by_step)) == 20
        assert rates(epochs=5, schedule=schedule)[-1] == pytest.approx(0.001)  # a hundredth


def test_the_warm_up_is_linear_and_the_schedule_follows():
    for warmup in [8, 0.4]:
        constant = rates(epochs=5, warmup_steps=warmup)
        assert constant == pytest.approx([0.1 * min((k + 1) / 8, 1) for k in range(20)])
        by_step = rates(epochs=5, warmup_steps=warmup, schedule="cosine", schedule_interval="step", final_lr=0.01)
        assert by_step[:8] == pytest.approx(constant[:8])
        assert by_step[8] == pytest.approx(0.1)
        assert by_step[8:] == pytest.approx([Cosine().rate(k, 12, 0.1, 0.01) for k in range(12)])
        by_epoch = rates(epochs=5, warmup_steps=warmup, schedule="cosine", final_lr=0.01)
        assert by_epoch == pytest.approx([Cosine().rate(k // 4, 5, 0.1, 0.01) * min((k + 1) / 8, 1) for k in range(20)])
        assert by_epoch[-4:] == pytest.approx([0.01] * 4)


def test_a_warm_up_longer_than_the_run_is_refused():
    assert rates(epochs=2, warmup_steps=8)[-1] == pytest.approx(0.1)
    with pytest.raises(UserError, match=r"train\.warmup_steps: got 9, expected at most 8, the steps of the run"):
        rates(epochs=2, warmup_steps=9)


def test_decay_by_updates_counts_over_epochs():
    assert rates(epochs=3, lr_decay=0.1) == pytest.approx([0.1 / (1 + 0.1 * k) for k in range(12)])
    named = rates(epochs=3, schedule="inverse_time", schedule_args={"decay": 0.1}, schedule_interval="step")
    assert named == rates(epochs=3, lr_decay=0.1)


def test_a_constant_rate_needs_no_schedule_and_no_count_of_steps():
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    assert schedule_for(optimizer, TrainConfig(schedule_interval="step"), None) is None
    assert rates(epochs=2) == [0.1] * 8


def test_groups_keep_their_scales():
    slow = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([{"params": [slow], "lr": 0.01}], lr=0.1)
    scheduler, _ = schedule_for(optimizer, TrainConfig(lr=0.1, epochs=3, schedule="cosine", final_lr=0.05), None)
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.005)


def test_which_rates_depend_on_the_number_of_epochs():
    """A trial may resume with more epochs only where they do not."""
    free = ({}, {"lr_decay": 0.1}, {"warmup_steps": 7}, {"schedule": "inverse_time", "schedule_args": {"decay": 1.0}})
    bound = ({"schedule": "cosine"}, {"schedule": "exponential"}, {"warmup_steps": 0.1})
    assert not any(TrainConfig(**settings).rate_depends_on_epochs for settings in free)
    assert all(TrainConfig(**settings).rate_depends_on_epochs for settings in bound)


def test_a_schedule_registers_itself_by_its_name():
    class Halved(Schedule):
        name = "halved"

        def rate(self, count, total, first, last):
            return first / 2**count

    try:
        assert rates(epochs=2, schedule="halved") == [0.1] * 4 + [0.05] * 4
    finally:
        del Schedule._registry["halved"]


def test_lightning_gets_the_interval():
    spec = DataSpec("made up", 1, 1, "regression", None, 5)
    model = models.build({"network": "recurrent", "cell": "gru", "cell_args": {"hidden_size": 3}}, spec)
    for settings, interval in (({"schedule": "cosine"}, "epoch"), ({"lr_decay": 0.1}, "step")):
        module = SequenceModule(model, task_for(spec), TrainConfig(**settings))
        module._steps_per_epoch = lambda: 3
        assert module.configure_optimizers()["lr_scheduler"]["interval"] == interval
    assert isinstance(SequenceModule(model, task_for(spec), TrainConfig()).configure_optimizers(), torch.optim.Adam)
