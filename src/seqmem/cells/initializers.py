"""Weight initialisers by their names in configs."""

from typing import Literal

from torch import Tensor, nn

Initializer = Literal[
    "zero", "one", "uniform", "normal", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "orthogonal"
]


def initialize(weight: Tensor, initializer: Initializer) -> None:
    """Fill a weight (fan_out, fan_in) in place; the Kaiming rules use gain 1 (linear)."""
    match initializer:
        case "zero":
            nn.init.zeros_(weight)
        case "one":
            nn.init.ones_(weight)
        case "uniform":
            nn.init.uniform_(weight)
        case "normal":
            nn.init.normal_(weight)
        case "xavier_uniform":
            nn.init.xavier_uniform_(weight)
        case "xavier_normal":
            nn.init.xavier_normal_(weight)
        case "kaiming_uniform":
            nn.init.kaiming_uniform_(weight, nonlinearity="linear")
        case "kaiming_normal":
            nn.init.kaiming_normal_(weight, nonlinearity="linear")
        case "orthogonal":
            nn.init.orthogonal_(weight)


def initialize_bias(bias: Tensor, fan_in: int) -> None:
    """Fill a bias in place as torch.nn.Linear does: uniform within 1 / sqrt(fan_in)."""
    bound = fan_in**-0.5 if fan_in > 0 else 0.0
    nn.init.uniform_(bias, -bound, bound)
