"""The pages that are written from the code say what it says; README's table and picture too."""

import ast
import json
import sys

import pytest
import yaml

from benchmarks import abilities, rate_shift
from benchmarks.reference import __main__ as reference
from benchmarks.reference import configuration, messages
from seqmem import datasets
from seqmem.cli import commandline
from seqmem.ops import extension
from tests.docs import pages
from tests.program import ROOT
from tests.trials import run_trials


def differing(part):
    written = reference.PARTS[part]()
    return [name for name, text in written.items() if pages.text(reference.FOLDER / name) != text]


@pytest.mark.parametrize("part", ["configuration", "api", "command-line"])
def test_pages_are_those_of_the_code(part):
    if part == "command-line" and sys.version_info[:2] != (3, 11):
        pytest.skip("argparse of other Python versions formats help differently")
    assert not differing(part), f"python -m benchmarks.reference {part} updates them"


def test_every_key_of_the_data_sets_is_on_a_page():
    text = pages.text(reference.FOLDER / "data-sets.md")
    for path in (ROOT / "cfg" / "dataset").glob("*.yaml"):
        section = text.partition(f"## {path.stem}\n")[2].partition("\n## ")[0]
        keys = [key for key in yaml.safe_load(path.read_text()) if key not in ("name", "defaults")]
        assert all(f"| `dataset.{key}" in section for key in keys), path.stem
    assert "| `dataset.length` | `100` |" in configuration.keys(ROOT / "cfg/dataset/copying.yaml", "dataset.")


def test_every_key_of_a_search_is_on_a_page():
    text = pages.text(reference.FOLDER / "configuration.md")
    keys = yaml.safe_load((ROOT / "cfg/hydra/sweeper/optuna.yaml").read_text())
    assert [key for key in keys if f"| `hydra.sweeper.{key}` |" not in text] == ["_target_"]


def test_every_file_of_the_configuration_is_on_a_page():
    """Those of models have pages of their own, and hydra/ has no key of this project."""
    text = pages.text(reference.FOLDER / "configuration.md") + pages.text(reference.FOLDER / "data-sets.md")
    for path in (ROOT / "cfg").rglob("*.yaml"):
        group, _, name = path.relative_to(ROOT / "cfg").with_suffix("").as_posix().partition("/")
        if group not in ("model", "hydra", "config", "train"):
            assert f"{group}={name}`" in text or f"## {name}\n" in text, path


def _shown(command):
    text = pages.text(reference.FOLDER / "messages.md")
    assert f"$ {command}\n" in text, "python -m benchmarks.reference messages updates the page"
    return text.partition(f"$ {command}\n")[2].partition("\n```")[0]


CASES = [case for cases in messages.CASES.values() for case in cases]


@pytest.mark.parametrize("composes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_messages_are_those_of_the_commands(composes):
    cases = [case for case in CASES if case.composes == composes]
    assert len(cases) >= 5
    wrong = [case.command for case in cases if messages.message(case) != _shown(case.command)]
    assert not wrong, "python -m benchmarks.reference messages updates the page"


def test_parts_of_messages_of_running_commands_are_in_the_sources():
    constants = [
        node.value
        for path in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    page = pages.text(reference.FOLDER / "messages.md")
    for part, mend in messages.RUNNING:
        assert any(part in constant for constant in constants), part
        assert mend in page, "python -m benchmarks.reference messages updates the page"


def test_a_command_that_is_not_refused_has_no_message():
    with pytest.raises(AssertionError, match="seqmem train dataset=digits"):
        messages.message(messages.Case("seqmem train dataset=digits", ""))


@pytest.mark.parametrize("exports", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_table_of_abilities_is_that_of_the_cells(exports):
    if extension.REASON:
        pytest.skip(f"the table is that of the compiled operators: {extension.REASON}")
    text = pages.text(ROOT / "README.md")
    assert abilities.updated(text, exports=exports) == text, "python -m benchmarks.abilities updates the README"


def test_a_layer_that_cannot_carry_its_state_is_not_said_to(monkeypatch):
    layer = abilities.sequence.get("gru")(input_size=3, hidden_size=4).requires_grad_(False)
    inputs = abilities.torch.randn(2, 6, 3)
    assert abilities._carries(layer, inputs)
    whole = type(layer).forward
    monkeypatch.setattr(type(layer), "forward", lambda self, inputs, state=None, **keys: whole(self, inputs, **keys))
    assert not abilities._carries(layer, inputs)


def test_the_picture_shows_the_kept_trials(tmp_path):
    found = rate_shift.accuracies()
    assert {len(models) for models in found.values()} == {len(rate_shift.MODELS)}
    assert rate_shift.drawn() == found, "python -m benchmarks.rate_shift draws it again"
    rate_shift.draw(found, tmp_path / "again.png")
    assert rate_shift.drawn(tmp_path / "again.png") == found


def test_the_page_of_the_run_folder_names_every_file_and_key(tmp_path):
    config = commandline.compose(
        ["dataset=digits", "model=gru", "model.preset=tiny", "smoke_test=True", "runner.accelerator=cpu"]
    )
    [trial] = run_trials(config, datasets.load(config["dataset"]), tmp_path)
    text = pages.text(reference.FOLDER / "run-folder.md")
    files = [path.relative_to(trial.path).as_posix() for path in trial.path.rglob("*") if path.is_file()]
    assert len(files) >= 6
    keys = json.loads((trial.path / "record.json").read_text())
    assert [name for name in [*files, *keys] if f"`{name}`" not in text] == []
