"""Picking a data set by name, adding one as the package's docstring says, and the names of the packages."""

import re
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest
import yaml

from seqmem import datasets
from seqmem.cli import messages
from seqmem.errors import DataWarning, UserError

from . import conftest, test_every_data_set

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "add-a-data-set.md"


def test_names_are_the_modules_that_define_a_data_set():
    assert datasets.names() == sorted(datasets.names())
    assert {"adding", "copying", "digits", "mnist"} <= set(datasets.names())
    assert not {"characters", "pixels", "series", "words"} & set(datasets.names())


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match=r"^dataset\.name: got 'mnits', expected a data set; did you mean 'mnist'\?$"):
        datasets.check({"name": "mnits"})
    for name in ("wikipedia", 3, None, True):
        with pytest.raises(UserError, match=r"choose from: .*copying, .*digits, .*mnist"):
            datasets.check({"name": name})
    with pytest.raises(UserError, match=r"^dataset\.name: a value is required; choose from: .*mnist"):
        datasets.load({"permute": True})


def test_arguments_are_not_changed():
    arguments = {"name": "adding", "length": 7, "train_samples": 2, "validation_samples": 1, "test_samples": 1}
    before = dict(arguments)
    datasets.load(arguments)
    assert arguments == before


def docstring_example() -> tuple[str, str]:
    """The module and the YAML in the package's docstring."""
    blocks = datasets.__doc__.split("::\n")
    parts = blocks[1].split("\nand ``cfg")[0], blocks[2].split("\nThen ``python")[0]
    return textwrap.dedent(parts[0]), textwrap.dedent(parts[1]).strip()


def guide_example() -> tuple[str, str]:
    """The module and the YAML in the guide."""
    section = GUIDE.read_text()
    return tuple(re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)[1] for language in ("python", "yaml"))


@pytest.mark.parametrize("example", [docstring_example, guide_example])
def test_the_examples_pass_the_batteries(example, tmp_path, monkeypatch, load_small, configuration):
    module, yaml_text = example()
    (tmp_path / "majority.py").write_text(module)
    (tmp_path / "majority.yaml").write_text(yaml_text)
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(tmp_path)])
    for battery in (conftest, test_every_data_set):
        monkeypatch.setattr(battery, "CONFIGURATIONS", tmp_path)
    try:
        assert "majority" in datasets.names()
        data = datasets.load(yaml.safe_load(yaml_text) | {"length": 5})
        batch = next(iter(data.loader("train", 100)))
        assert batch.inputs.shape == (100, 5)
        assert [int(row.sum() >= 3) for row in batch.inputs] == batch.targets.tolist()
        with pytest.raises(UserError, match=r"dataset\.length: got 0"):
            datasets.check({"name": "majority", "length": 0})
        monkeypatch.setattr(datasets, "names", lambda: ["majority"])
        test_every_data_set.test_every_data_set_has_a_configuration()
        test_every_data_set.test_batches_are_valid_and_splits_are_disjoint("majority", load_small)
        test_every_data_set.test_a_seed_determines_the_data_and_the_record("majority", load_small)
        test_every_data_set.test_configurations_list_and_explain_every_argument(
            configuration, load_small, tmp_path, monkeypatch
        )
    finally:
        sys.modules.pop("seqmem.datasets.majority", None)


def test_the_guide_names_the_batteries():
    paths = re.findall(r"tests/datasets/\w+\.py", GUIDE.read_text())
    assert paths
    assert all((Path(__file__).parents[2] / path).is_file() for path in paths), paths


SEVERAL = """
import sys
import datasets
assert datasets.marker == "a regular package of this name", datasets.__path__
from seqmem import datasets as ours
ours.check({"name": "mnist"})
assert "mnist" in ours.names()
heavy = {"torchvision", "sklearn", "sktime", "pandas", "hydra", "pytorch_lightning"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


def test_a_library_called_datasets_can_be_imported_in_the_checkout(tmp_path, repository):
    """The folder datasets/ has no __init__.py, so that of Hugging Face wins. Listing and checking import no heavy package."""
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text('marker = "a regular package of this name"\n')
    (tmp_path / "program.py").write_text(SEVERAL)
    # "python -m" puts the current folder, the checkout's root, first in the path.
    environment = {"PYTHONPATH": f"{tmp_path}:{repository / 'src'}"}
    command = [sys.executable, "-m", "program"]
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_build_has_the_data_sets(tmp_path, repository):
    steps = ["egg_info", "--egg-base", str(tmp_path), "build_py", "--build-lib", str(tmp_path / "lib")]
    command = [sys.executable, "setup.py", "--quiet", *steps]
    subprocess.run(command, cwd=repository, check=True, capture_output=True, timeout=300)
    built = tmp_path / "lib" / "seqmem" / "datasets"
    assert (built / "mnist.py").read_bytes() == (repository / "datasets" / "mnist.py").read_bytes()
    program = "from seqmem import datasets; print(datasets.__file__, len(datasets.names()))"
    environment = {"PYTHONPATH": str(tmp_path / "lib")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(built / "__init__.py"), str(len(datasets.names()))]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_lightning_gives_every_epoch_its_own_order(tmp_path):
    import pytorch_lightning as pl
    import torch

    sizes = {"train_samples": 12, "validation_samples": 1, "test_samples": 1}
    data = datasets.load({"name": "adding", "length": 7, **sizes})
    seen = []

    class Recorder(pl.LightningModule):
        def training_step(self, batch, _):
            seen.append(batch.targets.flatten().tolist())

        def configure_optimizers(self):
            return None

        def transfer_batch_to_device(self, batch, device, _):
            return batch.to(device)

    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Recorder(), data.loader("train", 12, seed=4))
    everything = data.batch("train", torch.arange(12)).targets.flatten().tolist()
    assert len(seen) == 2
    assert sorted(seen[0]) == sorted(seen[1]) == sorted(everything)
    assert seen[0] != seen[1]


def test_a_warning_about_the_data_is_one_line_on_the_command_line(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with messages.one_line_errors():
        assert warnings.formatwarning(DataWarning("a part is lost"), DataWarning, "file.py", 3) == "warning: a part is lost\n"
        assert "file.py:3" in warnings.formatwarning(UserWarning("other"), UserWarning, "file.py", 3, "")
