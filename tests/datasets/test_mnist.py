"""MNIST on a tiny copy in the real layout, and on the real files in SEQMEM_DATA."""

import gzip
import hashlib
import os
import shutil
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from seqmem import datasets
from seqmem.data import named_permutation
from seqmem.datasets import mnist
from seqmem.errors import DataWarning, UserError
from tests import program
from tests.tiny_files import idx_bytes


def load(data_dir, **arguments):
    return datasets.load({"name": "mnist", "data_dir": str(data_dir), **arguments})


def everything(data, split):
    return data.batch(split, torch.arange(data.sizes[split]))


def as_rows(images, labels) -> list[list[int]]:
    return np.column_stack([images.reshape(len(images), -1), labels]).astype(int).tolist()


def found_rows(batch) -> list[list[int]]:
    return as_rows(np.rint(255 * batch.inputs.numpy()), batch.targets.numpy())


@pytest.fixture
def official():
    """torchvision's MNIST, which lists the mirrors; a torchvision that was built for a different torch has none."""
    try:
        from torchvision.datasets import MNIST
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision cannot be imported: {error}")
    return MNIST


@pytest.fixture
def offline(official, monkeypatch):
    """No mirror responds."""
    monkeypatch.setattr(official, "mirrors", ["http://127.0.0.1:9/"])


