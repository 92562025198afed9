"""CIFAR-10 as sequences, on a tiny copy in the real layout."""

import hashlib
import io
import os
import pickle
import tarfile
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from seqmem import datasets
from seqmem.arguments import parameters
from seqmem.datasets import scifar
from seqmem.errors import DataWarning, UserError

pytestmark = pytest.mark.filterwarnings("ignore:scifar was not read from its official files:seqmem.errors.DataWarning")


def load(data_dir, **arguments):
    return datasets.load({"name": "scifar", "data_dir": str(data_dir), **arguments})


def everything(data, split):
    return data.batch(split, torch.arange(data.sizes[split]))


def test_training_images_are_split_and_test_images_kept(tiny_scifar, tiny_scifar_batches):
    data = load(tiny_scifar)
    assert data.sizes == {"train": 27, "validation": 3, "test": 6}
    assert (data.spec.input_size, data.spec.max_length, data.spec.output_size) == (3, 1024, 10)
    test = everything(data, "test")
    content = tiny_scifar_batches["test_batch"]
    assert test.targets.tolist() == content["labels"]
    pixels = content["data"].reshape(6, 3, 32, 32) / 255
    mean, deviation = np.array(scifar.MEAN)[:, None, None], np.array(scifar.DEVIATION)[:, None, None]
    expected = ((pixels - mean) / deviation).transpose(0, 2, 3, 1).reshape(6, 1024, 3)
    torch.testing.assert_close(test.inputs, torch.from_numpy(expected).float(), rtol=1e-5, atol=1e-5)
    labels = [label for name, batch in tiny_scifar_batches.items() if name != "test_batch" for label in batch["labels"]]
    found = [everything(data, split).targets.tolist() for split in ("train", "validation")]
    assert sorted(found[0] + found[1]) == sorted(labels)


def test_images_may_be_grey(tiny_scifar, tiny_scifar_batches):
    data = load(tiny_scifar, grayscale=True)
    assert data.spec.input_size == 1
    colours = tiny_scifar_batches["test_batch"]["data"].reshape(6, 3, 32, 32).transpose(0, 2, 3, 1)
    levels = np.stack([np.asarray(Image.fromarray(each).convert("L")) for each in colours.astype(np.uint8)])
    expected = (levels.reshape(6, 1024) / 255 - scifar.GREY_MEAN) / scifar.GREY_DEVIATION
    torch.testing.assert_close(
        everything(data, "test").inputs[..., 0], torch.from_numpy(expected).float(), rtol=1e-5, atol=1e-5
    )


