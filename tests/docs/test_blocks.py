"""Every command and every Python block of every page runs; the extensions that guides show train and pass their batteries."""

import re
import shlex
import shutil
import subprocess

import pytest
import yaml

from seqmem.cli import commandline, overrides, plan, sweeps
from tests import program
from tests.docs import commands, pages
from tests.engines import commands as engines


def _marks(page):
    return [] if page in pages.BY_DEFAULT else [pytest.mark.slow]


@pytest.mark.parametrize("page", [pytest.param(page, marks=_marks(page), id=pages.name(page)) for page in pages.ALL])
def test_blocks_of_a_page_run(page, tmp_path):
    skipped = commands.run_page(page, tmp_path)
    if skipped:
        pytest.skip("; ".join(skipped))


def _with_workers():
    for command in dict.fromkeys(pages.commands()):
        if commands.starts_workers(command):
            needs = [need for word, need in commands.WORKERS.items() if word in command]
            marks = [pytest.mark.cluster, *(pytest.mark.skipif(not there(), reason=reason) for there, reason in needs)]
            yield pytest.param(command, marks=marks, id=command[:70])


@pytest.mark.parametrize("command", list(_with_workers()))
def test_commands_that_start_workers_run(command, tmp_path):
    """Workers need a process of their own to start from."""
    done = engines.run(*commands.small(commands.arguments_of(command), tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.search("test (accuracy|mse|bpc)", done.stdout)
    assert list(tmp_path.glob("runs/**/record.json"))


INSTRUCTIVE = [page for page in pages.ALL if page.parent.name == "guides"]  # blocks of README and tutorials run by default


def _with_new_words(found):
    """Commands, the longest first, that have a word which none before has; numbers count as the same.

    Models, data sets and experiments compose in tests/cli/.
    """
    known = set()
    for command in sorted(found, key=len, reverse=True):
        words = {re.sub(r"[\d.]+", "0", word) for word in shlex.split(command)}
        if {word for word in words if not re.match("(model|dataset|experiment)=", word)} - known:
            known |= words
            yield command


def _trainings(*of):
    return [command for command in dict.fromkeys(pages.commands(*of)) if any(word in command for word in commands.TRAIN)]


@pytest.mark.parametrize(
    ("given", "fewest"),
    [
        pytest.param(list(_with_new_words(_trainings(*INSTRUCTIVE))), 25, id="guides"),
        pytest.param(_trainings(), 100, marks=pytest.mark.slow, id="all"),
    ],
)
def test_training_commands_compose(given, fewest, monkeypatch):
    monkeypatch.setattr(sweeps, "current", sweeps._Current())
    monkeypatch.setenv("SEQMEM_SWEEP", "")
    assert len(given) >= fewest
    for command in given:
        if commands.starts_workers(command) or any(word in command for word in ("=files", "plugins=", "--config-dir")):
            continue  # neither what is not installed nor what a page writes can be composed here
        flags, changes = overrides.split_flags(overrides.translate(commands.arguments_of(command)))
        if overrides.is_multirun(flags):
            plan.plan(changes, [])
        else:
            commandline.compose(changes)


def test_every_command_is_of_a_kind_that_is_tested():
    for command in pages.commands():
        if commands.is_run(command):
            commands.words_of(command)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize("page", [page for page in pages.ALL if pages.commands(page)], ids=pages.name)
def test_commands_have_the_syntax_of_a_shell(page):
    """Brackets, for one, must be quoted."""
    for command in pages.commands(page):
        done = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_brackets_of_a_shell_are_quoted():
    """Zsh takes unquoted square brackets for a pattern of files."""
    for command in pages.commands():
        assert not re.search(r"=\S*[\[(]", re.sub(r"'[^']*'|\"[^\"]*\"", "", command)), command


def test_make_targets_and_tests_that_pages_name_exist():
    for command in dict.fromkeys(pages.commands()):
        if command.startswith("make "):
            commands.dry_run(command)
        for word in shlex.split(command):
            assert not word.startswith("tests/") or (program.ROOT / word).exists(), command


@pytest.mark.slow
def test_the_originals_way_to_build_works(tmp_path):
    assert [command for command in pages.commands() if command.startswith("cd ")] == ["cd csrc && python setup.py install"]
    commands.build_the_originals_way(tmp_path)


def test_yaml_blocks_are_yaml():
    found = [block for page in pages.ALL for block in pages.blocks(page, "yaml")]
    assert all(isinstance(yaml.safe_load(block.text), dict) for block in found)
    assert len(found) >= 4


def test_what_the_guides_add_trains(tmp_path):
    """A cell, a layer, a data set and a task are put into a copy of the checkout, and trained in a process of its own.

    The process imports everything itself. It has no warning to show and no progress bar in a pipe, and it imports pandas only
    once there is a table to write. Then it runs the batteries that the guides name.
    """
    program.copy_checkout(tmp_path, "tests/cells", "tests/layers")
    guides = {what: pages.DOCS / "guides" / f"add-a-{what}.md" for what in ("cell", "layer", "data-set", "task")}
    blocks = {what: pages.blocks(page, "python")[0].text for what, page in guides.items()}
    batteries = [
        re.search(r"`(pytest tests/\w+/test_battery\.py -k \w+)`", pages.text(guides[what]))[1] for what in ("cell", "layer")
    ]
    assert [command.split()[-1] for command in batteries] == ["leaky", "decay"]
    files = [command.split()[1] for command in batteries]
    (tmp_path / "src/seqmem/cells/leaky.py").write_text(
        blocks["cell"].replace("from seqmem.cells import", "from seqmem.cells.base import")
    )
    (tmp_path / "src/seqmem/layers/decay.py").write_text(blocks["layer"])
    (tmp_path / "src/seqmem/tasks/robust_regression.py").write_text(
        blocks["task"].replace("from seqmem.tasks import", "from seqmem.tasks.base import")
    )
    (tmp_path / "datasets/majority.py").write_text(blocks["data-set"])
    (tmp_path / "datasets/counts.py").write_text(_with_the_task(blocks["data-set"]))
    for what, name in (("cell", "model/leaky"), ("layer", "model/decay"), ("data-set", "dataset/majority")):
        [block] = pages.blocks(guides[what], "yaml")
        (tmp_path / f"cfg/{name}.yaml").write_text(block.text)
    settings = (tmp_path / "cfg/dataset/majority.yaml").read_text()
    (tmp_path / "cfg/dataset/counts.yaml").write_text(settings.replace("name: majority", "name: counts"))
    code = (
        "import runpy, sys, seqmem.training.loop.trial, seqmem.results; sys.argv = sys.argv[1:]; "
        "assert 'pandas' not in sys.modules; runpy.run_path(sys.argv[0], run_name='__main__'); "
        "sys.argv = ['train.py', 'dataset=counts', 'model=leaky', 'model.preset=tiny', 'smoke_test=True']; "
        "runpy.run_path('train.py', run_name='__main__'); "
        "import pytest; sys.path.insert(0, '.'); "
        f"sys.exit(pytest.main(['-n', '0', '--assert=plain', *{files}, '-k', 'leaky or decay']))"
    )
    arguments = ["-m", "model=leaky,decay", "dataset=majority", "model.preset=tiny", "smoke_test=True", "runner.ntrials=2"]
    done = program.run_in_copy(tmp_path, "-c", code, "train.py", *arguments)
    assert done.stderr == ""
    assert done.returncode == 0, done.stdout
    assert all(re.search(rf"^{file} [.s]*\.", done.stdout, re.MULTILINE) for file in files), done.stdout
    for name in ("leaky", "decay"):
        assert f"{name} on majority, trial 2 of 2 (seed 1): test accuracy 0." in done.stdout
    assert re.search(r"leaky on counts.*: test mae \d", done.stdout), done.stdout
    assert "\r" not in done.stdout
    assert "\x1b" not in done.stdout


def _with_the_task(module):
    """The guide's data set with its number of ones as a value: a regression by the guide's task."""
    changed = module.replace("Majority", "Counts").replace('"majority"', '"counts"')
    changed = changed.replace('DataSpec("counts", 2, 2, "classification"', 'DataSpec("counts", 2, 1, "robust_regression"')
    return changed.replace("(2 * bits.sum(1) > bits.shape[1]).long()", "bits.sum(1, keepdim=True).float() / 10")
