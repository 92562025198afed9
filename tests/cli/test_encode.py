"""Files of series are encoded by one command and decoded by a second one."""

import csv

import numpy as np
import pytest
import torch

from seqmem.cli import decode, encode
from seqmem.errors import UserError
from seqmem.io import archive
from seqmem.io.series_files import read_encodings, read_series, write_series
from seqmem.models import autoencoder_file

SMALL = ("--epochs", "1", "--encoding-size", "3", "--hidden-sizes", "4")


def waves(shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


FILES = {
    "x.npy": ([waves((5, 7, 2))], (7, 2)),
    "one.npy": ([waves((5, 7))], (7, 1)),
    "video.npy": ([waves((5, 4, 6, 5))], (4, 6, 5)),
    "ragged.npz": ([waves((length, 2)) for length in (4, 9, 1)], (4, 2)),
}


@pytest.mark.parametrize("name", FILES)
def test_there_and_back_by_two_commands(name, tmp_path, capsys):
    arrays, shape = FILES[name]
    if name.endswith(".npz"):
        np.savez(tmp_path / name, **{f"series {k}": each for k, each in enumerate(arrays)})
    else:
        np.save(tmp_path / name, arrays[0])
    encode.main([str(tmp_path / name), "--output", str(tmp_path / "out"), *SMALL])
    assert "numbers each by " + ("CONV_LSTM_AE" if name == "video.npy" else "LSTM_AE") in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"encodings.csv", "autoencoder.zip"}
    names, lengths, encodings = read_encodings(tmp_path / "out" / "encodings.csv")
    series = read_series(tmp_path / name)
    assert names == series[0]
    assert lengths == [len(each) for each in series[1]]
    assert encodings.shape == (len(names), 3)
    back = tmp_path / ("series.npz" if name == "video.npy" else "series.csv")
    decode.main([str(tmp_path / "out" / "encodings.csv"), "--output", str(back)])
    again = read_series(back)
    assert again[0] == names
    assert [each.shape for each in again[1]] == [each.shape for each in series[1]]
    assert again[1][0].shape == shape
    # What was decoded is what the errors in the table say.
    errors = [float(line.split(",")[2]) for line in (tmp_path / "out" / "encodings.csv").read_text().splitlines()[1:]]
    differences = [made - given for made, given in zip(again[1], series[1], strict=True)]
    assert [np.square(each).mean() for each in differences] == pytest.approx(errors, rel=1e-4)


def test_a_model_encodes_other_files_and_decodes_changed_encodings(tmp_path):
    np.save(tmp_path / "x.npy", waves((6, 5, 2)))
    np.save(tmp_path / "y.npy", waves((6, 5, 2))[:2])
    encode.main([str(tmp_path / "x.npy"), "--output", str(tmp_path / "a"), *SMALL])
    model = tmp_path / "a" / "autoencoder.zip"
    encode.main([str(tmp_path / "y.npy"), "--output", str(tmp_path / "b"), "--model", str(model)])
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["encodings.csv"]
    first, second = ((tmp_path / folder / "encodings.csv").read_text().splitlines() for folder in "ab")
    assert second == first[:3]
    (tmp_path / "mine.csv").write_text("z2,z1,z0,length,series,note\n0,0.5,-0.25,3,mine,x\n")
    decode.main([str(tmp_path / "mine.csv"), "--model", str(model), "--length", "4"])
    names, series = read_series(tmp_path / "series.csv")
    assert (names, series[0].shape) == (["mine"], (4, 2))


def test_numbers_of_one_length_by_a_linear_model(tmp_path):
    np.savetxt(tmp_path / "x.csv", waves((12, 6)), delimiter=",")
    encode.main([str(tmp_path / "x.csv"), "--output", str(tmp_path), "--linear", *SMALL])
    decode.main([str(tmp_path / "encodings.csv")])
    with pytest.raises(UserError, match="--length: got 3, but a LINEAR_AE makes series of one length"):
        decode.run(decode._parser().parse_args([str(tmp_path / "encodings.csv"), "--length", "3", "--output", "y.csv"]))
    assert np.stack(read_series(tmp_path / "series.csv")[1]).shape == (12, 6, 1)


