"""``make gpu``: parts that fail or take too long stop none of the others, and every row is written as it comes."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import digits, speed, tests, timing, trainings
from benchmarks.gpu.outcomes import append_outcome
from benchmarks.gpu.parts import FINISHED, OUT_OF_TIME, Part, run_parts
from benchmarks.gpu.rows import append, read
from benchmarks.gpu.session import Session
from benchmarks.gpu.sides import CUDNN, DENSE, LAYERS, LOOP, OURS, CellCase, Sizes
from benchmarks.gpu.table import table
from seqmem import cells
from seqmem.cli import commandline
from seqmem.datasets.mnist import MNIST


def python(program, name, seconds=20.0, **more):
    return Part(name, [sys.executable, "-S", "-c", program], seconds, **more)


def test_a_part_that_fails_or_hangs_does_not_stop_the_others(tmp_path):
    child = "'import os, time; print(os.getpid(), flush=True); time.sleep(60)'"
    sleep = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {child}])"
    parts = [
        python("print('first output')", "first"),
        python("raise ValueError('no such card')", "broken"),
        python(sleep, "slow", seconds=0.5),
        python("print('last output')", "last"),
    ]
    lines = []
    found = run_parts(parts, tmp_path, 60.0, dict(os.environ), lines.append)
    assert (found["first"], found["slow"], found["last"]) == (FINISHED, OUT_OF_TIME, FINISHED)
    assert found["broken"].startswith("failed (exit status 1")
    assert [row["note"] for row in read(tmp_path)] == list(found.values())
    log = (tmp_path / "log.txt").read_text()
    assert all(text in log for text in ("first output", "no such card", "last output"))
    assert len(lines) == 2 * len(parts)
    [process] = [int(line) for line in log.splitlines() if line.isdigit()]
    status = Path(f"/proc/{process}/status")
    assert not status.exists() or "zombie" in status.read_text()


def test_no_part_begins_after_the_time_limit_of_the_run(tmp_path):
    found = run_parts([python("", "first")], tmp_path, -1.0, {}, lambda line: None)
    assert found == {"first": OUT_OF_TIME}


def test_a_process_that_dies_or_hangs_in_an_item_is_started_again_for_the_next(tmp_path):
    program = f"""
import os, sys, time
sys.path.insert(0, {str(command.ROOT)!r})
from benchmarks.gpu.session import Session
session = Session("items", ["--folder", {str(tmp_path)!r}, "--device", "cpu"])
def wrong():
    raise ValueError("a wrong value")
for case, measure in {{
    "first": lambda: session.row(case="first", value="1"),
    "wrong": wrong,
    "dies": lambda: os._exit(3),
    "hangs": lambda: time.sleep(60),
    "last": lambda: session.row(case="last", value="2"),
}}.items():
    session.item(measure, case=case, limit=0.5)
