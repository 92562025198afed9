"""What happens before the first training step: the garbage collector rests, and nothing is done twice."""

import gc
import subprocess
import sys

import pytest

from seqmem.cli import startup
from tests import program

SCRIPT = """
import gc, runpy, sys

sys.path.insert(0, ROOT)
usual = gc.get_threshold()
import seqmem.training.loop.trial as trial

def train(*arguments, as_ever=trial._train):
    print("while it trains:", gc.get_threshold() == usual, gc.get_freeze_count() > 100_000)
    return as_ever(*arguments)

trial._train = train
from seqmem.cli import startup
as_ever = startup.begin
startup.begin = lambda: (as_ever(), print("before:", gc.get_threshold()[0] > usual[0]))
from hydra._internal.config_loader_impl import ConfigLoaderImpl as Loader

def compose(self, *arguments, as_ever=Loader._load_configuration_impl, **options):
    print("composed")
    return as_ever(self, *arguments, **options)

Loader._load_configuration_impl = compose
runpy.run_path(ROOT + "/train.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a sweep of two jobs tells of its start."""
    tmp_path = tmp_path_factory.mktemp("sweep")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("ROOT", repr(str(program.ROOT))))
    options = ["dataset=digits", "train.epochs=1", "train.limit_train_batches=1", "train.limit_val_batches=1"]
    sweep = ["-m", "model=legs,rnn", "smoke_test=true", f"output_dir={tmp_path}/runs"]
    done = program.run([str(script), *sweep, *options], tmp_path)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_garbage_is_collected_as_ever_once_a_program_trains(told: str) -> None:
    assert told.count("before: True\n") == 1
    assert told.count("while it trains: True True\n") == 2


def test_each_job_of_a_sweep_is_composed_to_check_it_and_to_train_it(told: str) -> None:
    before, _, _ = told.partition("while it trains")
    once = 3  # for what the sweep is told, by Hydra twice
    assert before.count("composed\n") == 2 + 1 + once
    assert told.count("composed\n") == 2 + 2 + once


def test_a_trial_does_without_pandas_until_it_has_a_table_to_write() -> None:
    code = "import sys, seqmem.training.loop.trial, seqmem.results; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_worker_that_did_not_begin_as_a_program_keeps_its_collector() -> None:
    usual = gc.get_threshold()
    gc.set_threshold(500, 5, 5)
    try:
        startup.end()
        assert gc.get_threshold() == (500, 5, 5)
    finally:
        gc.set_threshold(*usual)
