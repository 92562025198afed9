"""The files of cfg/ hold the defaults of the signatures: ``make configs`` has nothing to write."""

import re
import sys

import pytest
import yaml

from seqmem.cli import defaults
from seqmem.data.dataset import DataSet


def test_every_file_is_as_make_configs_writes_it():
    changed = [path.name for path in defaults.files() if defaults.generate(path) != path.read_text()]
    assert not changed, "run `make configs`"
    assert len(defaults.files()) > 45


@pytest.fixture
def generated(tmp_path):
    """Write a file of a group, and return what the module makes of it."""

    def generate(group, text):
        path = tmp_path / group / "mine.yaml"
        path.parent.mkdir()
        path.write_text(text)
        return defaults.generate(path)

    return generate


def test_a_file_with_the_names_alone_is_completed(generated):
    text = generated("model", "# A GRU.\nnetwork: recurrent\ncell: gru\npresets:\n  tiny: {cell_args: {hidden_size: 8}}\n")
    committed = next(path for path in defaults.files() if path.name == "gru.yaml").read_text()
    assert text.startswith("# A GRU.\nnetwork: recurrent\ncell: gru\ncell_args:\n  hidden_size: 256 ")
    expected = {**yaml.safe_load(committed), "presets": {"tiny": {"cell_args": {"hidden_size": 8}}}}
    assert yaml.safe_load(text) == expected


def test_values_of_a_paper_interpolations_and_presets_stay(generated):
    text = generated(
        "model",
        "network: recurrent\ncell: lmu\ncell_args:\n  hidden_size: 212  # source's value\n"
        "  theta: 784.0\n  dt: ${seed}\n  old: 1\npresets:\n  # as it was\n  tiny: {num_layers: 9}\n",
    )
    section = yaml.safe_load(text)
    assert section["cell_args"]["hidden_size"] == 212
    assert "# source's value; " in next(line for line in text.splitlines() if "hidden_size: 212" in line)
    assert section["cell_args"]["theta"] == 100.0
    assert section["cell_args"]["dt"] == "${seed}"
    assert "old" not in section["cell_args"]
    assert text.endswith("presets:\n  # as it was\n  tiny: {num_layers: 9}\n")


def test_a_comment_holds_the_first_sentence_and_the_choices(generated):
    lines = generated("runner", "name: pl\n").splitlines()
    accelerator = next(line for line in lines if line.startswith("accelerator: auto"))
    assert accelerator.endswith(": auto, cpu, gpu")
    assert all(len(line) <= 128 for path in defaults.files() for line in path.read_text().splitlines())


def test_no_comment_is_cut_off_or_names_a_class():
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("seqmem")]
    values = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    own = [value for value in values if value.__module__.startswith("seqmem") and not issubclass(value, DataSet)]
    classes = {value.__name__ for value in own if not value.__name__.isupper()}  # LSTM and the like are common names
    assert {"RayConfig", "Batch"} <= classes
    for path in defaults.files():
        for line in path.read_text().splitlines():
            comment = line.partition(" # ")[2]
            assert not comment.endswith("..."), f"{path.name}: {line}"
            assert classes.isdisjoint(re.findall(r"\w+", comment)), f"{path.name}: {line}"


def test_a_long_list_of_choices_ends_with_the_number_of_the_rest():
    assert defaults._listed(("zero", "one", "two"), 14) == "zero, one, two"
    assert defaults._listed(("zero", "one", "twenty"), 16) == "zero and 2 more"
