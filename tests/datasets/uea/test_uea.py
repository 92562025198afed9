"""Problems of the UEA and UCR archives: those in sktime, artificial ones with every difficulty, and downloads."""

import warnings
import zipfile
from math import nan
from pathlib import Path

import numpy as np
import pytest
import sktime
import torch
from sktime.datasets import load_basic_motions, load_japanese_vowels

from seqmem import datasets, models, tasks
from seqmem.data import valid_steps
from seqmem.errors import DataWarning, UserError
from seqmem.io.ts_files import filled
from tests.datasets.uea.cases import CASES, everything
from tests.tiny_files import write_ts

BUNDLED = Path(sktime.__file__).parent / "datasets" / "data"


def test_japanese_vowels_are_those_of_the_archive(load):
    data = load("JapaneseVowels", standardize=False)
    assert data.sizes == {"train": 230, "validation": 40, "test": 370}
    assert (data.spec.input_size, data.spec.output_size, data.spec.max_length) == (12, 9, 29)
    batch = everything(data, "test")
    frame, labels = load_japanese_vowels(split="test", return_X_y=True)
    assert batch.targets.tolist() == [int(label) - 1 for label in labels]
    for row, length in enumerate(batch.lengths):
        series = np.stack([cell.to_numpy() for cell in frame.iloc[row]], 1)
        np.testing.assert_allclose(batch.inputs[row, :length].numpy(), series, rtol=1e-6)
        assert (batch.inputs[row, length:] == 0).all()
    shares = everything(data, "train").targets.bincount() / 30
    assert ((shares - 230 / 270).abs() < 1 / 30).all()


def test_basic_motions_have_words_as_labels_and_no_lengths(load):
    data = load("BasicMotions", standardize=False)
    assert data.sizes == {"train": 34, "validation": 6, "test": 40}
    assert (data.spec.input_size, data.spec.output_size, data.spec.max_length) == (6, 4, 100)
    batch = everything(data, "test")
    assert batch.lengths is None
    frame, labels = load_basic_motions(split="test", return_X_y=True)
    assert batch.targets.tolist() == [sorted(set(labels)).index(label) for label in labels]
    values = np.stack([np.stack([cell.to_numpy() for cell in case], 1) for case in frame.to_numpy()])
    np.testing.assert_allclose(batch.inputs.numpy(), values, rtol=1e-6)


def test_univariate_problems_in_sktime(load):
    for problem in ["GunPoint", "PLAID"]:
        data = load(problem)
        assert data.spec.input_size == 1
        assert set(data.describe()["files"]) == {
            f"sktime {sktime.__version__} {problem}/{problem}_{part}.ts" for part in ("TRAIN", "TEST")
        }
        batch = everything(data, "train")
        steps = batch.inputs.shape[1]
        valid = valid_steps(torch.full((len(batch),), steps) if batch.lengths is None else batch.lengths, steps)
        assert batch.inputs[valid].mean().abs() < 1e-4
        assert (batch.inputs[valid].std(correction=0) - 1).abs() < 1e-4


def test_own_files_come_before_those_of_sktime(tmp_path, load):
    folder = tmp_path / "BasicMotions"
    folder.mkdir()
    for part in ("TRAIN", "TEST"):
        lines = (BUNDLED / "BasicMotions" / f"BasicMotions_{part}.ts").read_text().splitlines()
        (folder / f"BasicMotions_{part}.ts").write_text("\n".join(lines[:-7]))
    data = load("BasicMotions")
    assert data.sizes["test"] == 33
    assert set(data.describe()["files"]) == {"BasicMotions/BasicMotions_TRAIN.ts", "BasicMotions/BasicMotions_TEST.ts"}


# Missing inside, at both ends, throughout a channel; a shorter channel; an infinite value; a constant channel; unequal lengths.
DIFFICULT = [
    ([[1.0, nan, 3.0, nan], [nan, 5.0, 6.0, 7.0], [2.0] * 4], "b"),
    ([[nan, nan], [nan, 8.0], [2.0] * 2], "a"),
    ([[4.0, 1.0, 0.0], [9.0, 7.0], [2.0] * 3], "b"),
    ([[2.0, 2.5, 1.0, 1.0, 3.0], [nan] * 5, [2.0] * 5], "a"),
    ([[float("inf")], [3.0], [2.0]], "a"),
    ([[0.5, 1.5], [4.0, -2.0], [2.0] * 2], "b"),
]


