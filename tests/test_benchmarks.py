"""Rules of the benchmark: no ratio if the sides disagree, and the rows of other runs are kept."""

import argparse
import json
import re
import subprocess
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import epoch_times, mkl_kernels, output, quickstart, run, trial_rows, trials_at_once
from benchmarks.cases import Case, builders
from benchmarks.output import RESULTS
from benchmarks.pages import measured
from seqmem.io import built


@pytest.fixture(autouse=True)
def single_calls(monkeypatch):
    """Measures each side once, without the slow compilation of torch.compile."""
    monkeypatch.setattr(run, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(run, "sides", without_torch_compile)


def without_torch_compile(case):
    return {name: build() for name, build in builders(case).items() if "compile" not in name}


@pytest.mark.parametrize(
    ("kind", "loss"), [("legs", "all"), ("tlsi", "all"), ("lstm", "last"), ("gru", "last"), ("rnn", "last")]
)
def test_all_sides_of_a_cell_agree(kind, loss):
    rows = run.measure(Case(kind, 8, 12, 3, loss=loss), turns=1)
    assert rows[0]["side"] == "seqmem"
    assert len(rows) >= 3
    for row in rows:
        assert row["times_ours"] > 0
        assert row["agreement"] == "no values" if row["side"] == "torch.mm alone" else float(row["agreement"]) < 1e-4


def test_both_implementations_of_patches_agree():
    ours, gathered = run.measure(Case("igloo", 3, 40, 5), turns=1)
    assert (ours["side"], gathered["side"]) == ("seqmem", "all patches gathered")
    assert float(gathered["agreement"]) < 1e-4


def test_s4d_and_its_convolution_agree():
    ours, convolution = run.measure(Case("s4d", 8, 50, 3), turns=1)
    assert (ours["side"], convolution["side"]) == ("seqmem", "convolution by FFT")
    assert float(convolution["agreement"]) < 1e-4


def test_all_selective_scans_agree():
    ours, *others = run.measure(Case("selective_scan", 5, 20, 3), turns=1)
    assert ours["side"] == "seqmem"
    assert others[0]["side"] == "loop over steps in torch"
    assert all(float(row["agreement"]) < 1e-4 for row in others)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("pairs", [False, True])
def test_all_diagonal_scans_agree(pairs, constant):
    rows = run.measure(Case("diagonal_scan", 5, 20, 3, pairs=pairs, constant=constant), turns=1)
    agreements = {row["side"]: row["agreement"] for row in rows}
    assert agreements.pop("copy of as many bytes") == "no values"
    assert list(agreements) == ["seqmem", "parallel scan in torch", "loop over steps in torch"]
    assert all(float(agreement) < 1e-4 for agreement in agreements.values())


def test_the_slstm_and_its_loop_agree():
    ours, loop = run.measure(Case("slstm", 8, 11, 3), turns=1)
    assert (ours["side"], loop["side"]) == ("seqmem", "loop over steps in torch")
    assert float(loop["agreement"]) < 1e-4


def test_results_are_freed_before_the_next_call(monkeypatch):
    results, alive = [], []

    def call():
        alive.append(sum(result() is not None for result in results))
        outputs = torch.zeros(3)
        results.append(weakref.ref(outputs))
        return outputs, []

    monkeypatch.setattr(run, "TURN_SECONDS", 0.01)
    monkeypatch.setattr(run, "sides", lambda case: {"seqmem": call, "other": call})
    run.measure(Case("slstm", 8, 11, 3), turns=2)
    assert alive[:2] == [0, 1]  # the warm-up, whose results are compared
    assert len(alive) > 6
    assert not any(alive[2:])


def test_an_autoencoder_gets_the_same_gradients_from_a_batch_and_from_its_rows():
    ours, original = run.measure(Case("lstm_ae", 5, 11, 3), turns=1)
    assert (ours["side"], original["side"]) == ("seqmem", "original (one sequence at a time)")
    assert float(original["agreement"]) < 1e-4
    assert original["processor_seconds"] > 0


def test_bfloat16_and_projections_agree():
    for case in (Case("legs", 32, 12, 3, torch.bfloat16), Case("projection", 16, 500, 1), Case("projection", 16, 500, 3)):
        assert all(row["agreement"] != "DISAGREES" for row in run.measure(case, turns=1))


def test_no_ratio_if_a_gradient_differs(monkeypatch):
    def sides(case):
        calls = without_torch_compile(case)
        outputs, gradients = calls["original (dense)"]()
        calls["original (dense)"] = lambda: (outputs, [gradients[0] * 1.01, *gradients[1:]])
        return calls

    monkeypatch.setattr(run, "sides", sides)
    [row] = [row for row in run.measure(Case("legs", 8, 12, 3), turns=1) if row["side"] == "original (dense)"]
    assert row["agreement"] == "DISAGREES"
    assert row["times_ours"] is None


def test_a_run_of_some_cases_keeps_the_rows_of_the_others(tmp_path):
    path, (first, second) = tmp_path / "speed.csv", run.CASES[:2]
    rows = [{"case": case.title, "side": "seqmem", "seconds": 1.0} for case in (first, second)]
    run.save(rows, [], path)
    again = [{"case": second.title, "side": "seqmem", "seconds": 2.0}]
    run.save(again, run.other_rows(path, [second]), path)
    assert [(row["case"], float(row["seconds"])) for row in run.other_rows(path, [])] == [
        (first.title, 1.0),
        (second.title, 2.0),
    ]


def test_results_are_kept_only_on_request(monkeypatch):
    parser = argparse.ArgumentParser()
    run.add_output(parser, "speed.csv")
    path = run.output(parser.parse_args([]), "speed.csv")
    for folder in (path, run.output(parser.parse_args([]), "quickstart")):
        assert subprocess.run(["git", "check-ignore", "-q", folder], cwd=RESULTS, check=False).returncode == 0
    assert run.output(parser.parse_args(["--keep"]), "speed.csv") == RESULTS / "speed.csv"
    assert run.output(parser.parse_args(["--output", "x.csv"]), "speed.csv") == Path("x.csv")


def test_denormals_are_flushed_in_a_process_of_the_case(monkeypatch, capsys):
    small = Case("gru", 8, 12, 3, loss="last", flush=True)
    assert [case for case in run.CASES if case.flush]
    monkeypatch.setattr(run, "CASES", [small])
    halves = []

    def sides(case):
        halves.append((torch.tensor([1e-39]) / 2).item())
        return without_torch_compile(case)

    def in_this_process(command, **_):
        assert command[1:3] == ["-m", "benchmarks.run"]
        monkeypatch.setattr("sys.argv", command[2:])
        try:
            run.main()
        finally:
            torch.set_flush_denormal(False)
        return SimpleNamespace(stdout=capsys.readouterr().out)

    monkeypatch.setattr(run, "sides", sides)
    monkeypatch.setattr(run.subprocess, "run", in_this_process)
    rows = run.flushed(small, 1)
    assert halves == [0]
    assert {"seqmem", "torch.nn.GRU"} <= {row["side"] for row in rows}
    assert {row["case"] for row in rows} == {small.title}
    assert all(row["seconds"] > 0 and row["agreement"] != "DISAGREES" for row in rows)


def test_a_case_of_the_pages_that_was_not_measured_is_an_error(monkeypatch, tmp_path):
    first, second = run.CASES[:2]
    monkeypatch.setattr(measured, "SPEED", {"first": first, "second": second})
    monkeypatch.setattr(output, "RESULTS", tmp_path)
    rows = [{"case": case.title, "side": "seqmem", "seconds": 1.5} for case in (first, second)]
    run.save(rows, [], tmp_path / "speed.csv")
    assert "| first | 1.5 |  |  |  |  |\n| second | 1.5 |" in measured.speed()
    run.save(rows[:1], [], tmp_path / "speed.csv")
    with pytest.raises(
        SystemExit, match=re.escape(f"has no rows of '{second.title}'; measure it with: python -m benchmarks.run")
    ):
        measured.speed()


def test_cases_of_several_machines_have_their_letters(monkeypatch, tmp_path):
    first, second = run.CASES[:2]
    monkeypatch.setattr(measured, "SPEED", {"first": first, "second": second})
    monkeypatch.setattr(output, "RESULTS", tmp_path)
    where, kept = run.environment(), []
    for case, processor in ((first, "P(R)"), (second, "Q")):
        monkeypatch.setattr(run, "environment", lambda processor=processor: where | {"processor": processor})
        run.save([{"case": case.title, "side": "seqmem", "seconds": 1.5}], kept, tmp_path / "speed.csv")
        kept = trial_rows.read(tmp_path / "speed.csv")
    shown = measured.speed()
    assert "| first | 1.5 |  |  |  |  | a |\n| second | 1.5 |  |  |  |  | b |" in shown
    assert " on (a) P; " in shown
    assert shown.endswith(" on (b) Q.")


def test_changed_results_do_not_mark_a_measurement_as_one_of_changed_sources(tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True)

    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "src").mkdir()
    files = [tmp_path / name for name in ("benchmarks/results/speed.csv", "README.md", "src/code.py", "benchmarks/run.py")]
    for file in files:
        file.write_text("before")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    commit = built.commit(tmp_path / "src")
    assert re.fullmatch("[0-9a-f]{40}", commit)
    for file in files:
        file.write_text("after")
        is_source = file.name.endswith(".py")
        assert built.commit(tmp_path / "src") == commit + "-dirty" * is_source, file
        if is_source:
            file.write_text("before")
    assert built.commit(tmp_path.parent) is None


