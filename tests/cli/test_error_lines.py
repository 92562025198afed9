"""A wrong command line, value or folder ends in one line that names it, and leaves nothing."""

import os
import shutil
import subprocess
import sys
from copy import deepcopy

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from seqmem.cli import commandline, messages
from seqmem.errors import UserError
from tests import program


def run(*arguments, cwd):
    nowhere = "http://127.0.0.1:9"  # nothing is downloaded in a test
    offline = {"http_proxy": nowhere, "https_proxy": nowhere, "no_proxy": "", "NO_PROXY": ""}
    return program.run(["train.py", *arguments], cwd, offline)


COMMAND_LINES = {
    "dataset=mnst": "dataset: got mnst, expected the name of a file in cfg/dataset/; did you mean 'mnist'?",
    "datset=mnist": "datset: no such key; did you mean 'dataset'?",
    "model.cell=lsmt": "model: got lsmt, expected the name of a file in cfg/model/; did you mean 'lstm'?",
    "model=lstm model.cell=gru": "model.cell: got gru and lstm, expected one name",
    "model=legs,gru": "model: got several values, expected one; -m tries each of them",
    "experiment=hippo/pmnist_leg": "did you mean 'hippo/pmnist_legs'?",
    "hydra/sweeper=optna": "hydra/sweeper: got optna, expected a choice of Hydra or of its plugins",
    "train.epoch=3": "train.epoch: no such key; did you mean 'train.epochs'?",
    "train.lr.x=3": "train.lr.x: no such key; train.lr is a single value",
    "model.cell_args.hiden_size=4": "did you mean 'model.cell_args.hidden_size'?",
    "+model.cell_args.foo=4": "model.cell_args.foo: legs takes no argument 'foo'",
    "train.schedule=inverse_time": "train.schedule_args.decay: a value is required",
    "train.schedule=inverse_time train.schedule_args.decya=1": "did you mean 'decay'?",
    "train.optimizer_args.beta=1": "train.optimizer_args.beta: adam takes no argument 'beta'; did you mean 'betas'?",
    "model=stack model.mixer=lstm model.mixer_args.hidden_sise=7": "did you mean 'hidden_size'?",
    "model=ema model.mixer=lstm": "model.mixer: got 'lstm', expected 'ema', whose arguments model.mixer_args holds; "
    "did you mean model=stack model.mixer=lstm?",
    "model.preset=tny": "model.preset: got tny, expected a preset; did you mean 'tiny'?",
    "--cfg": "--cfg: got no value, expected one after it",
    "--cfg nope": "--cfg: got nope, expected job, hydra or all",
    "--cfg job -m": "--cfg: got -m with it, expected a single job; leave out -m",
    "--foo": "--foo: no such flag",
    "--resolve": "--resolve: got no --cfg, expected --cfg job --resolve",
    "--config-dir nowhere": "--config-dir: got nowhere, expected a folder that exists",
    "train.epochs": "got 'train.epochs', expected KEY=VALUE",
    "=3": "got '=3', expected KEY=VALUE",
    "a=[1": "got 'a=[1', expected KEY=VALUE",
    "hydra.output_subdir=a": "hydra.output_subdir: got a, expected no such key: each trial's folder has its config.yaml",
    "~seed=4": "The value of 'seed' is 0 and not 4",
    "train={a:1}": "train: got {a:1}, expected the name of a file in cfg/train/",
    "dataset=null": "dataset: got null, expected the name of a file in cfg/dataset/",
    "~train": "train: got None, expected a section",
}
HINTS = {
    "~dataset.permut": "dataset.permut: no such key of dataset=mnist; did you mean 'dataset.permute'?",
    # a key at a different depth, a choice of a subfolder or of a different group
    "model.hidden_size=64": "model.hidden_size: no such key of model=legs; did you mean 'model.cell_args.hidden_size'?",
    "hidden_size=64": "hidden_size: no such key; did you mean 'model.cell_args.hidden_size'?",
    "+model.hidden_size=64": "takes no argument 'hidden_size'; did you mean 'model.cell_args.hidden_size'?",
    "+epochs=3": "takes no argument 'epochs'; did you mean 'train.epochs'?",
    "model=stack model.mixer=lstm hidden_size=64": "did you mean 'model.mixer_args.hidden_size'?",
    "betas=[0.9,0.99]": "did you mean 'train.optimizer_args.betas'?",
    "hiden_sise=64": "did you mean 'model.cell_args.hidden_size'?",
    "modle.cell_args.hidden_size=64": "did you mean 'model.cell_args.hidden_size'?",
    "hydra.swepper.max_batch_size=3": "did you mean 'hydra.sweeper.max_batch_size'?",
    "learning_rate=0.1": "did you mean 'train.lr'?",
    "train.weight_decay=0.1": "did you mean 'train.wd'?",
    "model.cell_args.order=3": "did you mean 'model.cell_args.memory_order'?",
    "name=x": "did you mean 'dataset.name' or 'runner.name'?",
    "dataset.length=30": "dataset.length: no such key of dataset=mnist; dataset=adding, dataset=",
    "runner.gpus=2": "runner.gpus: no such key of runner=pl; runner=ray has it",
    "experiment=pmnist_legs": "experiment: got pmnist_legs, expected the name of a file in cfg/experiment/; "
    "did you mean 'hippo/pmnist_legs' or 'successors/pmnist_legs'?",
    "experiment=pmnist_legz": "did you mean 'hippo/pmnist_legs'?",
    "experiment=igloo": "choose from: igloo/copy_memory, igloo/copy_memory_table",
    "experiment=legs": "did you mean 'model=legs'?",
    "model=mnist": "did you mean 'dataset=mnist'?",
    "model=tiny": "did you mean 'debug=tiny' or 'model.preset=tiny'?",
    "dataset=MNIST": "did you mean 'mnist'?",
    "legs": "got 'legs', expected KEY=VALUE; did you mean 'model=legs'?",
    "--epochs=3": "--epochs=3: no such flag; keys have no dashes: epochs=3",
    "--epochs 3": "--epochs: no such flag; keys have no dashes: epochs=3",
    "--vresion 3": "--vresion: no such flag; did you mean '--version'?",
    "model=mamba, lstm": "got 'model=mamba,', expected KEY=VALUE; values that commas separate have no blanks between them",
    "dataset = parity": "got '=', expected KEY=VALUE without blanks around the equals sign",
    "dataset= parity": "expected the name of a file in cfg/dataset/",
    "seed=range(3)": "seed: got several values, expected one; -m tries each of them",
    "hydra.verbose=a,b": "hydra.verbose: got several values, expected one, since a sweep cannot change Hydra's own settings",
    # a value with characters that Hydra's grammar does not have
    "output_dir=m\u00fcller/runs": "expected KEY=VALUE; a VALUE with such characters takes two pairs of quotes: "
    "'output_dir=\"m\u00fcller/runs\"'",
    "output_dir=a=b/runs#1": "takes two pairs of quotes: 'output_dir=\"a=b/runs#1\"'",
    "output_dir=runs(1)": "takes two pairs of quotes: 'output_dir=\"runs(1)\"'",
    "output_dir=~/runs": "Hydra and many shells do not replace ~ here: output_dir=$HOME/runs",
    "output_dir=a/b,c": "-m tries each of them; as one text: 'output_dir=\"a/b,c\"'",
    "seed=rnage(3)": "seed: got rnage(3), but no function rnage exists; did you mean 'range'?",
    "seed=range()": "seed: got range(), whose arguments are wrong: missing a required argument: 'start'",
}
MORE_COMMAND_LINES = {
    "epochs=3": "epochs: no such key",
    "model=igloo model.nb_patch=3": "did you mean 'model.nb_patches'?",
    "model=lstm model.cell_args.memory_order=5": "model.cell_args.memory_order: no such key",
    "model.presets=3": "model.presets: got 3",
    "+foo=bar": "foo: top_level takes no argument 'foo'",
    "model.cell_args={hiden_size:3}": "did you mean 'model.cell_args.hidden_size'?",
    "model=transformer": "choose from: conv_lstm_ae, ema, exprnn, function_approximation, gru, grus, hmlstm, igloo, lagt",
    "model=lsmt": "did you mean 'lstm'?",
    "train=fast": "train: got fast, expected the name of a file in cfg/train/",
    "runner=slurm": "choose from: pl, ray",
    "experiment=quickstrt": "did you mean 'quickstart'?",
    "runner.ntrial=2": "did you mean 'runner.ntrials'?",
    "dataset.permut=True": "did you mean 'dataset.permute'?",
    "-cn nope": "-cn: no such flag",
    "++model.cell=lstmm": "model: got lstmm, expected the name of a file in cfg/model/; did you mean 'lstm'?",
    "~output_dir seed=5 runner.ntrials=x": "runner.ntrials: got 'x'",
    "~model": "model: got None, expected a section",
    "model.cell_args=5": "model.cell_args",
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(pytest.param(*item, id=item[0]) for item in COMMAND_LINES.items()),
        *(pytest.param(*item, id=item[0], marks=pytest.mark.slow) for item in MORE_COMMAND_LINES.items()),
    ],
)
def test_a_wrong_command_line_is_explained_in_one_line(arguments, message):
    with pytest.raises(UserError) as caught:
        commandline.compose(arguments.split())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_hints_search_all_depths_and_groups():
    for arguments, message in HINTS.items():
        with pytest.raises(UserError) as caught:
            commandline.compose(arguments.split())
        assert message in str(caught.value), arguments
        assert "\n" not in str(caught.value)