def test_missing_values_are_filled_forward_then_backward_then_with_zero(make):
    batch = everything(make(DIFFICULT, DIFFICULT, standardize=False), "test")
    assert batch.lengths.tolist() == [4, 2, 3, 5, 1, 2]
    assert batch.inputs[0, :4].T.tolist() == [[1, 1, 3, 3], [5, 5, 6, 7], [2] * 4]
    assert batch.inputs[1, :2].T.tolist() == [[0, 0], [8, 8], [2, 2]]
    assert batch.inputs[2, :3].T.tolist() == [[4, 1, 0], [9, 7, 7], [2] * 3]
    assert batch.inputs[3, :5].T.tolist() == [[2, 2.5, 1, 1, 3], [0] * 5, [2] * 5]
    assert batch.inputs[4, :1].tolist() == [[0, 3, 2]]


def test_a_mask_of_missing_values_can_be_appended(make):
    data = make(DIFFICULT, DIFFICULT, missing_mask=True)
    assert data.spec.input_size == 6
    batch = everything(data, "test")
    assert torch.equal(batch.inputs[..., :3], everything(make(DIFFICULT, DIFFICULT), "test").inputs)
    assert batch.inputs[0, :4, 3:].T.tolist() == [[1, 0, 1, 0], [0, 1, 1, 1], [1] * 4]
    assert batch.inputs[2, :3, 3:].T.tolist() == [[1, 1, 1], [1, 1, 0], [1] * 3]
    assert batch.inputs[4, :1, 3:].tolist() == [[0, 1, 1]]
    assert (batch.inputs[4, 1:] == 0).all()


def test_missing_values_and_their_mask_are_no_targets(make):
    for mask in (False, True):
        data = make(DIFFICULT, DIFFICULT, reconstruction=True, missing_mask=mask)
        assert (data.spec.input_size, data.spec.output_size) == (3 + 3 * mask, 3)
        batch = everything(data, "test")
        assert torch.equal(batch.targets, batch.inputs[..., :3])
        assert batch.known[0, :4].T.tolist() == [[True, False, True, False], [False, True, True, True], [True] * 4]
        assert tasks.get("reconstruction")(data.spec).weight(batch) == pytest.approx(17 - 13 / 3)
    assert everything(make(CASES, CASES, reconstruction=True), "test").known is None


def test_channels_are_standardised_by_the_values_of_the_training_split(make):
    plain, data = make(DIFFICULT, DIFFICULT, standardize=False, missing_mask=True), make(DIFFICULT, DIFFICULT)
    train, mean, deviation = everything(plain, "train").inputs, [], []
    for channel in range(3):
        seen = train[..., channel][train[..., 3 + channel] == 1]
        mean.append(seen.mean())
        deviation.append(seen.std(correction=0) or torch.tensor(1.0))
    raw, found = everything(plain, "test").inputs, everything(data, "test").inputs
    there = raw[..., 3:] == 1
    torch.testing.assert_close(found[there], ((raw[..., :3] - torch.stack(mean)) / torch.stack(deviation))[there])
    assert (found[3, :, 1] == 0).all()
    assert (found[..., 2] == 0).all()


def test_filled_series_without_missing_values_and_without_values():
    whole = np.arange(6.0).reshape(3, 2)
    assert filled(whole) is whole
    assert (filled(np.full((3, 2), nan)) == 0).all()


def test_a_series_without_values_is_one_step_of_zeros(make):
    cases = [([[1.0, 2.0]], "x"), ([[3.0]], "y"), ([[]], "x"), ([[0.0, 1.0]], "y")]
    batch = everything(make(cases, cases, standardize=False), "test")
    assert batch.lengths.tolist() == [2, 1, 1, 2]
    assert batch.inputs[..., 0].tolist() == [[1, 2], [3, 0], [0, 0], [0, 1]]


def test_series_of_one_step(make):
    cases = [([[float(value)]], "1" if value < 4 else "2") for value in range(8)]
    data = make(cases, cases)
    assert data.spec.max_length == 1
    assert everything(data, "test").inputs.shape == (8, 1, 1)
    assert everything(data, "test").lengths is None


