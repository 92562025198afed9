"""What is said of a loss that is no finite number."""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.optim import Optimizer

from seqmem.errors import UserError
from seqmem.training.config import TrainConfig


def not_finite(
    loss: Tensor, epoch: int, batch: int, step: int, optimizer: Optimizer, parameters: Iterable[Tensor], config: TrainConfig
) -> UserError:
    """The error of a loss, with what to try.

    Args:
        loss: the value.
        epoch: from 0.
        batch: of the epoch, from 0.
        step: of the optimiser, from 0.
        optimizer: with the learning rate.
        parameters: whose gradients are still those of the update before.
        config: of the run.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = f"{nn.utils.get_total_norm(gradients).item():g}" if gradients else "unknown"
    return UserError(
        f"the training loss became {loss.item()} at batch {batch} of epoch {epoch + 1} (step {step}, learning rate "
        f"{optimizer.param_groups[0]['lr']:g}, norm of the gradient before {norm}); {config.if_not_finite}"
    )
