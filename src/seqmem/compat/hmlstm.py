"""The interface of the ``hmlstm`` package for TensorFlow 1, with this project's model and training.

The examples of its README run with the package's name changed. Its faults are corrected: ``train`` writes a file only if
requested, ``load_variables`` always loads, networks are independent, the last full batch is kept, signals may have several
channels, and any number of layers can be drawn. A file holds tensors and plain values, and nothing in it is executed.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from seqmem import models
from seqmem.arguments import checked
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.data.text import ALPHABET, check_letters, clean, decode, encode, window_starts
from seqmem.errors import UserError
from seqmem.io.files import decoded
from seqmem.results.boundaries import plot_indicators, viz_char_boundaries
from seqmem.tasks import Task, task_for
from seqmem.training.checkpoints.files import load_plain, load_weights, save_plain
from seqmem.training.config import TrainConfig
from seqmem.training.loop.lean import LeanLoop, Observer, state_on_cpu, trained_on

__all__ = [
    "HMLSTMNetwork",
    "convert_to_batches",
    "get_text",
    "plot_indicators",
    "prepare_inputs",
    "viz_char_boundaries",
]


class HMLSTMNetwork:
    """A hierarchical multiscale LSTM with the settings of the ``hmlstm`` package (``model=hmlstm model.preset=reference``).

    Every layer, the top one included, has a sigmoid detector, and neither biases nor normalisation. The gated layers are
    embedded with a ReLU; two tanh layers follow. Training uses Adam at a learning rate of 0.001, and starts each batch from the
    initial state. Initial weights come from torch's global generator: ``torch.manual_seed`` reproduces them. The training
    draws no random numbers.

    Args:
        input_size: C, values of an input.
        output_size: K, values of an output, or classes.
        num_layers: L.
        hidden_state_sizes: units of each layer, one number or a list of ``num_layers`` from the bottom up.
        out_hidden_size: units of each tanh layer of the output module.
        embed_size: width to which the gated layers are mapped.
        task: "regression" (mean squared error) or "classification" (cross-entropy; targets one-hot).

    Raises:
        UserError: an argument of the wrong type or range, or a number of sizes other than ``num_layers``.
    """

    @checked
    def __init__(
        self,
        input_size: PositiveInt = 1,
        output_size: PositiveInt = 1,
        num_layers: PositiveInt = 3,
        hidden_state_sizes: PositiveInt | list[PositiveInt] = 50,
        out_hidden_size: PositiveInt = 100,
        embed_size: PositiveInt = 100,
        task: Literal["regression", "classification"] = "regression",
    ):
        sizes = hidden_state_sizes if isinstance(hidden_state_sizes, list) else [hidden_state_sizes] * num_layers
        if len(sizes) != num_layers:
            raise UserError(f"hidden_state_sizes: got {sizes}, expected one size or as many as num_layers={num_layers}")
        self._architecture: dict[str, Any] = {
            "input_size": input_size,
            "output_size": output_size,
            "hidden_state_sizes": sizes,
            "out_hidden_size": out_hidden_size,
            "embed_size": embed_size,
            "task": task,
        }
        spec = DataSpec("HMLSTMNetwork", input_size, output_size, task, output_steps=None, max_length=1)
        cell = {
            "hidden_size": sizes,
            "num_layers": num_layers,
            "boundary_activation": "sigmoid",
            "top_detector": True,
            "bias": False,
            "layer_norm": False,
        }
        self._model = models.MultiscaleNetwork(
            spec, cell_args=cell, output_embedding_size=embed_size, output_hiddens=[out_hidden_size, out_hidden_size]
        )
        self._task = task_for(spec)
        self._optimizer_state: dict[str, Any] | None = None
        self._has_variables = False

    @checked
    def train(
        self,
        batches_in: Any,
        batches_out: Any,
        variable_path: str | Path = "./hmlstm_ckpt",
        load_vars_from_disk: bool = False,
        save_vars_to_disk: bool = False,
        epochs: NonNegativeInt = 3,
        verbose: bool = True,
    ) -> None:
        """Train on the batches in their order; a later call continues, with the optimiser's state.

        Args:
            batches_in: (batches, B, T, C), an array or nested lists.
            batches_out: (batches, B, T, K).
            variable_path: the file to load from and save to.
            load_vars_from_disk: continue from that file.
            save_vars_to_disk: write that file after the training; otherwise nothing is written.
            epochs: passes over the batches.
            verbose: print the number of each epoch and the loss of each batch.

        Raises:
            UserError: no batches, one of the wrong shape or with values that are not finite; a loss that is not finite; a file
                that cannot be read or written, or is of a different network.
        """
        if len(batches_in) != len(batches_out) or not len(batches_in):
            raise UserError(
                f"train: got {len(batches_in)} batches_in and {len(batches_out)} batches_out, expected as many, 1 at least"
            )
        if save_vars_to_disk:
            _check_writable(Path(variable_path))
        if load_vars_from_disk:
            self.load_variables(variable_path)
        batches = _Batches(batches_in, batches_out, self._task)
        self._fit(batches, epochs, _PrintedLosses() if verbose else Observer())
        self._has_variables = True
        if save_vars_to_disk:
            self.save_variables(variable_path)

    def _fit(self, batches: "_Batches", epochs: int, observer: Observer) -> None:
        with trained_on(None, self._model):
            loop = LeanLoop(self._model, self._task, TrainConfig(), "try inputs and targets of a smaller scale")
            if self._optimizer_state is not None:
                loop.optimizer.load_state_dict(self._optimizer_state)
            loop.run(lambda _: batches, range(epochs), observer)
        if epochs:
            self._optimizer_state = state_on_cpu(loop.optimizer)

    def predict(
        self, batch: Any, variable_path: str | Path = "./hmlstm_ckpt", return_gradients: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Return outputs at every step.

        Args:
            batch: (B, T, C), an array or nested lists.
            variable_path: the file to load from if this network has neither been trained nor loaded yet.
            return_gradients: also return the gradient of each row's last output (the sum of its K values) by its inputs.

        Returns:
            (B, T, K) float32, logits in classification; with gradients a pair, the second (B, T, C).

        Raises:
            UserError: a batch of the wrong shape, or a file that cannot be read or is of a different network.
        """
        self._need_variables(variable_path)
        inputs = self._inputs(batch).requires_grad_(return_gradients)
        with torch.set_grad_enabled(return_gradients):
            outputs = self._model.eval()(_without_targets(inputs))
        if not return_gradients:
            return outputs.numpy()
        [gradients] = torch.autograd.grad(outputs[:, -1].sum(), inputs)
        return outputs.detach().numpy(), gradients.numpy()

    def predict_boundaries(self, batch: Any, variable_path: str | Path = "./hmlstm_ckpt") -> np.ndarray:
        """Return the boundary indicators of every layer and step.

        Args:
            batch: (B, T, C), an array or nested lists.
            variable_path: as for :meth:`predict`.

        Returns:
            (B, L, T) int64, each 0 or 1, layers from the bottom up.

        Raises:
            UserError: as for :meth:`predict`.
        """
        self._need_variables(variable_path)
        with torch.no_grad():
            boundaries = self._model.eval().boundaries(_without_targets(self._inputs(batch)))
        return boundaries.transpose(1, 2).long().numpy()

    def save_variables(self, path: str | Path = "./hmlstm_ckpt") -> None:
        """Write weights and the optimiser's state to a file, whole or not at all.

        Raises:
            UserError: it cannot be written.
        """
        content = {
            "architecture": self._architecture,
            "weights": self._model.state_dict(),
            "optimizer": self._optimizer_state,
        }
        save_plain(content, Path(path))

    def load_variables(self, path: str | Path = "./hmlstm_ckpt") -> None:
        """Replace weights and optimiser state by those of a file that :meth:`save_variables` wrote.

        Raises:
            UserError: the file cannot be read, or is of a network of a different architecture.
        """
        content = load_plain(Path(path))
        if not isinstance(content, dict) or content.keys() != {"architecture", "weights", "optimizer"}:
            raise UserError(f"{path} is not a checkpoint of HMLSTMNetwork")
        architecture, optimizer = content["architecture"], content["optimizer"]
        known = optimizer is None or (isinstance(optimizer, dict) and optimizer.keys() == {"state", "param_groups"})
        if not isinstance(architecture, dict) or not known:
            raise UserError(f"{path} is not a checkpoint of HMLSTMNetwork")
        for name, expected in self._architecture.items():
            got = architecture.get(name)
            if got != expected:
                raise UserError(f"{path} is a checkpoint of a different network: got {name}={got}, expected {name}={expected}")
        load_weights(self._model, content["weights"], Path(path))
        self._optimizer_state = optimizer
        self._has_variables = True

    def _need_variables(self, path: str | Path) -> None:
        if self._has_variables:
            return
        if not Path(path).exists():
            raise UserError(f"variable_path: {path} does not exist, and this network has not been trained")
        self.load_variables(path)

    def _inputs(self, batch: Any) -> Tensor:
        return _values(batch, self._architecture["input_size"], "batch")


