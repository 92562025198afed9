"""Command lines: every config composes, the original's spellings work, a wrong one ends in one line."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from seqmem import cells, datasets
from seqmem.cli import commandline, overrides, sweeps
from seqmem.errors import UserError
from tests import program
from tests.data_files import require

_root = Path(__file__).parents[1]


def choices(group):
    folder = _root / "cfg" / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def run(*arguments, cwd):
    nowhere = "http://127.0.0.1:9"  # nothing is downloaded in a test
    offline = {"http_proxy": nowhere, "https_proxy": nowhere, "no_proxy": "", "NO_PROXY": ""}
    return program.run(["train.py", *arguments], cwd, offline)


@pytest.mark.parametrize("model", choices("model"))
@pytest.mark.parametrize("dataset", choices("dataset"))
def test_every_model_composes_with_every_data_set(model, dataset):
    config = commandline.compose([f"model={model}", f"dataset={dataset}"])
    assert config["dataset"]["name"] == dataset
    assert "presets" not in config["model"]


@pytest.mark.parametrize("group", ["experiment", "debug"])
def test_every_experiment_composes(group):
    for choice in choices(group):
        commandline.compose([f"{group}={choice}"])


def test_each_data_set_and_cell_has_its_yaml():
    assert set(datasets.names()) == set(choices("dataset"))
    assert set(cells.names()) <= set(choices("model"))


def test_the_originals_spelling_selects_the_group():
    original = commandline.compose(
        ["dataset=mnist", "dataset.permute=True", "model.cell=gru", "model.cell_args.hidden_size=512"]
    )
    assert original == commandline.compose(
        ["dataset=mnist", "dataset.permute=True", "model=gru", "model.cell_args.hidden_size=512"]
    )
    assert original["model"]["cell"] == "gru"
    assert original["model"]["cell_args"]["hidden_size"] == 512
    assert overrides.translate(["model=gru", "model.cell=gru"]) == ["model=gru"]
    assert overrides.translate(["model.cell=gru,lstm", "seed=1", "-m"]) == ["-m", "seed=1", "model=gru,lstm"]
    assert overrides.translate(["seed=1", "--cfg", "job"]) == ["--cfg", "job", "seed=1"]


def test_a_preset_yields_to_the_command_line():
    plain = commandline.compose(["model=legs", "model.preset=tiny"])["model"]["cell_args"]
    assert (plain["hidden_size"], plain["memory_order"]) == (8, 5)
    changed = commandline.compose(["model=legs", "model.preset=tiny", "model.cell_args.hidden_size=9"])["model"]["cell_args"]
    assert (changed["hidden_size"], changed["memory_order"]) == (9, 5)


WRONG = {
    "dataset=mnst": "did you mean 'mnist'?",
    "datset=mnist": "there is no key 'datset'; did you mean 'dataset'?",
    "model=lsmt": "did you mean 'lstm'?",
    "model.cell=lsmt": "did you mean 'lstm'?",
    "model=lstm model.cell=gru": "mean the same, got gru and lstm",
    "model=legs,gru": "got several values; add -m to try each of them",
    "train.lr_decay=0.1 train.schedule=cosine": "train.lr_decay: got 0.1 with train.schedule=cosine, expected one of the two",
    "model=transformer": "choose from: conv_lstm_ae, exprnn, function_approximation, gru, grus, hmlstm, igloo, lagt",
    "train=fast": "there is no train of that name",
    "runner=slurm": "choose from: pl, ray",
    "experiment=quickstrt": "did you mean 'quickstart'?",
    "experiment=hippo/pmnist_leg": "there is no experiment of that name; did you mean 'hippo/pmnist_legs'?",
    "train.epoch=3": "did you mean 'train.epochs'?",
    "epochs=3": "there is no key 'epochs'",
    "train.lr=fast": "train.lr: got 'fast', expected a valid number",
    "train.lr=-0.1": "train.lr: got -0.1, expected greater than 0",
    "train.lr=nan": "train.lr: got nan, expected a finite number",
    "train.lr=0": "train.lr: got 0, expected greater than 0",
    "train.lr=null": "train.lr: got None, expected a valid number",
    "train.lr_decay=-1": "train.lr_decay: got -1, expected greater than or equal to 0",
    "model=igloo model.nb_patch=3": "did you mean 'model.nb_patches'?",
    "train.optimizer=adm": "did you mean 'adam'?",
    "train.epochs=-1": "train.epochs: got -1",
    "train.epochs=2.5": "train.epochs: got 2.5, expected a valid integer",
    "train.batch_size=-1": "train.batch_size: got -1",
    "train.eval_batch_size=0": "train.eval_batch_size: got 0",
    "train.batch_size=[1]": "train.batch_size: got [1], expected a valid integer",
    "train.gradient_clip_val=-1": "train.gradient_clip_val: got -1",
    "train.wd=x": "train.wd: got 'x'",
    "train.limit_train_batches=0": "train.limit_train_batches: got 0",
    "train.limit_val_batches=1.5": "train.limit_val_batches: got 1.5",
    "train.precision=16": "train.precision: got 16",
    "runner.ntrials=0": "runner.ntrials: got 0",
    "runner.ntrial=2": "did you mean 'runner.ntrials'?",
    "runner.accelerator=cuda": "runner.accelerator: got 'cuda'",
    "seed=x": "seed: got 'x', expected a valid integer",
    "seed=-1": "seed: got -1",
    "smoke_test=maybe": "smoke_test: got 'maybe'",
    "model.cell_args.hiden_size=4": "did you mean 'model.cell_args.hidden_size'?",
    "model.cell_args.hidden_size=-4": "model.cell_args.hidden_size: got -4, expected greater than 0",
    "model.cell_args.hidden_size=abc": "model.cell_args.hidden_size: got 'abc', expected a valid integer",
    "model=lstm model.cell_args.memory_order=5": "there is no key 'model.cell_args.memory_order'",
    "+model.cell_args.foo=4": "model.cell_args.foo: legs takes no argument 'foo'",
    "model.cell_args.architecture.xu=1": "choose from: ux, uh",
    "model.cell_args.architecture.ux=2": "model.cell_args.architecture.ux: got 2",
    "model.cell_args.initializers.hx=xavier": "did you mean 'xavier_normal'?",
    "model.cell_args.discretization=bilnear": "did you mean 'bilinear'?",
    "model.cell_args.gate=X": "model.cell_args.gate: got 'X', expected 'G' or 'N'",
    "model.cell_args=5": "model.cell_args",
    "model.dropout=1.5": "model.dropout: got 1.5",
    "model.preset=tny": "did you mean 'tiny'?",
    "model.network=recurent": "did you mean 'recurrent'?",
    "dataset.permutation=bitrev": "did you mean 'bitreversal'?",
    "dataset.permut=True": "did you mean 'dataset.permute'?",
    "dataset.validation_fraction=1.5": "dataset.validation_fraction: got 1.5",
    "dataset.train_samples=-5": "dataset.train_samples: got -5",
    "dataset=copying dataset.alphabet=two": "dataset.alphabet: got 'two'",
    "--cfg": "--cfg: a value is required",
    "--foo": "there is no flag --foo",
    "train.epochs": "cannot read 'train.epochs': expected KEY=VALUE",
    "--cfg nope": "--cfg: there is no config 'nope'",
    "--cfg job -m": "leave out -m",
    "--resolve": "--resolve goes with --cfg",
    "-cn nope": "there is no flag -cn",
    "--config-dir nowhere": "--config-dir: there is no folder nowhere",
    "hydra.run.dir=foo": "give output_dir=FOLDER",
    "model.cell_args={hiden_size:3}": "did you mean 'model.cell_args.hidden_size'?",
    "~seed=4": "The value of 'seed' is 0 and not 4",
    "train={a:1}": "train: got {a:1}, expected the name of a file in cfg/train/",
    "++model.cell=lstmm": "model=lstmm: there is no model of that name; did you mean 'lstm'?",
    "dataset=null": "dataset: got null, expected the name of a file in cfg/dataset/",
    "model.network=[1]": "model.network: no network is called",
    "model.presets=3": "model.presets: got 3",
    "+foo=bar": "foo: top_level takes no argument 'foo'",
    "output_dir=null": "output_dir: got None, expected a valid string",
    "~output_dir seed=5 runner.ntrials=x": "runner.ntrials: got 'x'",
    "traceback=maybe": "traceback: got 'maybe'",
    "seed=99999999999": "expected seeds below 2**32",
    "seed=4294967295 runner.ntrials=2": "expected seeds below 2**32",
    "model.cell_args.memory_order=0": "model.cell_args.memory_order: got 0, expected greater than 0 or -1",
    "model.cell_args.architecture.ux=false model.cell_args.architecture.uh=false": "model.cell_args.architecture: got ux, uh",
    "=3": "cannot read '=3': expected KEY=VALUE",
    "a=[1": "cannot read 'a=[1'",
    "~train": "train: got None, expected a section of keys",
    "~model": "model: got None, expected a section of keys",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_a_wrong_command_line_is_explained_in_one_line(arguments):
    with pytest.raises(UserError) as caught:
        commandline.compose(arguments.split())
    message = str(caught.value)
    assert WRONG[arguments] in message
    assert "\n" not in message


@pytest.mark.parametrize("values", ["seed=range(1000000000)", "seed=range(101) train.lr=range(1,101)"])
def test_a_sweep_without_end_is_refused_at_once(values):
    with pytest.raises(UserError, match="got a sweep of more than 10,000 jobs"):
        sweeps.plan(["model=rnn", *values.split()], [])


@pytest.mark.parametrize(
    "arguments",
    [
        "model.cell=legz",
        "model.cell_args.hidden_size=-4",
        "--foo",
        "-m dataset=digits train.lr=0.1,fast",
        "-m dataset=digits model=legs,lstmm",
        "dataset=mnist dataset.data_dir=nowhere/else",
        "dataset=digits output_dir=FILE/runs",
        "dataset=digits model.embedding_size=3",
        "--cfg job train.lr=abc",
    ],
)
def test_the_program_ends_with_one_line_and_leaves_nothing(arguments, tmp_path):
    (tmp_path / "FILE").write_text("not a folder")
    done = run(*arguments.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert [path.name for path in tmp_path.rglob("*")] == ["FILE"]


def test_traceback_on_request(tmp_path):
    done = run("model.cell_args.hidden_size=-4", "traceback=True", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "hidden_size: got -4" in done.stderr


def test_help_and_config_are_readable(tmp_path):
    shown = run("--help", cwd=tmp_path)
    assert shown.returncode == 0
    lists = [f"{group}: {', '.join(choices(group))}" for group in ("dataset", "model")]
    for wanted in (*lists, "batch_size: 100", "-m model="):
        assert wanted in shown.stdout
    config = run("--cfg", "job", "model=lstm", cwd=tmp_path)
    assert config.returncode == 0
    assert "cell: lstm" in config.stdout
    assert not list(tmp_path.iterdir())


@pytest.fixture
def closed(tmp_path):
    """A folder that cannot be written to; since root passes permissions, for root on a read-only mount."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    if os.getuid() != 0:
        yield folder
        return
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this is root, and nothing can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("arguments", ["output_dir=closed/runs", "-m output_dir=closed/runs model=lstm,gru"])
def test_an_output_folder_that_cannot_be_written_is_named(arguments, closed):
    done = run("dataset=digits", *arguments.split(), cwd=closed.parent)
    assert done.returncode != 0
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "closed/runs" in done.stderr
    assert not list(closed.iterdir())


