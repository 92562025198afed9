"""The commands, run as a user would, and what they measure."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from seqmem.errors import UserError
from seqmem.hippo import Memory, experiment, function_approximation, project, read_out
from seqmem.hippo.__main__ import main
from seqmem.hippo.signals import spectra, synthesize, white_noise


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> None:
    main([*arguments])


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_errors_saves_a_curve_and_a_picture(tmp_path, capsys):
    run("--length", "501", "--order", "24", "--frequency", "3")
    folder = tmp_path / "outputs" / "hippo"
    written = capsys.readouterr().out
    assert "501 samples" in written
    assert str(Path("outputs", "hippo")) in written
    assert (folder / "errors.png").read_bytes().startswith(b"\x89PNG")
    lines = rows(folder / "errors.csv")
    assert {line["measure"] for line in lines} == {"legs", "legt", "lagt"}
    last = {line["measure"]: float(line["mean_squared_error"]) for line in lines}
    assert last["legs"] < 1e-6
    assert last["legt"] < 1e-6
    assert [int(line["samples"]) for line in lines if line["measure"] == "legs"] == list(range(5, 501, 5))


def test_errors_takes_every_measure_and_is_repeatable(tmp_path):
    settings = ("--length", "90", "--order", "5", "--frequency", "2", "--theta", "33", "--timescale", "7.5", "--seed", "3")
    for folder in ("a", "b"):
        measures = ("legs", "legt", "lmu", "lagt", "tlagt", "glagt")
        run("--measures", *measures, "--discretization", "bilinear", "--output", folder, *settings)
    assert (tmp_path / "a" / "errors.csv").read_bytes() == (tmp_path / "b" / "errors.csv").read_bytes()
    lines = rows(tmp_path / "a" / "errors.csv")
    assert {(line["measure"], line["theta"]) for line in lines} == {
        ("legs", ""),
        ("legt", "33.0"),
        ("lmu", "33.0"),
        *((name, "7.5") for name in ("lagt", "tlagt", "glagt")),
    }


def test_the_table_is_printed_and_saved_only_where_it_is_told(tmp_path, capsys):
    settings = ("--length", "1500", "--order", "20", "--frequency", "3")
    run("table", *settings)
    assert list(tmp_path.iterdir()) == []
    run(*settings, "--output", "there", "table")
    assert "470,000" in capsys.readouterr().out
    assert (tmp_path / "there" / "table.png").exists()
    lines = {line["model"]: line for line in rows(tmp_path / "there" / "table.csv")}
    assert list(lines) == ["best", "legs", "lmu", "lmu, blocks", "lstm"]
    assert lines["legs"]["published_error"] == "0.02"
    assert lines["legs"]["frequency"] == "3"
    assert lines["legs"]["processor"]
    assert lines["best"]["steps_per_second"] == lines["lmu, blocks"]["published_error"] == ""
    errors = {name: float(line["mean_squared_error"]) for name, line in lines.items()}
    assert errors["best"] < errors["legs"] < 1e-6 < errors["lmu"] < 0.02 < errors["lstm"] < 0.3
    assert errors["lmu"] == pytest.approx(errors["lmu, blocks"])


def test_published_numbers_are_those_of_the_paper():
    assert function_approximation.PUBLISHED == {"legs": (0.02, 470_000), "lmu": (0.05, 41_000), "lstm": (0.25, 35_000)}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["tabel"], "there is no command 'tabel'; did you mean 'table'?"),
        (["--order", "0"], "argument --order: got '0', expected a whole number of at least 1"),
        (["--length", "many"], "argument --length: got 'many', expected a whole number of at least 1"),
        (["--theta", "-3"], "argument --theta: got '-3', expected a number above 0"),
        (["--measures", "legs", "legz"], "argument --measures: there is no measure 'legz'; did you mean 'legt'?"),
        (["--discretization", "zho"], "there is no discretization 'zho'; did you mean 'zoh'?"),
        (["--length", "10", "--frequency", "5"], "5 oscillations need more than 10 samples, got 10"),
        (["table", "--theta", "4"], "the table takes no --theta; errors does"),
        (["--discretization", "1.5"], "the discretization's alpha must be between 0 (forward) and 1 (backward), got 1.5"),
        (["--lenght", "300"], "unrecognized arguments: --lenght; did you mean '--length'?"),
        (["--output", "occupied/inner"], "cannot make the folder occupied/inner (Not a directory)"),
    ],
)
def test_bad_input_is_one_line(arguments, line, capsys, tmp_path):
    (tmp_path / "occupied").write_text("a file")
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"python -m seqmem.hippo: {line}\n"


def test_help_as_a_process():
    done = subprocess.run([sys.executable, "-m", "seqmem.hippo", "--help"], capture_output=True, text=True, check=True)
    assert "table" in done.stdout
    assert "default errors: 64; table: 256" in " ".join(done.stdout.split())


@pytest.mark.parametrize("length", [201, 200])
def test_white_noise_is_flat_below_its_limit(length):
    signal = white_noise(length, 30, seed=0)
    assert signal.square().mean().item() == pytest.approx(0.25)
    power = torch.fft.rfft(torch.stack([white_noise(length, 30, seed) for seed in range(200)])).abs().square().mean(0)
    assert power[1:31].max() / power[1:31].min() < 2.2
    assert max(power[0], power[31:].max()) < 1e-20 * power[1]


def test_endings_are_the_ends_of_the_signals(monkeypatch):
    monkeypatch.setattr(read_out, "LSTM_MEMORY", 41)
    amplitudes = spectra(3, 7, seed=5)
    torch.testing.assert_close(function_approximation.endings(amplitudes, 300), synthesize(amplitudes, 300)[:, -41:])
    assert function_approximation.endings(amplitudes, 20).shape == (3, 20)


def test_an_lstm_of_initial_weights_has_forgotten_all_before():
    torch.manual_seed(1)
    cell = torch.nn.LSTM(1, 64, batch_first=True).double()
    signal = white_noise(3000, 40, seed=2)[None, :, None]
    with torch.no_grad():
        whole, end = cell(signal)[1][0], cell(signal[:, -read_out.LSTM_MEMORY :])[1][0]
    torch.testing.assert_close(whole, end, rtol=0, atol=1e-14)


def test_ridge_finds_a_linear_map():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 12, dtype=torch.float64, generator=generator)
    weights = torch.randn(12, 4, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(read_out.ridge(inputs, inputs @ weights), weights, rtol=0, atol=1e-6)
    noise = torch.randn(200, 4, dtype=torch.float64, generator=generator)
    assert read_out.ridge(inputs, noise).norm() < 0.5  # nothing to learn: the penalty keeps it small


def test_lmu_step_by_step_is_the_projection():
    signal = white_noise(700, 9, seed=0)
    torch.testing.assert_close(function_approximation.lmu_step_by_step(signal, 12), project(signal, 12, "lmu", 700))


def test_a_trace_is_consistent():
    signal = white_noise(430, 6, seed=1)
    trace = experiment.follow(signal, Memory(30, "legt", 100.0))
    assert trace.errors[-1] > trace.best
    assert len(trace.moments) == len(trace.values) == 100
    assert trace.error == pytest.approx((trace.values - signal[-100:]).square().mean().item())
    assert trace.steps == list(range(4, 431, 4))


def test_no_frequency():
    with pytest.raises(UserError, match="at least 1 oscillation over the signal, got 0"):
        white_noise(10, 0, seed=0)
