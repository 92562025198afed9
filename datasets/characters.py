"""Next-character prediction: the base class of ``text8`` and ``text``."""

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from seqmem.data import SPLITS, Batch, DataSet, DataSpec, EpochSampler, Provenance, Split, generator, masked, sha256
from seqmem.data.text import ALPHABET, check_letters, clean, encode, window_starts
from seqmem.errors import UserError
from seqmem.io.files import decoded

BOUNDS = (0.0, 0.9, 0.95, 1.0)
"""Bounds of the training, validation and test part, as fractions of the text: 90, 5 and 5 million characters of text8."""


class CharacterSet(DataSet):
    """A text in the 27 symbols of :mod:`seqmem.data.text`, cut by position into three splits.

    Training has the first 90 % of the text, validation and test 5 % each. Inputs are tokens (B, T), targets (B, T) the tokens
    one character later. Without ``step``, a part is cut into consecutive chunks of T characters, and each row of a batch
    continues the same row of the previous batch, so that a model can carry its state. A row of training that
    comes to the end of the text continues at its start, with the initial state (``Batch.restarts``). The last chunk of
    validation and test may be shorter: it is padded and has ``lengths``; training leaves it out. With ``step``, windows of T
    characters begin every ``step`` characters, and each is an independent sequence.
    """

    splitting = ("characters",)

    def __init__(self, label: str, content: bytes, length: int, step: int | None, characters: int | None, num_workers: int):
        """Clean, encode and split a text; a subclass calls it last.

        Args:
            label: name of the text in messages and tables, after the data set's name.
            content: of the file, in UTF-8.
            length: T, characters of a chunk or window.
            step: distance of the starts of windows; None for chunks.
            characters: number of characters of the cleaned text to use, from its beginning; None for all.
            num_workers: as in :class:`DataSet`.

        Raises:
            UserError: the content is not UTF-8, mostly of letters other than a to z, or too short.
        """
        name = f"{self.name} {label}".strip()
        text = decoded(name, content)
        check_letters(name, text)
        tokens = encode(clean(text))
        if characters is not None and characters > len(tokens):
            raise UserError(f"dataset.characters: got {characters}, but {name} has only {len(tokens)}")
        parts = _parts(name, tokens[:characters], length, step)
        self._length = length
        self._tokens = {split: torch.from_numpy(part) for split, part in parts.items()}
        self._starts = {
            split: torch.from_numpy(window_starts(len(part), _least(split, length, step), step or length))
            for split, part in parts.items()
        }
        spec = DataSpec(
            name,
            input_size=len(ALPHABET),
            output_size=len(ALPHABET),
            task="language_modelling",
            output_steps=None,
            max_length=length,
            tokens=True,
            contiguous=step is None,
        )
        sums = {split: sha256(part) for split, part in parts.items()}
        provenance = Provenance(None, sums, files={name: hashlib.sha256(content).hexdigest()})
        super().__init__(spec, {split: len(starts) for split, starts in self._starts.items()}, provenance, num_workers)

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Return inputs and targets (B, T) int64, T of the longest chunk.

        If a chunk is shorter, the batch has ``lengths`` (B,); if one is the beginning of the text, ``restarts`` (B,).
        """
        tokens, starts = self._tokens[split], self._starts[split][indices]
        lengths = (len(tokens) - 1 - starts).clamp(max=self._length)
        longest = int(lengths.max())
        places = starts[:, None] + torch.arange(longest + 1)
        taken = tokens[places.clamp(max=len(tokens) - 1)].to(torch.int64)
        valid = lengths if bool((lengths < longest).any()) else None
        first = indices == 0
        restarts = first if self.spec.contiguous and bool(first.any()) else None
        return Batch(masked(taken[:, :-1], valid), masked(taken[:, 1:], valid), valid, restarts=restarts)

    @classmethod
    def moves(cls, argument: str, trained: Any, given: Any) -> bool:
        """Return whether a split of another text may have characters of the training: that of a shorter text may."""
        if argument != "characters":
            return super().moves(argument, trained, given)
        return given is not None and (trained is None or given < trained)

    def sampler(self, split: Split, batch_size: int, seed: int | None) -> Sampler[int]:
        """Return an order in which chunks follow each other in every row; windows are shuffled as in other data sets."""
        if not self.spec.contiguous:
            return super().sampler(split, batch_size, seed)
        return ContiguousSampler(self.sizes[split], batch_size, seed if split == "train" else None)


class ContiguousSampler(EpochSampler):
    """An order in which each of ``rows`` rows gets consecutive numbers from 0 to ``size - 1``, one a batch.

    If ``size`` is not a multiple of ``rows``, the first rows get one number more, and the last batch has only these rows.

    Args:
        size: how many numbers.
        rows: B, rows of a batch.
        seed: the first row begins at a number that depends on seed and epoch. The number 0 follows ``size - 1``, so that in
            most epochs a row contains both. None begins at 0.
    """

    def __init__(self, size: int, rows: int, seed: int | None):
        super().__init__(size)
        self._rows = rows
        self._seed = seed

    def order(self) -> Iterator[int]:
        """Yield the numbers of all rows, batch after batch."""
        shift = 0 if self._seed is None else int(generator(self._seed, "order", self._epoch).integers(self._size))
        each, more = divmod(self._size, self._rows)
        firsts = np.arange(self._rows) * each + np.minimum(np.arange(self._rows), more)
        for k in range(each):
            yield from ((firsts + k + shift) % self._size).tolist()
        yield from ((firsts[:more] + each + shift) % self._size).tolist()


def _least(split: Split, length: int, step: int | None) -> int:
    """The length of the shortest chunk or window of a split."""
    return length if step is not None or split == "train" else 1


def _parts(name: str, tokens: np.ndarray, length: int, step: int | None) -> dict[Split, np.ndarray]:
    bounds = [round(len(tokens) * bound) for bound in BOUNDS]
    parts = {split: tokens[start:end] for split, (start, end) in zip(SPLITS, pairwise(bounds), strict=True)}
    for split, part in parts.items():
        least = _least(split, length, step)
        if len(part) <= least:
            raise UserError(
                f"{name}: the {split} part has {len(part)} of {len(tokens)} characters, expected more than {least}"
                + (", which is dataset.length" if least == length else "")
            )
    return parts
