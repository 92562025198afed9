"""CharacterTrajectories against its protocol, on tiny pen strokes and on the real files in SEQMEM_DATA."""

import os
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.model_selection import train_test_split

from seqmem import datasets
from seqmem.cli.commandline import compose
from seqmem.data import valid_steps
from seqmem.datasets import ct
from seqmem.datasets.ct import kept_steps
from seqmem.errors import DataWarning, UserError
from tests.tiny_files import write_ts


@pytest.fixture
def load(tiny_ct):
    def load(**arguments):
        return datasets.load({"name": "ct", "data_dir": str(tiny_ct), **arguments})

    return load


@pytest.fixture(scope="session")
def real_ct():
    """The real data set with its default flags."""
    folder = Path(os.environ.get("SEQMEM_DATA", "data"))
    if not (folder / "CharacterTrajectories" / "CharacterTrajectories_TEST.ts").exists():
        pytest.skip("CharacterTrajectories is not where SEQMEM_DATA points")
    return datasets.load({"name": "ct", "data_dir": str(folder)})


def everything(data, split):
    return data.batch(split, torch.arange(data.sizes[split]))


def by_hand(strokes) -> dict:
    """The protocol, written out: for each split the padded, standardised series (n, 11, 3) and their classes."""
    padded = np.stack([np.concatenate([values, np.repeat(values[-1:], 11 - len(values), axis=0)]) for values, _ in strokes])
    order = list(dict.fromkeys(letter for _, letter in strokes))
    classes = np.array([order.index(letter) for _, letter in strokes])
    x, rest_x, y, rest_y = train_test_split(padded, classes, train_size=0.7, random_state=0, stratify=classes)
    val_x, test_x, val_y, test_y = train_test_split(rest_x, rest_y, train_size=0.5, random_state=1, stratify=rest_y)
    mean, std = x.reshape(-1, 3).mean(0), x.reshape(-1, 3).std(0, ddof=1)
    parts = {"train": (x, y), "validation": (val_x, val_y), "test": (test_x, test_y)}
    return {split: ((values - mean) / (std + 1e-5), classes) for split, (values, classes) in parts.items()}


def test_the_protocol(load, tiny_strokes):
    data, expected = load(), by_hand(tiny_strokes)
    assert data.sizes == {"train": 46, "validation": 10, "test": 11}
    assert (data.spec.input_size, data.spec.output_size, data.spec.max_length, data.spec.times) == (3, 3, 11, False)
    for split, (values, classes) in expected.items():
        batch = everything(data, split)
        assert batch.lengths is None
        assert batch.times is None
        np.testing.assert_allclose(batch.inputs.numpy(), values, rtol=1e-6, atol=1e-6)
        assert batch.targets.tolist() == classes.tolist()


def test_classes_are_numbered_by_order_of_appearance(load, tiny_strokes):
    letters = list(dict.fromkeys(letter for _, letter in tiny_strokes))
    assert letters not in (sorted(letters), sorted(letters, key=int))
    counts = sum(everything(load(), split).targets.bincount() for split in datasets.SPLITS).tolist()
    assert counts == [[letter for _, letter in tiny_strokes].count(letter) for letter in letters]
    assert load().spec.class_names == tuple(letters)


