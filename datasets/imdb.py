"""IMDB reviews: sentiment classification of sequences of words."""

import hashlib
import os
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from seqmem.arguments import checked
from seqmem.data import Batch, DataSet, DataSpec, Provenance, Seed, Split, label_of, sha256, stratified_validation
from seqmem.datasets.reviews import GROUPS, file_checksum, read_reviews
from seqmem.datasets.words import PADDING, Numbering, tokenize, tokens_of, vocabulary
from seqmem.errors import UserError
from seqmem.io.download import DownloadError, download_file, missing_files

ARCHIVE = "aclImdb_v1.tar.gz"
MD5 = "7c2ac02c03563afcf9b574c7e56c153a"
URL = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
"""The official download. A file of the user may be any archive of the same folders."""

CONTENTS = "10dfb65a1ee08547dfaeebfd90c534722d9f46240f6e630f43921c797e435dab"
"""Checksum of the 50,000 labelled reviews and their paths, whatever they are read from.

It was computed from an archive of these reviews alone, packed again for this project's development, in which the numbers of
reviews are the official ones. No publisher states it: reviews from an archive with :data:`MD5` are official without it.
"""

PLACES = (ARCHIVE, "aclImdb_v1.tar", "aclImdb.tar.gz", "aclImdb", "aclImdb_v1/aclImdb")
"""Paths of the archive or the unpacked folder below the data folder, in order of preference."""

EMBEDDING_SIZE = 100
"""Default width of the embedding, HiPPO's. One-hot words would take gigabytes a batch."""