def test_the_quickstart_is_measured_from_its_table(monkeypatch, tmp_path):
    def train(command, cwd, check):
        folder = Path(command[-1].removeprefix("output_dir=")) / "sweep_made"
        folder.mkdir()
        for name in ("table.md", "table.csv", "curves.png"):
            (folder / name).write_text(name)
        trial = folder.parent / "digits_legs_1" / "seed_0"
        trial.mkdir(parents=True)
        (trial / "record.json").write_text('{"machine": {"threads": 1, "workers": 2}}')

    run.environment()  # asks git, once
    monkeypatch.setattr(quickstart.subprocess, "run", train)
    monkeypatch.setattr("sys.argv", ["quickstart", "--output", str(tmp_path / "made")])
    quickstart.main()
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"table.md", "table.csv", "curves.png", "environment.csv"}
    monkeypatch.setattr(output, "RESULTS", tmp_path)
    (tmp_path / "made").rename(tmp_path / "quickstart")
    text = measured.quickstart()
    assert text.startswith("table.md\n\nCommand: `python train.py -m experiment=quickstart`")
    assert ", 1 thread on " in text
    assert text.endswith("mean of the three, 2 trials at a time.")
    (tmp_path / "quickstart/table.csv").write_text("model,best_epoch\nlegs,10.7\nlstm,14.7\ngru,14.0\nmgu,14.1\n")
    assert measured.quickstart().startswith("table.md\n\nStill rising at epoch 15, the last one: lstm and mgu.\n\nCommand: ")


