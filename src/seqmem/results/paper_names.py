"""Names of tasks, models and metrics in papers, with our data sets, models and settings."""

from typing import Any

_full_rate = {"dataset.train_hz": 1.0, "dataset.eval_hz": 1.0}
_missing = {**_full_rate, "dataset.train_uniform": False, "dataset.eval_uniform": False}

TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "permuted MNIST": ("mnist", {"dataset.permute": True}),
    "CharacterTrajectories 100Hz to 200Hz": ("ct", {**_full_rate, "dataset.train_hz": 0.5}),
    "CharacterTrajectories 200Hz to 100Hz": ("ct", {**_full_rate, "dataset.eval_hz": 0.5}),
    "CharacterTrajectories missing values upsample": ("ct", {**_missing, "dataset.train_ts": 0.5, "dataset.eval_ts": 1.0}),
    "CharacterTrajectories missing values downsample": ("ct", {**_missing, "dataset.train_ts": 1.0, "dataset.eval_ts": 0.5}),
    "function approximation, 10^6 steps, order 256": ("white_noise", {"dataset.length": 1_000_000, "model.order": 256}),
    "Mackey-Glass, 15 steps ahead": ("mackey_glass", {"dataset.horizon": 15}),
}
"""Data set and settings by the name of a task in papers."""

MODELS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "legt_theta20": [("legt", {"model.cell_args.dt": 0.05})],
    "legt_theta200": [("legt", {"model.cell_args.dt": 0.005})],
    "rand": [("legsn", {})],
    "hybrid": [("lmu_plain_lstm", {})],
    "legs (tlsi where times are given)": [("legs", {"dataset.timestamp": False}), ("tlsi", {"dataset.timestamp": True})],
    "hmlstm": [("hmlstm", {"model.cell_args.layer_norm": False})],
    "hmlstm with layer norm": [("hmlstm", {"model.cell_args.layer_norm": True})],
}
"""Models and settings by the name of a model in papers."""

METRICS = {
    "accuracy": "accuracy",
    "bits per character": "bpc",
    "mean squared error": "mse",
    "normalised RMSE": "nrmse",
}
"""Names of our metrics by their names in papers."""
