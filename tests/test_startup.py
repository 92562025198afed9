"""What happens before the first training step: the garbage collector rests, and nothing is done twice."""

import gc
from pathlib import Path

from cfg import startup
from tests import program

SCRIPT = """
import gc, runpy, sys

sys.path.insert(0, ROOT)
usual = gc.get_threshold()
import seqmem.training.trial as trial

def train(*arguments, as_ever=trial._train):
    print("while it trains:", gc.get_threshold() == usual, gc.get_freeze_count() > 100_000)
    return as_ever(*arguments)

trial._train = train
from cfg import startup
as_ever = startup.begin
startup.begin = lambda: (as_ever(), print("before:", gc.get_threshold()[0] > usual[0]))
from hydra._internal.config_loader_impl import ConfigLoaderImpl as Loader

def compose(self, *arguments, as_ever=Loader._load_configuration_impl, **options):
    print("composed", "pandas" in sys.modules)
    return as_ever(self, *arguments, **options)

Loader._load_configuration_impl = compose
runpy.run_path(ROOT + "/train.py", run_name="__main__")
"""


def test_garbage_is_collected_as_ever_once_a_program_trains(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("ROOT", repr(str(program.ROOT))))
    options = ["dataset=digits", "train.epochs=1", "train.limit_train_batches=1", "train.limit_val_batches=1"]
    sweep = ["-m", "model=legs,rnn", "smoke_test=true", f"output_dir={tmp_path}/runs"]
    done = program.run([str(script), *sweep, *options], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("before: True\n") == 1
    assert done.stdout.count("while it trains: True True\n") == 2
    # Each job to check it, and to train it; what the sweep is told before its jobs, and by Hydra twice.
    before, _, _ = done.stdout.partition("while it trains")
    assert before.count("composed") == 2 + 1 + 3
    assert done.stdout.count("composed") == 2 + 2 + 3


def test_a_worker_that_did_not_begin_as_a_program_keeps_its_collector() -> None:
    usual = gc.get_threshold()
    gc.set_threshold(500, 5, 5)
    try:
        startup.end()
        assert gc.get_threshold() == (500, 5, 5)
    finally:
        gc.set_threshold(*usual)
