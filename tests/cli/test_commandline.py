"""Command lines: every config composes, the original's spellings work, help is readable."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from seqmem import cells, datasets
from seqmem.cli import commandline, overrides, plan, sweeps
from seqmem.errors import UserError
from tests import program
from tests.cli.choices import choices
from tests.data_files import require


def run(*arguments, cwd):
    nowhere = "http://127.0.0.1:9"  # nothing is downloaded in a test
    offline = {"http_proxy": nowhere, "https_proxy": nowhere, "no_proxy": "", "NO_PROXY": ""}
    return program.run(["train.py", *arguments], cwd, offline)


def test_every_choice_of_every_group_composes():
    """Experiments compose in test_experiments.py."""
    sets = choices("dataset")
    for k, model in enumerate(choices("model")):
        config = commandline.compose([f"model={model}", f"dataset={sets[k % len(sets)]}"])
        assert config["dataset"]["name"] == sets[k % len(sets)]
        assert "presets" not in config["model"]
    assert len(sets) <= len(choices("model"))
    for group in ("debug", "scale"):
        for choice in choices(group):
            assert commandline.compose([f"{group}={choice}"])["smoke_test"] == (choice != "small"), choice


def test_a_smoke_test_has_one_trial_unless_trials_are_requested():
    trials = ["experiment=quickstart", "model=gru"]
    for keys, count in (([], 3), (["smoke_test=true"], 1), (["debug=tiny"], 1), (["smoke_test=true", "runner.ntrials=2"], 2)):
        assert commandline.compose([*trials, *keys])["runner"]["ntrials"] == count


SPELLED = ("m\u00fcller/runs", "a=b#1", 'it\'s "two" words', "a,b", "runs(1)", "back\\slash\\", "[a", "{b}", "1e3", "null")


def test_any_text_has_a_spelling_that_a_shell_and_hydra_take():
    for text in SPELLED:
        [word] = shlex.split(overrides.in_quotes("output_dir", text))
        assert commandline.compose([word])["output_dir"] == text


def test_globs_choose_from_all_files_of_a_group(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "legion.yaml").write_text("{}")
    given = ["model=glob(leg*)", "experiment=glob([hippo/pmnist_l*,quick*],exclude=*theta*)"]
    assert overrides.translate(given) == [
        "model=legs,legsn,legst,legt,legts",
        "experiment=hippo/pmnist_lagt,hippo/pmnist_legs,hippo/pmnist_lmu,quickstart",
    ]
    assert overrides.translate(["model.cell=glob(legs*)"]) == ["model=legs,legsn,legst"]
    assert overrides.translate(["--config-dir", str(tmp_path), "model=glob(legi*)"])[2:] == ["model=legion"]
    assert len(overrides.translate(["experiment=glob(*)"])[0].split(",")) == len(choices("experiment"))
    for given, message in (
        ("model=glob(lgs*)", "matches no choice; did you mean 'legs'"),
        ("experiment=glob(pmnist_*)", r"did you mean 'glob\(\*/pmnist_\*\)'"),
        ("seed=glob(1*)", "only chooses files"),
    ):
        with pytest.raises(UserError, match=message):
            overrides.translate([given])


@pytest.mark.slow
def test_every_model_composes_with_every_data_set():
    for model in choices("model"):
        for dataset in choices("dataset"):
            assert commandline.compose([f"model={model}", f"dataset={dataset}"])["dataset"]["name"] == dataset


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


@pytest.mark.parametrize(
    ("arguments", "section", "key", "expected"),
    [
        ("train.schedule=inverse_time train.schedule_args.decay=0.1", "train", "schedule_args", {"decay": 0.1}),
        ("train.schedule=inverse_time train.schedule_args={decay:0.1}", "train", "schedule_args", {"decay": 0.1}),
        ("train.schedule_args=null", "train", "schedule_args", None),
        ("train.optimizer=sgd train.optimizer_args.momentum=0.9", "train", "optimizer_args", {"momentum": 0.9}),
        ("+train.optimizer_args.betas=[0.8,0.9]", "train", "optimizer_args", {"betas": [0.8, 0.9]}),
        ("model=stack model.mixer=lstm model.mixer_args.hidden_size=7", "model", "mixer_args", {"hidden_size": 7}),
        ("model=stack model.mixer=lstm model.mixer_args={hidden_size:7}", "model", "mixer_args", {"hidden_size": 7}),
        ("model=stack model.preset=tiny model.mixer_args.longest=70", "model", "mixer_args", {"longest": 70}),
    ],
)
def test_arguments_that_no_file_lists_need_no_plus(arguments, section, key, expected):
    assert commandline.compose(arguments.split())[section][key] == expected


def test_a_sweep_over_arguments_that_no_file_lists_is_planned(monkeypatch):
    monkeypatch.setattr(sweeps, "current", sweeps._Current())
    monkeypatch.setenv("SEQMEM_SWEEP", "")
    sgd = ["train.optimizer=sgd", "train.optimizer_args.momentum=0.5,0.9"]
    flags, changes = overrides.split_flags(overrides.translate(["-m", "dataset=digits", "model=lstm", *sgd]))
    plan.plan(changes, [])
    jobs = sweeps.current.jobs
    assert flags == ["-m"]
    assert [job["overrides"][-1] for job in jobs] == [f"++train.optimizer_args.momentum={value}" for value in (0.5, 0.9)]


def test_a_preset_yields_to_the_command_line():
    plain = commandline.compose(["model=legs", "model.preset=tiny"])["model"]["cell_args"]
    assert (plain["hidden_size"], plain["memory_order"]) == (8, 5)
    changed = commandline.compose(["model=legs", "model.preset=tiny", "model.cell_args.hidden_size=9"])["model"]["cell_args"]
    assert (changed["hidden_size"], changed["memory_order"]) == (9, 5)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ("model=legt model.preset=tiny ~model.cell_args.dt", "model.cell_args.dt"),
        ("model=legt model.preset=tiny ~model.cell_args.hidden_size", "model.cell_args.hidden_size"),
        ("model=igloo model.preset=copy_memory ~model.psy", "model.psy"),
        ("model=gru model.preset=tiny model.embedding_size=7 ~model.embedding_size", "model.embedding_size"),
        ("experiment=uea/heartbeat ~model.embedding_size", "model.embedding_size"),
    ],
)
def test_a_preset_leaves_a_dropped_key_dropped(arguments, key):
    """It is dropped whether the preset sets it, and whether its value is null."""
    *others, drop = arguments.split()
    whole, dropped = commandline.compose(others), commandline.compose([*others, drop])
    *parents, last = key.split(".")
    section = whole
    for parent in parents:
        section = section[parent]
    del section[last]
    assert dropped["model"] == whole["model"]


def test_overrides_win_over_a_preset_in_their_order():
    keys = ["model=gru", "model.preset=tiny", "~model.cell_args", "+model.cell_args.hidden_size=3", "model.dropout=0.3"]
    model = commandline.compose([*keys, "model.dropout=0.4"])["model"]
    assert (model["cell_args"], model["dropout"]) == ({"hidden_size": 3}, 0.4)


def test_a_dropped_number_of_trials_is_no_chosen_one():
    assert commandline.compose(["smoke_test=true", "~runner.ntrials"])["runner"]["ntrials"] == 1
    given = ["seed=0", "~seed=0", "model.psy=0", "~model.psy=null", "train.lr=0.1"]
    assert overrides.own_overrides(given) == ["~seed=0", "~model.psy=null", "train.lr=0.1"]


def test_help_and_config_are_readable(tmp_path):
    shown = run("--help", cwd=tmp_path)
    assert shown.returncode == 0
    lists = [f"{group}: {', '.join(choices(group))}" for group in ("dataset", "model")]
    for text in (*lists, "batch_size: 100", "-m model="):
        assert text in shown.stdout
    for key, comment in (("hidden_size: 256", "H"), ("seed: 0", "of the first trial; trial k has seed + k")):
        assert re.search(rf"^ *{key} +# {re.escape(comment)}$", shown.stdout, re.MULTILINE)
    assert f"\nexperiment: {choices('experiment')[0]}, " in shown.stdout
    config = run("--cfg", "job", "model=lstm", cwd=tmp_path)
    assert config.returncode == 0
    assert "cell: lstm" in config.stdout
    assert not list(tmp_path.iterdir())


TINY = ("dataset=digits", "model=rnn", "model.preset=tiny", "smoke_test=True", "train.batch_size=4")


@pytest.mark.slow
def test_in_a_terminal_there_is_a_progress_bar(tmp_path):
    """In a pipe there is none: tests/docs/test_blocks.py."""
    script = f"import os, pty, sys; os.chdir({str(tmp_path)!r}); sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    done = subprocess.run(
        [sys.executable, "-c", script, sys.executable, str(program.ROOT / "train.py"), *TINY],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=240,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "160"},
        check=False,
    )
    assert done.returncode == 0
    text = done.stdout.decode(errors="replace")
    assert "Epoch 1 of 1" in text
    assert "\r\x1b[2K" in text
    assert "2/2" in text


@pytest.mark.parametrize(
    ("arguments", "line", "column"),
    [
        ("dataset=sinusoids dataset.channels=3 dataset.noise=1 model=lstm", "(1.0000 is irreducible)", "irreducible mse"),
        *(
            pytest.param(*values, marks=pytest.mark.slow)
            for values in (
                (
                    "dataset=text8 dataset.step=50 model=gru",
                    "gru on text8 prefix, trial 1 of 1 (seed 0): test bpc 4.",
                    "test bpc",
                ),
                ("dataset=ct dataset.reconstruction=true dataset.padding=mask model=lstm_ae", "linear classifier", "test mse"),
                ("dataset=text model=lstm", "lstm on text text8, trial 1 of 1 (seed 0): test bpc 4.", "test bpc"),
                ("dataset=text8 model=legs", "legs on text8 prefix, trial 1 of 1 (seed 0): test bpc 4.", "test bpc"),
                ("dataset=sinusoids model=gru", "(0.2500 is irreducible), validation mse ", "irreducible mse"),
                ("dataset=sinusoids dataset.reconstruction=true model=lstm_ae", "lstm_ae on sinusoids", "test mse"),
                ("dataset=uea dataset.reconstruction=true model=linear_ae", "linear_ae on uea JapaneseVowels", "test mse"),
                (
                    "dataset=digits dataset.reconstruction=true dataset.frames=true model=conv_lstm_ae",
                    "linear classifier",
                    "test mse",
                ),
                ("dataset=moving_digits model=conv_lstm_ae", "conv_lstm_ae on moving_digits", "test mse"),
                ("dataset=phase_signals dataset.stride=2 model=seq2seq_ae", "seq2seq_ae on phase_signals", "test mse"),
            )
        ),
    ],
)
def test_texts_and_signals_are_learned_step_by_step(arguments, line, column, tmp_path):
    require(arguments.split()[0].removeprefix("dataset="))
    done = run(*arguments.split(), "smoke_test=True", "model.preset=tiny", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert line in done.stdout
    [table] = tmp_path.glob("runs/*/table.md")
    assert f"| {column} |" in table.read_text()


def test_a_whole_number_is_the_float_of_the_same_value():
    """Where a float is declared: else 1 and 1.0 were two experiments, with a row each."""
    keys = ("dataset.eval_hz=1", "model.dropout=0", "model.mixer_args.dt_max=1", "train.gradient_clip_val=0")
    whole, float_ = (commandline.compose(["dataset=ct", "model=s4d", *(f"{key}{end}" for key in keys)]) for end in ("", ".0"))
    assert json.dumps(whole) == json.dumps(float_)
    assert commandline.compose(["dataset=digits", "model.cell_args.hidden_size=8"])["model"]["cell_args"]["hidden_size"] == 8