def test_a_data_folder_that_cannot_be_written_is_named(closed):
    done = run("dataset=mnist", "dataset.data_dir=closed", cwd=closed.parent)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "closed" in done.stderr
    assert not list(closed.iterdir())


TINY = ("dataset=digits", "model=rnn", "model.preset=tiny", "smoke_test=True", "train.batch_size=4")


def test_in_a_pipe_there_is_no_progress_bar_and_no_warning(tmp_path):
    """In a process of its own, which imports everything itself."""
    command = [sys.executable, str(_root / "train.py"), *TINY, "runner.ntrials=2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert done.stderr == ""
    assert [
        line for line in done.stdout.splitlines() if line.startswith("rnn on digits, trial 2 of 2 (seed 1): test accuracy 0.")
    ]
    assert "\r" not in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said", "column"),
    [
        ("dataset=text model=lstm", "lstm on text text8, trial 1 of 1 (seed 0): test bpc 4.", "test bpc"),
        ("dataset=text8 model=legs", "legs on text8 prefix, trial 1 of 1 (seed 0): test bpc 4.", "test bpc"),
        ("dataset=text8 dataset.step=50 model=gru", "gru on text8 prefix, trial 1 of 1 (seed 0): test bpc 4.", "test bpc"),
        ("dataset=sinusoids model=gru", "(0.2500 is irreducible), validation mse ", "irreducible mse"),
        ("dataset=sinusoids dataset.channels=3 dataset.noise=1 model=lstm", "(1.0000 is irreducible)", "irreducible mse"),
        ("dataset=sinusoids dataset.reconstruction=true model=lstm_ae", "lstm_ae on sinusoids, trial 1 of 1", "test mse"),
        ("dataset=ct dataset.reconstruction=true dataset.padding=mask model=lstm_ae", "linear classifier of the", "test mse"),
        ("dataset=uea dataset.reconstruction=true model=linear_ae", "linear_ae on uea JapaneseVowels", "test mse"),
        ("dataset=digits dataset.reconstruction=true dataset.frames=true model=conv_lstm_ae", "linear classifier", "test mse"),
        ("dataset=moving_digits model=conv_lstm_ae", "conv_lstm_ae on moving_digits", "test mse"),
        ("dataset=phase_signals dataset.stride=2 model=seq2seq_ae", "seq2seq_ae on phase_signals", "test mse"),
    ],
)
def test_texts_and_signals_are_learned_step_by_step(arguments, said, column, tmp_path):
    require(arguments.split()[0].removeprefix("dataset="))
    done = run(*arguments.split(), "smoke_test=True", "model.preset=tiny", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert said in done.stdout
    [table] = tmp_path.glob("runs/*/table.md")
    assert f"| {column} |" in table.read_text()


@pytest.mark.slow
def test_in_a_terminal_there_is_one(tmp_path):
    script = f"import os, pty, sys; os.chdir({str(tmp_path)!r}); sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    done = subprocess.run(
        [sys.executable, "-c", script, sys.executable, str(_root / "train.py"), *TINY],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=240,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "160"},
        check=False,
    )
    assert done.returncode == 0
    text = done.stdout.decode(errors="replace")
    assert "Epoch 0/0" in text
    assert "\r\x1b[2K" in text
    assert "5/5" in text