@pytest.fixture
def mirror(official, server, tiny_mnist_arrays, monkeypatch):
    """The tiny MNIST in place of the official one; yields the server's folder."""
    served, url = server
    resources = []
    for name, array in tiny_mnist_arrays.items():
        content = gzip.compress(idx_bytes(array), mtime=0)
        (served / f"{name}.gz").write_bytes(content)
        resources.append((f"{name}.gz", hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(official, "mirrors", [url])
    monkeypatch.setattr(official, "resources", resources)
    return served


def test_training_images_are_split_and_test_images_kept(tiny_mnist, tiny_mnist_arrays):
    data = load(tiny_mnist)
    train, test = (as_rows(*pair) for pair in np.split(np.array(list(tiny_mnist_arrays.values()), dtype=object), 2))
    assert data.sizes == {"train": 33, "validation": 4, "test": 11}
    assert sorted(found_rows(everything(data, "train")) + found_rows(everything(data, "validation"))) == sorted(train)
    assert found_rows(everything(data, "test")) == test


def test_values_are_grey_values_over_255(tiny_mnist, tiny_mnist_arrays):
    inputs = everything(load(tiny_mnist), "test").inputs
    expected = torch.from_numpy(tiny_mnist_arrays["t10k-images-idx3-ubyte"]).reshape(11, 784, 1).to(torch.float64) / 255
    torch.testing.assert_close(inputs.to(torch.float64), expected, rtol=1e-7, atol=0)


def test_permuted_images_have_the_recorded_order(tiny_mnist):
    for name in ["bitreversal", 5]:
        plain, permuted = load(tiny_mnist), load(tiny_mnist, permute=True, permutation=name)
        record = permuted.describe()["permutation"]
        assert record == {"name": name, "indices": named_permutation(name, 784).indices}
        for split in datasets.SPLITS:
            assert torch.equal(everything(permuted, split).inputs, everything(plain, split).inputs[:, record["indices"]])
            assert torch.equal(everything(permuted, split).targets, everything(plain, split).targets)


def test_fewer_training_images_are_the_first_of_all(tiny_mnist):
    whole, part = load(tiny_mnist), load(tiny_mnist, train_samples=9)
    assert part.sizes == {"train": 9, "validation": 4, "test": 11}
    assert found_rows(everything(part, "train")) == found_rows(everything(whole, "train"))[:9]
    assert found_rows(everything(part, "validation")) == found_rows(everything(whole, "validation"))
    assert part.describe()["sha256"]["train"] != whole.describe()["sha256"]["train"]
    with pytest.raises(UserError, match="train_samples: got 34, but mnist's training split has only 33 images"):
        load(tiny_mnist, train_samples=34)


def test_the_record_distinguishes_different_files(tiny_mnist, tiny_mnist_arrays, monkeypatch):
    before = load(tiny_mnist).describe()
    assert set(before["files"]) == {f"MNIST/raw/{name}" for name in tiny_mnist_arrays}
    (tiny_mnist / "MNIST/raw/t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(11)))
    monkeypatch.setenv("HOME", str(tiny_mnist.parent))
    after = load("~/data").describe()
    assert {name for name, _ in before["files"].items() ^ after["files"].items()} == {"MNIST/raw/t10k-labels-idx1-ubyte"}


def test_other_files_have_another_name_and_a_warning(tiny_mnist, tiny_mnist_arrays, monkeypatch):
    """Fashion-MNIST, say, under MNIST's names."""
    official = (
        "train-images-idx3-ubyte: got [0-9a-f]{64}, expected ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
    )
    with pytest.warns(DataWarning, match=rf"^mnist was not read from its official files, .*'mnist other files' \({official}; "):
        assert load(tiny_mnist).spec.name == "mnist other files"
    sums = {name: hashlib.sha256(idx_bytes(array)).hexdigest() for name, array in tiny_mnist_arrays.items()}
    monkeypatch.setattr(mnist, "FILES", [replace(file, sha256=sums[file.name]) for file in mnist.FILES])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(tiny_mnist).spec.name == "mnist"


def test_other_names_and_places_of_the_files(tiny_mnist, tiny_mnist_arrays, tmp_path, offline):
    """The official archives; the names with dots and the folders of Kaggle; files next to each other."""
    for place, change in (
        ("MNIST/raw", lambda name: f"{name}.gz"),
        ("MNIST/raw", lambda name: name.replace("-idx", ".idx")),
        ("MNIST", lambda name: f"{name.replace('-idx', '.idx')}.gz"),
        ("", lambda name: f"{name}/{name}"),
    ):
        folder = tmp_path / "other"
        for name, array in tiny_mnist_arrays.items():
            path = folder / place / change(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(idx_bytes(array)) if path.suffix == ".gz" else idx_bytes(array))
        before = sorted(folder.rglob("*"))
        assert load(folder).describe() == load(tiny_mnist).describe()
        assert sorted(folder.rglob("*")) == before
        shutil.rmtree(folder)


def test_a_damaged_file_is_named_and_never_replaced(tiny_mnist, offline):
    for name, content, message in [
        ("train-images-idx3-ubyte", b"\0\0\x08", "found 3 bytes, expected 47040016"),
        ("t10k-images-idx3-ubyte", idx_bytes(np.zeros((11, 14, 28))), "got images of 14x28 pixels, expected 28x28"),
        ("t10k-images-idx3-ubyte", idx_bytes(np.zeros((0, 28, 28))), "got 0 images"),
        ("t10k-labels-idx1-ubyte", idx_bytes(np.zeros(12)), "got 11 images in t10k-images-idx3-ubyte and 12 labels"),
        ("t10k-labels-idx1-ubyte", idx_bytes(np.full(11, 10)), "got the label 10, expected 0 to 9"),
    ]:
        path = tiny_mnist / "MNIST/raw" / name
        whole = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(UserError, match=message) as error:
            load(tiny_mnist)
        assert "\n" not in str(error.value)
        assert str(tiny_mnist / "MNIST/raw") in str(error.value)
        assert path.read_bytes() == content
        path.write_bytes(whole)


def test_offline_the_message_says_which_files_to_put_where_and_nothing_is_left(tmp_path, offline):
    with pytest.raises(UserError) as error:
        load(tmp_path / "new" / "data")
    assert str(error.value) == (
        f"mnist: {tmp_path}/new/data/MNIST/raw does not exist, and the download failed (no connection to 127.0.0.1:9); "
        "put train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte there, or set "
        "dataset.data_dir to the folder that has MNIST/raw"
    )
    assert list(tmp_path.iterdir()) == []


def test_only_missing_files_are_downloaded(tiny_mnist, offline):
    (tiny_mnist / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    before = sorted(tiny_mnist.rglob("*"))
    with pytest.raises(UserError, match=r"^mnist: .* has t10k-images.*; put t10k-labels-idx1-ubyte there, or set"):
        load(tiny_mnist)
    assert sorted(tiny_mnist.rglob("*")) == before


def test_files_are_downloaded_once_and_those_of_the_user_are_kept(mirror, tiny_mnist, tiny_mnist_arrays):
    raw = tiny_mnist / "MNIST/raw"
    before = (raw / "train-images-idx3-ubyte").stat().st_mtime_ns
    (raw / "t10k-labels-idx1-ubyte").unlink()
    data = load(tiny_mnist)
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == {
        name: idx_bytes(array) for name, array in tiny_mnist_arrays.items()
    }
    assert (raw / "train-images-idx3-ubyte").stat().st_mtime_ns == before
    for archive in mirror.iterdir():
        archive.unlink()
    assert load(tiny_mnist).describe() == data.describe()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path, offline):
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(
        UserError, match=r"cannot be listed \(Not a directory\), and .*the folder cannot be written: Not a directory"
    ):
        load(tmp_path / "data")


def test_without_torchvision_the_missing_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(UserError, match=r"torchvision, .* cannot be imported: .*; put train-images-idx3-ubyte, "):
        load(tmp_path / "data")


LOAD = """
import os, sys
from seqmem import datasets
import torchvision.datasets
from seqmem.errors import UserError

if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for folder in sys.argv[1:]:
    try:
        print(datasets.load({"name": "mnist", "data_dir": folder}).sizes)
    except UserError as error:
        print(error)
"""


def test_permissions(official, tiny_mnist_arrays, tmp_path):
    """In a process without the rights of root, which permissions do not stop: a folder that cannot be written, a file that
    cannot be read, and a folder of all files that is read-only."""
    with tempfile.TemporaryDirectory() as name:
        empty, unreadable, read_only = folders = [Path(name, folder) for folder in ("empty", "unreadable", "read_only")]
        empty.mkdir()
        for folder in (unreadable, read_only):
            raw = folder / "MNIST" / "raw"
            raw.mkdir(parents=True)
            for file, array in tiny_mnist_arrays.items():
                (raw / file).write_bytes(idx_bytes(array))
                (raw / file).chmod(0o444)
        labels = unreadable / "MNIST/raw/t10k-labels-idx1-ubyte"
        labels.chmod(0)
        made = [Path(name), *(path for path in Path(name).rglob("*") if path.is_dir())]
        for path in made:
            path.chmod(0o555)
        script = tmp_path / "load.py"
        script.write_text(LOAD)
        done = program.run([str(script), *map(str, folders)], tmp_path)
        for path in made:
            path.chmod(0o755)
        assert done.returncode == 0, done.stderr
        first, second, third = done.stdout.splitlines()
        assert "the folder cannot be written: Permission denied); put train-images-idx3-ubyte, " in first
        assert list(empty.iterdir()) == []
        assert second == f"{labels} cannot be read: Permission denied"
        assert third == "{'train': 33, 'validation': 4, 'test': 11}"


def test_real_mnist_is_the_official_one():
    folder = os.environ.get("SEQMEM_DATA", "data")
    if not (Path(folder) / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        pytest.skip("the real MNIST is missing: set SEQMEM_DATA to the folder with MNIST/raw")
    data = load(folder)
    assert data.sizes == {"train": 54_000, "validation": 6_000, "test": 10_000}
    assert data.spec.name == "mnist"
    assert everything(data, "test").targets[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert abs(everything(data, "test").inputs.mean() - 0.1325) < 1e-4
    sums = [everything(data, split).inputs.sum(dtype=torch.float64) for split in ("train", "validation")]
    assert abs(sum(sums) / (60_000 * 784) - 0.1307) < 1e-4
    assert data.describe()["sha256"]["train"].startswith("6406d0d5")
