"""Trainings on one's own files that are read as they are needed: resumed with the same bits, in bounded memory."""

import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from seqmem import datasets
from seqmem.cli import commandline
from tests.program import ROOT
from tests.training.test_resume import stop_at
from tests.trials import assert_same, run_trials

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


def written(folder, kind, series=40, steps=6):
    """A file of random series of two classes, and the keys that read it."""
    values = np.random.default_rng(0).normal(size=(series, steps, 2)).astype(np.float32)
    if kind == "npy":
        np.save(folder / "own.npy", values)
        (folder / "labels.csv").write_text("label\n" + "".join(f"{'ab'[k % 2]}\n" for k in range(series)))
        return [f"dataset.path={folder / 'own.npy'}", f"dataset.labels_path={folder / 'labels.csv'}"]
    import pandas as pd

    frame = pd.DataFrame(values.reshape(-1, 2), columns=["x", "y"])
    frame["id"] = np.repeat(np.arange(series), steps)
    frame["label"] = frame["id"] % 2
    frame.to_parquet(folder / "own.parquet", row_group_size=3 * steps + 1)
    return [f"dataset.path={folder / 'own.parquet'}"]


def composed(*keys):
    small = ["model=lstm", "model.preset=tiny", "train.epochs=3", "train.batch_size=4", "train.lr=0.01"]
    return commandline.compose(["dataset=files", *small, *keys])


@pytest.mark.parametrize(("kind", "workers"), [("npy", 0), pytest.param("npy", 2, marks=pytest.mark.slow), ("parquet", 0)])
def test_a_trial_of_shuffled_blocks_resumes_with_the_same_bits(kind, workers, tmp_path):
    if kind == "parquet" and find_spec("pyarrow") is None:
        pytest.skip("pyarrow is not installed")
    keys = [*written(tmp_path, kind), "dataset.in_memory=false", "dataset.block_size=2", f"dataset.num_workers={workers}"]
    config = composed(*keys, "train.checkpoint_minutes=0")
    data = datasets.load(config["dataset"])
    [whole] = run_trials(config, data, tmp_path / "whole")
    for at in (3, 6, 7):
        stop_at("training_step", at, config, data, tmp_path / "stopped")
    [stopped] = run_trials(config, data, tmp_path / "stopped")
    assert_same(whole, stopped)
    assert len(stopped.read_record()["resumed_at"]) == 3
    assert stopped.read_metrics()["train/loss"].nunique() == 3


def test_batches_are_those_of_the_file_in_memory(tmp_path):
    for kind in ["npy", *(["parquet"] if find_spec("pyarrow") else [])]:
        keys = written(tmp_path, kind)
        mapped, loaded = (
            datasets.load(composed(*keys, f"dataset.in_memory={in_memory}")["dataset"]) for in_memory in (False, True)
        )
        assert mapped.preparation() == loaded.preparation()
        for split in datasets.SPLITS:
            indices = torch.from_numpy(np.random.default_rng(0).permutation(mapped.sizes[split]))
            first, second = (data.batch(split, indices) for data in (mapped, loaded))
            np.testing.assert_array_equal(first.inputs.numpy(), second.inputs.numpy())
            assert first.targets.tolist() == second.targets.tolist()


PROGRAM = """
import json, re, sys
import seqmem
[trial] = seqmem.train(sys.argv[1:])
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 2**10
print(json.dumps({"peak": peak, "status": trial.read_record()["status"]}))
"""


def peak_mib(folder, *keys):
    """Largest memory of a process that trains with these keys."""
    small = ["dataset=files", "model=lstm", "model.preset=tiny", "train.epochs=1", "train.batch_size=256"]
    command = [sys.executable, "-c", PROGRAM, *small, "runner.accelerator=cpu", f"output_dir={folder}/runs", *keys]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["status"] == "finished"
    return result["peak"]


@pytest.mark.slow
def test_a_file_of_a_gibibyte_is_trained_on_in_bounded_memory(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    np.save(small / "own.npy", np.random.default_rng(0).normal(size=(64, 16, 512)).astype(np.float32))
    (small / "labels.csv").write_text("label\n" + "a\nb\n" * 32)
    base = peak_mib(tmp_path, f"dataset.path={small}/own.npy", f"dataset.labels_path={small}/labels.csv")

    series = 2**15 + 64
    array = np.lib.format.open_memmap(tmp_path / "own.npy", "w+", np.float32, (series, 16, 512))
    for begin in range(0, series, 1024):
        array[begin : begin + 1024] = np.random.default_rng(begin).normal(size=array[begin : begin + 1024].shape)
    del array
    assert (tmp_path / "own.npy").stat().st_size > 2**30
    (tmp_path / "labels.csv").write_text("label\n" + "a\nb\n" * (series // 2))
    peak = peak_mib(tmp_path, f"dataset.path={tmp_path}/own.npy", f"dataset.labels_path={tmp_path}/labels.csv")
    print(f"peak memory: {peak:.0f} MiB, {base:.0f} MiB with a file of 2 MiB")
    assert peak < base + 400
