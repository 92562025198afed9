"""Picking a data set by name, and adding one as the package's docstring says."""

import subprocess
import sys
import textwrap

import pytest
import yaml

from seqmem import datasets
from seqmem.errors import UserError


def test_names_are_the_modules_that_define_a_data_set():
    assert datasets.names() == sorted(datasets.names())
    assert {"adding", "copying", "digits", "mnist"} <= set(datasets.names())
    assert not {"base", "pixels", "splits", "idx"} & set(datasets.names())


def test_the_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"^dataset\.name: there is no data set 'mnits'; did you mean 'mnist'\?$"):
        datasets.check({"name": "mnits"})


@pytest.mark.parametrize("name", ["wikipedia", 3, None, True])
def test_a_hopeless_name_is_answered_with_all_names(name):
    with pytest.raises(UserError, match=r"choose from: .*copying, .*digits, .*mnist"):
        datasets.check({"name": name})


def test_the_missing_name_is_asked_for():
    with pytest.raises(UserError, match=r"^dataset\.name: a value is required; choose from: .*mnist"):
        datasets.load({"permute": True})


def test_arguments_are_not_changed():
    arguments = {"name": "adding", "length": 7, "train_samples": 2, "validation_samples": 1, "test_samples": 1}
    before = dict(arguments)
    datasets.load(arguments)
    assert arguments == before


def test_the_example_in_the_docstring_is_a_data_set(tmp_path, monkeypatch):
    blocks = datasets.__doc__.split("::\n")
    module, configuration = blocks[1].split("\nand ``cfg")[0], blocks[2]
    (tmp_path / "parity.py").write_text(textwrap.dedent(module))
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(tmp_path)])
    try:
        assert "parity" in datasets.names()
        data = datasets.load(yaml.safe_load(configuration) | {"length": 5})
        batch = next(iter(data.loader("train", 100)))
        assert batch.inputs.shape == (100, 5)
        assert [int(row.sum()) % 2 for row in batch.inputs] == batch.targets.tolist()
        with pytest.raises(UserError, match=r"dataset\.length: got 0"):
            datasets.check({"name": "parity", "length": 0})
    finally:
        sys.modules.pop("seqmem.datasets.parity", None)


def test_listing_and_checking_import_no_heavy_package():
    heavy = "{'torchvision', 'sklearn', 'sktime', 'pandas', 'hydra', 'pytorch_lightning'}"
    program = f"import sys; from seqmem import datasets; datasets.check({{'name': 'mnist'}}); print({heavy} & set(sys.modules))"
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert (done.stdout.strip(), done.returncode) == ("set()", 0), done.stderr


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
