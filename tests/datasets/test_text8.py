"""text8 and texts of the user: parts, consecutive chunks, windows, and missing files."""

import gzip
import hashlib
import os
import zipfile
from pathlib import Path

import pytest
import torch

from seqmem import datasets
from seqmem.data.text import decode
from seqmem.datasets import text8
from seqmem.datasets.characters import ContiguousSampler
from seqmem.errors import DataWarning, UserError
from tests.hostile import write_hostile_zip


def inputs(batch) -> list[str]:
    lengths = [batch.inputs.shape[1]] * len(batch) if batch.lengths is None else batch.lengths.tolist()
    return [decode(row[:length].numpy()) for row, length in zip(batch.inputs, lengths, strict=True)]


def targets(batch) -> list[str]:
    lengths = [batch.inputs.shape[1]] * len(batch) if batch.lengths is None else batch.lengths.tolist()
    return [decode(row[:length].numpy()) for row, length in zip(batch.targets, lengths, strict=True)]


def rows_of(loader) -> list[str]:
    """The inputs of each row over all batches."""
    rows: list[str] = []
    for number, batch in enumerate(loader):
        for row, text in enumerate(inputs(batch)):
            if number == 0:
                rows.append("")
            rows[row] += text
    return rows


@pytest.fixture
def parts(tiny_text):
    n = len(tiny_text)
    train, held_out = round(0.9 * n), round(0.95 * n)
    return {"train": tiny_text[:train], "validation": tiny_text[train:held_out], "test": tiny_text[held_out:]}


@pytest.fixture
def load(tiny_text8):
    def load(**arguments):
        return datasets.load({"name": "text8", "data_dir": str(tiny_text8), **arguments})

    return load


