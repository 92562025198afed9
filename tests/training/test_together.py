"""Early stopping, accumulated gradients and averaged weights in one trial: stopped anywhere, in workers, on several devices."""

import signal

import pytest
import torch

from seqmem import datasets, training
from seqmem.cli import commandline
from seqmem.results import RunFolder
from seqmem.training.loop.averaging import TRAINED
from seqmem.training.loop.module import SequenceModule
from tests.engines.commands import run
from tests.training.test_resume import composed, signalled, stop_at
from tests.trials import assert_same, run_trials, saved

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

ALL = ["train.patience=2", "train.min_delta=10", "train.accumulate_grad_batches=2", "train.ema=0.9", "train.test_last=true"]
BY_STEP = ["train.schedule=cosine", "train.schedule_interval=step", "train.warmup_steps=0.3", "train.gradient_clip_val=0.1"]
CASES = {
    "lstm": ["model=lstm", *BY_STEP],
    "text": ["model=hmlstm", "model.cell_args.boundary=sample", "train.optimizer=muon"],
    "bf16": ["model=legs", "train.precision=bf16-mixed"],
    "igloo": ["model=igloo", "train.optimizer=rmsprop"],
}


def assert_same_with_averages(one: RunFolder, other: RunFolder) -> None:
    """As :func:`assert_same`; the weights beside their averages are equal, too."""
    assert_same(one, other)
    first, second = saved(one, "last.ckpt")[TRAINED], saved(other, "last.ckpt")[TRAINED]
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert one.read_record()["stopped_early"] == other.read_record()["stopped_early"]


def prepared(case, folder, *keys):
    """Config and data of a case; the text is short."""
    more = {}
    if case == "text":
        folder.joinpath("words.txt").write_text("the quick brown fox jumps over the lazy dog " * 100)
        more = {"dataset": "text", "path": folder / "words.txt", "length": 20}
    config = composed(*CASES[case], *ALL, "train.batch_size=5", "train.limit_train_batches=5", *keys, **more)
    return config, datasets.load(config["dataset"])


@pytest.mark.parametrize("case", ["lstm", *(pytest.param(case, marks=pytest.mark.slow) for case in ("text", "bf16", "igloo"))])
def test_a_trial_stopped_anywhere_ends_as_one_that_was_not(case, tmp_path):
    """With a checkpoint after every batch: within a step of two batches, in a validation, and within the last test."""
    config, data = prepared(case, tmp_path, "train.checkpoint_minutes=0")
    [whole] = run_trials(config, data, tmp_path / "whole")
    assert whole.read_record()["epochs"] == 3
    assert whole.read_record()["stopped_early"]
    assert saved(whole, "last.ckpt")["global_step"] == 9  # of 2, 2 and 1 batches an epoch
    for method, at in (
        ("training_step", 2),
        ("training_step", 5),
        ("training_step", 4),
        ("validation_step", 4),
        ("test_step", 3),
    ):
        stop_at(method, at, config, data, tmp_path / "stopped")
    [stopped] = run_trials(config, data, tmp_path / "stopped")
    assert_same_with_averages(whole, stopped)
    assert stopped.read_record()["resumed_at"] == [0, 3, 4, 8, 9]


@pytest.mark.parametrize("case", ["lstm", pytest.param("text", marks=pytest.mark.slow)])
def test_ctrl_c_within_a_step_of_several_batches_and_in_a_validation(case, tmp_path):
    config, data = prepared(case, tmp_path)
    [whole] = run_trials(config, data, tmp_path / "whole")
    for method, at in (("training_step", 1), ("training_step", 2), ("validation_step", 1), ("validation_step", 2)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SequenceModule, method, signalled(method, at, signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):
                run_trials(config, data, tmp_path / "stopped")
    [stopped] = run_trials(config, data, tmp_path / "stopped")
    assert_same_with_averages(whole, stopped)
    # One batch, then three; before and in the validation, and at its end.
    assert stopped.read_record()["resumed_at"] == [0, 1, 3, 3]


KEYS = ["dataset=digits", "model=lstm", "model.preset=tiny", "train.epochs=5", "train.lr=0.05", "train.batch_size=15", *ALL]
KEYS += [f"train.limit_{split}_batches={count}" for split, count in {"train": 5, "val": 2, "test": 2}.items()]


@pytest.mark.slow
def test_trials_at_a_time_give_the_numbers_of_one_after_the_other(tmp_path):
    """Two worker processes, each with one thread."""
    common = (*KEYS, "runner.ntrials=2", "runner.accelerator=cpu")
    for workers in (1, 2):
        done = run(*common, f"runner.workers={workers}", f"output_dir=by_{workers}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("of 3 (stopped early)") == 2
    for seed in (0, 1):
        [one], [two] = (list(tmp_path.glob(f"by_{workers}/*/seed_{seed}")) for workers in (1, 2))
        assert_same_with_averages(RunFolder(one), RunFolder(two))


@pytest.mark.slow
def test_two_devices_train_as_one_and_resume_within_a_step(tmp_path):
    config = commandline.compose([*KEYS, "runner.accelerator=cpu", "train.precision=64-true"])
    data = datasets.load(config["dataset"])
    [alone] = run_trials(config, data, tmp_path / "alone")
    both = {**config, "runner": {**config["runner"], "devices": 2}, "train": {**config["train"], "checkpoint_minutes": 0.0}}
    [shared] = run_trials(both, data, tmp_path / "shared")
    one, two = saved(alone, "last.ckpt"), saved(shared, "last.ckpt")
    for part in ("state_dict", TRAINED):
        for name, value in one[part].items():
            torch.testing.assert_close(two[part][name], value, rtol=1e-8, atol=1e-10)
    assert alone.read_record()["epochs"] == shared.read_record()["epochs"] == 3

    within = training.experiment(both, data, tmp_path / "stopped").trial(0)
    interrupt_after_a_batch(both, data, tmp_path / "stopped")
    assert within.read_record()["status"] == "interrupted"
    gathered = saved(within, "last.ckpt")["within_epoch"]["processes"]
    assert [bool(each["gradients"]) for each in gathered] == [True, True]
    [resumed] = run_trials(both, data, tmp_path / "stopped")
    assert_same_with_averages(shared, resumed)


def interrupt_after_a_batch(config, data, folder):
    """Run the trials of a config in ranks; each stops after its first batch, with a checkpoint."""
    from seqmem.io import interrupts
    from seqmem.training.loop import trial

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "_train_quietly", _interrupted)
        with pytest.raises((interrupts.Interrupted, KeyboardInterrupt)):
            run_trials(config, data, folder)


def _interrupted(*arguments):
    """Train in one of the ranks; it gets a signal in its first batch."""
    from seqmem.io import interrupts
    from seqmem.training.loop import trial

    step = SequenceModule.training_step

    def noted(self, batch, batch_idx):
        interrupts.note(signal.SIGTERM)
        return step(self, batch, batch_idx)

    SequenceModule.training_step = noted
    return trial._train_quietly(*arguments)
