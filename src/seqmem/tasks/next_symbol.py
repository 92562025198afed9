"""The next symbol of a sequence at the steps where it is determined."""

from seqmem.tasks.classification import Classification


class NextSymbol(Classification):
    """Classification of the symbol that follows a step, where it is determined.

    It differs from language modelling in its metric, accuracy, since such a symbol is either predicted or not. A
    model must not use the inputs after a step, which have the answer.
    """

    name = "next_symbol"
    predicts_following = True
