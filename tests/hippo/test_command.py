"""The commands of ``python -m seqmem.hippo``: what they print, save and refuse."""

import csv
import runpy
import sys
from pathlib import Path

import pytest

from seqmem.data.signals import white_noise
from seqmem.hippo import Memory, experiment, project, table
from seqmem.hippo.__main__ import main


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_errors_saves_a_curve_and_a_picture(tmp_path, capsys):
    main(["--length", "501", "--order", "24", "--frequency", "3"])
    folder = tmp_path / "outputs" / "hippo"
    printed = capsys.readouterr().out
    assert "501 samples" in printed
    assert str(Path("outputs", "hippo")) in printed
    assert (folder / "errors.png").read_bytes().startswith(b"\x89PNG")
    lines = rows(folder / "errors.csv")
    assert {line["measure"] for line in lines} == {"legs", "legt", "lagt"}
    last = {line["measure"]: float(line["mean_squared_error"]) for line in lines}
    assert last["legs"] < 1e-6
    assert last["legt"] < 1e-6
    assert [int(line["samples"]) for line in lines if line["measure"] == "legs"] == list(range(5, 501, 5))


def test_errors_takes_every_measure_and_is_repeatable(tmp_path):
    settings = ["--length", "90", "--order", "5", "--frequency", "2", "--theta", "33", "--timescale", "7.5", "--seed", "3"]
    measures = ["legs", "legt", "lmu", "lagt", "tlagt", "glagt"]
    for folder in ("a", "b"):
        main(["--measures", *measures, "--discretization", "bilinear", "--output", folder, *settings])
    assert (tmp_path / "a" / "errors.csv").read_bytes() == (tmp_path / "b" / "errors.csv").read_bytes()
    lines = rows(tmp_path / "a" / "errors.csv")
    assert {(line["measure"], line["theta"]) for line in lines} == {
        ("legs", ""),
        ("legt", "33.0"),
        ("lmu", "33.0"),
        *((name, "7.5") for name in ("lagt", "tlagt", "glagt")),
    }


def test_the_table_is_printed_and_saved_only_with_output(tmp_path, capsys):
    settings = ["--length", "1500", "--order", "20", "--frequency", "3"]
    main(["table", *settings])
    assert list(tmp_path.iterdir()) == []
    main([*settings, "--output", "there", "table"])
    assert "470,000" in capsys.readouterr().out
    assert (tmp_path / "there" / "table.png").exists()
    lines = {line["model"]: line for line in rows(tmp_path / "there" / "table.csv")}
    assert list(lines) == ["best", "legs", "lmu", "lmu, blocks", "lstm"]
    assert lines["legs"]["published_error"] == "0.02"
    assert lines["legs"]["frequency"] == "3"
    assert lines["legs"]["processor"]
    assert lines["legs"]["torch"]
    assert lines["best"]["steps_per_second"] == lines["lmu, blocks"]["published_error"] == ""
    errors = {name: float(line["mean_squared_error"]) for name, line in lines.items()}
    assert errors["best"] < errors["legs"] < 1e-6 < errors["lmu"] < 0.02 < errors["lstm"] < 0.3
    assert errors["lmu"] == pytest.approx(errors["lmu, blocks"])


def test_published_numbers_are_those_of_the_paper():
    assert table.PUBLISHED == {"legs": (0.02, 470_000), "lmu": (0.05, 41_000), "lstm": (0.25, 35_000)}


def test_lmu_step_by_step_is_the_projection():
    signal = white_noise(700, 9, seed=0)
    project_lmu = project(signal, 12, "lmu", 700)
    assert (table.lmu_step_by_step(signal, 12) - project_lmu).abs().max() < 1e-9 * project_lmu.abs().max()


def test_bad_input_is_one_line(capsys, tmp_path):
    for arguments, line in [
        (["tabel"], "there is no command 'tabel'; did you mean 'table'?"),
        (["--order", "0"], "argument --order: got '0', expected a whole number of at least 1"),
        (["--length", "many"], "argument --length: got 'many', expected a whole number of at least 1"),
        (["--theta", "-3"], "argument --theta: got '-3', expected a number above 0"),
        (["--measures", "legs", "legz"], "argument --measures: there is no measure 'legz'; did you mean 'legt'?"),
        (["--length", "10", "--frequency", "5"], "length: got 10 samples, expected more than 10 for 5 oscillations"),
        (["table", "--theta", "4"], "the table takes no --theta; errors does"),
        (["--lenght", "300"], "unrecognized arguments: --lenght; did you mean '--length'?"),
        (["--output", "occupied/inner"], "cannot create the folder occupied/inner (Not a directory)"),
    ]:
        (tmp_path / "occupied").write_text("a file")
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
        assert capsys.readouterr().err == f"error: {line}\n"


def test_a_discretization_is_checked(capsys):
    for value in ("zho", "1.5"):
        with pytest.raises(SystemExit):
            main(["--length", "50", "--discretization", value])
        error = capsys.readouterr().err
        assert value in error
        assert error.count("\n") == 1


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
def test_help_of_the_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["seqmem.hippo", "--help"])
    with pytest.raises(SystemExit):
        runpy.run_module("seqmem.hippo", run_name="__main__")
    printed = " ".join(capsys.readouterr().out.split())
    assert "table" in printed
    assert "default errors: 64; table: 256" in printed


def test_a_trace_is_consistent():
    signal = white_noise(430, 6, seed=1)
    trace = experiment.follow(signal, Memory(30, "legt", 100.0))
    assert trace.errors[-1] > trace.best
    assert len(trace.moments) == len(trace.values) == 100
    assert trace.error == pytest.approx((trace.values - signal[-100:]).square().mean().item())
    assert trace.steps == list(range(4, 431, 4))
