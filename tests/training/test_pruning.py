"""A trial that a search stops: its record, its checkpoints, the seeds after it, and what a later command makes of it."""

import pytest

from seqmem import training
from seqmem.results import aggregate
from seqmem.results.reading import find_runs
from seqmem.results.record import RunFolder
from seqmem.results.sweep import Sweep
from tests.training.test_trials import Signs, config
from tests.trials import assert_same, run_trials

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


class StopsAfter:
    """Judges the first seed, and stops it after some epochs; the other seeds of the job stop with it."""

    def __init__(self, epochs):
        self.epochs, self.stopped = epochs, False
        self.seen, self.outcomes = [], None

    def judge(self, seed):
        def first(epochs, value, is_last):
            self.seen.append((epochs, value, is_last))
            self.stopped = epochs >= self.epochs and not is_last
            return epochs >= self.epochs

        return first if seed == 3 else lambda epochs, value, is_last: self.stopped

    def ended(self, attempts):
        self.outcomes = attempts


def watched(settings, folder, watcher):
    experiment = training.experiment(settings, Signs(), folder)
    return training.run_trials(settings, Signs(), experiment, watcher=watcher)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_trial_is_stopped_after_the_epoch_that_was_judged(workers, tmp_path, capsys):
    settings = config(train={"epochs": 4}, runner={"ntrials": 2, "workers": workers})
    watcher = StopsAfter(2)
    first, second = watched(settings, tmp_path, watcher)
    record = first.read_record()
    assert (record["status"], record["epochs"]) == ("pruned", 2)
    value = first.read_metrics()["val/accuracy"][1]
    assert record["reason"] == f"pruned by the search after epoch 2 of 4: validation accuracy {value:.4f}"
    assert "result" not in record
    assert [(epochs, is_last) for epochs, _, is_last in watcher.seen] == [(1, False), (2, False)]
    assert [value for _, value, _ in watcher.seen] == pytest.approx(list(first.read_metrics()["val/accuracy"]))
    assert (first.checkpoints / "best.ckpt").exists()
    if workers == 1:
        assert not second.path.exists()
    assert watcher.outcomes is not None
    assert {outcome.record["status"] for outcome in watcher.outcomes} <= {"pruned", "finished"}
    assert record["reason"] in capsys.readouterr().out

    one = config(train={"epochs": 4})
    [resumed] = run_trials(one, Signs(), tmp_path)  # the same trial, by a command without a search
    [never_stopped] = run_trials(one, Signs(), tmp_path / "alone")
    assert resumed.path == first.path
    assert resumed.read_record()["resumed_at"] != []
    assert_same(resumed, never_stopped)


def test_a_stopped_trial_does_not_go_on_if_the_search_resumes_it(tmp_path):
    """The command was interrupted after the trial, before its report to the study."""
    settings = config(train={"epochs": 4})
    [before] = watched(settings, tmp_path, StopsAfter(2))
    reason, watcher = before.read_record()["reason"], StopsAfter(2)
    [trial] = watched(settings, tmp_path, watcher)
    assert trial.path == before.path
    assert [(epochs, is_last) for epochs, _, is_last in watcher.seen] == [(2, False)]
    record = trial.read_record()
    assert (record["status"], record["epochs"], record["reason"]) == ("pruned", 2, reason)


def test_the_last_epoch_cannot_be_pruned(tmp_path):
    watcher = StopsAfter(4)
    [trial] = watched(config(train={"epochs": 4}), tmp_path, watcher)
    assert watcher.seen[-1][2]
    assert trial.finished() is not None


def test_reports_count_pruned_trials_and_do_not_call_them_best(tmp_path):
    """One of the two seeds had finished before the other was pruned; its job has no mean."""
    settings = config(train={"epochs": 4}, runner={"ntrials": 2, "workers": 1})
    run_trials({**settings, "seed": 4, "runner": {**settings["runner"], "ntrials": 1}}, Signs(), tmp_path)
    watched(settings, tmp_path, StopsAfter(1))
    [group] = aggregate.group_trials(find_runs(tmp_path))
    assert aggregate.summarize([group])["states"][0] == "1 pruned"
    assert aggregate.best_by_validation([group]) == []


def test_a_seed_that_did_not_begin_is_pruned_with_its_job(tmp_path):
    reason = "pruned by the search after epoch 1 of 4: validation accuracy 0.5000"
    job = {"overrides": [], "dataset": "signs", "model": "legs", "group": "a", "seeds": [0], "folder": tmp_path / "trials"}
    Sweep(tmp_path / "sweep").add([{**job, "code": "b", "failure": None, "status": None, "pruned": reason}])
    [run] = find_runs(tmp_path / "sweep")
    assert run.status == "pruned"
    assert run.reason == f"it was not started, since a trial of the same job was {reason}"
    assert RunFolder(tmp_path / "trials" / "seed_0").finished() is None
