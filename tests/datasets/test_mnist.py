"""MNIST on a tiny copy in the real layout, and on the real files where SEQMEM_DATA has them."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from seqmem import datasets
from seqmem.data.permutation import permutation
from seqmem.errors import UserError

from .conftest import idx_bytes

ROOT = Path(__file__).parents[2]


def everything(data, split):
    return data.batch(split, torch.arange(data.sizes[split]))


def as_rows(images, labels) -> list[list[int]]:
    return np.column_stack([images.reshape(len(images), -1), labels]).astype(int).tolist()


def found_rows(batch) -> list[list[int]]:
    return as_rows(np.rint(255 * batch.inputs.numpy()), batch.targets.numpy())


@pytest.fixture
def offline(monkeypatch):
    """The address of no mirror is ever answered."""
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])


def test_training_images_are_split_and_test_images_kept(tiny_mnist, tiny_mnist_arrays):
    data = datasets.load({"name": "mnist", "data_dir": str(tiny_mnist)})
    train, test = (as_rows(*pair) for pair in np.split(np.array(list(tiny_mnist_arrays.values()), dtype=object), 2))
    assert data.sizes == {"train": 33, "validation": 4, "test": 11}
    assert sorted(found_rows(everything(data, "train")) + found_rows(everything(data, "validation"))) == sorted(train)
    assert found_rows(everything(data, "test")) == test


def test_values_are_grey_values_over_255(tiny_mnist, tiny_mnist_arrays):
    inputs = everything(datasets.load({"name": "mnist", "data_dir": str(tiny_mnist)}), "test").inputs
    expected = torch.from_numpy(tiny_mnist_arrays["t10k-images-idx3-ubyte"]).reshape(11, 784, 1).to(torch.float64) / 255
    torch.testing.assert_close(inputs.to(torch.float64), expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("name", ["bitreversal", "nru", 5])
def test_permuted_images_come_in_the_recorded_order(name, tiny_mnist):
    plain = datasets.load({"name": "mnist", "data_dir": str(tiny_mnist)})
    permuted = datasets.load({"name": "mnist", "data_dir": str(tiny_mnist), "permute": True, "permutation": name})
    record = permuted.describe()["permutation"]
    assert record == {"name": name, "indices": permutation(name, 784).indices}
    for split in datasets.SPLITS:
        assert torch.equal(everything(permuted, split).inputs, everything(plain, split).inputs[:, record["indices"]])
        assert torch.equal(everything(permuted, split).targets, everything(plain, split).targets)


def test_fewer_training_images_are_the_first_of_all_and_leave_the_rest_alone(tiny_mnist):
    whole = datasets.load({"name": "mnist", "data_dir": str(tiny_mnist)})
    part = datasets.load({"name": "mnist", "data_dir": str(tiny_mnist), "train_samples": 9})
    assert part.sizes == {"train": 9, "validation": 4, "test": 11}
    assert found_rows(everything(part, "train")) == found_rows(everything(whole, "train"))[:9]
    assert found_rows(everything(part, "validation")) == found_rows(everything(whole, "validation"))
    assert part.describe()["sha256"]["train"] != whole.describe()["sha256"]["train"]


def test_more_training_images_than_there_are_is_refused(tiny_mnist):
    with pytest.raises(UserError, match="train_samples: got 34, but mnist's training split has only 33 images"):
        datasets.load({"name": "mnist", "data_dir": str(tiny_mnist), "train_samples": 34})


def test_the_record_tells_other_files_apart(tiny_mnist, tiny_mnist_arrays):
    before = datasets.load({"name": "mnist", "data_dir": str(tiny_mnist)}).describe()
    assert set(before["files"]) == {f"MNIST/raw/{name}" for name in tiny_mnist_arrays}
    (tiny_mnist / "MNIST/raw/t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(11)))
    after = datasets.load({"name": "mnist", "data_dir": str(tiny_mnist)}).describe()
    assert {name for name, _ in before["files"].items() ^ after["files"].items()} == {"MNIST/raw/t10k-labels-idx1-ubyte"}


def test_a_home_folder_is_understood(tiny_mnist, monkeypatch):
    monkeypatch.setenv("HOME", str(tiny_mnist.parent))
    assert datasets.load({"name": "mnist", "data_dir": "~/data"}).sizes["test"] == 11


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", b"\0\0\x08", "found 3 bytes, expected 47040016"),
        ("train-images-idx3-ubyte", idx_bytes(np.zeros((37, 28, 28)))[:5000], "found 5000 bytes, expected 29024"),
        ("t10k-images-idx3-ubyte", idx_bytes(np.zeros((11, 14, 28))), "holds images of 14x28 pixels, expected 28x28"),
        ("t10k-images-idx3-ubyte", idx_bytes(np.zeros((0, 28, 28))), "holds 0 images"),
        ("t10k-labels-idx1-ubyte", idx_bytes(np.zeros(12)), "holds 11 images in t10k-images-idx3-ubyte and 12 labels"),
        ("t10k-labels-idx1-ubyte", idx_bytes(np.full(11, 10)), "holds the label 10, expected 0 to 9"),
        ("t10k-labels-idx1-ubyte", idx_bytes(np.zeros((1, 1, 1))), "found magic number 2051, expected 2049"),
    ],
    ids=["no header", "truncated", "wrong size", "no images", "count of labels", "label", "magic"],
)
def test_a_damaged_file_is_named_and_never_replaced(name, content, message, tiny_mnist, offline):
    (tiny_mnist / "MNIST/raw" / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        datasets.load({"name": "mnist", "data_dir": str(tiny_mnist)})
    assert "\n" not in str(error.value)
    assert str(tiny_mnist / "MNIST/raw") in str(error.value)
    assert (tiny_mnist / "MNIST/raw" / name).read_bytes() == content


def test_offline_and_absent_says_what_to_put_where_and_leaves_nothing(tmp_path, offline):
    with pytest.raises(UserError) as error:
        datasets.load({"name": "mnist", "data_dir": str(tmp_path / "new" / "data")})
    message = str(error.value)
    assert "\n" not in message
    assert str(tmp_path / "new/data/MNIST/raw") in message
    for wanted in (
        "train-images-idx3-ubyte (47040016 bytes, md5 6bbc9ace898e44ae57da46a324031adb)",
        "train-labels-idx1-ubyte (60008 bytes, md5 a25bea736e30d166cdddb491f175f624)",
        "t10k-images-idx3-ubyte (7840016 bytes, md5 2646ac647ad5339dbf082846283269ea)",
        "t10k-labels-idx1-ubyte (10008 bytes, md5 27ae3e4e09519cfbb04c329615203637)",
    ):
        assert wanted in message
    assert list(tmp_path.iterdir()) == []


def test_only_what_is_missing_is_asked_for(tiny_mnist, offline):
    (tiny_mnist / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    before = sorted(tiny_mnist.rglob("*"))
    with pytest.raises(UserError, match=r"lacks t10k-labels-idx1-ubyte \(10008 bytes, md5 27ae\w+\); the download failed"):
        datasets.load({"name": "mnist", "data_dir": str(tiny_mnist)})
    assert sorted(tiny_mnist.rglob("*")) == before


def test_a_file_in_place_of_the_folder_is_refused(tmp_path, offline):
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(UserError, match="the folder cannot be written: Not a directory"):
        datasets.load({"name": "mnist", "data_dir": str(tmp_path / "data")})


LOAD = """
import os, sys
from seqmem import datasets
import torchvision.datasets
from seqmem.errors import UserError

