"""Reviews in a tiny archive of the real layout, and the real ones in SEQMEM_DATA."""

import hashlib
import io
import os
import tarfile
import warnings
from collections import Counter
from pathlib import Path

import pytest
import torch

from seqmem import datasets
from seqmem.data import valid_steps
from seqmem.datasets import imdb, reviews
from seqmem.datasets.words import tokenize
from seqmem.errors import DataWarning, UserError
from tests.tiny_files import write_archive


def load(data_dir: Path, **arguments) -> datasets.DataSet:
    return datasets.load({"name": "imdb", "data_dir": str(data_dir), **arguments})


def everything(data, split):
    return data.batch(split, torch.arange(data.sizes[split]))


def found_rows(batch) -> list[tuple[list[int], int]]:
    """Each review's tokens, without padding, and its label."""
    lengths, labels = batch.lengths.tolist(), batch.targets.tolist()
    return [(row[:length], label) for row, length, label in zip(batch.inputs.tolist(), lengths, labels, strict=True)]


def encoded(reviews: dict[str, str]) -> dict[str, bytes]:
    return {path: text.encode() for path, text in reviews.items()}


@pytest.fixture
def offline(monkeypatch):
    """No server responds."""
    monkeypatch.setattr(imdb, "URL", "http://127.0.0.1:9/aclImdb_v1.tar.gz")


def test_tokens_are_the_words_of_the_reviews(tiny_imdb, tiny_reviews):
    data = load(tiny_imdb)
    assert data.sizes == {"train": 37, "validation": 4, "test": 11}
    by_length = Counter(len(tokenize(text)) for text in tiny_reviews.values())
    rows = {split: found_rows(everything(data, split)) for split in datasets.SPLITS}
    assert Counter(len(tokens) for part in rows.values() for tokens, _ in part) == by_length
    assert data.spec.max_length == max(by_length)
    # In the order of their numbers, so that the first so many are of both classes.
    assert [label for _, label in rows["test"]] == [0, 1] * 5 + [0]
    assert sum(label for _, label in rows["validation"]) == 2
    assert sum(label for _, label in rows["train"]) == 19
    # Words are numbered by how frequent they are in the training split, so the numbers that occur have no gap.
    counts = Counter(token for tokens, _ in rows["train"] for token in tokens)
    assert sorted(counts) == list(range(2, data.spec.input_size))
    assert [counts[number] for number in sorted(counts)] == sorted(counts.values(), reverse=True)


def test_every_token_is_one_word(tiny_imdb, tiny_reviews):
    data = load(tiny_imdb)
    test = sorted(
        (path for path in tiny_reviews if "/test/" in path), key=lambda path: (int(Path(path).name.split("_")[0]), path)
    )
    word_of: dict[int, str] = {}
    for path, (tokens, label) in zip(test, found_rows(everything(data, "test")), strict=True):
        assert label == ("/pos/" in path)
        for token, word in zip(tokens, tokenize(tiny_reviews[path]), strict=True):
            assert token == 1 or word_of.setdefault(token, word) == word
    assert len(set(word_of.values())) == len(word_of)


def test_the_vocabulary_has_words_of_the_training_split_alone(tmp_path, tiny_imdb, tiny_reviews):
    before = load(tiny_imdb)
    changed = {
        path: f"{text} word1 word1 word1 unheard" if path.startswith("aclImdb/test") else text
        for path, text in tiny_reviews.items()
    }
    write_archive(tmp_path / "changed", encoded(changed))
    after = load(tmp_path / "changed")
    assert after.spec.input_size == before.spec.input_size
    for split in ("train", "validation"):
        assert torch.equal(everything(before, split).inputs, everything(after, split).inputs)
    for (old, _), (new, _) in zip(*(found_rows(everything(data, "test")) for data in (before, after)), strict=True):
        assert new[:-4] == old
        assert new[-1] == 1


def test_validation_reviews_are_not_counted(tiny_imdb, tiny_reviews):
    data = load(tiny_imdb, validation_fraction=0.8)
    seen = {token for tokens, _ in found_rows(everything(data, "train")) for token in tokens}
    assert seen == set(range(2, data.spec.input_size))
    assert any(1 in tokens for tokens, _ in found_rows(everything(data, "validation")))
    assert data.spec.input_size - 2 < len({word for text in tiny_reviews.values() for word in tokenize(text)})


def test_a_small_vocabulary_keeps_the_frequent_words(tiny_imdb):
    whole = load(tiny_imdb)
    for size in (3, 10):
        small = load(tiny_imdb, vocabulary_size=size)
        assert small.spec.input_size == size
        for split in datasets.SPLITS:
            inputs, expected = everything(small, split).inputs, everything(whole, split).inputs
            assert torch.equal(inputs, torch.where(expected < size, expected, 1))


def test_the_end_of_a_long_review_is_cut_off(tiny_imdb):
    whole, short = load(tiny_imdb), load(tiny_imdb, max_length=7)
    assert short.spec.max_length == 7
    # The vocabulary counts the words that were cut off, too.
    assert short.spec.input_size == whole.spec.input_size
    for split in datasets.SPLITS:
        rows = found_rows(everything(whole, split))
        assert max(len(tokens) for tokens, _ in rows) > 7
        assert found_rows(everything(short, split)) == [(tokens[:7], label) for tokens, label in rows]


