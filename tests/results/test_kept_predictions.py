"""Scores of test sequences from kept predictions: every metric that is a mean, both formats, and files that do not fit."""

import hashlib
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from seqmem.data import Batch, DataSpec
from seqmem.data.batch import IGNORE_INDEX
from seqmem.errors import UserError
from seqmem.results.experiment import data_checksum
from seqmem.results.kept_predictions import Scores, check_same_sequences, kept_scores
from seqmem.results.reading import read_run
from seqmem.results.record import RunFolder
from tests.results.kept import DIGITS, classified, finished, keep

FORMATS = pytest.mark.parametrize("suffix", [".npz", ".csv"])


@FORMATS
def test_a_class_for_each_sequence(tmp_path, suffix):
    trial = classified(tmp_path, "legs", [True, False, True, True], suffix=suffix, names=["a", "b", "c", "d"])
    scores = kept_scores(read_run(trial), "accuracy")
    assert scores.sums.tolist() == [1, 0, 1, 1]
    assert scores.weights.tolist() == [1, 1, 1, 1]
    assert scores.targets.tolist() == [0, 1, 2, 0]
    assert scores.lengths.tolist() == [8] * 4
    assert scores.names.tolist() == ["a", "b", "c", "d"]
    assert scores.mean == 0.75


@FORMATS
def test_ignored_targets_and_padding_do_not_count(tmp_path, suffix):
    spec = DataSpec("copying", 1, 3, "classification", None, 4)
    targets = torch.tensor([[0, 1, 2, 0], [IGNORE_INDEX, 1, 1, 1], [2, IGNORE_INDEX, IGNORE_INDEX, 0]])
    predicted = torch.tensor([[0, 1, 0, 0], [0, 2, 1, 1], [2, 0, 0, 0]])
    run = finished(tmp_path / "a")
    batch = Batch(torch.zeros(3, 4, 1), targets, lengths=torch.tensor([4, 3, 1]))
    accuracy = keep(run.folder, spec, torch.eye(3)[predicted], batch, suffix=suffix)
    scores = kept_scores(run, "accuracy")
    assert scores.sums.tolist() == [3, 1, 1]
    assert scores.weights.tolist() == [4, 2, 1]
    assert scores.mean == pytest.approx(accuracy)


@FORMATS
def test_bits_of_each_text(tmp_path, suffix):
    spec = DataSpec("text", 5, 5, "language_modelling", None, 6, tokens=True)
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(4, 6, 5, generator=generator), torch.randint(5, (4, 6), generator=generator)
    targets[1, 2] = IGNORE_INDEX
    run = finished(tmp_path / "a", "bpc", "min")
    bpc = keep(run.folder, spec, logits, Batch(targets.clamp(min=0), targets), suffix=suffix)
    scores = kept_scores(run, "bpc")
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none").sum(1) / math.log(2)
    np.testing.assert_allclose(scores.sums, losses, rtol=1e-5)
    assert scores.weights.tolist() == [6, 5, 6, 6]
    assert scores.mean == pytest.approx(bpc, rel=1e-5)


@FORMATS
@pytest.mark.parametrize("size", [1, 2])
def test_squared_errors_of_known_values(tmp_path, suffix, size):
    spec = DataSpec("waves", 1, size, "regression", None, 3)
    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(4, 3, size, generator=generator), torch.randn(4, 3, size, generator=generator)
    known = torch.ones_like(targets, dtype=torch.bool)
    known[2, 1, 0] = False
    run = finished(tmp_path / "a", "mse", "min")
    mse = keep(run.folder, spec, outputs, Batch(torch.zeros(4, 3, 1), targets, known=known), suffix=suffix)
    scores = kept_scores(run, "mse")
    errors = ((outputs - targets) ** 2 * known).sum((1, 2))
    np.testing.assert_allclose(scores.sums, errors, rtol=1e-5)
    assert scores.weights.tolist() == [3 * size, 3 * size, 3 * size - 1, 3 * size]
    assert scores.mean == pytest.approx(mse, rel=1e-5)


def test_both_formats_give_the_same_sequences(tmp_path):
    first, second = (
        kept_scores(read_run(classified(tmp_path, model, [True, False] * 5, suffix=suffix)), "accuracy")
        for model, suffix in (("legs", ".npz"), ("gru", ".csv"))
    )
    check_same_sequences(first, second)