@checked
def prepare_inputs(
    batch_size: PositiveInt = 10,
    truncate_len: PositiveInt = 1000,
    text_path: str | Path = "text8.txt",
    step_size: PositiveInt | None = None,
    num_batches: PositiveInt | None = None,
) -> tuple[list[list[np.ndarray]], list[list[np.ndarray]]]:
    """Cut a text into windows of one-hot characters, in the text's order, with consecutive windows in the same batch.

    :func:`seqmem.data.text.clean` reduces the text to 27 symbols. Windows that do not fill a batch are left out.

    Args:
        batch_size: B, windows of a batch.
        truncate_len: T, characters of a window.
        text_path: any plain text in UTF-8.
        step_size: characters from the beginning of one window to that of the next; None for half of ``truncate_len``.
        num_batches: make this number of batches, of the first ``batch_size * num_batches * truncate_len`` characters and the
            one after them, a target; None uses the whole text. A ``step_size`` may then be at most ``truncate_len``.

    Returns:
        Inputs and targets, which are the same windows one character later: lists of batches, each a list of B read-only arrays
        (T, 27) int8, which use the memory of one text.

    Raises:
        UserError: the file cannot be read, has mostly letters other than a to z, or is too short; or an argument of the wrong
            type or range.
    """
    step = step_size or max(1, truncate_len // 2)
    if num_batches is not None and step > truncate_len:
        raise UserError(f"step_size: got {step}, expected at most truncate_len={truncate_len}, since num_batches is given")
    try:
        content = Path(text_path).read_bytes()
    except OSError as error:
        raise UserError(f"text_path: cannot read {text_path} ({error.strerror}); expected a plain text file") from None
    raw = decoded(f"text_path: {text_path}", content)
    check_letters(f"text_path: {text_path}", raw)
    text = clean(raw)
    if num_batches is not None:
        text = text[: batch_size * num_batches * truncate_len + 1]
    windows = window_starts(len(text), truncate_len, step)
    count = num_batches or max(1, len(windows) // batch_size)
    if len(windows) < count * batch_size:
        raise UserError(
            f"text_path: the {len(text)} characters of {text_path} make {len(windows)} windows, "
            f"expected {count * batch_size} for {count} {'batch' if count == 1 else 'batches'}"
        )
    symbols = np.eye(len(ALPHABET), dtype=np.int8)[encode(text)]
    symbols.flags.writeable = False
    batches = windows[: count * batch_size].reshape(count, batch_size)
    inputs, targets = (
        [[symbols[start + shift : start + shift + truncate_len] for start in starts] for starts in batches] for shift in (0, 1)
    )
    return inputs, targets


@checked
def convert_to_batches(
    signals: Any, batch_size: PositiveInt = 10, steps_ahead: PositiveInt = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Make batches of signals; the target of each step is the value ``steps_ahead`` steps later.

    Every full batch is kept. Signals that do not fill one are left out.

    Args:
        signals: N signals of equal length, (T,) or (T, C) each.
        batch_size: B.
        steps_ahead: k, below T.

    Returns:
        Inputs and targets, (N // B, B, T - k, C) float64 each.

    Raises:
        UserError: signals of different lengths, fewer than a batch, or too short.
    """
    try:
        values = np.asarray(signals, dtype=float)
    except (TypeError, ValueError):
        raise UserError(
            "signals: got different shapes, or values that are not numbers; expected (T,) or (T, C) of each"
        ) from None
    if values.ndim not in (2, 3):
        raise UserError(f"signals: got an array of shape {values.shape}, expected (N, T) or (N, T, C)")
    if len(values) < batch_size:
        raise UserError(f"signals: got {len(values)}, expected at least batch_size={batch_size}")
    if values.shape[1] <= steps_ahead:
        raise UserError(f"steps_ahead: got {steps_ahead}, expected less than the {values.shape[1]} steps of a signal")
    batches = len(values) // batch_size
    values = values[: batches * batch_size].reshape(batches, batch_size, values.shape[1], -1)
    return values[:, :, :-steps_ahead], values[:, :, steps_ahead:]


def get_text(scores: Any) -> str:
    """Return the text of one-hot characters or scores (T, 27): the symbol of the first largest value of each step.

    Raises:
        UserError: a different shape.
    """
    array = np.asarray(scores)
    if array.ndim != 2 or array.shape[1] != len(ALPHABET):
        raise UserError(f"get_text: got an array of shape {array.shape}, expected (T, {len(ALPHABET)})")
    return decode(array.argmax(-1))


class _Batches:
    """Batches of the arguments of ``train`` in their order, converted to tensors one at a time."""

    def __init__(self, inputs: Sequence[Any], targets: Sequence[Any], task: Task):
        self._inputs, self._targets, self._task = inputs, targets, task

    def __iter__(self) -> Iterator[Batch]:
        return map(self._batch, range(len(self._inputs)))

    def _batch(self, k: int) -> Batch:
        inputs = _values(self._inputs[k], self._task.spec.input_size, f"batches_in[{k}]")
        targets = _values(self._targets[k], self._task.spec.output_size, f"batches_out[{k}]")
        if inputs.shape[:2] != targets.shape[:2]:
            raise UserError(
                f"batches_out[{k}]: got shape {tuple(targets.shape)}, expected the {tuple(inputs.shape[:2])} of batches_in[{k}]"
            )
        return Batch(inputs, targets.argmax(-1) if self._task.class_targets else targets)


class _PrintedLosses(Observer):
    """Prints the number of each epoch and the loss of each batch."""

    def on_epoch_start(self, epoch: int) -> None:
        print(f"Epoch {epoch}")

    def on_step(self, batch: Batch, outputs: Tensor, loss: Tensor) -> None:
        print(f"loss: {loss.item():.6g}", flush=True)


def _check_writable(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"variable_path: got the folder {path}, expected a file")
    if not path.parent.is_dir():
        raise UserError(f"variable_path: got {path}, but there is no folder {path.parent}")


def _without_targets(inputs: Tensor) -> Batch:
    return Batch(inputs, targets=inputs.new_empty(0))


def _values(given: Any, channels: int, name: str) -> Tensor:
    """Return (B, T, channels) float32 of an array or nested lists."""
    try:
        array = np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError):
        raise UserError(
            f"{name}: got rows of different shapes, or values that are not numbers; expected (B, T, {channels})"
        ) from None
    if array.ndim != 3 or array.shape[2] != channels or not array.size:
        raise UserError(f"{name}: got shape {array.shape}, expected (B, T, {channels})")
    if not np.isfinite(array).all():
        raise UserError(f"{name}: got a value that is not finite, expected numbers only")
    return torch.tensor(array)