VALUES = {
    "train.lr_decay=0.1 train.schedule=cosine": "train.lr_decay: got 0.1 with train.schedule=cosine, expected one of the two",
    "train.lr=fast": "train.lr: got 'fast', expected a valid number",
    "train.lr=-0.1": "train.lr: got -0.1, expected greater than 0",
    "train.lr=nan": "train.lr: got nan, expected a finite number",
    "train.lr=0": "train.lr: got 0, expected greater than 0",
    "train.lr=null": "train.lr: got None, expected a valid number",
    "train.lr_decay=-1": "train.lr_decay: got -1, expected greater than or equal to 0",
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
    "runner.accelerator=cuda": "runner.accelerator: got 'cuda'",
    "seed=x": "seed: got 'x', expected a valid integer",
    "seed=-1": "seed: got -1",
    "seed=99999999999": "expected seeds below 2**32",
    "seed=4294967295 runner.ntrials=2": "expected seeds below 2**32",
    "smoke_test=maybe": "smoke_test: got 'maybe'",
    "traceback=maybe": "traceback: got 'maybe'",
    "output_dir=null": "output_dir: got None, expected a valid string",
    "model.cell_args.hidden_size=-4": "model.cell_args.hidden_size: got -4, expected greater than 0",
    "model.cell_args.hidden_size=abc": "model.cell_args.hidden_size: got 'abc', expected a valid integer",
    "model.cell_args.architecture.xu=1": "choose from: ux, uh",
    "model.cell_args.architecture.ux=2": "model.cell_args.architecture.ux: got 2",
    "model.cell_args.initializers.hx=xavier": "did you mean 'xavier_normal'?",
    "model.cell_args.discretization=bilnear": "did you mean 'bilinear'?",
    "model.cell_args.gate=X": "model.cell_args.gate: got 'X', expected 'G' or 'N'",
    "model.cell_args.memory_order=0": "model.cell_args.memory_order: got 0, expected greater than 0 or -1",
    "model.cell_args.architecture.ux=false model.cell_args.architecture.uh=false": "model.cell_args.architecture: got ux, uh",
    "model.dropout=1.5": "model.dropout: got 1.5",
    "model.network=recurent": "did you mean 'recurrent'?",
    "model.network=[1]": "model.network: no network is called",
    "dataset.permutation=bitrev": "did you mean 'bitreversal'?",
    "dataset.validation_fraction=1.5": "dataset.validation_fraction: got 1.5",
    "dataset.train_samples=-5": "dataset.train_samples: got -5",
}


