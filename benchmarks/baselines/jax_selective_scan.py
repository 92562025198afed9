"""The selective scan of Mamba as a jitted associative scan in JAX, as JAX programs compute it; see jax_scan for the package."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def training_step(given: dict[str, Tensor], cotangent: Tensor) -> Callable[[], tuple[Tensor, list[Tensor]]]:
    """Compile forward and backward, with softplus of the step sizes.

    Args:
        given: arguments of :func:`seqmem.ops.selective_scan.selective_scan_reference` by name, without an initial state.
        cotangent: (B, T, D) gradient of the outputs.

    Returns:
        A function that returns the outputs (B, T, D) and the gradients of all arguments, in their order.
    """
    import jax
    import jax.numpy as jnp

    arguments = {name: jnp.asarray(tensor.detach().numpy()) for name, tensor in given.items()}
    v = jnp.asarray(cotangent.numpy())

    def compose(first: Any, then: Any) -> Any:
        return first[0] * then[0], then[0] * first[1] + then[1]

    def objective(p: dict[str, Any]) -> Any:
        steps = jax.nn.softplus(p["delta"] + p["delta_bias"])
        factors = jnp.exp(steps[..., None] * p["a"])
        terms = (steps * p["inputs"])[..., None] * p["b"][:, :, None]
        _, states = jax.lax.associative_scan(compose, (factors, terms), axis=1)
        outputs = (states * p["c"][:, :, None]).sum(-1) + p["skip"] * p["inputs"]
        outputs = outputs * jax.nn.silu(p["gate"])
        return (outputs * v).sum(), outputs

    compiled = jax.jit(jax.value_and_grad(objective, has_aux=True)).lower(arguments).compile()

    def call() -> tuple[Tensor, list[Tensor]]:
        (_, outputs), gradients = jax.block_until_ready(compiled(arguments))
        return torch.from_numpy(jax.device_get(outputs).copy()), [
            torch.from_numpy(jax.device_get(gradients[name]).copy()) for name in given
        ]

    return call