def _write_trial(folder, record, rate):
    """Write a record, and the rates of two epochs, of which the first was slow."""
    Path(folder, "record.json").write_text(json.dumps(record | {"sequences_per_second": 2.0}))
    Path(folder, "metrics.csv").write_text(f"epoch,sequences_per_second\n0,1.0\n1,{rate}\n")


def test_minutes_of_an_epoch_are_those_of_the_second_one(monkeypatch, tmp_path):
    def train(*settings):
        [model] = [value.removeprefix("experiment=successors/pmnist_") for value in settings if value.startswith("experiment=")]
        rate = {"s4d": 450.0, "gru": 900.0}[model]
        [folder] = [value.removeprefix("output_dir=") for value in settings if value.startswith("output_dir=")]
        record = {"model": model, "peak_memory_mib": 1416.6, "parameters": 100_000, "machine": {"threads": 1}}
        _write_trial(folder, record, rate)

    monkeypatch.setattr(epoch_times, "train", train)
    (tmp_path / "successors").mkdir()
    for model in ("s4d", "gru", "s4d"):  # the last replaces the first
        epoch_times.save(epoch_times.measure(model), tmp_path / epoch_times.FILE)
    monkeypatch.setattr(output, "RESULTS", tmp_path)
    lines = measured.epochs().splitlines()
    assert lines[2:4] == ["| `gru` | 1.0 | 900 | 1,420 |", "| `s4d` | 2.0 | 450 | 1,420 |"]
    assert lines[4] == ""
    assert ", 1 thread on " in lines[-1]


