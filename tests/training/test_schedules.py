"""Learning rates by their formulas, and in the optimiser."""

import pytest

from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.tasks import task_for
from seqmem.training import check_config
from seqmem.training.config import TrainConfig
from seqmem.training.loop.module import SequenceModule
from seqmem.training.optimisation.schedules import learning_rate


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [("constant", [0.1, 0.1, 0.1, 0.1]), ("exponential", [0.1, 0.01, 0.001, 0.001]), ("cosine", [0.1, 0.0505, 0.001, 0.001])],
)
def test_rates_are_their_formulas(schedule, rates):
    assert [learning_rate(schedule, progress, 0.1, 0.001) for progress in (0, 0.5, 1, 7)] == pytest.approx(rates)


def test_the_optimisers_rate_follows_the_epochs():
    from seqmem import models

    spec = DataSpec("made up", 1, 1, "regression", None, 5)
    model = models.build({"network": "recurrent", "cell": "gru", "cell_args": {"hidden_size": 3}}, spec)
    config = TrainConfig(lr=0.1, epochs=4, schedule="exponential")
    made = SequenceModule(model, task_for(spec), config).configure_optimizers()
    seen = []
    for _ in range(5):
        seen.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert made["lr_scheduler"]["interval"] == "epoch"
    assert seen == pytest.approx([0.1 * 0.01 ** (k / 4) for k in range(5)])


def test_a_final_rate_without_a_schedule_is_refused():
    plain = {"model": {"network": "recurrent"}, "dataset": {}, "train": {"final_lr": 0.1}, "runner": {}}
    with pytest.raises(UserError, match=r"train\.final_lr: got 0.1, expected null, since train.schedule is constant"):
        check_config(plain)