"""
    found = run_parts([python(program, "items", restarts=True)], tmp_path, 60.0, dict(os.environ), lambda line: None)
    assert found == {"items": FINISHED}
    rows = {row["case"]: row for row in read(tmp_path) if row["case"] != "part"}
    assert list(rows) == ["first", "wrong", "dies", "hangs", "last"]
    assert (rows["first"]["value"], rows["last"]["value"]) == ("1", "2")
    assert rows["wrong"]["note"] == "failed: ValueError: a wrong value"
    assert rows["dies"]["note"].startswith("failed: the process ended")
    assert rows["hangs"]["note"].startswith("failed: the process ended")


def test_what_there_is_no_time_for_is_named(tmp_path):
    session = Session("speed", ["--folder", str(tmp_path), "--seconds", "0"])
    session.item(lambda: pytest.fail("there is no time"), case="legs", side=OURS, precision="tf32")
    [row] = read(tmp_path)
    assert (row["case"], row["note"]) == ("legs", "not measured: out of time")
    with pytest.raises(ValueError, match=r"got the columns \['seconds'\]"):
        session.row(seconds=1)


def test_parts_fit_the_limit_of_a_run():
    assert sum(command.LIMITS.values()) <= command.SECONDS <= 8 * 60 - 10
    with pytest.raises(SystemExit):
        command.main(["--parts", "speeed"])


def test_a_machine_without_a_gpu_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(command.subprocess, "run", lambda line, **_: subprocess.CompletedProcess(line, 1, "", "no devices"))
    with pytest.raises(SystemExit):
        command.main([])
    assert "neither nvidia-smi nor torch finds a GPU; try --device cpu --smoke" in capsys.readouterr().err


def test_a_folder_is_named_after_the_card(monkeypatch):
    done = subprocess.CompletedProcess([], 0, "NVIDIA H100 80GB HBM3\nNVIDIA H100 80GB HBM3\n", "")
    monkeypatch.setattr(command.subprocess, "run", lambda line, **_: done)
    assert command.card("cuda", {}) == "NVIDIA_H100_80GB_HBM3"


def test_every_cell_and_layer_is_timed_in_every_number_format():
    plan, every = speed.plan(), {*cells.names(), *LAYERS}
    assert {"lru", "mamba", "s4d"} <= set(LAYERS)
    assert len(set(plan)) == len(plan)
    assert {(name, precision) for name, side, precision in plan if side == OURS} == {
        (name, precision) for name in every for precision in timing.PRECISIONS
    }
    assert {name for name, side, _ in plan if side == LOOP} == every
    assert {(name, side) for name, side, _ in plan} > {*CUDNN.items(), ("legs", DENSE)}
    order = [name for name, _, _ in plan]
    assert order.index("legs") < order.index("lstm") < order.index("gru") < order.index("lmu")
    assert sum(a != b for a, b in pairwise(order)) < 2 * len(every)  # a case's tensors are made at most twice


@pytest.mark.parametrize("name", ["legs", "lstm", "gru", "tlsi", "mamba", "s4d"])
def test_all_sides_agree(name):
    case = CellCase(name, Sizes(6, 9, 3), "cpu")
    sides = {side for cell, side, _ in speed.plan() if cell == name}
    assert len(sides) >= 2
    for side in sides:
        assert case.difference(case.training(side, "float32")()) < 1e-5, side
        assert case.difference(case.training(side, "bf16")()) < 0.1, side
        assert not case.evaluation(side, "float32")().requires_grad


def test_no_time_is_written_for_wrong_values(tmp_path, monkeypatch):
    session = Session("speed", ["--folder", str(tmp_path), "--device", "cpu", "--smoke"])
    case = CellCase("legs", Sizes(6, 9, 3), "cpu")
    forward = case.forward
    monkeypatch.setattr(
        case, "forward", lambda side: (lambda: forward(side)[0]() * (1.01 if side == LOOP else 1), forward(side)[1])
    )
    for side in (OURS, LOOP):
        session.item(lambda: speed._measure(session, lambda name: case, "legs", side, "float32"), case="legs", side=side)  # noqa: B023
    quantities = {side: [row["quantity"] for row in read(tmp_path) if row["side"] == side] for side in (OURS, LOOP)}
    assert quantities[OURS] == ["difference", "forward", "forward and backward"]
    assert quantities[LOOP] == ["difference", ""]
    assert "the values disagree" in read(tmp_path)[-1]["note"]


def test_number_formats_are_restored():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    for precision, expected in (("tf32", ("high", True)), ("float32", ("highest", False)), ("bf16", ("highest", False))):
        with timing.products(precision):
            assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == expected
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_a_time_is_a_median_of_calls():
    calls = []
    found = timing.timed(lambda: calls.append(1), "cpu", 0.0)
    assert len(calls) == found.calls + 2
    assert 0 < found.seconds < 1
    assert found.peak_mib is None


def test_made_digits_have_the_format_of_mnist(tmp_path):
    data = MNIST(digits.made(tmp_path, 200, 50), permute=True)
    assert data.sizes == {"train": 180, "validation": 20, "test": 50}
    assert data.spec.name.startswith("mnist other files")
    batch = data.batch("train", torch.arange(180))
    assert batch.inputs.shape == (180, 784, 1)
    assert batch.targets.unique().tolist() == list(range(10))


def test_data_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("SEQMEM_DATA", str(digits.made(tmp_path / "official", 20, 5)))
    assert digits.data_folder(tmp_path / "run") == (tmp_path / "official", "MNIST")
    folder, content = digits.data_folder(tmp_path / "run", smoke=True)
    assert folder == tmp_path / "run" / "digits"
    assert content.endswith("not MNIST")


def test_commands_of_trainings_are_valid(tmp_path):
    for training in trainings.TRAININGS:
        line = trainings.command_of(training, "cpu", tmp_path, tmp_path / "runs")
        config = commandline.compose(line[2:])
        assert config["model"]["cell_args"]["hidden_size"] == training.hidden
        assert config["runner"]["ntrials"] == training.trials
        assert config["train"]["precision"] == {"bf16": "bf16-mixed", "tf32": "32-true"}[training.precision]
    assert len({(training.title, training.precision) for training in trainings.TRAININGS}) == len(trainings.TRAININGS)
    assert trainings.command_of(training, "cuda", tmp_path, tmp_path).count("runner.accelerator=gpu") == 1


def test_trials_an_hour_count_from_the_first_to_the_last():
    records = [{"started": f"2026-11-28T10:00:{second}+0000", "seconds": 4.5} for second in ("10", "12", "11")]
    assert trainings.span(records) == 6.5


def test_the_tests_on_a_device_are_found():
    assert {path.name for path in tests.files()} >= {"test_layers.py", "test_models.py"}


def test_a_table_has_ratios_and_failures(tmp_path):
    for case, side, value in (("lstm, hidden 512", "torch.nn.LSTM", "8.0"), ("legs, hidden 512", OURS, "4.0")):
        quantity = {"quantity": "forward and backward", "value": value, "unit": "us a step"}
        append(tmp_path, "python", part="speed", case=case, side=side, precision="bf16", **quantity)
    append(tmp_path, "python", part="speed", case="lmu", side=OURS, precision="bf16", note="failed: RuntimeError: no memory")
    append_outcome(tmp_path, "tests/gpu/test_layers.py::test_steps[legs]", "failed", 1.0, "AssertionError: value 0")
    append_outcome(tmp_path, "tests/gpu/test_layers.py::test_steps[gru]", "passed", 1.0, "")
    text = table(tmp_path)
    assert "0.50 x torch.nn.LSTM" in text
    assert "failed: RuntimeError: no memory" in text
    assert "tests: 1 failed, 1 passed" in text
    assert "test_steps[legs]: AssertionError: value 0" in text


def test_make_gpu_installs_nothing(repository, tmp_path):
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", "gpu", f"VENV={tmp_path}/none", f"PYTHON={sys.executable}", "GPU_FLAGS=--smoke"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [f"{sys.executable} -m benchmarks.gpu --smoke"]


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "status"), [([], 0), (["--seconds", "1"], 1)])
def test_the_whole_command_on_the_cpu(repository, tmp_path, flags, status):
    folder = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--smoke", "--output", str(folder), *flags],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    log = (folder / "log.txt").read_text()
    assert done.returncode == status, done.stdout + log
    notes = {row["part"]: row["note"] for row in read(folder) if row["case"] == "part"}
    assert list(notes) == list(command.LIMITS)
    assert set(notes.values()) == {OUT_OF_TIME if status else FINISHED}
    assert (folder / "table.txt").read_text().strip() in done.stdout
    if not status:
        assert not [row for row in read(folder) if row["note"].startswith("failed")]
        assert str(tmp_path) not in (folder / "measurements.csv").read_text() + (folder / "environment.json").read_text()