def test_labels_are_numbered(make):
    def cases(labels):
        return [([[1.0, float(index)]], label) for index, label in enumerate(labels)]

    for train, test, numbers in (
        (["10", "9", "-1"], ["9", "10", "-1"], [1, 2, 0]),  # in the order of numbers
        (["10.0", "9.0"], ["9", "10"], [0, 1]),
        (["1E+01", "9"], ["9", "10"], [0, 1]),
        (["1_0", "10"], ["10", "1_0"], [0, 1]),  # not a number
        (["a", "b"], ["c", "b"], [2, 1]),  # a class of the test part alone
        (["A", "a", "B"], ["a", "B", "A"], [2, 1, 0]),  # labels keep their case
        (["1", "x"], ["x", "1"], [1, 0]),
        (["2", "1"], ["7", "2"], [2, 1]),
    ):
        lost = (
            warnings.catch_warnings()
            if max(numbers) < len(set(train))
            else pytest.warns(DataWarning, match="no series of 1 of 3 classes")
        )
        with lost:
            data = make(cases(train * 2), cases(test))
        assert everything(data, "test").targets.tolist() == numbers
        assert data.spec.output_size == len(data.spec.class_names) == max(numbers) + 1


def test_classes_have_the_names_of_their_labels(make):
    cases = [([[1.0, float(index)]], label) for index, label in enumerate(["10", "9.0", "left", "10"] * 2)]
    for given, names in ((cases, ("10", "9.0", "left")), ([case for case in cases if case[1] != "left"], ("9.0", "10"))):
        for reconstruction in (False, True):
            assert make(given, given, reconstruction=reconstruction).spec.class_names == names


def test_the_one_member_of_a_class_stays_in_training(make):
    cases = [([[1.0, float(index)]], "rare" if index == 5 else "abcd"[index % 4]) for index in range(40)]
    for seed in range(5):
        data = make(cases, cases, split_seed=seed)
        assert everything(data, "train").targets.bincount(minlength=5)[4] == 1
        assert data.sizes == {"train": 34, "validation": 6, "test": 40}


def test_unusual_encodings_and_comments_are_read(tmp_path, make):
    cases = [([[1.0, 2.0]], "a"), ([[3.0, 4.0]], "b"), ([[5.0, 4.0]], "b")]
    make(cases, cases)
    path = tmp_path / "Made/Made_TRAIN.ts"
    text = path.read_text()
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    (tmp_path / "Made/Made_TEST.ts").write_bytes(b"# Sch\xe4fer\n% 5 ?\n\n" + text.encode())
    data = datasets.load({"name": "uea", "problem": "Made", "data_dir": str(tmp_path), "standardize": False})
    assert everything(data, "test").inputs[..., 0].tolist() == [[1, 2], [3, 4], [5, 4]]


def test_other_problems_are_refused_in_a_line(make):
    for train, test, tags, message in [
        (CASES, CASES, {"targetLabel": "true"}, r"Made_TRAIN\.ts is a regression problem \(@targetLabel\), expected a class"),
        (CASES, CASES, {"classLabel": "false"}, r"Made_TRAIN\.ts has no class labels \(@classLabel false\)"),
        (CASES, CASES, {"timeStamps": "true"}, r"Made_TRAIN\.ts, line 6: got 1\.0,2\.0, expected pairs \(time,value\)"),
        (CASES, [([[1.0], [2.0]], "a")], {}, r"got 1 channels in Made_TRAIN\.ts and 2 in Made_TEST\.ts, expected equal"),
        (CASES, [], {}, r"Made_TEST\.ts: got no line after @data, expected at least one series"),
        (CASES[1:], CASES[1:], {}, r"dataset\.problem: got Made, which has a single class, expected at least 2"),
        (CASES[:1], CASES, {}, "1 sample cannot be split"),
        (
            CASES,
            CASES,
            {"univariate": "maybe"},
            r"Made_TRAIN\.ts, line 3: got '@univariate maybe', expected @univariate true or @univariate false",
        ),
        (
            [*CASES, ([[1.0], [2.0]], "a")],
            CASES,
            {},
            r"Made_TRAIN\.ts, line 9: got 2 channels, expected 1 as in the first case",
        ),
    ]:
        with pytest.raises(UserError, match=message) as error:
            make(train, test, tags)
        assert "\n" not in str(error.value)


DAMAGED = [
    ("4.0", "4.o", "line 7: got '4.o', expected a number, or \\? for a missing value"),
    ("3.0,4.0:b", "3.0,4.0", "line 7: got 3.0,4.0, expected the channels and a label, separated by colons"),
    ("3.0,4.0:b", "3.0,4.0:", "line 7: got 3.0,4.0:, expected the channels and a label"),
    ("4.0:b", "1e300:b", r"line 7: got a value of size 1e\+300, expected at most 3\.4e38"),
    ("@data", "data", "Made_TRAIN.ts: got no line @data, expected a .ts file"),
    ("5.0", "\0", "Made_TRAIN.ts: got a zero byte at character \\d+, expected a plain text in UTF-8"),
]