def test_kernels_of_mkl_are_compared_in_turns(monkeypatch, tmp_path):
    rates = iter([100.0, 150.0, 110.0, 176.0, 90.0, 90.0])

    def train(*settings, LD_PRELOAD):
        [folder] = [value.removeprefix("output_dir=") for value in settings if value.startswith("output_dir=")]
        processor = "AMD EPYC, MKL with AVX-512" if LD_PRELOAD else "AMD EPYC"
        _write_trial(folder, {"machine": {"processor": processor}}, next(rates))

    monkeypatch.setattr(epoch_times, "train", train)
    monkeypatch.setattr(mkl_kernels.mkl, "build", lambda folder: folder / "library.so")
    row = run.environment() | mkl_kernels.measure("s4d")
    trial_rows.write(tmp_path / mkl_kernels.FILE, list(row), [row])
    monkeypatch.setattr(output, "RESULTS", tmp_path)
    assert "| `s4d` | 100 | 150 | 1.5 (1.0 to 1.6) |" in measured.mkl_kernels()
    rates = iter([100.0])
    with pytest.raises(SystemExit, match="AMD EPYC: expected AVX-512 kernels"):  # the library had no effect
        mkl_kernels.rate("s4d", "AVX-512", "")


@pytest.mark.parametrize(
    ("library", "kernels", "message"),
    [
        ("/lib/other.so", "AVX2", "LD_PRELOAD: got /lib/other.so, expected none"),
        ("", "", "processor: got .+, expected one of AMD"),
    ],
)
def test_kernels_of_mkl_are_compared_where_there_are_two_kinds(monkeypatch, capsys, library, kernels, message):
    monkeypatch.setenv("LD_PRELOAD", library)
    monkeypatch.setattr(mkl_kernels.mkl, "kernels", lambda: kernels)
    monkeypatch.setattr("sys.argv", ["mkl_kernels"])
    with pytest.raises(SystemExit):
        mkl_kernels.main()
    assert re.search(message, capsys.readouterr().err)


def test_trials_an_hour_are_those_of_commands_with_the_same_results(monkeypatch, tmp_path):
    results = {"workers=1": {"test/loss": 0.5}, "workers=auto": {"test/loss": 0.5}}

    def train(overrides, variables):
        folder, runner = overrides[-1].removeprefix("output_dir="), overrides[-2].removeprefix("runner.")
        machine = {"threads": 1, "workers": 2} if runner == "workers=auto" else {"threads": 2}
        Path(folder, "record.json").write_text(json.dumps({"result": results[runner], "machine": machine}))
        return 60.0 if runner == "workers=auto" else 120.0, 100.0

    monkeypatch.setattr(trials_at_once, "run", train)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    case = trials_at_once.Case("two seeds", ("model=gru",), 2)
    trials_at_once.save(trials_at_once.measure(case), tmp_path / "trials_at_once.csv")
    monkeypatch.setattr(output, "RESULTS", tmp_path)
    assert "| two seeds | 60 | 60 | 120 | 2 | 2.00 |" in measured.trials()
    other = {"case": trials_at_once.CASES[1].title, "side": trials_at_once.ALONE}
    rows = trial_rows.read(tmp_path / "trials_at_once.csv")
    trial_rows.write(tmp_path / "trials_at_once.csv", list(rows[0]), [*rows, other])
    again = trials_at_once.measure(replace(case, title=trials_at_once.CASES[0].title))
    trials_at_once.save(again, tmp_path / "trials_at_once.csv")
    kept = trial_rows.read(tmp_path / "trials_at_once.csv")
    assert [row["case"] for row in kept] == [*[trials_at_once.CASES[0].title] * 3, other["case"]]
    results["workers=auto"] = {"test/loss": 0.5 + 1e-15}
    with pytest.raises(SystemExit, match=r"test/loss is 0\.5 one after the other and 0\.50000000000000"):
        trials_at_once.measure(case)
