"""New files without a header have the columns of the training's, or these without labels, groups and splits."""

from dataclasses import replace

import pytest

from seqmem.errors import UserError
from seqmem.io.collection import Reading
from seqmem.io.sources import read_source
from tests.datasets.files.tables import loaded

STEPS = [[f"{k + 0.5 + t / 8}" for t in range(6)] for k in range(20)]
CLASSES = ["12"[k % 2] for k in range(20)]
WORDS = [["walk", "run"][k % 2] for k in range(20)]
WEIGHTS = [f"{1000 + k}" for k in range(20)]
GROUPS = [f"{k // 4}" for k in range(20)]


@pytest.fixture
def read(tmp_path):
    """Reads a table of these columns as a training does, and then further ones as new files."""

    def write(*columns):
        rows = [
            [cell for part in parts for cell in ([part] if isinstance(part, str) else part)]
            for parts in zip(*columns, strict=True)
        ]
        (tmp_path / "own.csv").write_text("\n".join(",".join(row) for row in rows))
        return tmp_path / "own.csv"

    def read(*columns, classes=(), layout=None, **keys):
        reading = Reading(layout=layout, **keys)
        trained = read_source(write(*columns), reading)

        def again(*columns):
            new = replace(reading, new=True, layout=trained.layout, classes=tuple(classes))
            return read_source(write(*columns), new.with_columns_of(trained))

        return again

    return read


def values(found):
    return [[f"{value}" for value in found.read(k)[:, 0]] for k in range(len(found))]


def test_labels_of_a_regression_are_recognised_at_any_place(read):
    for columns, place in (((WEIGHTS, STEPS), "0"), ((STEPS, WEIGHTS), "6")):
        new = read(*columns, target="value", label_columns=(place,))
        assert values(new(*columns)) == STEPS
        assert new(*columns).targets[:, 0].tolist() == [float(weight) for weight in WEIGHTS]
        assert (values(new(STEPS)), new(STEPS).targets) == (STEPS, None)
        shorter, longer = [row[:4] for row in STEPS], [[*row, "7", "8"] for row in STEPS]
        for steps, remedy in ((shorter, "fill up its rows with empty cells"), (longer, "remove columns beyond 7")):
            for part in ((steps,), (WEIGHTS, steps)):
                with pytest.raises(UserError, match=rf"expected 7 .*, or 6 without column {place} \(labels.*; {remedy}$"):
                    new(*part)


def test_two_values_and_a_group_may_be_absent_together(read):
    new = read(GROUPS, STEPS, WEIGHTS, GROUPS, target="value", label_columns=("7", "8"), group_column="0")
    assert new(GROUPS, STEPS, WEIGHTS, WEIGHTS).targets[3].tolist() == [1003, 1003]
    assert values(new(GROUPS, STEPS, WEIGHTS, GROUPS)) == values(new(STEPS)) == STEPS
    with pytest.raises(UserError, match=r"got 8 columns .*, expected 9 as in the training, or 6 without columns 0, 7, 8 \("):
        new(STEPS, WEIGHTS, GROUPS)


def test_no_value_is_lost_without_the_columns_of_labels_and_groups(read):
    new = read(CLASSES, GROUPS, STEPS, classes="12", label_columns=("0",), group_column="1")
    assert values(new(STEPS)) == values(new(CLASSES, GROUPS, STEPS)) == STEPS
    assert new(CLASSES, GROUPS, STEPS).labels == CLASSES


def test_names_of_series_keep_their_column_and_their_zeros(read):
    ids = [f"{k + 3:03}" for k in range(20)]
    new = read(CLASSES, ids, STEPS, classes="12", label_columns=("0",), id_column="1", layout="wide")
    for columns in ((CLASSES, ids, STEPS), (ids, STEPS), (ids, [row[:3] for row in STEPS])):
        assert new(*columns).names == ids
        assert values(new(*columns)) == columns[-1]


def test_an_unknown_class_is_a_label_and_no_value(read):
    new = read(CLASSES, STEPS, classes="12", label_columns=("0",))
    assert values(new(["3", *CLASSES[1:]], STEPS)) == STEPS
    assert new(["3", *CLASSES[1:]], STEPS).labels == ["3", *CLASSES[1:]]
    assert new([""] * 20, STEPS).labels == [None] * 20
    with pytest.raises(
        UserError, match=r"line 1, column 0: got the label '0\.5', expected a class of the training \(1, 2\); a fi"
    ):
        new(["0.5"] * 20, STEPS)


