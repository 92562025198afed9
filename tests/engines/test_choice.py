"""``runner.workers=auto``: which trials are trained side by side."""

import pytest
import torch

from seqmem import models
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.training.config import TrainConfig
from seqmem.training.engines import choice
from seqmem.training.engines.choice import Choice, DeviceMemory, Machine, choose, peak_mib, shared_work, workers_on_cpu
from tests.training.test_trials import config

SPEC = DataSpec("digits", 1, 10, "classification", 0, 784)
TWO, EIGHT, MANY = Machine(2, 16_000), Machine(8, 64_000), Machine(64, 256_000)
ALONE = Choice()


def chosen(machine, trials=4, hidden_size=16, memory=None, **runner):
    settings = config(
        model={"cell_args": {"hidden_size": hidden_size}}, train={"batch_size": 100}, runner={"ntrials": trials, **runner}
    )
    with torch.device("meta"):
        model = models.build(settings["model"], SPEC)
    return choose(settings, model, SPEC, trials, lambda: memory, machine)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ({"machine": TWO}, Choice(2, 1)),
        ({"machine": TWO, "trials": 1}, ALONE),
        ({"machine": TWO, "hidden_size": 1024}, ALONE),
        ({"machine": TWO, "hidden_size": 1024, "workers": 3}, Choice(3, 1)),
        ({"machine": TWO, "workers": 1}, ALONE),
        ({"machine": TWO, "workers": 5}, Choice(4, 1)),
        ({"machine": TWO, "workers": 5, "trials": 1}, ALONE),
        ({"machine": TWO, "devices": 2}, ALONE),
        ({"machine": TWO, "name": "ray"}, ALONE),
        ({"machine": EIGHT}, Choice(4, 1)),
        ({"machine": EIGHT, "trials": 100}, Choice(8, 1)),
        ({"machine": MANY, "trials": 5, "hidden_size": 64}, Choice(5, 1)),
        ({"machine": MANY, "trials": 5, "hidden_size": 1024}, ALONE),
        ({"machine": Machine(1, 16_000)}, ALONE),
        ({"machine": Machine(1, 16_000), "workers": 2}, Choice(2, 1)),
        ({"machine": Machine(8, 2_000), "trials": 100}, Choice(3, 1)),
        ({"machine": Machine(8, 500), "trials": 100}, ALONE),
        ({"machine": Machine(8, 4_000, resident_mib=2_000), "trials": 100}, Choice(2, 1)),
        ({"machine": Machine(8, 4_000, resident_mib=3_900), "trials": 100}, ALONE),
        ({"machine": Machine(8, float("inf")), "trials": 100}, Choice(8, 1)),
        ({"machine": Machine(8, 64_000, threads_given=True)}, ALONE),
        ({"machine": Machine(8, 64_000, is_worker=True)}, ALONE),
        ({"machine": Machine(8, 64_000, is_worker=True), "workers": 2}, Choice(2, 1)),
    ],
    ids=str,
)
def test_trials_of_small_models_share_the_cores(case, expected):
    assert chosen(**case) == expected


def test_threads_that_are_set_from_outside_are_kept(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert chosen(Machine(8, 64_000, threads_given=True), workers=2) == Choice(2, 3)


@pytest.mark.parametrize(
    ("trials", "memory", "expected"),
    [
        (5, DeviceMemory(free=80_000, peak=1_000), Choice(5, 3)),
        (100, DeviceMemory(free=80_000, peak=1_000), Choice(16, 1)),
        (100, DeviceMemory(free=10_000, peak=1_400), Choice(4, 4)),
        (100, DeviceMemory(free=10_000, peak=9_000), ALONE),
        (100, DeviceMemory(free=10_000, peak=1_400, beside=3), Choice(7, 2)),
        (100, DeviceMemory(free=1_000, peak=1_400, beside=3), ALONE),
        (100, DeviceMemory(free=80_000, peak=1_000, host=10_000), Choice(5, 3)),
        (100, DeviceMemory(free=80_000, peak=1_000, host=10_000, beside=3), Choice(5, 3)),
        (100, DeviceMemory(free=80_000, peak=1_000, host=10_000, beside=5), ALONE),
        (100, None, ALONE),
    ],
)
def test_trials_share_a_gpu_while_its_memory_suffices(monkeypatch, trials, memory, expected):
    monkeypatch.setattr(choice, "device_kind", lambda runner: "cuda")
    assert chosen(Machine(16, 64_000), trials, hidden_size=1024, memory=memory) == expected


def test_a_last_round_of_few_trials_leaves_cores_idle():
    """Three trials on two cores take two rounds; a model that two threads train 1.5 times as fast ends sooner alone."""
    half = choice._HALF_SPEED
    assert [workers_on_cpu(half, 500, trials, TWO) for trials in (2, 3, 4)] == [2, 1, 2]
    assert workers_on_cpu(half / 10, 500, 3, TWO) == 2


def test_threads_share_a_step_of_a_recurrence_but_all_steps_of_other_models():
    train = TrainConfig(batch_size=10)
    with torch.device("meta"):
        gru = models.build({"network": "recurrent", "cell": "gru", "cell_args": {"hidden_size": 8}}, SPEC)
        tcn = models.build({"network": "tcn"}, SPEC)
    for model, steps in ((gru, 1), (tcn, 784)):
        assert shared_work(model, SPEC, train) == 10 * steps * sum(parameter.numel() for parameter in model.parameters())
    assert peak_mib(gru, SPEC, TrainConfig(batch_size=1000)) > peak_mib(gru, SPEC, train) > 300


def test_the_environment_of_this_process_counts(monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert not Machine.here().threads_given
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert Machine.here().threads_given
    large = torch.ones(100, 1 << 20)  # as of a data set
    with_it = Machine.here().resident_mib
    del large
    assert 390 < with_it - Machine.here().resident_mib < 410


@pytest.mark.parametrize(
    ("runner", "message"),
    [
        ({"workers": 0}, "runner.workers: got 0, expected"),
        ({"workers": "many"}, "runner.workers: got 'many', expected"),
        ({"workers": 2, "devices": 2}, "runner.workers: got 2 with runner.devices=2, expected 1"),
    ],
)
def test_a_wrong_number_of_workers_is_one_line(runner, message):
    with pytest.raises(UserError, match=message):
        config(runner=runner)
