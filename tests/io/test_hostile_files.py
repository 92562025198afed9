"""Files from untrusted sources: arrays and zips execute nothing, fill no memory, and are refused in one line."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from seqmem.errors import UserError
from seqmem.io import archive
from seqmem.io.series_files import read_series, write_series
from tests.hostile import HOSTILE, MakesFile, write_hostile_zip


def test_arrays_of_objects_are_not_unpickled(tmp_path):
    marker = tmp_path / "marker"
    objects = np.array([MakesFile(marker)], dtype=object)
    np.save(tmp_path / "x.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "x.npz", a=np.ones((3, 2)), b=objects)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file, zipfile.ZipFile(tmp_path / "x.npz") as arrays:
        file.writestr("meta.json", "{}")
        file.writestr("b.npy", arrays.read("b.npy"))
    for name in ("x.npy", "x.npz"):
        with pytest.raises(UserError, match=rf"cannot read .*{name} \(Object arrays cannot be loaded"):
            read_series(tmp_path / name)
    with pytest.raises(UserError, match=r"x\.zip is not a file of a model, or damaged \(Object arrays"):
        archive.read(tmp_path / "x.zip")
    assert not marker.exists()


def test_zips_that_would_fill_memory_are_not_read(tmp_path):
    content = io.BytesIO()
    np.save(content, np.ones((3, 2)))
    message = write_hostile_zip(tmp_path / "x.npz", "bomb", content.getvalue(), "a.npy")
    with pytest.raises(UserError, match=rf"cannot read .*x\.npz \({message}"):
        read_series(tmp_path / "x.npz")
    write_hostile_zip(tmp_path / "x.zip", "bomb", b"{}", "meta.json")
    with pytest.raises(UserError, match=rf"x\.zip is not a file of a model, or damaged \({message}"):
        archive.read(tmp_path / "x.zip")


def test_zips_are_read_without_being_unpacked(tmp_path):
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    for kind in {*HOSTILE} - {"bomb"}:
        write_hostile_zip(folder / "x.zip", kind, b"{}", "meta.json")
        assert archive.read(folder / "x.zip") == ({}, {}), kind
        assert [path.name for path in tmp_path.rglob("*")] == ["a", "b", "x.zip"], kind
    assert not Path("/seqmem_hostile").exists()


def test_series_may_have_names_that_would_be_hostile_paths(tmp_path):
    names = ["../x", "/y", "C:1", "a:b"]
    write_series(tmp_path / "x.npz", names, [np.full((2, 1), k, np.float32) for k in range(4)])
    found, series = read_series(tmp_path / "x.npz")
    assert found == names
    assert [each[0, 0] for each in series] == [0, 1, 2, 3]


def test_headers_that_declare_more_than_the_file_has_are_refused(tmp_path):
    for shape in ("(2, 100000000000)", "(99999999999999999999, 3)", "(-1, 3)", "(" * 90 + ")" * 90):
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
        with pytest.raises(UserError, match=r"cannot read .*x\.npy|x\.npy has no series"):  # depends on numpy's version
            read_series(tmp_path / "x.npy")