def test_a_sweep_ends_with_one_table_of_all_models(tmp_path):
    done = run(
        *(argument for argument in TINY if argument != "model=rnn"), "model=lstm,rnn", "-m", "runner.ntrials=2", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    [sweep] = (tmp_path / "runs").glob("sweep_digits_lstm-rnn_*")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in (sweep / "table.md").read_text().split("\n") if line
    ]
    assert [row[1:3] for row in rows[2:]] == [["lstm", "2"], ["rnn", "2"]]
    assert (sweep / "curves.png").exists()
    assert len(list((tmp_path / "runs").glob("digits_*/seed_*/record.json"))) == 4
    jobs = json.loads((sweep / "sweep.json").read_text())["jobs"]
    assert [(job["model"], job["seeds"], job["failure"]) for job in jobs] == [("lstm", [0, 1], None), ("rnn", [0, 1], None)]
    assert done.stdout.count("n trials") == 1


def test_groups_of_ones_own_join_a_sweep(tmp_path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    text = (_root / "cfg" / "model" / "rnn.yaml").read_text()
    (tmp_path / "mine" / "model" / "small.yaml").write_text(text.replace("hidden_size: 256", "hidden_size: 3"))
    done = run(*TINY[:1], *TINY[3:], "model=small,rnn", "model.preset=null", "--config-dir", "mine", "-m", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "model.cell_args.hidden_size=3" in "".join(done.stdout.split())


def test_a_job_that_fails_before_its_first_trial_is_named_at_the_end(tmp_path):
    """What is wrong shows only where model and data meet."""
    small = ("dataset=digits", "model=rnn,seq2seq_ae", "model.preset=tiny", "smoke_test=true", "-m")
    done = run(*small, cwd=tmp_path)
    assert done.returncode == 2
    first, *at_the_end = done.stderr.splitlines()
    assert first.startswith("error: job 1 (")
    assert at_the_end[0] == "error: 1 of 2 jobs failed"
    assert "seq2seq_ae" in at_the_end[1]
    assert "1 missing" in done.stdout
    [manifest] = (tmp_path / "runs").glob("sweep_*/sweep.json")
    assert [bool(job["failure"]) for job in json.loads(manifest.read_text())["jobs"]] == [False, True]


def test_a_report_that_cannot_be_written_is_told_beside_the_jobs_that_failed(tmp_path):
    small = ("dataset=digits", "model=rnn,seq2seq_ae", "model.preset=tiny", "smoke_test=true", "-m")
    run(*small, cwd=tmp_path)
    [table] = (tmp_path / "runs").glob("sweep_*/table.txt")
    table.unlink()
    table.mkdir()
    done = run(*small, cwd=tmp_path)
    assert done.returncode == 2
    assert "error: 1 of 2 jobs failed" in done.stderr
    assert re.search(r"error: cannot write \S+/table.txt \(Is a directory\)", done.stderr)


def test_jobs_that_only_their_folders_tell_apart_are_refused(tmp_path):
    done = run("dataset=mnist", "model=rnn", "dataset.data_dir=a,b", "-m", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "error: dataset.data_dir=a and dataset.data_dir=b are the same settings and seeds, which a sweep holds once; give them "
        "as two commands\n"
    )


def test_a_job_that_fails_does_not_stop_the_sweep(tmp_path):
    """A learning rate that makes the loss infinite fails its job alone; the table counts it, and the status says so."""
    small = ("dataset=digits", "model=rnn", "model.preset=tiny", "train.epochs=2", "train.optimizer=sgd")
    done = run(*small, "model.cell_args.hidden_activation=relu", "train.lr=1e30,0.01", "-m", cwd=tmp_path)
    assert done.returncode == 2
    at_once, *at_the_end = done.stderr.splitlines()
    assert at_once.startswith("error: job 0 (")
    assert at_the_end[0] == "error: 1 of 2 jobs failed"
    assert at_the_end[1].startswith(
        f"error: {' '.join(small)} model.cell_args.hidden_activation=relu train.lr=1e+30: the training loss"
    )
    [sweep] = (tmp_path / "runs").glob("sweep_*")
    lines = (sweep / "table.md").read_text().splitlines()
    header, _, *rows = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    assert header[3].strip() == "not finished"
    assert sorted((row[2].strip(), row[3].strip()) for row in rows) == [("0", "1 failed"), ("1", "-")]
    records = (tmp_path / "runs").glob("*/seed_0/record.json")
    assert sorted(json.loads(path.read_text())["status"] for path in records) == ["failed", "finished"]