def test_the_archive_is_read_without_unpacking(tiny_scifar, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    with tarfile.open(other / scifar.ARCHIVE, "w:gz") as archive:
        archive.add(tiny_scifar / scifar.FOLDER, scifar.FOLDER)
    assert load(other).describe() == load(tiny_scifar).describe()
    assert os.listdir(other) == [scifar.ARCHIVE]


def test_files_given_by_hand_are_found_where_they_usually_lie(tiny_scifar, tmp_path):
    expected = load(tiny_scifar).describe()
    assert load(tiny_scifar / scifar.FOLDER).describe() == expected
    other = tmp_path / "other" / "cifar10"
    other.mkdir(parents=True)
    with tarfile.open(other / scifar.ARCHIVE, "w:gz") as archive:
        archive.add(tiny_scifar / scifar.FOLDER, scifar.FOLDER)
    assert load(other.parent).describe() == expected


def test_the_official_images_are_split_into_45000_and_5000_by_seed_42():
    defaults = parameters(scifar.SCIFAR)
    train, validation = scifar.split_as_s4(50_000, defaults["validation_fraction"], defaults["split_seed"])
    assert (len(train), len(validation), defaults["split_seed"]) == (45_000, 5_000, 42)
    expected = torch.utils.data.random_split(range(50_000), (45_000, 5_000), torch.Generator().manual_seed(42))
    assert [train.tolist(), validation.tolist()] == [part.indices for part in expected]
    assert scifar.MEAN == (0.4914, 0.4822, 0.4465)
    assert scifar.DEVIATION == (0.2023, 0.1994, 0.2010)


def test_a_pickle_that_runs_a_program_is_refused(tiny_scifar, tmp_path):
    class Program:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    path = tiny_scifar / scifar.FOLDER / "data_batch_3"
    path.write_bytes(pickle.dumps({"data": Program(), "labels": []}))
    with pytest.raises(UserError, match=r"data_batch_3 is not a batch of CIFAR-10: it contains posix\.system"):
        load(tiny_scifar)
    assert not (tmp_path / "ran").exists()


def test_damaged_files_are_named_and_never_replaced(tiny_scifar, tiny_scifar_batches):
    path = tiny_scifar / scifar.FOLDER / "data_batch_2"
    whole, batch = path.read_bytes(), tiny_scifar_batches["data_batch_2"]
    for content, message in (
        (whole[:-9], "is not a batch of CIFAR-10: "),
        (pickle.dumps({"data": batch["data"]}), "is not a batch of CIFAR-10: 'labels'"),
        (pickle.dumps(batch | {"data": batch["data"][:, :7]}), r"got images of shape \(6, 7\) and uint8, expected \(n, 3072\)"),
        (pickle.dumps(batch | {"data": batch["data"] / 2}), "and float64, expected"),
        (pickle.dumps(batch | {"labels": [1, 2]}), r"got labels of shape \(2,\) and int64, expected 6 integers"),
        (pickle.dumps(batch | {"labels": [0, 1, 2, 3, 4, 10]}), "got labels from 0 to 10, expected 0 to 9"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=message) as error:
            load(tiny_scifar)
        assert "\n" not in str(error.value)
        assert path.read_bytes() == content
    path.unlink()
    with pytest.raises(UserError, match="has no file data_batch_2, expected data_batch_1, "):
        load(tiny_scifar)


def test_a_damaged_archive_is_named(tmp_path):
    for content in (b"nothing", b"\x1f\x8b\x08" + bytes(30)):
        (tmp_path / scifar.ARCHIVE).write_bytes(content)
        with pytest.raises(UserError, match=rf"{scifar.ARCHIVE} cannot be read: "):
            load(tmp_path)
    with tarfile.open(tmp_path / scifar.ARCHIVE, "w") as archive:
        large = tarfile.TarInfo(f"{scifar.FOLDER}/data_batch_1")
        large.size = 2**27 + 1
        archive.addfile(large, io.BytesIO(bytes(large.size)))
    with pytest.raises(UserError, match="of 134217729 bytes, expected at most 134217728"):
        load(tmp_path)


def test_other_files_have_another_name_and_a_warning(tiny_scifar, monkeypatch):
    with pytest.warns(DataWarning, match="scifar was not read from its official files"):
        assert load(tiny_scifar).spec.name == "scifar other files"
    found = scifar.read_batches(tiny_scifar / scifar.FOLDER, list(scifar.FILES))
    monkeypatch.setattr(scifar, "FILES", {name: batch.md5 for name, batch in found.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(tiny_scifar).spec.name == "scifar"


def test_missing_files_are_named_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(scifar, "URL", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(
        UserError, match=r"put cifar-10-python\.tar\.gz \(md5 c58f\w+\) or the unpacked folder .* there, or set"
    ):
        load(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_the_archive_is_downloaded_once(tiny_scifar, tmp_path, server, monkeypatch):
    served, url = server
    with tarfile.open(served / scifar.ARCHIVE, "w:gz") as archive:
        archive.add(tiny_scifar / scifar.FOLDER, scifar.FOLDER)
    monkeypatch.setattr(scifar, "URL", f"{url}{scifar.ARCHIVE}")
    new = tmp_path / "new"
    with pytest.raises(UserError, match="the download failed"):  # its md5 is not the official one
        load(new)
    assert not new.exists()
    monkeypatch.setattr(scifar, "MD5", hashlib.md5((served / scifar.ARCHIVE).read_bytes()).hexdigest())
    data = load(new)
    (served / scifar.ARCHIVE).unlink()
    assert load(new).describe() == data.describe()


def test_fewer_training_images_are_the_first_of_all(tiny_scifar):
    assert load(tiny_scifar, train_samples=9).sizes == {"train": 9, "validation": 3, "test": 6}
    with pytest.raises(UserError, match="train_samples: got 28, but scifar's training split has only 27 images"):
        load(tiny_scifar, train_samples=28)


def test_the_official_checksums_are_those_of_torchvision():
    try:
        from torchvision.datasets import CIFAR10
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision cannot be imported: {error}")
    assert dict(map(tuple, CIFAR10.train_list + CIFAR10.test_list)) == scifar.FILES
    assert (CIFAR10.url, CIFAR10.tgz_md5) == (scifar.URL, scifar.MD5)