def test_channels_are_found_by_name_in_any_order(tmp_path):
    values = waves((4, 9, 2))
    for name, order in (("ab.csv", [0, 1]), ("ba.csv", [1, 0])):
        rows = [f"{k},{','.join(repr(float(values[k, t, c])) for c in order)}" for k in range(4) for t in range(9)]
        header = ",".join(["series", *("pq"[c] for c in order)])
        (tmp_path / name).write_text("\n".join([header, *rows]))
    (tmp_path / "other.csv").write_text((tmp_path / "ab.csv").read_text().replace("p,q", "p,r"))
    encode.main([str(tmp_path / "ab.csv"), "--output", str(tmp_path / "ab"), *SMALL])
    model = ["--model", str(tmp_path / "ab" / "autoencoder.zip")]
    encode.main([str(tmp_path / "ba.csv"), "--output", str(tmp_path / "ba"), *model])
    first, second = ((tmp_path / folder / "encodings.csv").read_text() for folder in ("ab", "ba"))
    assert first == second
    with pytest.raises(UserError, match=r"other\.csv: got the channels p, r, expected p, q as those of .*, in any order"):
        encode.run(encode._parser().parse_args([str(tmp_path / "other.csv"), "--output", str(tmp_path / "c"), *model]))


def test_the_error_that_is_printed_is_that_of_all_values_as_the_variance(tmp_path, capsys):
    lines = [f"{name},{t},{np.sin(t) + (name < 'c')}" for name in "abcdefgh" for t in range(60 if name < "c" else 4)]
    (tmp_path / "x.csv").write_text("\n".join(["series,time,x", *lines]))
    encode.main([str(tmp_path / "x.csv"), "--output", str(tmp_path / "out"), *SMALL])
    rows = list(csv.DictReader((tmp_path / "out" / "encodings.csv").read_text().splitlines()))
    pooled = np.average([float(row["error"]) for row in rows], weights=[int(row["length"]) for row in rows])
    printed = float(capsys.readouterr().out.partition("mean squared error ")[2].partition(";")[0])
    assert printed == pytest.approx(pooled, rel=1e-3)


def test_large_values_have_a_finite_variance_and_error(tmp_path, capsys):
    series = 1e30 * waves((5, 7, 2)).astype(np.float64)
    np.save(tmp_path / "x.npy", series)
    encode.main([str(tmp_path / "x.npy"), "--output", str(tmp_path / "out"), *SMALL])
    printed = capsys.readouterr().out
    variance, error = (
        float(printed.partition(f"{name} ")[2].partition(",")[0].partition(";")[0]) for name in ("variance", "squared error")
    )
    assert variance == pytest.approx(series.var(), rel=1e-3)
    assert error == pytest.approx(series.var(), rel=0.5)
    # Beyond float32 in standard deviations of the model's own data.
    np.save(tmp_path / "small.npy", 0.1 * waves((5, 7, 2)))
    np.save(tmp_path / "y.npy", np.full((4, 3, 2), 3.4e38))
    encode.main([str(tmp_path / "small.npy"), "--output", str(tmp_path / "small"), *SMALL])
    command = [str(tmp_path / "y.npy"), "--output", str(tmp_path / "y"), "--model", str(tmp_path / "small" / "autoencoder.zip")]
    with pytest.raises(
        UserError, match=r"y\.npy, series 0: got a reconstruction that is not finite, since values of size 3\.4e\+38"
    ):
        encode.run(encode._parser().parse_args(command))


def test_kinds_of_csv(tmp_path):
    (tmp_path / "long.csv").write_text("time,series,x\n0,a,1.5\n1,a,2\n0,b,-3\n")
    names, series = read_series(tmp_path / "long.csv")
    assert names == ["a", "b"]
    assert [each.tolist() for each in series] == [[[0, 1.5], [1, 2]], [[0, -3]]]
    (tmp_path / "wide.csv").write_text("1,2,3\n4,5,\n6,,\n")
    assert [each[:, 0].tolist() for each in read_series(tmp_path / "wide.csv")[1]] == [[1, 2, 3], [4, 5], [6]]
    (tmp_path / "long.csv").write_text("series,x\na,1\n", encoding="utf-8-sig")  # as spreadsheets write it
    assert read_series(tmp_path / "long.csv")[0] == ["a"]
    (tmp_path / "wide.csv").write_text("1,2\r\n3,4\r\n", encoding="utf-16")
    assert [each[:, 0].tolist() for each in read_series(tmp_path / "wide.csv")[1]] == [[1, 2], [3, 4]]
    (tmp_path / "wide.csv").write_text("7\n")
    assert [each.tolist() for each in read_series(tmp_path / "wide.csv")[1]] == [[[7]]]
    write_series(tmp_path / "again.csv", names, series)
    assert [each.tolist() for each in read_series(tmp_path / "again.csv")[1]] == [each.tolist() for each in series]