def test_labels_of_shorter_and_longer_series_are_recognised_or_refused(read):
    longer = [[*row, "9.5"] for row in STEPS]
    numbers, words = (read(labels, STEPS, classes=set(labels), label_columns=("0",)) for labels in (CLASSES, WORDS))
    for steps in (longer, [row[:4] for row in STEPS], [row[:5] for row in STEPS]):
        assert values(words(WORDS, steps)) == steps
        assert words(WORDS, steps).labels == WORDS
    for steps in ([row[:4] for row in STEPS], [[*row, "9.5"] for row in longer]):
        assert (values(numbers(steps)), numbers(steps).labels) == (steps, None)
        with pytest.raises(
            UserError, match=r"expected 7 as in the training, or 6 without column 0 \(labels, groups or splits\)"
        ):
            numbers(CLASSES, steps)
    with pytest.raises(
        UserError, match=r"got 6 columns without a header, of which column 0 may have values or labels; expected 7"
    ):
        numbers(CLASSES, [row[:5] for row in STEPS])
    last = read(STEPS, CLASSES, classes="12", label_columns=("6",))
    with pytest.raises(
        UserError, match=r"got 5 columns without a header, expected 7 as in the training, or 6 without column 6"
    ):
        last([row[:4] for row in STEPS], CLASSES)


def test_a_long_table_has_the_same_channels_without_its_labels(read):
    ids, steps = [f"s{k // 4}" for k in range(20)], [f"{k % 4}" for k in range(20)]
    labels = [WORDS[k // 4] for k in range(20)]
    keys = {"id_column": "0", "time_column": "1", "channel_columns": ("3", "4"), "label_columns": ("2",)}
    new = read(ids, steps, labels, STEPS, classes=("walk", "run"), **keys)
    for columns in ((ids, steps, labels, STEPS), (ids, steps, STEPS)):
        assert [f"{value}" for value in new(*columns).values[:, 1]] == [row[1] for row in STEPS]
    for columns in ((ids, steps, labels, [row[:5] for row in STEPS]), (ids, ids, steps, labels, STEPS)):
        with pytest.raises(UserError, match=r"columns without a header, expected 9 as in the training, or 8 without column 2"):
            new(*columns)


def test_a_header_beside_a_training_without_one_is_refused(read):
    new = read(CLASSES, STEPS, classes="12", label_columns=("0",))
    header = [["label"], [*"012345"]]
    with pytest.raises(
        UserError, match=r"own\.csv: got columns with names \(label, 0, 1, 2\), expected a file without a header"
    ):
        new([*header[0], *CLASSES], [header[1], *STEPS])
    new = read(["label", *CLASSES], [[*"012345"], *STEPS], classes="12")
    assert values(new(STEPS)) == STEPS
    with pytest.raises(
        UserError, match=r"got 7 columns of numbers without a header, expected the 6 steps 0 to 5 of the training"
    ):
        new(CLASSES, STEPS)


def test_a_file_of_the_test_has_its_labels_where_the_training_has_them(tmp_path):
    def write(name, steps):
        rows = [",".join([*row[:steps], *["9.5"] * (steps - 6), weight]) for row, weight in zip(STEPS, WEIGHTS, strict=True)]
        (tmp_path / name).write_text("\n".join(rows))
        return str(tmp_path / name)

    keys = {"task": "regression", "label_column": "6"}
    assert loaded(write("own.csv", 6), test_path=write("test.csv", 6), **keys).sizes["test"] == 20
    with pytest.raises(
        UserError, match=r"test\.csv: got 9 columns without a header, expected 7 as .*precede column 6 \(labels"
    ):
        loaded(tmp_path / "own.csv", test_path=write("test.csv", 8), **keys)


def test_a_column_of_labels_that_is_empty_is_not_taken_for_a_first_value(read):
    for labels in (CLASSES, WORDS):
        new = read(labels, STEPS, classes=sorted(set(labels)), label_columns=("0",))
        with pytest.raises(
            UserError, match=r"got 6 columns without a header, of which column 0 is empty; expected 7 as in the"
        ):
            new([""] * 20, [row[:5] for row in STEPS])
        assert values(new([""] * 20, STEPS)) == STEPS