def test_uniform_steps_are_evenly_spaced():
    for hz in [1, 0.99, 0.5, 1 / 3, 0.1]:
        for length in (10, 11, 60, 182):
            (steps,) = kept_steps([length], hz, uniform=True)
            assert len(steps) == int(length * hz)
            assert steps.dtype == np.int64
            assert steps[0] == 0
            assert steps[-1] < length
            assert all(later - earlier in (int(1 / hz), int(1 / hz) + 1) for earlier, later in pairwise(steps))
            if hz == 0.5:
                assert steps.tolist() == list(range(0, 2 * (length // 2), 2))


def test_random_steps_are_the_first_of_a_permutation_in_order():
    generator = torch.Generator().manual_seed(56789)
    expected = [torch.randperm(182, generator=generator)[:127].sort().values.tolist() for _ in range(5)]
    found = kept_steps([182] * 5, 0.7, uniform=False)
    assert [steps.tolist() for steps in found] == expected
    assert len({tuple(steps) for steps in expected}) == 5
    assert all(later - earlier > 0 for steps in expected for earlier, later in pairwise(steps))


def test_all_steps_at_random_are_all_steps(load):
    plain, shuffled = load(timestamp=True), load(timestamp=True, train_uniform=False, eval_uniform=False)
    for split in datasets.SPLITS:
        assert torch.equal(everything(plain, split).inputs, everything(shuffled, split).inputs)
        assert torch.equal(everything(plain, split).times, everything(shuffled, split).times)


@pytest.mark.parametrize(
    ("train_hz", "eval_hz", "train_uniform", "eval_uniform"),
    [(0.5, 1, True, True), (1, 0.5, True, False), (0.3, 0.7, False, True)],
)
def test_rates_keep_the_values_of_the_full_rate(train_hz, eval_hz, train_uniform, eval_uniform, load):
    flags = {"train_hz": train_hz, "eval_hz": eval_hz, "train_uniform": train_uniform, "eval_uniform": eval_uniform}
    full, data = load(), load(timestamp=True, **flags)
    assert data.spec.max_length == max(int(11 * train_hz), int(11 * eval_hz))
    for split in datasets.SPLITS:
        hz, uniform = (train_hz, train_uniform) if split == "train" else (eval_hz, eval_uniform)
        whole, batch = everything(full, split), everything(data, split)
        steps = torch.from_numpy(np.stack(kept_steps([11] * data.sizes[split], hz, uniform)))
        assert torch.equal(batch.times, steps.to(torch.float32))
        assert torch.equal(batch.inputs, whole.inputs.gather(1, steps[..., None].expand(-1, -1, 3)))
        assert torch.equal(batch.targets, whole.targets)


@pytest.mark.parametrize(("uniform", "rate"), [((True, True), 0.5), ((True, False), 1.0), ((False, True), 1.0)])
def test_evenly_spaced_steps_have_a_rate(uniform, rate, load):
    """At twice the sampling rate of training, two steps are half as far apart; random steps have no distance in common."""
    data = load(train_hz=0.5, train_uniform=uniform[0], eval_uniform=uniform[1])
    assert [everything(data, split).rate for split in ("train", "validation", "test")] == [1.0, rate, rate]
    assert everything(load(eval_hz=0.5), "test").rate == 2
    same = load(train_hz=0.5, eval_hz=0.5, train_uniform=uniform[0], eval_uniform=uniform[1])
    assert everything(same, "test").rate == 1


def test_times_are_indices_times_the_factor_of_the_split(load):
    data = load(timestamp=True, train_ts=0.5, eval_ts=3, train_uniform=False)
    assert data.spec.times
    assert data.spec.input_size == 3
    for split, factor in {"train": 0.5, "validation": 3, "test": 3}.items():
        assert torch.equal(everything(data, split).times, (factor * torch.arange(11.0)).expand(data.sizes[split], -1))
        assert torch.equal(everything(data, split).inputs, everything(load(), split).inputs)


def test_masked_lengths_are_the_true_ones_with_their_own_statistics(load, tiny_strokes):
    padded, masked = load(), load(padding="mask")
    assert masked.describe()["sha256"] == padded.describe()["sha256"]
    lengths = []
    for split in datasets.SPLITS:
        batch = everything(masked, split)
        assert all((inputs[length:] == 0).all() for inputs, length in zip(batch.inputs, batch.lengths, strict=True))
        lengths += batch.lengths.tolist()
    assert sorted(lengths) == sorted(len(stroke) for stroke, _ in tiny_strokes)
    batch, with_padding = everything(masked, "train"), everything(padded, "train")
    valid = valid_steps(batch.lengths, 11)
    torch.testing.assert_close(batch.inputs[valid].mean(0), torch.zeros(3), rtol=0, atol=1e-6)
    torch.testing.assert_close(batch.inputs[valid].std(0), torch.ones(3), rtol=0, atol=1e-3)
    for channel in range(3):
        # The two differ by a shift and a factor.
        values = [part.inputs[valid][:, channel] for part in (batch, with_padding)]
        assert np.corrcoef(*values)[0, 1] == pytest.approx(1, abs=1e-6)
        assert not torch.allclose(*values, rtol=1e-3)


def test_rates_act_on_true_lengths_and_times_stay_in_order(load):
    for uniform in [True, False]:
        full = load(padding="mask")
        data = load(padding="mask", timestamp=True, train_hz=0.5, train_uniform=uniform)
        whole, batch = everything(full, "train"), everything(data, "train")
        assert batch.lengths.tolist() == [int(length * 0.5) for length in whole.lengths.tolist()]
        assert (batch.times.diff(dim=1) >= 0).all()
        for row, length in enumerate(batch.lengths):
            steps = batch.times[row, :length].to(torch.int64)
            assert steps.max() < whole.lengths[row]
            assert torch.equal(batch.inputs[row, :length], whole.inputs[row, steps])


def test_missing_values_are_filled(tiny_ct, tiny_strokes):
    path = tiny_ct / "CharacterTrajectories/CharacterTrajectories_TRAIN.ts"
    head, data = path.read_text().split("@data\n")
    values = data.split(",")
    path.write_text(head + "@data\n" + ",".join([values[0], "?", *values[2:]]))
    filled = [(values.copy(), letter) for values, letter in tiny_strokes]
    filled[0][0][1, 0] = filled[0][0][0, 0]
    found = everything(datasets.load({"name": "ct", "data_dir": str(tiny_ct)}), "train").inputs
    np.testing.assert_allclose(found.numpy(), by_hand(filled)["train"][0], rtol=1e-5, atol=1e-5)


def test_the_record_holds_the_checksums_of_the_files(load, tiny_ct):
    names = {f"CharacterTrajectories/CharacterTrajectories_{part}.ts" for part in ("TRAIN", "TEST")}
    before = load().describe()["files"]
    assert set(before) == names
    path = tiny_ct / "CharacterTrajectories/CharacterTrajectories_TEST.ts"
    path.write_text("#another one\n" + path.read_text())
    after = load().describe()["files"]
    assert {name for name, _ in before.items() ^ after.items()} == {f"CharacterTrajectories/{path.name}"}


def test_other_series_have_another_name_and_a_warning(tiny_ct, load):
    with pytest.warns(
        DataWarning, match=r"^ct was not read from its official files, .* \(series: got 67, expected 2858; classes: got 3"
    ):
        assert load().spec.name == "ct other files"


def test_other_versions_with_the_official_counts_are_a_warning(load, monkeypatch):
    monkeypatch.setattr(ct, "OFFICIAL", {"series": "67", "classes": "3", "channels": "3"})
    with pytest.warns(
        DataWarning, match=r"^ct was read from other files than .* \(CharacterTrajectories_TRAIN\.ts: got sha256"
    ):
        data = load()
    assert data.spec.name == "ct"
    monkeypatch.setattr(ct, "KNOWN", {Path(name).name: f"sha256 {sum}" for name, sum in data.describe()["files"].items()})
    warnings.simplefilter("error")
    assert load().spec.name == "ct"


def test_a_wrong_flag_is_refused_before_any_file_is_read():
    wrong = {
        "train_hz": 0,
        "eval_hz": 1.01,
        "train_ts": 0,
        "eval_ts": -1,
        "train_uniform": 1,
        "timestamp": "yes",
        "padding": "x",
    }
    for flag in ("train_ts", "eval_ts"):
        with pytest.raises(
            UserError, match=rf"^dataset\.{flag}: got 0\.5 without times, expected 1 or dataset\.timestamp=true"
        ):
            datasets.load({"name": "ct", "data_dir": "nowhere", flag: 0.5})
    for flag, value in wrong.items():
        with pytest.raises(UserError, match=rf"^dataset\.{flag}: got {value!r}, expected "):
            datasets.load({"name": "ct", "data_dir": "nowhere", flag: value})


def test_a_rate_that_keeps_nothing_is_refused(load):
    for flag, padding, shortest in [("train_hz", "last", 11), ("eval_hz", "mask", 4)]:
        with pytest.raises(
            UserError, match=rf"^dataset\.{flag}: got 0\.05, which keeps no step of a series of {shortest}, expected"
        ):
            load(padding=padding, **{flag: 0.05})


def test_too_few_series_to_split_are_refused(tmp_path, tiny_strokes):
    for part in ("TRAIN", "TEST"):
        write_ts(tmp_path, "CharacterTrajectories", part, [(values.T, letter) for values, letter in tiny_strokes[:3]])
    with pytest.raises(UserError, match="ct: 6 series cannot be split by class into 70, 15 and 15 %"):
        datasets.load({"name": "ct", "data_dir": str(tmp_path)})


def test_offline_the_message_says_which_files_to_put_where_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr("seqmem.io.ts_files.MIRRORS", ["http://127.0.0.1:9/"])
    with pytest.raises(UserError) as error:
        datasets.load({"name": "ct", "data_dir": str(tmp_path / "data")})
    assert str(error.value) == (
        f"ct: {tmp_path}/data/CharacterTrajectories does not exist, and the download failed (no connection to 127.0.0.1:9); "
        "put CharacterTrajectories_TRAIN.ts, CharacterTrajectories_TEST.ts there, or set dataset.data_dir to the folder that "
        "has CharacterTrajectories/"
    )
    assert list(tmp_path.iterdir()) == []


def test_one_file_is_not_completed_by_another_version(tiny_ct):
    (tiny_ct / "CharacterTrajectories/CharacterTrajectories_TEST.ts").unlink()
    with pytest.raises(
        UserError,
        match=r"^ct: .* has \w+_TRAIN\.ts, and one file alone .*; put CharacterTrajectories_TEST\.ts there, or",
    ):
        datasets.load({"name": "ct", "data_dir": str(tiny_ct)})


@pytest.mark.parametrize(
    "flags",
    [
        "timestamp=False train_ts=1 eval_ts=1 train_hz=0.5 eval_hz=1 train_uniform=True eval_uniform=True",
        "timestamp=True train_ts=0.5 eval_ts=1 train_hz=1 eval_hz=1 train_uniform=False eval_uniform=False",
    ],
    ids=["100 to 200 Hz", "missing values upsample"],
)
def test_the_flags_of_the_original_are_read(flags, load):
    config = compose(["dataset=ct", *(f"dataset.{flag}" for flag in flags.split())])["dataset"]
    for flag in flags.split():
        name, value = flag.split("=")
        assert config[name] == {"True": True, "False": False}.get(value) if value in ("True", "False") else float(value)
    del config["name"], config["data_dir"]
    assert load(**config).sizes["train"] == 46


def test_the_real_series(real_ct):
    digests = {name.partition("/")[2]: digest for name, digest in real_ct.describe()["files"].items()}
    assert {name: known.rpartition(" ")[2] for name, known in ct.KNOWN.items()} == digests
    assert real_ct.spec.name == "ct"
    assert real_ct.sizes == {"train": 2000, "validation": 429, "test": 429}
    assert (real_ct.spec.input_size, real_ct.spec.output_size, real_ct.spec.max_length) == (3, 20, 182)
    batch = everything(real_ct, "train")
    torch.testing.assert_close(batch.inputs.mean((0, 1)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(batch.inputs.flatten(0, 1).std(0), torch.ones(3), rtol=0, atol=1e-3)
    total = sum(everything(real_ct, split).targets.bincount() for split in datasets.SPLITS)
    for split, fraction in {"train": 0.7, "validation": 0.15, "test": 0.15}.items():
        assert (everything(real_ct, split).targets.bincount() - fraction * total).abs().max() <= 2
    # The last value is repeated after the end of a series.
    equal_steps = (batch.inputs.flip(1) != batch.inputs[:, -1:]).any(-1).int().argmax(1)
    assert equal_steps.min() == 1
    assert 182 - 60 - 20 < equal_steps.max() <= 1 + 182 - 60
