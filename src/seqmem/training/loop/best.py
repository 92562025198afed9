"""The best weights of a training in memory, and early stopping."""

from torch import Tensor, nn


class BestWeights:
    """Weights with the smallest validation error so far, kept on the CPU.

    Args:
        patience: number of validations without a smaller error after which the training should stop; None for never.
    """

    def __init__(self, patience: int | None):
        self._patience = patience
        self._weights: dict[str, Tensor] = {}
        self._error = float("inf")
        self._waited = 0

    def update(self, error: float, model: nn.Module) -> bool:
        """Keep the weights if the error is the smallest so far; return whether the training should stop."""
        self._waited += 1
        if error < self._error:
            self._error, self._waited = error, 0
            self._weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        return self._patience is not None and self._waited >= self._patience

    def restore(self, model: nn.Module) -> None:
        """Load the best weights into the model; without any validation nothing changes."""
        if self._weights:
            model.load_state_dict(self._weights)
