"""What a model needs to know of a data set to be built for it."""

from dataclasses import dataclass
from typing import Literal

TaskKind = Literal["classification", "forecasting", "language_modelling", "reconstruction", "regression"]


@dataclass(frozen=True)
class DataSpec:
    """The shape of a data set, so that any model can be combined with it.

    Attributes:
        name: the data set's name, for messages and tables.
        input_size: C, the channels of a float input, or the size of the vocabulary if ``tokens``.
        output_size: number of classes, or of predicted values.
        task: what is learned from an output; names a class of ``seqmem.tasks``.
        output_steps: 0 for one output at the end of the sequence, k > 0 for the last k steps, None for every step.
        max_length: T of the longest sequence.
        tokens: inputs are (B, T) int64 instead of (B, T, C) floating point.
        times: batches carry ``times``.
        embedding_size: width in which a model embeds tokens if it is not told another; None where one-hot will do.
        contiguous: the rows of a batch go on where the first rows of the batch before it stopped, from the beginning of each
            pass over a split, so that a model carries its state.
        frame: shape (H, W) or (D, H, W) of the frame whose values, row by row, are the C channels of a step; None for others.
        irreducible_error: what the task's metric is expected to be at the best, where that is known; None where it is not.
    """

    name: str
    input_size: int
    output_size: int
    task: TaskKind
    output_steps: int | None
    max_length: int
    tokens: bool = False
    times: bool = False
    embedding_size: int | None = None
    contiguous: bool = False
    irreducible_error: float | None = None
    frame: tuple[int, ...] | None = None
