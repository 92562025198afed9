"""LSTM and LegS as jitted JAX scans, a fast general implementation on CPUs. JAX is optional: ``pip install jax``."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from seqmem.cells import LSTM, LegS


def available() -> bool:
    """Whether JAX is installed."""
    try:
        import jax  # noqa: F401
    except ImportError:
        return False
    return True


def training_step(cell: LegS | LSTM, inputs: Tensor, cotangent: Tensor) -> Callable[[], tuple[Tensor, list[Tensor]]]:
    """Compile forward and backward of a scan with the cell's weights.

    Args:
        cell: LegS with the default architecture, or LSTM.
        inputs: (B, T, C).
        cotangent: (B, T, H) gradient of the outputs.

    Returns:
        A function that returns the outputs (B, T, H) and the gradients of the cell's parameters, in their order.
    """
    import jax
    import jax.numpy as jnp

    names = [name for name, _ in cell.named_parameters()]
    weights = {name: jnp.asarray(value.detach().numpy()) for name, value in cell.named_parameters()}
    x, v = (jnp.asarray(tensor.transpose(0, 1).contiguous().numpy()) for tensor in (inputs, cotangent))
    run = _lstm(jax, jnp) if isinstance(cell, LSTM) else _legs(jax, jnp, cell.memory_order, inputs.shape[1])

    def objective(parameters: dict[str, Any]) -> Any:
        outputs = run(parameters, x)
        return (outputs * v).sum(), outputs

    compiled = jax.jit(jax.value_and_grad(objective, has_aux=True)).lower(weights).compile()

    def call() -> tuple[Tensor, list[Tensor]]:
        (_, outputs), gradients = jax.block_until_ready(compiled(weights))
        return torch.from_numpy(jax.device_get(outputs).copy()).transpose(0, 1), [
            torch.from_numpy(jax.device_get(gradients[name]).copy()) for name in names
        ]

    return call


def _lstm(jax: Any, jnp: Any) -> Callable[[dict[str, Any], Any], Any]:
    def run(p: dict[str, Any], x: Any) -> Any:
        def step(state: tuple[Any, Any], projected: Any) -> tuple[tuple[Any, Any], Any]:
            hidden, memory = state
            i, f, g, o = jnp.split(projected + hidden @ p["weight_hh"].T, 4, -1)
            memory = jax.nn.sigmoid(f) * memory + jax.nn.sigmoid(i) * jnp.tanh(g)
            hidden = jax.nn.sigmoid(o) * jnp.tanh(memory)
            return (hidden, memory), hidden

        zeros = jnp.zeros((x.shape[1], p["weight_hh"].shape[1]), x.dtype)
        return jax.lax.scan(step, (zeros, zeros), x @ p["weight_ih"].T + p["bias_ih"] + p["bias_hh"])[1]

    return run


def _legs(jax: Any, jnp: Any, order: int, steps: int) -> Callable[[dict[str, Any], Any], Any]:
    scale = jnp.asarray([math.sqrt(2 * n + 1) for n in range(order)], jnp.float32)
    count = jnp.arange(order, dtype=jnp.float32)

    def update_memory(memory: Any, u: Any, dt: Any) -> Any:
        """The O(N) step: a running sum for the explicit half, and a scan of affine maps for the implicit half."""
        sums = jnp.cumsum(scale * memory, -1) - scale * memory
        middle = memory - dt / 2 * (scale * sums + (count + 1) * memory) + dt * u[:, None] * scale
        d = 1 / (1 + (count + 1) * dt / 2)
        slope, offset = 1 - dt / 2 * scale**2 * d, scale * d * middle

        def compose(first: Any, then: Any) -> Any:
            return first[0] * then[0], then[0] * first[1] + then[1]

        _, total = jax.lax.associative_scan(compose, (jnp.broadcast_to(slope, offset.shape), offset), axis=-1)
        before = jnp.pad(total, ((0, 0), (1, 0)))[:, :-1]
        return d * (middle - dt / 2 * scale * before)

    def run(p: dict[str, Any], x: Any) -> Any:
        def step(state: tuple[Any, Any], at: tuple[Any, Any]) -> tuple[tuple[Any, Any], Any]:
            hidden, memory = state
            value, t = at
            u = (value @ p["weight_ux"].T + hidden @ p["weight_uh"].T + p["bias_u"])[:, 0]
            initial = jnp.pad(u[:, None], ((0, 0), (0, order - 1)))
            memory = jnp.where(t == 0, initial, update_memory(memory, u, 1 / jnp.maximum(t, 1)))
            candidate, gate = jnp.split(value @ p["weight_hx"].T + memory @ p["weight_hm"].T + p["bias_h"], 2, -1)
            hidden = hidden + jax.nn.sigmoid(gate) * (jnp.tanh(candidate) - hidden)
            return (hidden, memory), hidden

        size = p["weight_hm"].shape[0] // 2
        zeros = jnp.zeros((x.shape[1], size), x.dtype), jnp.zeros((x.shape[1], order), x.dtype)
        return jax.lax.scan(step, zeros, (x, jnp.arange(steps, dtype=x.dtype)))[1]

    return run