UNREADABLE = {
    "a.csv": ("1,2\n3,x\n", r"a\.csv, line 2: got 'x', expected a number"),
    "b.csv": ("series,x\na,1\nb\n", r"b\.csv, line 3: got 1 cells, expected 2"),
    "blank.csv": ("1,2\n\n3,x\n", r"blank\.csv, line 3: got 'x', expected a number"),
    "nan.csv": ("1,2\n3,NaN\n", r"nan\.csv, line 2: got 'NaN', expected a finite number"),
    "large.csv": ("series,x\na,1\na,1e60\n", r"large\.csv, line 3: got '1e60', expected a finite number"),
    "time.csv": (
        "time,x,y,z,v\n0,1,2,3,4\n",
        r"line 1: got names without 'series' \(time, x, y, z, \.\.\.\), expected a column",
    ),
    "semicolons.csv": (
        "0,5;0,7\n0,1;0,2\n",
        r"semicolons\.csv, line 1: got '0,5;0,7', expected numbers separated by commas, with",
    ),
    "more.csv": ("0.5,1\n0.1;2\n", r"more\.csv, line 2: got '0\.1;2', expected numbers separated by commas"),
    "names.csv": (
        "series;x\na;1,5\n",
        r"names\.csv, line 1: got names without 'series' \(series;x\), .*, with commas between the columns",
    ),
    "tabs.csv": ("1\t2\n3\t4\n", r"tabs\.csv, line 1: got '1\\t2', expected numbers separated by commas"),
    "column.csv": ("1\n2\n3\n", r"column\.csv: got one number on each of 3 lines, expected a series on each line; write one"),
    "blanks.csv": ("1,2\n  \n , ,\n", r"blanks\.csv, line 3: got a row of blanks, expected the numbers of a series"),
    "first.csv": (",,\n1,2\n", r"first\.csv, line 1: got a row of blanks"),
    "zero.csv": ("1,2\0\n", r"zero\.csv: got a zero byte at character 3, expected a plain text in UTF-8"),
    "c.csv": ("", r"c\.csv has no series"),
    "d.txt": ("1", r"got a file '\.txt', expected \.csv, \.npy or \.npz"),
    "e.npy": ("no array", r"cannot read .*e\.npy"),
    "f.npz": ("no archive", r"cannot read .*f\.npz"),
}


def test_a_file_that_cannot_be_read_is_named_in_one_line(tmp_path):
    for name, (content, message) in UNREADABLE.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match=message):
            read_series(tmp_path / name)


def test_a_value_that_is_not_finite_is_found_in_arrays(tmp_path):
    values = waves((3, 4, 2)).astype(np.float64)
    values[1, 2, 0] = np.nan
    np.save(tmp_path / "x.npy", values)
    np.savez(tmp_path / "x.npz", first=values[0], second=np.full((2, 1), 1e60))
    for name, message in (
        ("x.npy", r"x\.npy, series 1: got a value at step 2"),
        ("x.npz", r"x\.npz, series second: got .* step 0"),
    ):
        with pytest.raises(UserError, match=message):
            read_series(tmp_path / name)