def test_the_newest_evaluation_of_the_test_split_counts(tmp_path):
    trial = classified(tmp_path, "legs", [True, True, True, True])
    batch = Batch(torch.zeros(4, 8, 1), torch.zeros(4, dtype=torch.int64))
    for changes in ({"split": "validation"}, {"changed": {"dataset.length": [8, 16]}}, {"epoch": 0}, {"predictions": None}):
        keep(trial, DIGITS, torch.eye(3)[[1, 1, 1, 1]], batch, **changes)
    assert kept_scores(read_run(trial), "accuracy").sums.tolist() == [1, 1, 1, 1]
    keep(trial, DIGITS, torch.eye(3)[[0, 1, 0, 1]], batch)
    assert kept_scores(read_run(trial), "accuracy").sums.tolist() == [1, 0, 1, 0]


def test_evaluations_of_other_weights_or_of_other_data_are_skipped(tmp_path):
    right = {"checkpoint_sha256": hashlib.sha256(b"best").hexdigest()}
    description = {"name": "digits", "sha256": {"test": "1"}, "files": {"digits": "2"}}
    trial = classified(tmp_path, "legs", [True, False, True, True])
    trial.write_record({**trial.read_record(), "data": data_checksum(description)})
    trial.checkpoints.mkdir()
    (trial.checkpoints / "best.ckpt").write_bytes(b"best")
    batch = Batch(torch.zeros(4, 8, 1), torch.zeros(4, dtype=torch.int64))
    keep(trial, DIGITS, torch.eye(3)[[0, 1, 0, 1]], batch, data={**description, "files": {"digits": "3"}}, **right)
    assert kept_scores(read_run(trial), "accuracy").endswith("01.json are of different data than the trial's")
    keep(trial, DIGITS, torch.eye(3)[[0, 1, 1, 1]], batch, data=description, **right)
    keep(trial, DIGITS, torch.eye(3)[[1, 1, 1, 1]], batch, data=description, checkpoint_sha256="of a later training")
    keep(trial, DIGITS, torch.eye(3)[[0, 1, 0, 1]], batch, data={**description, "files": {"digits": "3"}}, **right)
    assert kept_scores(read_run(trial), "accuracy").sums.tolist() == [1, 0, 0, 0]
    (trial.checkpoints / "best.ckpt").unlink()  # the epoch decides
    assert kept_scores(read_run(trial), "accuracy").sums.tolist() == [0, 0, 0, 0]


def test_a_trial_that_was_moved_has_its_predictions_still(tmp_path):
    trial = classified(tmp_path / "before", "legs", [True, False])
    shutil.move(tmp_path / "before", tmp_path / "after")
    moved = read_run(RunFolder(tmp_path / "after" / trial.path.relative_to(tmp_path / "before")))
    assert kept_scores(moved, "accuracy").sums.tolist() == [1, 0]


def test_reasons_for_no_scores(tmp_path):
    run = finished(tmp_path / "none")
    assert kept_scores(run, "accuracy") == "no predictions of the test split are kept"
    assert kept_scores(run, "nrmse") == "nrmse is not a mean over test sequences"
    changed = classified(tmp_path, "legs", [True, False])
    (changed.path / "predictions_0.npz").write_bytes(b"")
    assert kept_scores(read_run(changed), "accuracy").endswith("predictions_0.npz is not there any longer, or has changed")
    other = classified(tmp_path, "gru", [True, False])
    path = next(other.path.glob("evaluations/*.json"))
    evaluation = json.loads(path.read_text())
    path.write_text(json.dumps({**evaluation, "result": {"test/accuracy": 0.6}}))
    assert kept_scores(read_run(other), "accuracy").endswith("predictions_0.npz: accuracy is 0.5, expected 0.6 as evaluated")
    path.write_text("{")
    assert "is damaged" in kept_scores(read_run(other), "accuracy")
    path.write_text(json.dumps({**evaluation, "result": {}}))
    assert "cannot be read (KeyError" in kept_scores(read_run(other), "accuracy")


def scores(**changes):
    kept = Scores(
        trial=RunFolder("a").path,
        data="1",
        names=np.array(["a", "b"]),
        lengths=np.array([3, 4]),
        rows=np.array([0, 1, 1]),
        targets=np.array([0.5, math.nan, 2.0]),
        sums=np.array([1.0, 2.0]),
        weights=np.array([1, 2]),
    )
    return replace(kept, **changes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"data": "2"}, "data"),
        ({"sums": np.zeros(3)}, "number of sequences"),
        ({"names": np.array(["a", "c"])}, "names"),
        ({"names": None}, "names"),
        ({"lengths": np.array([3, 5])}, "lengths"),
        ({"targets": np.array([0.5, math.nan, 2.5])}, "targets"),
        ({"rows": np.array([0, 0, 1])}, "targets"),
    ],
)
def test_different_test_sequences_are_refused_in_one_line(changes, named):
    check_same_sequences(scores(), scores(sums=np.array([0.0, 5.0])))
    with pytest.raises(UserError, match=f"predictions of a and a: got test sequences of different {named}, expected the same"):
        check_same_sequences(scores(), scores(**changes))