if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    print(datasets.load({"name": "mnist", "data_dir": sys.argv[1]}).sizes)
except UserError as error:
    print(error)
"""


def load_as_nobody(folder: Path) -> subprocess.CompletedProcess:
    """Load in a process of a user whom permissions stop (root passes them all); it drops its rights after its imports."""
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    return subprocess.run(
        [sys.executable, "-c", LOAD, str(folder)], env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def public_folder():
    """An empty folder that other users may read: those of pytest are its user's own."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_an_unwritable_folder_is_refused_in_one_line(public_folder):
    os.chmod(public_folder, 0o555)
    done = load_as_nobody(public_folder)
    assert done.returncode == 0, done.stderr
    assert f"mnist: {public_folder / 'MNIST/raw'} lacks train-images-idx3-ubyte (47040016 bytes" in done.stdout
    assert "the folder cannot be written: Permission denied" in done.stdout
    assert done.stdout.count("\n") == 1
    assert list(public_folder.iterdir()) == []


def test_an_unreadable_file_is_refused_in_one_line(public_folder, tiny_mnist_arrays):
    raw = public_folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, array in tiny_mnist_arrays.items():
        (raw / name).write_bytes(idx_bytes(array))
    raw.parent.chmod(0o755)
    raw.chmod(0o755)
    (raw / "t10k-labels-idx1-ubyte").chmod(0)
    done = load_as_nobody(public_folder)
    assert done.stdout == f"{raw / 't10k-labels-idx1-ubyte'} cannot be read: Permission denied\n", done.stderr


def test_a_read_only_folder_with_all_files_is_fine(public_folder, tiny_mnist_arrays):
    raw = public_folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, array in tiny_mnist_arrays.items():
        (raw / name).write_bytes(idx_bytes(array))
        (raw / name).chmod(0o444)
    for folder in (raw, raw.parent, public_folder):
        folder.chmod(0o555)
    done = load_as_nobody(public_folder)
    assert done.stdout == "{'train': 33, 'validation': 4, 'test': 11}\n", done.stderr
    for folder in (public_folder, raw.parent, raw):
        folder.chmod(0o755)


@pytest.fixture
def real_mnist() -> datasets.DataSet:
    folder = os.environ.get("SEQMEM_DATA", "data")
    if not (Path(folder) / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        pytest.skip("the real MNIST is not here: set SEQMEM_DATA to the folder that holds MNIST/raw")
    return datasets.load({"name": "mnist", "data_dir": folder})


def test_real_mnist_is_the_official_one(real_mnist):
    assert real_mnist.sizes == {"train": 54_000, "validation": 6_000, "test": 10_000}
    assert everything(real_mnist, "test").targets[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert abs(everything(real_mnist, "test").inputs.mean() - 0.1325) < 1e-4
    training = everything(real_mnist, "train").inputs.sum(dtype=torch.float64)
    validation = everything(real_mnist, "validation").inputs.sum(dtype=torch.float64)
    assert abs((training + validation) / (60_000 * 784) - 0.1307) < 1e-4
    assert real_mnist.describe()["sha256"]["train"].startswith("6406d0d5")
