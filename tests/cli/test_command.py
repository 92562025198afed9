"""``seqmem SUBCOMMAND``: one command for all, each imported when it is called."""

import os
import subprocess
import sys

import pytest

from seqmem.cli import command, messages
from seqmem.errors import UserError
from seqmem.io.terminal import Parser
from tests import program

SMALL = ("dataset=digits", "model=rnn", "model.preset=tiny", "smoke_test=true")


def ended(monkeypatch, capsys, *arguments):
    """Exit status, standard output and standard error of ``seqmem ARGUMENTS`` in this process."""
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/seqmem", *arguments])
    monkeypatch.setattr(command.interrupts, "install", lambda: None)
    status = 0
    try:
        command.main()
    except SystemExit as end:
        status = end.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("help",)])
def test_help_lists_each_subcommand(monkeypatch, capsys, arguments):
    status, out, _ = ended(monkeypatch, capsys, *arguments)
    assert status == 0
    assert {line.split()[0] for line in out.splitlines() if line.startswith("  ")} >= {
        *("train", "evaluate", "report", "export", "encode", "decode", "boundaries")
    }


def test_help_imports_no_library():
    """It answers in a tenth of a second."""
    code = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules)); sys.argv = ['seqmem', '--help']; "
        "from seqmem.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "seqmem.cli.command" in loaded
    assert not loaded & {"torch", "hydra", "numpy", "pytorch_lightning", "seqmem.cli.train"}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("trian", "error: seqmem: got trian, expected a subcommand; did you mean 'train'?\n"),
        ("dataset=digits", "error: seqmem: got dataset=digits, expected a subcommand; did you mean 'train'?\n"),
        ("nothing", "error: seqmem: got nothing, expected a subcommand; choose from: train, evaluate, "),
    ],
)
def test_a_mistyped_subcommand_gets_the_nearest(monkeypatch, capsys, given, line):
    status, _, error = ended(monkeypatch, capsys, given)
    assert status == 2
    assert error.startswith(line)
    assert error.count("\n") == 1


def test_usages_name_the_command_as_it_was_typed(monkeypatch, capsys):
    status, out, _ = ended(monkeypatch, capsys, "report", "--help")
    assert status == 0
    assert out.startswith("usage: seqmem report [")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("report",), "the following arguments are required: FOLDER"),
        (("report", "no such folder"), "got no such folder, which is not a folder, expected one with run records below it"),
        (("decode", "none.csv", "--lenght", "3"), "unrecognized arguments: --lenght 3; did you mean '--length'?"),
        (("evaluate",), "expected a checkpoint or the folder of a finished trial first: CHECKPOINT [KEY=VALUE ...]"),
    ],
)
def test_errors_of_all_commands_begin_alike(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, _, error = ended(monkeypatch, capsys, *arguments)
    assert (status, error) == (2, f"error: {message}\n")


def test_train_is_train_py(tmp_path):
    """The same trial, which the second command finds; its record and the command of the best row can be pasted."""
    first = program.run(["-m", "seqmem", "train", *SMALL], tmp_path)
    assert first.returncode == 0, first.stderr
    [record] = (tmp_path / "runs").glob("*/seed_0/record.json")
    assert '"seqmem train"' in record.read_text()
    second = program.run(["train.py", *SMALL], tmp_path)
    assert f"found in runs/{record.parents[1].name}/seed_0" in second.stdout
    assert program.run(["-m", "seqmem", "report", "runs"], tmp_path).returncode == 0
    assert (tmp_path / "runs/report.html").exists()


def test_the_best_row_names_the_command(tmp_path):
    done = program.run(["-m", "seqmem", "train", "-m", *SMALL, "seed=0,1"], tmp_path)
    assert done.returncode == 0, done.stderr
    commands = [line for line in done.stdout.splitlines() if line.startswith("seqmem train ")]
    assert len(commands) == 2, done.stdout
    again = program.run(["-m", *commands[0].split()], tmp_path)
    assert "found in runs/" in again.stdout


@pytest.mark.parametrize(
    "code",
    [
        "from seqmem.io.terminal import Parser; Parser('x', '').run(lambda given: print('a line'), [])",
        "from seqmem.io.terminal import Parser; Parser('x', '').run(lambda given: print('a line' * 9999), [])",
        "from seqmem.cli.messages import one_line_errors\nwith one_line_errors(): print('a line')",
    ],
)
def test_a_command_whose_output_is_closed_ends_without_a_message(code):
    """As of ``| head -1``; a short output is written at the end."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("KEY: got \x1b[1m, expected 2"), "KEY: got \\x1b[1m, expected 2"),
        (OSError(28, "No space left on device", "a.csv"), "a.csv: No space left on device"),
        (MemoryError("of the host"), "not enough memory for this data set or model (MemoryError: of the host)"),
    ],
)
def test_an_error_is_the_same_line_in_every_command(error, line, capsys):
    for within in (Parser("x", "").one_line_errors, messages.one_line_errors):
        with pytest.raises(SystemExit) as ended, within():
            raise error
        assert (ended.value.code, capsys.readouterr().err) == (2, f"error: {line}\n")


def test_a_bug_in_a_command_with_options_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), Parser("x", "").one_line_errors():
        raise ZeroDivisionError