def test_batches_are_padded_to_their_longest_review(tiny_imdb):
    data = load(tiny_imdb)
    widths = set()
    for batch in data.loader("train", 3):
        assert batch.inputs.shape[1] == batch.lengths.max()
        assert ((batch.inputs != 0) == valid_steps(batch.lengths, batch.inputs.shape[1])).all()
        widths.add(batch.inputs.shape[1])
    assert len(widths) > 1


def test_fewer_training_reviews_are_the_first_of_all(tiny_imdb):
    whole, part = load(tiny_imdb), load(tiny_imdb, train_samples=9)
    assert part.sizes == {"train": 9, "validation": 4, "test": 11}
    assert everything(part, "train").lengths.tolist() == everything(whole, "train").lengths.tolist()[:9]
    assert {token for tokens, _ in found_rows(everything(part, "train")) for token in tokens} == set(
        range(2, part.spec.input_size)
    )
    with pytest.raises(UserError, match="train_samples: got 38, but imdb's training split has only 37 reviews"):
        load(tiny_imdb, train_samples=38)


def test_the_unpacked_folder_gives_the_same_data(tmp_path, tiny_imdb):
    filtered = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.4 has it
    with tarfile.open(tiny_imdb / "aclImdb_v1.tar.gz") as archive:
        archive.extractall(tmp_path / "unpacked", **filtered)
    (tmp_path / "unpacked/aclImdb/train/unsup").mkdir()
    (tmp_path / "unpacked/aclImdb/train/pos/notes.md").write_bytes(b"\xff")
    packed, unpacked = load(tiny_imdb), load(tmp_path / "unpacked")
    for split in datasets.SPLITS:
        assert found_rows(everything(packed, split)) == found_rows(everything(unpacked, split))
    digest = hashlib.sha256((tiny_imdb / "aclImdb_v1.tar.gz").read_bytes()).hexdigest()
    assert packed.describe()["files"] == unpacked.describe()["files"] | {"aclImdb_v1.tar.gz": digest}
    assert packed.describe()["sha256"] == unpacked.describe()["sha256"]


def test_the_record_distinguishes_different_reviews(tmp_path, tiny_imdb, tiny_reviews):
    first, *_ = tiny_reviews
    write_archive(tmp_path / "changed", encoded(tiny_reviews | {first: "other words"}))
    records = [load(folder).describe()["files"] for folder in (tiny_imdb, tmp_path / "changed")]
    assert all(records[0][name] != records[1][name] for name in ("aclImdb", "aclImdb_v1.tar.gz"))


