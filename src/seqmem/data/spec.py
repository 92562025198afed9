"""DataSpec: the shapes and the task of a data set, from which models are built."""

from dataclasses import dataclass

from pydantic import NonNegativeInt, PositiveInt

from seqmem.arguments import check
from seqmem.errors import UserError


@dataclass(frozen=True)
class DataSpec:
    """The shapes and the task of a data set, so that any model can be combined with it. NumPy numbers become Python's.

    Attributes:
        name: the data set's name in messages and tables.
        input_size: C, channels of a floating-point input; the size of the vocabulary if ``tokens``.
        output_size: D, number of classes or of predicted values.
        task: name of a class of ``seqmem.tasks``, which has the loss and the metrics.
        output_steps: 0 for one output at the end of the sequence, K > 0 for the last K steps, None for every step.
        max_length: T of the longest sequence.
        tokens: inputs are (B, T) int64 instead of (B, T, C) floating point.
        times: batches have ``times``.
        embedding_size: default width of the embedding of tokens; None for one-hot inputs.
        contiguous: row b of a batch continues row b of the previous batch, from the beginning of each pass over a split, so
            that a model can carry its state, except where ``Batch.restarts`` is true.
        irreducible_error: the expected value of the task's metric for the best predictor; None if it is not known.
        frame: shape (H, W) or (D, H, W) of a step whose C channels are the values of a frame, row by row; None otherwise.
        answers_at_end: the one output of a sequence answers its last step, which a model that pools steps by default takes
            instead of their mean.
        sparse_targets: most of the targets (B, T) are ``IGNORE_INDEX``, so that training and evaluation compute the outputs at
            the other steps only.
        later_targets: the targets at a step are inputs of later steps, so that a model must not use these. The targets of
            forecasting and of language modelling always are.
        class_names: name of each class of the targets or ``labels``, by its number; None if the numbers are the names.

    Raises:
        UserError: a value of the wrong type or out of range, or more ``output_steps`` than the longest sequence has.
    """

    name: str
    input_size: PositiveInt
    output_size: PositiveInt
    task: str
    output_steps: NonNegativeInt | None
    max_length: PositiveInt
    tokens: bool = False
    times: bool = False
    embedding_size: PositiveInt | None = None
    contiguous: bool = False
    irreducible_error: float | None = None
    frame: tuple[int, ...] | None = None
    class_names: tuple[str, ...] | None = None
    answers_at_end: bool = False
    sparse_targets: bool = False
    later_targets: bool = False

    def __post_init__(self) -> None:
        for name, value in check(DataSpec, vars(self), "DataSpec").items():
            object.__setattr__(self, name, value)
        if self.output_steps is not None and self.output_steps > self.max_length:
            raise UserError(
                f"DataSpec.output_steps: got {self.output_steps} last steps with an output, expected at most "
                f"max_length={self.max_length}, the steps of the longest sequence of {self.name}"
            )