def test_nothing_is_written_over(tmp_path, capsys):
    np.save(tmp_path / "x.npy", waves((3, 4, 2)))
    command = [str(tmp_path / "x.npy"), "--output", str(tmp_path / "out"), *SMALL]
    encode.main(command)
    assert "3 series of 4 steps of shape (2,) into 3 numbers each" in capsys.readouterr().out
    decode.main([str(tmp_path / "out" / "encodings.csv")])
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for call, arguments, name in (
        (encode.main, command, "encodings.csv"),
        (encode.main, [*command[:3], "--model", str(tmp_path / "out" / "autoencoder.zip")], "encodings.csv"),
        (decode.main, [str(tmp_path / "out" / "encodings.csv")], "series.csv"),
    ):
        with pytest.raises(SystemExit):
            call(arguments)
        assert f"out/{name} exists and would be overwritten; give a different --output" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_failure_leaves_no_file(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", waves((3, 4, 2)))
    command = [str(tmp_path / "x.npy"), "--output", str(tmp_path / "out"), *SMALL]

    def full(path, table):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(encode, "write_rows", full)
        with pytest.raises(SystemExit):
            encode.main(command)
    assert not list((tmp_path / "out").iterdir())
    encode.main(command)


def test_damaged_files_of_arrays_are_refused(tmp_path):
    random = np.random.default_rng(0)
    np.savez_compressed(tmp_path / "x.npz", a=waves((5, 2)), b=waves((3, 2)))
    np.save(tmp_path / "x.npy", waves((5, 2)))
    for name in ("x.npz", "x.npy"):
        content, refused = (tmp_path / name).read_bytes(), 0
        for _ in range(60):
            damaged = bytearray(content)
            # A header or a directory, not the numbers of the array, which nothing protects.
            damaged[random.integers(100) if name == "x.npy" else -1 - random.integers(100)] ^= random.integers(1, 256)
            (tmp_path / name).write_bytes(damaged)
            try:
                read_series(tmp_path / name)
            except UserError:
                refused += 1
        assert refused > 20
    (tmp_path / "zip.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*zip\.npz"):
        read_series(tmp_path / "zip.npz")


def test_a_hostile_model_is_refused_in_one_line(tmp_path):
    np.save(tmp_path / "x.npy", waves((6, 5, 2)))
    encode.main([str(tmp_path / "x.npy"), "--output", str(tmp_path), *SMALL])
    path = tmp_path / "autoencoder.zip"
    meta, arrays = archive.read(path)
    autoencoder_file.load(path)
    arguments = meta["arguments"]
    for changed, others, message in (
        ({"architecture": ["LSTM_AE"]}, {}, "is not an autoencoder"),
        ({"arguments": None}, {}, "is not an autoencoder"),
        ({"arguments": {"input_dim": 2}}, {}, "its arguments do not fit a LSTM_AE"),
        ({"arguments": {**arguments, "h_dims": [10**12]}}, {}, "its arguments do not fit a LSTM_AE"),
        ({"arguments": {**arguments, "encoding_dim": 10**6}}, {}, "does not match its settings"),
        ({}, {"mean": torch.zeros(3)}, r"got mean \(3,\), expected \(2,\)"),
    ):
        archive.write(path, {**meta, **changed}, {**arrays, **others})
        with pytest.raises(UserError, match=message):
            autoencoder_file.load(path)


def test_a_model_refuses_series_of_other_channels(tmp_path):
    np.save(tmp_path / "two.npy", waves((6, 5, 2)))
    np.save(tmp_path / "one.npy", waves((6, 5, 1)))
    for name, kind, message in (("two", [], r"expected \(T, 2\)"), ("one", ["--linear"], "expected a single channel")):
        encode.main([str(tmp_path / f"{name}.npy"), "--output", str(tmp_path / name), *kind, *SMALL])
        other = tmp_path / ("one.npy" if name == "two" else "two.npy")
        parser = ["--output", str(tmp_path / "out"), "--model", str(tmp_path / name / "autoencoder.zip")]
        with pytest.raises(UserError, match=message):
            encode.run(encode._parser().parse_args([str(other), *parser]))


def test_names_that_numpy_keeps_for_itself_and_names_given_twice(tmp_path):
    series = [np.ones((2, 1), np.float32), np.zeros((3, 1), np.float32)]
    write_series(tmp_path / "x.npz", ["file", "allow_pickle"], series)
    assert read_series(tmp_path / "x.npz")[0] == ["file", "allow_pickle"]
    (tmp_path / "z.csv").write_text("series,length,z0\na,2,1\na,3,1\n")
    with pytest.raises(UserError, match=r"z\.csv, line 3: got series 'a' a second time"):
        read_encodings(tmp_path / "z.csv")


def test_encodings_are_in_the_order_of_their_numbers(tmp_path):
    names = sorted(f"z{k}" for k in range(12))
    (tmp_path / "z.csv").write_text(",".join(["series", *names, "length"]) + f"\na,{','.join(name[1:] for name in names)},3\n")
    assert read_encodings(tmp_path / "z.csv")[2].tolist() == [list(range(12))]
    for header, expected in (
        ("z0,z2,z3", "got the column 'z2' and no 'z1', expected z0 to z3, each once"),
        ("z1,z2,z3", "got the column 'z1' and no 'z0', expected z0 to z3, each once"),
        ("z0,z1,z01", "got the column 'z01' twice, expected each number once"),
    ):
        (tmp_path / "z.csv").write_text(f"series,length,{header}\na,2,1,2,3\n")
        with pytest.raises(UserError, match=rf"z\.csv: {expected}"):
            read_encodings(tmp_path / "z.csv")


def test_pickled_arrays_are_not_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"cannot read .*a\.npy"):
        read_series(tmp_path / "a.npy")


MISTAKES = {
    "encode nowhere.csv": "cannot read nowhere.csv (No such file or directory)",
    "encode x.npy --epoch 0": "got '0', expected a whole number of at least 1",
    "encode x.npy --lr 0": "quick_train.lr: got 0.0",
    "encode x.npy --linear": "--linear: got series with steps of shape (2,), expected a single channel",
    "encode x.npy --model x.npy --lr 0.1": "--lr: got it with --model x.npy, which is trained already; leave it out",
    "encode x.npy --model x.npy": "x.npy is not a file of a model, or damaged",
    "decode x.csv": "cannot read x.csv (No such file or directory)",
    "decode table.csv": "table.csv has no encodings",
}


def test_a_wrong_command_ends_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", waves((3, 4, 2)))
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    for command, message in MISTAKES.items():
        module, *arguments = command.split()
        with pytest.raises(SystemExit) as ended:
            {"encode": encode, "decode": decode}[module].main(arguments)
        shown = capsys.readouterr().err
        assert ended.value.code == 2
        assert message in shown, command
        assert shown.count("\n") == 1
        assert shown.startswith("error: ")