def test_a_wrong_value_is_named_with_its_key():
    base = commandline.compose()
    for changes, message in VALUES.items():
        config = deepcopy(base)
        for change in changes.split():
            key, _, text = change.partition("=")
            *parents, last = key.split(".")
            node = config
            for parent in parents:
                node = node[parent]
            node[last] = OverridesParser.create().parse_override(f"a={text}").value()
        with pytest.raises(UserError) as caught:
            commandline.check(config)
        assert message in str(caught.value), changes


@pytest.mark.parametrize(
    "arguments",
    [
        "model.cell=legz",
        "-m dataset=digits train.lr=0.1,fast",
        "dataset=mnist dataset.data_dir=nowhere/else",
        "dataset=digits output_dir=FILE/runs",
        "dataset=digits model.embedding_size=3",
        pytest.param("model.cell_args.hidden_size=-4", marks=pytest.mark.slow),
        pytest.param("--foo", marks=pytest.mark.slow),
        pytest.param("-m dataset=digits model=legs,lstmm", marks=pytest.mark.slow),
        pytest.param("--cfg job train.lr=abc", marks=pytest.mark.slow),
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


def test_every_kind_of_error_has_its_status_and_line(capsys):
    for error, status, line in (
        (KeyboardInterrupt(), 130, "error: interrupted"),
        (UserError("a: got 1, expected 2"), 2, "error: a: got 1, expected 2"),
        (FileNotFoundError(2, "No such file", "there"), 2, "error: there: No such file"),
        (MemoryError(), 2, "error: not enough memory for this data set or model (MemoryError:)"),
        (RuntimeError("a\nb"), 1, "error: RuntimeError: a b (probably a bug in seqmem; traceback=True shows where)"),
    ):
        with pytest.raises(SystemExit) as ended, messages.one_line_errors():
            raise error
        assert ended.value.code == status
        assert capsys.readouterr().err == f"{line}\n"


def test_traceback_on_request(tmp_path):
    done = run("model.cell_args.hidden_size=-4", "traceback=True", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "hidden_size: got -4" in done.stderr


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
def test_without_seqmem_one_line_says_what_to_do(script):
    """The interpreter sees neither site-packages nor PYTHONPATH."""
    command = [sys.executable, "-I", "-S", str(program.ROOT / script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: seqmem is not installed for this Python; run `make setup` and use .venv/bin/python\n"


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


@pytest.mark.parametrize(
    "arguments",
    [
        "dataset=digits output_dir=closed/runs",
        "dataset=digits -m output_dir=closed/runs model=lstm,gru",
        "dataset=mnist dataset.data_dir=closed",
    ],
)
def test_a_folder_that_cannot_be_written_is_named(arguments, closed):
    done = run(*arguments.split(), cwd=closed.parent)
    assert done.returncode != 0
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "closed" in done.stderr
    assert not list(closed.iterdir())