def test_damaged_files_are_refused_with_the_line(tmp_path, make, load):
    make(CASES, CASES)
    path = tmp_path / "Made/Made_TRAIN.ts"
    whole = path.read_text()
    for old, new, message in DAMAGED:
        path.write_text(whole.replace(old, new))
        with pytest.raises(UserError, match=message):
            load("Made")


def test_comments_and_blank_lines_among_the_data_and_utf_16_are_read(tmp_path, make, load):
    expected = make(CASES, CASES).describe()["sha256"], everything(load("Made"), "test").inputs
    path = tmp_path / "Made/Made_TRAIN.ts"
    head, data = path.read_text().split("@data\n")
    for content in (
        f"{head}@data\n# first\n\n{data}  % the end\n".encode(),
        path.read_text().replace("\n", "\r\n").encode("utf-16"),
    ):
        path.write_bytes(content)
        assert load("Made").describe()["sha256"] == expected[0]
        assert torch.equal(everything(load("Made"), "test").inputs, expected[1])


def stamped(tmp_path, train, test=None):
    """Write a problem with timestamps from the lines of its cases."""
    for part, lines in (("TRAIN", train), ("TEST", test or train)):
        write_ts(tmp_path, "Made", part, [], timeStamps="true", classLabel="true a b")
        with open(tmp_path / f"Made/Made_{part}.ts", "a") as file:
            file.write("\n".join(lines) + "\n")


STAMPED = ["(0,1),(2.5,2):(0,3),(1,?),(2.5,4):a", "(1, 5) , (4,6):(4,7):b", "(0,1):(0,2):b", ":(3,1):a"]


def test_time_stamps_are_the_times_of_the_steps(tmp_path, load):
    stamped(tmp_path, STAMPED)
    data = load("Made", standardize=False, missing_mask=True)
    assert data.spec.times
    batch = everything(data, "test")
    assert batch.lengths.tolist() == [3, 2, 1, 1]
    assert [times[:length].tolist() for times, length in zip(batch.times, batch.lengths, strict=True)] == [
        [0, 1, 2.5],
        [1, 4],
        [0],
        [3],
    ]
    assert batch.inputs[0].tolist() == [[1, 3, 1, 1], [1, 3, 0, 0], [2, 4, 1, 1]]
    assert batch.inputs[1, :2].tolist() == [[5, 7, 1, 0], [6, 7, 1, 1]]
    assert batch.inputs[3, :1].tolist() == [[0, 1, 0, 1]]
    assert batch.targets.tolist() == [0, 1, 1, 0]
    model = models.build({"network": "recurrent", "cell": "tlsi", "cell_args": {"hidden_size": 3}}, data.spec)
    assert model(batch).isfinite().all()
    ignored = load("Made", standardize=False, timestamp=False)
    assert not ignored.spec.times
    assert everything(ignored, "test").times is None


def test_time_stamps_that_cannot_be_used_are_refused_with_the_line(tmp_path, load):
    for line, message in (
        (
            "(2011-11-14 10:00:00,1):(0,2):a",
            "line 6: got the timestamp '2011-11-14 10:00:00', expected a number, such as seconds",
        ),
        ("(0,1),(0,2):(0,2):a", "line 6: got the timestamp '0' at step 1, expected finite and increasing times"),
        ("(0,1),(nan,2):(0,2):a", "line 6: got the timestamp 'nan' at step 1"),
        ("(0,1,2):(0,2):a", r"line 6: got \(0,1,2\), expected pairs \(time,value\)"),
        ("(0,x):(0,2):a", "line 6: got 'x', expected a number"),
        ("(0,1):a", "line 7: got 2 channels, expected 1 as in the first case"),
        ("(1600000000,1),(1600000001,2):(1600000000,2):a", r"are equal in float32; subtract the first time of each series"),
    ):
        stamped(tmp_path, [line, *STAMPED])
        with pytest.raises(UserError, match=message):
            load("Made")
    stamped(tmp_path, STAMPED)
    write_ts(tmp_path, "Made", "TEST", CASES)
    with pytest.raises(UserError, match=r"got 2 channels in Made_TRAIN\.ts and 1 in"):
        load("Made")
    write_ts(tmp_path, "Made", "TEST", [([[1.0, 2.0]] * 2, "a")])
    with pytest.raises(UserError, match=r"got timestamps in Made_TRAIN\.ts alone, expected @timeStamps true in both files"):
        load("Made")


