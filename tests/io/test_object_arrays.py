"""Files of NumPy that hold Python objects: arrays are read, and nothing is executed."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from seqmem.errors import UserError
from seqmem.io.arrays import read_npy, read_npz
from seqmem.io.collection import Reading
from seqmem.io.object_arrays import read_array


class Hostile:
    """Runs a command when it is unpickled in the ordinary way."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / "executed"),)


def objects(*elements):
    array = np.empty(len(elements), object)
    array[:] = elements
    return array


def test_objects_other_than_arrays_are_refused_and_not_executed(tmp_path):
    for name, element in {
        "command": Hostile(tmp_path),
        "set": {1, 2},
        "text": "a text",
        "mapping": {"a": 1},
        "strings": np.array(["a", "b"]),
        "nothing": None,
        "empty": np.empty((0, 2)),
        "frames": np.zeros((2, 3, 4)),
    }.items():
        path = tmp_path / f"{name}.npy"
        np.save(path, objects(np.zeros((3, 2)), element), allow_pickle=True)
        with pytest.raises(UserError, match=rf"{name}\.npy") as caught:
            read_npy(path, Reading())
        assert "\n" not in str(caught.value)
        np.savez(tmp_path / "own.npz", values=objects(np.zeros((3, 2)), element))
        with pytest.raises(UserError, match=r"own\.npz, array values"):
            read_npz(tmp_path / "own.npz", Reading())
    assert not (tmp_path / "executed").exists()
    np.load(tmp_path / "command.npy", allow_pickle=True)
    assert (tmp_path / "executed").exists()  # the file would have run it


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol(tmp_path, protocol):
    array = objects(np.arange(6.0).reshape(3, 2), np.ones((1, 2), np.float32), np.array([[1, 2]], np.int16))
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
    stream.write(pickle.dumps(array, protocol=protocol))
    found = read_array("it", io.BytesIO(stream.getvalue()))
    assert [each.tolist() for each in found] == [each.tolist() for each in array]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_numpy_would_trust_is_refused(protocol):
    """States that arrays are not pickled with: numpy.ndarray and numpy.dtype would take pointers or sizes from some of them."""
    for state in (
        (1, (1000,), np.dtype("f8"), False, b"\0" * 80),
        (1, (10,), np.dtype("O"), False, b"\0" * 80),
        (1, (10,), np.dtype([("a", "O")]), False, b"\0" * 80),
        (1, (-1,), np.dtype("f8"), False, b""),
        (1, "shape", np.dtype("f8"), False, b""),
        (1, (2,), None, False, b""),
        (1, (2,)),
    ):
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": (10,)})
        stream.write(pickle.dumps(Stated(state), protocol=protocol))
        with pytest.raises(UserError, match="it cannot be read"):
            read_array("it", io.BytesIO(stream.getvalue()))


class Stated:
    """Pickled as an array with a state of its own."""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        return np.zeros(0).__reduce__()[0], (np.ndarray, (0,), b"b"), self.state


def test_objects_of_fortran_order_and_of_other_byte_orders(tmp_path):
    array = objects(np.asfortranarray(np.arange(6.0).reshape(3, 2)), np.arange(6, dtype=">i4").reshape(3, 2))
    np.save(tmp_path / "own.npy", array, allow_pickle=True)
    found = read_npy(tmp_path / "own.npy", Reading())
    assert found.read(0).tolist() == found.read(1).tolist() == [[0, 1], [2, 3], [4, 5]]


def test_lists_of_numbers_are_series(tmp_path):
    np.save(tmp_path / "own.npy", objects([1.0, 2.0], [3, 4, 5]), allow_pickle=True)
    found = read_npy(tmp_path / "own.npy", Reading())
    assert [found.read(k)[:, 0].tolist() for k in range(2)] == [[1, 2], [3, 4, 5]]


def test_damaged_files_are_refused(tmp_path):
    np.save(tmp_path / "own.npy", np.zeros((4, 5, 2)))
    whole = (tmp_path / "own.npy").read_bytes()
    for content in (b"", b"no array", whole[:60], whole[:-10], whole.replace(b"(4, 5, 2)", b"(4, 500, 2)")):
        (tmp_path / "own.npy").write_bytes(content)
        for in_memory in (True, False):
            with pytest.raises(UserError, match=r"own\.npy"):
                read_npy(tmp_path / "own.npy", Reading(in_memory=in_memory))
    np.savez(tmp_path / "own.npz", values=np.zeros((4, 5, 2)))
    whole = (tmp_path / "own.npz").read_bytes()
    for content in (b"", whole[:-50], whole[:100]):
        (tmp_path / "own.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"own\.npz"):
            read_npz(tmp_path / "own.npz", Reading())
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("readme.txt", "no arrays")
    with pytest.raises(UserError, match="has no arrays"):
        read_npz(tmp_path / "own.npz", Reading())


def test_arrays_that_do_not_fit_are_refused_by_name(tmp_path):
    values = np.zeros((4, 5, 2))
    for arrays, message in {
        "labels": ({"values": values, "labels": np.zeros(3)}, r"array labels: got shape \(3,\), expected \(4,\)"),
        "lengths": (
            {"values": values, "lengths": [1, 2, 3, 9]},
            r"array values: got a length of 9, expected at most the 5 steps",
        ),
        "sum": ({"values": values.reshape(20, 2), "lengths": [1, 2]}, r"array values: got shape \(20, 2\).*|got 20 steps"),
        "no lengths": (
            {"values": values, "lengths": 5},
            r"array values: got lengths of shape \(\) and type int64, expected \(4,\) whole numbers from 1",
        ),
        "zero": ({"values": values, "lengths": [1, 2, 3, 0]}, r"expected \(4,\) whole numbers from 1"),
        "times": ({"values": values, "times": np.zeros((4, 5))}, r"array times, series 0: got times that"),
        "four": ({"values": values[None]}, r"array values: got shape \(1, 4, 5, 2\)"),
        "texts": ({"values": np.array([["a"]])}, r"array values: got values of type <U1"),
        "split": ({"values": values, "split": ["train", "test", "x", ""]}, r"array split\[2\]: got 'x', expected train"),
        "names": ({"labels": np.zeros(4), "other": values}, r"got an array labels, but none of the names values"),
    }.values():
        np.savez(tmp_path / "own.npz", **arrays)
        with pytest.raises(UserError, match=message):
            read_npz(tmp_path / "own.npz", Reading())
    objects_ = objects(np.zeros((2, 2)), np.zeros((2, 3)))
    np.savez(tmp_path / "own.npz", values=objects_)
    with pytest.raises(UserError, match="series 1: got 3 channels, expected 2"):
        read_npz(tmp_path / "own.npz", Reading())
