"""Prediction of the next character of a text: what ``text8`` and ``text`` share."""

import hashlib
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from seqmem.data.batch import Batch
from seqmem.data.dataset import DataSet, EpochSampler
from seqmem.data.masks import valid_steps
from seqmem.data.provenance import Provenance, sha256
from seqmem.data.seeds import generator
from seqmem.data.spec import DataSpec
from seqmem.data.splits import SPLITS, Split
from seqmem.data.text import ALPHABET, clean, encode, window_starts
from seqmem.errors import UserError

BOUNDS = (0.0, 0.9, 0.95, 1.0)
"""Where training, validation and test part begin and end, as fractions of the text: text8's 90, 5 and 5 million characters."""


class CharacterSet(DataSet):
    """A text in the 27 symbols of :mod:`seqmem.data.text`, cut by position into 90 % training, 5 % validation and 5 % test.

    Inputs are tokens (B, T), targets (B, T) the tokens one character later. Without a step, a part is cut into chunks of T
    characters, and the rows of a batch go on where those of the batch before it stopped, so that a model can carry its state.
    The last chunk of validation and test may be shorter: it is padded and masked by ``lengths``; training leaves it out. With a
    step, windows of T characters begin every so many characters, and each is a sequence for itself.
    """

    def __init__(self, label: str, content: bytes, length: int, step: int | None, characters: int | None, num_workers: int):
        """Called last by a subclass.

        Args:
            label: what messages and tables call the text, after the data set's name.
            content: of the file, in UTF-8.
            length: T.
            step: from one window to the next; None for chunks.
            characters: how many from the beginning of the cleaned text to use; None for all.
            num_workers: as in :class:`DataSet`.

        Raises:
            UserError: the content is not UTF-8, or too short.
        """
        name = f"{self.name} {label}".strip()
        try:
            tokens = encode(clean(content.decode()))
        except UnicodeDecodeError as error:
            raise UserError(f"{name}: got a byte at {error.start} that is no UTF-8, expected a plain text") from None
        if characters is not None and characters > len(tokens):
            raise UserError(f"dataset.characters: got {characters}, but {name} has only {len(tokens)}")
        tokens = tokens[:characters]
        bounds = [round(len(tokens) * bound) for bound in BOUNDS]
        parts = {split: tokens[start:end] for split, (start, end) in zip(SPLITS, pairwise(bounds), strict=True)}
        least = {split: length if step is not None or split == "train" else 1 for split in SPLITS}
        for split, part in parts.items():
            if len(part) <= least[split]:
                raise UserError(
                    f"{name}: the {split} part has {len(part)} of {len(tokens)} characters, expected more than {least[split]}"
                    + (", which is dataset.length" if least[split] == length else "")
                )
        self._length = length
        self._tokens = {split: torch.from_numpy(part) for split, part in parts.items()}
        self._starts = {
            split: torch.from_numpy(window_starts(len(part), least[split], step or length)) for split, part in parts.items()
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
        """Inputs (B, T) int64 tokens, targets (B, T) int64, T of the longest chunk; lengths (B,) if another one is shorter."""
        tokens, starts = self._tokens[split], self._starts[split][indices]
        lengths = (len(tokens) - 1 - starts).clamp(max=self._length)
        longest = int(lengths.max())
        shorter = bool((lengths < longest).any())
        places = starts[:, None] + torch.arange(longest + 1)
        taken = tokens[places.clamp(max=len(tokens) - 1)].to(torch.int64)
        inputs, targets = taken[:, :-1], taken[:, 1:]
        if shorter:
            valid = valid_steps(lengths, longest)
            inputs, targets = inputs.where(valid, 0), targets.where(valid, 0)
        return Batch(inputs, targets, lengths if shorter else None)

    def sampler(self, split: Split, batch_size: int, seed: int | None) -> Sampler[int]:
        """Chunks follow each other in every row; windows are ordered as other sequences are."""
        if not self.spec.contiguous:
            return super().sampler(split, batch_size, seed)
        return ContiguousSampler(self.sizes[split], batch_size, seed if split == "train" else None)


class ContiguousSampler(EpochSampler):
    """Deals 0 to ``size - 1`` out to ``rows`` rows, each of which gets consecutive numbers, one of them a batch.

    The first rows get one number more where that does not come out even: the last batch has these rows alone.

    Args:
        size: how many numbers.
        rows: B of a batch.
        seed: the first row begins at a number that depends on seed and epoch, and the last number is followed by 0; None: it
            begins at 0.
    """

    def __init__(self, size: int, rows: int, seed: int | None):
        super().__init__(size)
        self._rows = rows
        self._seed = seed

    def order(self) -> Iterator[int]:
        """The rows' numbers, batch after batch."""
        shift = 0 if self._seed is None else int(generator(self._seed, "order", self._epoch).integers(self._size))
        each, more = divmod(self._size, self._rows)
        firsts = np.arange(self._rows) * each + np.minimum(np.arange(self._rows), more)
        for k in range(each):
            yield from ((firsts + k + shift) % self._size).tolist()
        yield from ((firsts[:more] + each + shift) % self._size).tolist()
