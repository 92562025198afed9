"""Data whose splits the seed of a trial draws: training, the report's rows, and evaluation."""

import json
from pathlib import Path

from seqmem import datasets
from seqmem.cli import commandline, evaluate, finished_trial
from seqmem.results import find_runs, group_trials
from tests.trials import run_trials

KEYS = ["dataset=uea", "dataset.problem=JapaneseVowels", "dataset.resplit=true", "model=lstm", "model.preset=tiny"]
SHORT = ["train.epochs=1", "train.limit_train_batches=1", "runner.ntrials=2", "runner.accelerator=cpu", "runner.workers=1"]


def test_trials_of_a_row_have_their_own_splits_and_are_evaluated_on_them(tmp_path, capsys):
    config = commandline.compose([*KEYS, *SHORT, "dataset.split_seed=null"])
    folders = run_trials(config, datasets.load(config["dataset"]), tmp_path)
    for seed, folder in enumerate(folders):
        assert folder.read_data() == datasets.load({**config["dataset"], "split_seed": seed}).describe()
    [row] = group_trials(find_runs(tmp_path))
    assert len(row.finished) == 2

    capsys.readouterr()
    evaluate.run(*finished_trial.read([str(folders[1].path)], evaluate.Keys))
    assert "warning" not in capsys.readouterr().err
    [file] = Path(folders[1].path / "evaluations").glob("*.json")
    evaluation = json.loads(file.read_text())
    assert evaluation["data"] == folders[1].read_data()
    assert evaluation["result"]["test/accuracy"] == folders[1].read_record()["result"]["test/accuracy"]