def test_classes_that_training_loses_are_named(make):
    """Of one series for each of five classes, validation takes one."""
    cases = [([[1.0, float(index)]], label) for index, label in enumerate("abcde")]
    with pytest.warns(DataWarning) as caught:
        data = make(cases, [*cases, ([[1.0]], "f")])
    [label] = everything(data, "validation").targets.tolist()
    assert str(caught[0].message).startswith(
        f"uea Made: the training split has no series of 2 of 6 classes ({'abcde'[label]}, f); those of 1 are in the validation "
        "split (dataset.validation_fraction=0.15, at least one series), those of 1 in the test part alone"
    )


def test_an_archive_that_is_not_unpacked_is_read(tmp_path, make, load):
    expected = make(CASES, CASES).describe()
    files = sorted((tmp_path / "Made").iterdir())
    for archive in (tmp_path / "Made/Made.zip", tmp_path / "Made.zip"):
        with zipfile.ZipFile(archive, "w") as packed:
            for path in files:
                packed.write(path, path.name)
    for path in files:
        path.rename(tmp_path / path.name)
    assert load("Made").describe() == expected  # the files next to the folder
    for path in files:
        (tmp_path / path.name).unlink()
    assert load("Made").describe() == expected
    (tmp_path / "Made/Made.zip").unlink()
    assert load("Made").describe() == expected
    (tmp_path / "Made.zip").write_bytes(b"no zip")
    with pytest.raises(
        UserError, match=r"cannot read Made_TRAIN\.ts in .*Made\.zip \(File is not a zip file\); remove the archive"
    ):
        load("Made")


def test_an_unknown_problem_is_refused_with_the_nearest(make, load):
    make(CASES, CASES)
    for problem, end in (
        ("BasicMotion", "did you mean 'BasicMotions'?"),
        ("japanesevowels", "did you mean 'JapaneseVowels'?"),
        ("Mode", "did you mean 'Made'?"),
        ("zzz", "sktime includes JapaneseVowels, for example"),
    ):
        with pytest.raises(UserError, match=rf"^dataset\.problem: there is no '{problem}' in the UEA and UCR") as error:
            load(problem)
        assert str(error.value).endswith(end)


def test_a_value_that_is_not_a_name_is_refused():
    for problem in ("../Made", "", "a b", 3, None):
        with pytest.raises(UserError, match=r"^dataset\.problem: got "):
            datasets.check({"name": "uea", "problem": problem})


@pytest.fixture
def mirror(server, monkeypatch):
    """A server in place of the official ones; yields its folder."""
    served, url = server
    monkeypatch.setattr("seqmem.io.ts_files.MIRRORS", [f"{url}first/", url])
    return served


def test_a_problem_is_downloaded_once_from_the_mirror_that_has_it(mirror, tmp_path, load, capfd):
    with zipfile.ZipFile(mirror / "Beef.zip", "w") as archive:
        for part in ("TRAIN", "TEST"):
            archive.write(write_ts(tmp_path / "made", "Beef", part, CASES), f"Beef_{part}.ts")
    assert load("Beef").sizes == {"train": 2, "validation": 1, "test": 3}
    assert sorted(path.name for path in (tmp_path / "Beef").iterdir()) == ["Beef_TEST.ts", "Beef_TRAIN.ts"]
    assert capfd.readouterr() == ("", "")
    (mirror / "Beef.zip").unlink()
    assert set(load("Beef").describe()["files"]) == {"Beef/Beef_TRAIN.ts", "Beef/Beef_TEST.ts"}


def test_a_failed_download_says_which_files_to_put_where_and_leaves_nothing(mirror, tmp_path, load):
    (mirror / "Beef.zip").write_bytes(b"<html>not here</html>")
    with pytest.raises(UserError) as error:
        load("Beef")
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"uea: {tmp_path}/Beef does not exist, and the download failed (http://")
    assert message.endswith("; put Beef_TRAIN.ts, Beef_TEST.ts there, or set dataset.data_dir to the folder that has Beef/")
    assert not (tmp_path / "Beef").exists()


def test_an_archive_without_the_files_is_refused(mirror, load):
    with zipfile.ZipFile(mirror / "Beef.zip", "w") as archive:
        archive.writestr("Beef.txt", "about beef")
    with pytest.raises(
        UserError,
        match=r"^uea: .*/Beef has Beef.txt, and the downloaded Beef\.zip has .*; put Beef_TRAIN\.ts, Beef_TEST\.ts there",
    ):
        load("Beef")