def test_only_reviews_are_read_and_nothing_is_unpacked(tmp_path, tiny_imdb, tiny_reviews):
    others = {
        "aclImdb/train/unsup/0_0.txt": b"\xff",
        "aclImdb/train/urls_pos.txt": b"\xff",
        "aclImdb/train/pos/../../../../outside_1.txt": b"\xff",
        "/aclImdb/train/pos/7_7.txt": b"\xff",
        "aclImdb/train/pos/readme.txt": b"\xff",
        "aclImdb/train/pos/deeper/1_1.txt": b"\xff",
        "other/aclImdb/train/pos/1_1.txt": b"\xff",
    }
    folder = tmp_path / "with others"
    path = write_archive(folder, others | encoded(tiny_reviews))
    with tarfile.open(tiny_imdb / "aclImdb_v1.tar.gz") as plain, tarfile.open(path, "w:gz") as archive:
        for member in plain:
            archive.addfile(member, plain.extractfile(member))
        link = tarfile.TarInfo("aclImdb/train/pos/99_9.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    data = load(folder)
    assert data.sizes == {"train": 37, "validation": 4, "test": 11}
    assert data.describe()["files"]["aclImdb"] == load(tiny_imdb).describe()["files"]["aclImdb"]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_archive_is_named_and_never_replaced(tiny_imdb, offline):
    path = tiny_imdb / "aclImdb_v1.tar.gz"
    whole = path.read_bytes()
    for content, message in (
        (whole[: len(whole) // 2], "cannot be read: .*end-of-stream"),
        (whole[:300] + bytes(9) + whole[309:], "cannot be read: "),
        (b"no archive", "cannot be read: file could not be opened"),
        (b"", "cannot be read: "),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=message) as error:
            load(tiny_imdb)
        assert str(error.value).startswith(str(path))
        assert "\n" not in str(error.value)
        assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("aclImdb/train/pos/0_7.txt", b"caf\xe9", "has a review that is not UTF-8: .*byte 0xe9 in position 3"),
        ("aclImdb/train/pos/0_7.txt", b"<br />\n", r"^aclImdb/train/pos/0_7.txt of .* has no words$"),
    ],
    ids=["encoding", "empty"],
)
def test_a_damaged_review_is_refused(path, content, message, tmp_path, tiny_reviews):
    write_archive(tmp_path / "damaged", encoded(tiny_reviews) | {path: content})
    with pytest.raises(UserError, match=message):
        load(tmp_path / "damaged")


def test_a_review_that_would_fill_memory_is_not_read(tmp_path):
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as file:
        member = tarfile.TarInfo("aclImdb/train/pos/1_10.txt")
        member.size = 2 * reviews.LONGEST
        file.addfile(member, io.BytesIO(bytes(member.size)))
    with pytest.raises(UserError, match=r"x\.tar\.gz: got aclImdb/train/pos/1_10\.txt of 2097152 bytes, expected at most"):
        list(reviews.read_reviews(tmp_path / "x.tar.gz"))


def test_a_missing_group_is_named(tmp_path, tiny_reviews):
    for group in ("train/pos", "train/neg", "test/pos", "test/neg"):
        rest = {path: text for path, text in tiny_reviews.items() if group not in path}
        write_archive(tmp_path / "part", encoded(rest))
        with pytest.raises(UserError, match=rf"aclImdb_v1.tar.gz has no review aclImdb/{group}/ID_RATING.txt$"):
            load(tmp_path / "part")


def test_a_missing_folder_is_named(tmp_path):
    (tmp_path / "aclImdb/test/neg").mkdir(parents=True)
    with pytest.raises(UserError, match=r"aclImdb/test/pos cannot be read: No such file or directory$"):
        load(tmp_path)


def test_the_archive_is_downloaded_once_and_not_unpacked(server, tmp_path, tiny_imdb, monkeypatch):
    served, url = server
    content = (tiny_imdb / imdb.ARCHIVE).read_bytes()
    (served / imdb.ARCHIVE).write_bytes(content)
    monkeypatch.setattr(imdb, "URL", url + imdb.ARCHIVE)
    monkeypatch.setattr(imdb, "MD5", hashlib.md5(content).hexdigest())
    assert load(tmp_path / "new" / "data").sizes == {"train": 37, "validation": 4, "test": 11}
    assert [path.name for path in (tmp_path / "new/data").iterdir()] == [imdb.ARCHIVE]
    assert (tmp_path / "new/data" / imdb.ARCHIVE).read_bytes() == content
    (served / imdb.ARCHIVE).unlink()
    assert load(tmp_path / "new" / "data").sizes["test"] == 11


def test_offline_the_message_says_which_files_to_put_where_and_nothing_is_left(tmp_path, offline):
    with pytest.raises(UserError) as error:
        load(tmp_path / "new" / "data")
    assert str(error.value) == (
        f"imdb: {tmp_path}/new/data does not exist, and the download failed (no connection to 127.0.0.1:9); put "
        "aclImdb_v1.tar.gz or the unpacked folder aclImdb there, or set dataset.data_dir to the folder that has "
        "aclImdb_v1.tar.gz or aclImdb"
    )
    assert list(tmp_path.iterdir()) == []


def test_other_reviews_have_another_name_and_a_warning(tiny_imdb, monkeypatch):
    with pytest.warns(
        DataWarning, match=rf"^imdb was not read from its official files, .* got \w+, expected {imdb.CONTENTS}\)"
    ):
        assert load(tiny_imdb).spec.name == "imdb other files"
    monkeypatch.setattr(imdb, "MD5", hashlib.md5((tiny_imdb / imdb.ARCHIVE).read_bytes()).hexdigest())
    warnings.simplefilter("error")
    assert load(tiny_imdb).spec.name == "imdb"


def test_wrong_values_are_refused():
    for argument, value, expected in (
        ("vocabulary_size", 2, "greater than or equal to 3"),
        ("max_length", 0, "greater than 0"),
        ("validation_fraction", 1.0, "less than 1"),
        ("train_samples", 0, "greater than 0"),
    ):
        with pytest.raises(UserError, match=rf"^dataset\.{argument}: got {value!r}, expected {expected}"):
            datasets.check({"name": "imdb", argument: value})


@pytest.mark.slow
def test_the_real_reviews():
    folder = Path(os.environ.get("SEQMEM_DATA", "data"))
    if not (folder / "aclImdb_v1.tar.gz").is_file():
        pytest.skip("the real reviews are missing: set SEQMEM_DATA to the folder with aclImdb_v1.tar.gz")
    data = load(folder)
    assert data.sizes == {"train": 22_500, "validation": 2_500, "test": 25_000}
    assert data.spec.name == "imdb"
    assert data.describe()["files"]["aclImdb"] == imdb.CONTENTS
    assert data.spec.input_size == 25_000
    assert data.spec.max_length <= 2789
    for split in datasets.SPLITS:
        assert sum(batch.targets.sum().item() for batch in data.loader(split, 100)) == data.sizes[split] / 2
    # The most frequent tokens of English reviews.
    tokens = torch.cat([batch.inputs[batch.inputs > 1] for batch in data.loader("train", 500)])
    assert torch.bincount(tokens)[2:].diff().max() <= 0
    assert abs(everything(data, "test").lengths.float().mean() - 264) < 1