class IMDB(DataSet):
    """The 50,000 labelled IMDB reviews (Maas et al., 2011) as sequences of words: 0 negative, 1 positive.

    A step is a word, as :mod:`seqmem.datasets.words` tokenizes them. Inputs are tokens (B, T), 1 for words outside the
    vocabulary, padded with 0 to the longest review of the batch, with ``lengths``; targets are (B,).

    The 25,000 official test reviews are the test split. The validation split is a random stratified part of the other reviews.
    The vocabulary has the most frequent words of the training split. Other reviews are called "imdb other files" in tables.
    """

    name = "imdb"

    @checked
    def __init__(
        self,
        data_dir: str | Path = "data",
        vocabulary_size: Annotated[int, Field(ge=3)] = 25_000,
        max_length: PositiveInt = 2789,
        validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1,
        split_seed: Seed = 0,
        train_samples: PositiveInt | None = None,
        num_workers: NonNegativeInt = 0,
    ):
        """Read the reviews, split them and number their words.

        Args:
            data_dir: folder with ``aclImdb_v1.tar.gz``, which is read without unpacking, or the unpacked folder ``aclImdb``.
                The archive is downloaded if neither exists.
            vocabulary_size: largest number of tokens, padding and the unknown word included.
            max_length: the longest T; the end of a longer review is cut off.
            validation_fraction: fraction of the official training reviews for the validation split.
            split_seed: seed of that choice.
            train_samples: number of training reviews, a random part of the training split; None for all. The vocabulary is
                taken from this part.
            num_workers: worker processes that make batches; 0 makes them in the main process.

        Raises:
            UserError: the reviews are missing and cannot be downloaded, are damaged or cannot be read, or there are fewer
                than ``train_samples``.
        """
        source = _source(Path(os.path.expanduser(data_dir)))
        numbering = Numbering()
        texts, contents = _read(source, numbering)
        training, test = _official_parts(source, sorted(texts, key=_order))

        train, validation = stratified_validation(
            np.array([_label(path) for path in training]), validation_fraction, split_seed
        )
        if train_samples is not None and train_samples > len(train):
            raise UserError(
                f"dataset.train_samples: got {train_samples}, but imdb's training split has only {len(train)} reviews"
            )
        train = train[:train_samples]
        parts: dict[Split, list[str]] = {
            "train": [training[index] for index in train],
            "validation": [training[index] for index in validation],
            "test": test,
        }
        words = numbering.words()
        training_texts = [texts[path] for path in parts["train"]]
        known = self.learned("vocabulary", lambda: vocabulary(words, training_texts, vocabulary_size))
        numbers = tokens_of(words, known)
        source_label = _source_label(self.name, source, contents)

        self._words = {
            split: [torch.from_numpy(numbers[texts[path][:max_length]]) for path in paths] for split, paths in parts.items()
        }
        self._lengths = {split: torch.tensor([len(text) for text in texts]) for split, texts in self._words.items()}
        self._labels = {split: torch.tensor([_label(path) for path in paths]) for split, paths in parts.items()}
        spec = DataSpec(
            f"{self.name} {source_label}".strip(),
            input_size=len(known) + 2,
            output_size=2,
            task="classification",
            output_steps=0,
            max_length=max(int(lengths.max()) for lengths in self._lengths.values()),
            tokens=True,
            embedding_size=EMBEDDING_SIZE,
            class_names=("negative", "positive"),
        )
        provenance = Provenance(
            split_seed,
            {"train": sha256(train), "validation": sha256(validation), "test": sha256(np.arange(len(test)))},
            # The checksum of the reviews does not depend on the archive that they are read from.
            files={"aclImdb": contents, **({} if source.is_dir() else {source.name: file_checksum(source)})},
        )
        super().__init__(spec, {split: len(paths) for split, paths in parts.items()}, provenance, num_workers)

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Return inputs (B, T) int64 tokens, T of the longest of these reviews, targets (B,) and lengths (B,)."""
        words = pad_sequence([self._words[split][index] for index in indices.tolist()], True, PADDING)
        return Batch(words.to(torch.int64), self._labels[split][indices], self._lengths[split][indices])


def _source(data_dir: Path) -> Path:
    for place in PLACES:
        if os.path.exists(data_dir / place):
            return data_dir / place
    try:
        download_file(data_dir, ARCHIVE, MD5, URL)
    except DownloadError as error:
        files = [f"{ARCHIVE} or the unpacked folder aclImdb"]
        raise missing_files("imdb", files, data_dir, f"{ARCHIVE} or aclImdb", f"the download failed ({error})") from None
    return data_dir / ARCHIVE


def _source_label(name: str, source: Path, contents: str) -> str:
    """Label of the reviews in tables."""
    if contents != CONTENTS and source.is_file() and file_checksum(source, "md5") == MD5:
        return ""
    return label_of(name, {"sha256 of the reviews": contents}, {"sha256 of the reviews": CONTENTS})


def _read(source: Path, numbering: Numbering) -> tuple[dict[str, np.ndarray], str]:
    """The numbered words of each review by its path, and the checksum of all reviews."""
    texts: dict[str, np.ndarray] = {}
    digests: dict[str, bytes] = {}
    for review in read_reviews(source):
        words = tokenize(review.text)
        if not words:
            raise UserError(f"{review.path} of {source} has no words")
        texts[review.path] = numbering(words)
        digests[review.path] = hashlib.sha256(review.text.encode()).digest()
    contents = hashlib.sha256(b"".join(path.encode() + digests[path] for path in sorted(digests)))
    return texts, contents.hexdigest()


def _official_parts(source: Path, paths: list[str]) -> tuple[list[str], list[str]]:
    for group in GROUPS:
        if not any(path.startswith(f"{group}/") for path in paths):
            raise UserError(f"{source} has no review {group}/ID_RATING.txt")
    training = [path for path in paths if path.startswith("aclImdb/train/")]
    return training, [path for path in paths if path.startswith("aclImdb/test/")]


def _order(path: str) -> tuple[int, str]:
    # By number, so that the classes alternate: the first test reviews are a balanced sample.
    return int(path.rpartition("/")[2].partition("_")[0]), path


def _label(path: str) -> int:
    return int("/pos/" in path)