def test_one_row_reads_a_whole_part_and_predicts_all_but_its_first_character(load, parts):
    for length in [1, 37, 4000]:
        data = load(length=length)
        for split in ("validation", "test"):
            loader = data.loader(split, 1)
            assert rows_of(loader) == [parts[split][:-1]]
            assert "".join(text for batch in loader for text in targets(batch)) == parts[split][1:]
            assert len(loader) == -(-(len(parts[split]) - 1) // length)


def test_each_row_of_training_continues_the_previous_batch(load, parts):
    for length, batch_size in [(37, 7), (100, 8), (100, 1000)]:
        loader = load(length=length).loader("train", batch_size, seed=3)
        whole = parts["train"][: (len(parts["train"]) - 1) // length * length]
        seen = set()
        for epoch in range(3):
            loader.sampler.set_epoch(epoch)
            rows = rows_of(loader)
            assert all(row in whole + whole for row in rows)
            together = "".join(rows)
            assert len(together) == len(whole)
            assert together in whole + whole
            seen.add(rows[0])
        assert len(seen) > 1


def test_training_has_no_padding(load):
    assert all(batch.lengths is None for batch in load(length=41).loader("train", 9))


def test_numbers_are_assigned_to_rows():
    assert list(ContiguousSampler(11, 4, None)) == [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8]
    for size, rows in ((10, 3), (9, 3), (2, 5), (7, 1), (1, 1), (11, 4)):
        found = list(ContiguousSampler(size, rows, None))
        batches = [found[start : start + rows] for start in range(0, size, rows)]
        columns = [[batch[row] for batch in batches if row < len(batch)] for row in range(len(batches[0]))]
        assert [number for column in columns for number in column] == list(range(size))


def test_windows(load, parts):
    for length, step in [(10, 5), (7, 13), (100, 3)]:
        data = load(length=length, step=step)
        assert not data.spec.contiguous
        for split, part in parts.items():
            expected = [part[start : start + length + 1] for start in range(0, len(part) - length, step)]
            batch = data.batch(split, torch.arange(data.sizes[split]))
            assert batch.lengths is None
            assert inputs(batch) == [window[:-1] for window in expected]
            assert targets(batch) == [window[1:] for window in expected]
        loader = data.loader("train", 7)
        assert sorted(text for batch in loader for text in inputs(batch)) == sorted(
            inputs(data.batch("train", torch.arange(data.sizes["train"])))
        )
        assert inputs(next(iter(loader))) != inputs(data.batch("train", torch.arange(7)))


def test_a_prefix_and_other_files_have_their_own_names(load, tiny_text, monkeypatch):
    whole = load()
    assert (whole.spec.name, whole.spec.contiguous, whole.spec.task) == ("text8 prefix", True, "language_modelling")
    assert (whole.spec.input_size, whole.spec.output_size, whole.spec.output_steps) == (27, 27, None)
    monkeypatch.setattr(text8, "CHARACTERS", 6007)
    with pytest.warns(DataWarning, match=rf"^text8 was not .* \(md5: got \w+, expected {text8.CONTENT_MD5}\)"):
        assert load().spec.name == "text8 other files"
    monkeypatch.setattr(text8, "CONTENT_MD5", hashlib.md5(tiny_text.encode()).hexdigest())
    assert load().spec.name == "text8"
    assert load(characters=3000).spec.name == "text8 prefix"
    monkeypatch.setattr(text8, "CHARACTERS", 10**8)
    monkeypatch.setattr(text8, "BEGINNING", 6000)
    with pytest.warns(DataWarning, match=r"\(sha256 of the first 6000 characters: got \w+, expected "):
        assert load().spec.name == "text8 other files"


def test_the_checksum_of_the_beginning_is_that_of_the_real_text():
    path = Path(os.environ.get("SEQMEM_DATA", "data")) / "text8" / "text8"
    if not path.is_file():
        pytest.skip("text8 is not where SEQMEM_DATA points")
    with path.open("rb") as file:
        assert hashlib.sha256(file.read(text8.BEGINNING)).hexdigest() == text8.BEGINNING_SHA256


def test_the_first_characters_only(load, tiny_text):
    data = load(characters=1001, length=10)
    assert rows_of(data.loader("test", 1)) == [tiny_text[round(950.95) : 1000]]


def test_other_paths_of_the_file(tmp_path, tiny_text, load):
    for k, place in enumerate(("text8/text8.zip", "text8.zip", "text8", "text8.gz", "text8/text8.txt")):
        path = tmp_path / str(k) / place
        path.parent.mkdir(parents=True)
        if path.suffix == ".zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("text8", tiny_text)
        elif path.suffix == ".gz":
            path.write_bytes(gzip.compress(tiny_text.encode()))
        else:
            path.write_text(tiny_text)
        assert load(data_dir=str(tmp_path / str(k))).describe() == load().describe()


@pytest.fixture
def official(server, tiny_text, monkeypatch):
    """The tiny text in place of text8; yields the archive on the server."""
    served, url = server
    archive = served / text8.ARCHIVE
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("text8", tiny_text)
    monkeypatch.setattr(text8, "MIRRORS", ["http://127.0.0.1:9/", url])
    monkeypatch.setattr(text8, "MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    return archive


def test_text8_is_downloaded_once(official, tmp_path, tiny_text):
    arguments = {"name": "text8", "data_dir": str(tmp_path / "data")}
    first = datasets.load(arguments)
    assert [path.name for path in (tmp_path / "data/text8").iterdir()] == ["text8"]
    assert (tmp_path / "data/text8/text8").read_text() == tiny_text
    official.unlink()
    assert datasets.load(arguments).describe() == first.describe()


def test_a_damaged_download_leaves_nothing(official, tmp_path):
    official.write_bytes(official.read_bytes()[:-5])
    with pytest.raises(
        UserError, match=r"^text8: .*/data/text8 does not exist, and the download failed .*; put text8.zip there"
    ):
        datasets.load({"name": "text8", "data_dir": str(tmp_path / "data")})
    assert not (tmp_path / "data").exists()


def test_a_zip_that_would_fill_memory_is_not_read(tmp_path):
    message = write_hostile_zip(tmp_path / "text8.zip", "bomb", b"a b c", "text8")
    with pytest.raises(UserError, match=rf"cannot read .*text8\.zip \({message}"):
        datasets.load({"name": "text8", "data_dir": str(tmp_path)})


def test_a_damaged_archive_is_named(tmp_path):
    for content in [b"no archive", None, "garbled"]:
        path = tmp_path / "text8.zip"
        if content == "garbled":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("text8", "some words " * 999)
            whole = path.read_bytes()
            path.write_bytes(whole[:40] + bytes(255 - byte for byte in whole[40:60]) + whole[60:])
        elif content is None:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("text9", "abc")
        else:
            path.write_bytes(content)
        with pytest.raises(UserError, match=r"cannot read .*text8\.zip \(.+\); remove it"):
            datasets.load({"name": "text8", "data_dir": str(tmp_path)})


def test_a_text_of_the_user(tmp_path):
    path = tmp_path / "my book.txt"
    path.write_text("It's 1 o'clock.\n\n" * 300, encoding="utf-8")
    data = datasets.load({"name": "text", "path": str(path), "length": 16})
    assert data.spec.name == "text my book"
    assert inputs(data.batch("train", torch.arange(2))) == ["it s   o clock  ", "it s   o clock  "]
    assert data.describe()["seed"] is None


def test_wrong_arguments_are_named(tiny_text8):
    for arguments, message in [
        ({"path": "nowhere.txt"}, r"dataset\.path: cannot read nowhere\.txt \(No such file"),
        ({"path": "."}, r"dataset\.path: cannot read \. \(Is a directory"),
        ({"length": 5407}, "the train part has 5406 of 6007 characters, expected more than 5407, which is dataset.length"),
        ({"length": 301, "step": 1}, "the validation part has 301 of 6007 characters, expected more than 301"),
        ({"characters": 19, "length": 1}, "the validation part has 1 of 19 characters, expected more than 1"),
        ({"characters": 6008}, "dataset.characters: got 6008, but text text8 has only 6007"),
        ({"characters": 0}, "dataset.characters: got 0"),
        ({"step": 0}, "dataset.step: got 0"),
        ({"length": 0}, "dataset.length: got 0"),
    ]:
        with pytest.raises(UserError, match=message):
            datasets.load({"name": "text", "path": str(tiny_text8 / "text8/text8"), **arguments})


def test_bytes_that_are_not_text_are_named(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"abc\xff" * 100)
    with pytest.raises(UserError, match="text picture: got a byte at 3 that is not UTF-8, expected a plain text"):
        datasets.load({"name": "text", "path": str(path)})


def test_letters_outside_of_the_alphabet_are_not_dropped_in_silence(tmp_path):
    path = tmp_path / "book.txt"

    def load_text(text, encoding="utf-8"):
        path.write_text(text * 300, encoding=encoding)
        return datasets.load({"name": "text", "path": str(path), "length": 5})

    for text, message in (
        ("\u043c\u0438\u0440 peace ", None),
        (
            "\u0432\u043e\u0439\u043d\u0430 \u0438 \u043c\u0438\u0440 ",
            r"100\.0% of the letters are not a to z and would become spaces \(most often",
        ),
        ("\u6211\u7231\u4f60 abc d", None),
        ("\u6211\u7231\u4f60\u5440 abc", r"57\.1% of the letters .* transliterate it first"),
        ("123, 456. ", "got a text without a letter from a to z"),
    ):
        if message is None:
            with pytest.warns(DataWarning, match=r"^text book: (37\.5|42\.9)% of the letters are not a to z and become spaces"):
                load_text(text)
        else:
            with pytest.raises(UserError, match=rf"^text book: {message}"):
                load_text(text)
    with pytest.warns(DataWarning, match=r"^text book: 1\.0% of .* \(most often '\u00ef'\)$"):
        load_text("na\u00efve" + "x" * 95)
    plain = load_text("naive 100 % \u20ac ")
    assert plain.describe()["sha256"] == load_text("naive 100 % \u20ac ", "utf-16").describe()["sha256"]


def test_a_row_that_begins_with_the_text_restarts(load):
    data = load(length=37)
    loader = data.loader("train", 7, seed=3)
    first = data.batch("train", torch.arange(1)).inputs
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        restarts = [
            batch.restarts if batch.restarts is not None else torch.zeros(len(batch), dtype=torch.bool) for batch in loader
        ]
        at_the_start = [(batch.inputs == first).all(1) for batch in loader]
        assert torch.equal(torch.cat(restarts), torch.cat(at_the_start))
        assert torch.cat(restarts).sum() == 1
    assert all(batch.restarts is None for batch in load(length=37, step=5).loader("train", 7))
