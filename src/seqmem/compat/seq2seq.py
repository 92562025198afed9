"""The factory of the real-valued sequence-to-sequence autoencoder, with the names of the original package."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from seqmem.arguments import check, checked
from seqmem.data.batch import Batch
from seqmem.data.seeds import Seed
from seqmem.data.sequences import as_list, padded
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError, suggestion
from seqmem.io import archive, interrupts
from seqmem.models.seq2seq_ae import Seq2SeqAutoencoder
from seqmem.tasks import task_for
from seqmem.training.config import TrainConfig
from seqmem.training.loop.lean import LeanLoop, Observer
from seqmem.training.optimisation.schedules import Exponential

Arrays = Sequence[np.ndarray]
Generator = Callable[[int | None], tuple[Arrays, Arrays, bool]]

CLIP = 5.0
"""Largest absolute value of each element of the gradient."""

_ADVICE = "try a smaller learning rate, or sequences of a smaller scale"
_GO_TOKENS = {"head": 0.0, "token": -100.0}

RATES = {"constant": ("lr",), "expdecay": ("start_lr", "finish_lr", "decay_steps")}
"""Kinds of learning rate, and the arguments of each."""


@dataclass
class Settings:
    """Settings of a model. Its file holds them with the weights.

    Attributes:
        input_dim: C, values of a step of the inputs.
        output_dim: D, values of a step of the outputs.
        layer_sizes: units of each GRU of the encoder.
        symmetric: the decoder has the same sizes in reverse order (50:30:30:50); otherwise in the same order (50:30:50:30).
        stop: how an output marks its end: "head" for a learned stop probability, "token" for rows that hold ``stop_pad_token``.
        stop_pad_length: steps after the end of an output on which stopping is learned.
        stop_pad_token: value of the stop rows.
        go_token: first input of the decoder. None is 0 for the head and the original's -100 for the token: with the head, an
            input of -100 would dominate the first losses.
        keep_prob: probability of keeping an input channel of encoder and decoder at a step in training. None keeps all.
        lrtype: "constant" or "expdecay", an exponential decay.
        lrargs: {lr} of "constant"; {start_lr, finish_lr, decay_steps} of "expdecay", which reaches finish_lr after decay_steps
            iterations.
        seed: of the dropped channels. The initial weights come from torch's global generator.
    """

    input_dim: PositiveInt = 1
    output_dim: PositiveInt = 1
    layer_sizes: Annotated[list[PositiveInt], Field(min_length=1)] = field(default_factory=list)
    symmetric: bool = True
    stop: Literal["head", "token"] = "head"
    stop_pad_length: PositiveInt = 5
    stop_pad_token: float = 0.0
    go_token: float | None = None
    keep_prob: Annotated[float, Field(gt=0, le=1)] | None = None
    lrtype: Literal["constant", "expdecay"] = "constant"
    lrargs: dict[str, Annotated[float, Field(gt=0)]] = field(default_factory=lambda: {"lr": 0.001})
    seed: Seed = 0


class NDS2SAEFactory(Settings):
    """Factory of the sequence-to-sequence autoencoder: settings one by one, then ``build()``.

        >>> factory = NDS2SAEFactory()
        >>> factory.input_dim, factory.output_dim = 2, 1
        >>> factory.layer_sizes = [50, 30]
        >>> factory.set_output("toy.zip")
        >>> autoencoder = factory.build()

    :class:`Settings` describes them.
    """

    _path: Path | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        known = [each.name for each in fields(Settings)]
        if name not in known and name != "_path":
            raise UserError(f"NDS2SAEFactory has no setting '{name}'{suggestion(name, known)}")
        super().__setattr__(name, value)

    def set_output(self, filename: str | Path) -> None:
        """Set the file that a model is saved to; if it exists, its settings replace the factory's.

        Raises:
            UserError: the file is not one of such a model.
        """
        self._path = Path(filename)
        if self._path.exists():
            meta, _ = archive.read(self._path)
            settings = meta.get("settings")
            if not isinstance(settings, dict):
                raise UserError(f"{self._path} is not a model of NDS2SAEFactory")
            for name, value in _checked_settings(settings, str(self._path)).items():
                setattr(self, name, value)

    def build(self) -> "NDS2SAE":
        """Create the model, with the file's weights if the file exists.

        Raises:
            UserError: a setting of the wrong type or range, no output file, or a file of different settings.
        """
        if self._path is None:
            raise UserError("NDS2SAEFactory: no file to save to; call set_output(FILE) before build()")
        settings = Settings(**_checked_settings(asdict(self), "NDS2SAEFactory"))
        if not self._path.exists():
            return NDS2SAE(settings, self._path)
        saved = archive.read(self._path)
        try:
            with torch.device("meta"):  # no memory, however large the sizes of a file are
                claimed = NDS2SAE(settings, self._path)
        except RuntimeError as error:
            raise UserError(f"{self._path}: its settings are invalid ({error})") from None
        claimed.check(*saved)
        model = NDS2SAE(settings, self._path)
        model.restore(*saved)
        return model


class NDS2SAE:
    """A :class:`Seq2SeqAutoencoder` with its training and its file.

    Attributes:
        settings: of the model.
        path: the file.
        iteration: number of iterations of training so far.
        autoencoder: the torch module.
        optimizer: Adam.
    """

    def __init__(self, settings: Settings, path: Path):
        """A new model.

        Args:
            settings: checked.
            path: where :meth:`save` writes.
        """
        spec = DataSpec("sequences", settings.input_dim, settings.output_dim, "reconstruction", None, max_length=1)
        self.settings, self.path, self.iteration = settings, path, 0
        self.autoencoder = Seq2SeqAutoencoder(
            spec,
            settings.layer_sizes,
            settings.symmetric,
            dropout=0.0 if settings.keep_prob is None else 1 - settings.keep_prob,
            stop=settings.stop,
            stop_steps=settings.stop_pad_length,
            stop_token=settings.stop_pad_token,
            go_token=_GO_TOKENS[settings.stop] if settings.go_token is None else settings.go_token,
        )
        config = TrainConfig(lr=self.rate(0), gradient_clip_val=CLIP, gradient_clip_algorithm="value")
        self._loop = LeanLoop(self.autoencoder, task_for(spec), config, _ADVICE, seed=settings.seed)
        self.optimizer = self._loop.optimizer

    def rate(self, iteration: int) -> float:
        """Return the learning rate of an iteration."""
        arguments = self.settings.lrargs
        if self.settings.lrtype == "constant":
            return arguments["lr"]
        return Exponential().rate(iteration, arguments["decay_steps"] + 1, arguments["start_lr"], arguments["finish_lr"])

    @checked
    def train(
        self,
        training_gen: Generator,
        valid_gen: Generator,
        n_iterations: PositiveInt,
        batch_size: PositiveInt,
        display_step: PositiveInt = 100,
        save_step: PositiveInt | None = None,
    ) -> list[dict[str, float]]:
        """Train until the model has had ``n_iterations`` iterations, those before a save included.

        An iteration takes batches from ``training_gen(batch_size)`` until one is the last. Ctrl-C and SIGTERM save after a
        whole batch.

        Args:
            training_gen: returns input sequences (T, C), output sequences (T', D), and whether this batch is the last.
            valid_gen: the same; called with None as batch size, until the last batch.
            n_iterations: in total.
            batch_size: argument of ``training_gen``.
            display_step: iterations between two validations, which are printed.
            save_step: iterations between two saves; None for ``display_step``. The last iteration is always saved.

        Returns:
            For each validation: iteration, loss (in training, of that iteration), validation_loss, its squared_error and
            stop_error, and learning_rate.

        Raises:
            UserError: an argument of the wrong type or range, sequences of a different size, or a loss that is not finite.
            KeyboardInterrupt: at a Ctrl-C, after saving.
        """
        observer = _Iterations(self, valid_gen, n_iterations, display_step, save_step or display_step)
        iterations = range(self.iteration, n_iterations)
        with interrupts.handled(), interrupts.deferred():
            self._loop.run(lambda _: self._batches(training_gen, batch_size), iterations, observer)
        return observer.history

    def predict(self, test_seq: Arrays, res_len: Sequence[int] | None = None) -> list[np.ndarray]:
        """Return the output of each sequence, up to the end that the model predicts.

        Args:
            test_seq: sequences (T, C).
            res_len: length of each output; None for the predicted ones.

        Returns:
            Arrays (T', D).

        Raises:
            UserError: sequences of a different size, or a ``res_len`` below 1, or not one for each sequence.
        """
        if res_len is not None and (len(res_len) != len(test_seq) or min(res_len) < 1):
            raise UserError(
                f"got res_len={list(res_len)}, expected a length of at least 1 for each of {len(test_seq)} sequences"
            )
        encodings = self._encoded(test_seq)
        with torch.no_grad():
            if res_len is None:
                outputs, lengths = self.autoencoder.write(encodings)
                res_len = lengths.tolist()
            else:
                outputs = self.autoencoder.decode(encodings, max(res_len))
        return [output[:length].numpy() for output, length in zip(outputs, res_len, strict=True)]

    def encode(self, test_seq: Arrays, kernel_only: bool = False) -> list[np.ndarray]:
        """Return the states (E,) of all layers after each sequence (T, C), in the decoder's order.

        Args:
            test_seq: sequences (T, C).
            kernel_only: return the state of the last layer alone.
        """
        if not kernel_only:
            return list(self._encoded(test_seq).numpy())
        self.autoencoder.eval()
        with torch.no_grad():
            return list(self.autoencoder.centre(self._inputs(test_seq)).numpy())

    def save(self) -> None:
        """Write settings, weights and the optimiser's state to the file, whole or not at all."""
        arrays = {f"weights/{name}": value for name, value in self.autoencoder.state_dict().items()}
        names = [name for name, _ in self.autoencoder.named_parameters()]
        for k, state in self.optimizer.state_dict()["state"].items():
            arrays |= {f"optimizer/{names[k]}/{key}": value for key, value in state.items()}
        archive.write(self.path, {"settings": asdict(self.settings), "iteration": self.iteration}, arrays)

    def check(self, meta: dict[str, Any], arrays: dict[str, Tensor]) -> None:
        """Check that the content of a file fits this model.

        Raises:
            UserError: the file is damaged, or of a model of different sizes.
        """
        if not isinstance(meta.get("iteration"), int) or meta["iteration"] < 0:
            raise UserError(f"{self.path} is damaged: got iteration {meta.get('iteration')!r}, expected a whole number")
        weights = {f"weights/{name}": tuple(value.shape) for name, value in self.autoencoder.state_dict().items()}
        saved = {name: value for name, value in arrays.items() if not name.startswith("optimizer/")}
        archive.check_shapes(self.path, saved, weights)
        moments: dict[str, tuple[int, ...]] = {}
        for name, parameter in self.autoencoder.named_parameters():
            if any(key.startswith(f"optimizer/{name}/") for key in arrays):  # none before its first gradient
                shape = tuple(parameter.shape)
                moments |= {f"optimizer/{name}/{key}": shape for key in ("exp_avg", "exp_avg_sq")}
                moments[f"optimizer/{name}/step"] = ()
        archive.check_shapes(self.path, {name: arrays[name] for name in arrays.keys() - saved.keys()}, moments)

    def restore(self, meta: dict[str, Any], arrays: dict[str, Tensor]) -> None:
        """Restore what :meth:`save` wrote, after :meth:`check`."""
        weights = {name.removeprefix("weights/"): value for name, value in arrays.items() if name.startswith("weights/")}
        self.autoencoder.load_state_dict(weights)
        state = self.optimizer.state_dict()
        for k, (name, _) in enumerate(self.autoencoder.named_parameters()):
            start = f"optimizer/{name}/"
            saved = {key.removeprefix(start): value for key, value in arrays.items() if key.startswith(start)}
            if saved:
                state["state"][k] = saved
        self.optimizer.load_state_dict(state)
        self.iteration = meta["iteration"]

    def validate(self, valid_gen: Generator) -> tuple[float, float]:
        """Return squared error and stop error, means over the sequences of a validation set.

        Raises:
            UserError: one of them is not finite.
        """
        self.autoencoder.eval()
        total, count = torch.zeros(2), 0
        with torch.no_grad():
            for batch in self._batches(valid_gen, None):
                total += torch.stack(self.autoencoder.errors(batch)) * len(batch)
                count += len(batch)
        squared, stopping = (total / count).tolist()
        if not math.isfinite(squared + stopping):
            raise UserError(f"the validation error became {squared + stopping} after iteration {self.iteration}; {_ADVICE}")
        return squared, stopping

    def _batches(self, generator: Generator, batch_size: int | None) -> Any:
        last = False
        while not last:
            inputs, outputs, last = generator(batch_size)
            if len(inputs) != len(outputs):
                raise UserError(f"got {len(inputs)} input and {len(outputs)} output sequences, expected as many")
            batch, targets = self._inputs(inputs), _padded(outputs, self.settings.output_dim, "output")
            # Explicit lengths even without padding: None would mean the inputs' lengths.
            yield Batch(batch.inputs, targets.inputs, batch.lengths, target_lengths=targets.row_lengths)

    def _inputs(self, sequences: Arrays) -> Batch:
        return _padded(sequences, self.settings.input_dim, "input")

    def _encoded(self, sequences: Arrays) -> Tensor:
        self.autoencoder.eval()
        with torch.no_grad():
            return self.autoencoder.encode(self._inputs(sequences))


class _Iterations(Observer):
    """Learning rate, validations, saves and interrupts of a training.

    Attributes:
        history: a row for each validation.
    """

    def __init__(
        self,
        model: NDS2SAE,
        valid_gen: Generator,
        total: int,
        display_step: int,
        save_step: int,
    ):
        self.history: list[dict[str, float]] = []
        self._model, self._valid_gen = model, valid_gen
        self._total, self._display_step, self._save_step = total, display_step, save_step
        self._rate = 0.0
        self._losses: list[Tensor] = []
        self._sizes: list[int] = []

    def on_epoch_start(self, epoch: int) -> None:
        self._losses, self._sizes = [], []
        self._rate = self._model.rate(epoch)
        for group in self._model.optimizer.param_groups:
            group["lr"] = self._rate

    def on_step(self, batch: Batch, outputs: Tensor, loss: Tensor) -> None:
        self._losses.append(loss)
        self._sizes.append(len(batch))
        if interrupts.received() is not None:
            if torch.stack(self._losses).isfinite().all():  # on a GPU the loop checks them later
                self._model.save()
            raise interrupts.Interrupted

    def on_epoch_end(self, epoch: int) -> bool:
        if epoch % self._display_step == 0 or epoch == self._total - 1:
            self._validate(epoch)
        self._model.iteration += 1
        if self._model.iteration % self._save_step == 0 or self._model.iteration == self._total:
            self._model.save()
        return False

    def _validate(self, iteration: int) -> None:
        squared, stopping = self._model.validate(self._valid_gen)
        row = {
            "iteration": iteration,
            "loss": float(np.average(torch.stack(self._losses).double().cpu(), weights=self._sizes)),
            "validation_loss": squared + stopping,
        }
        self.history.append({**row, "squared_error": squared, "stop_error": stopping, "learning_rate": self._rate})
        print(
            f"Epoch {iteration}/{self._total} - Loss {row['loss']:.6g} - "
            f"Validation loss {squared + stopping:.6g} - Learning rate {self._rate:.6g}",
            flush=True,
        )


def _padded(sequences: Arrays, size: int, side: str) -> Batch:
    tensors = as_list(sequences)
    if tensors[0].dim() != 2 or tensors[0].shape[1] != size:
        raise UserError(f"got {side} sequences of shape {tuple(tensors[0].shape)}, expected (T, {side}_dim={size})")
    return padded(tensors)


def _checked_settings(given: dict[str, Any], where: str) -> dict[str, Any]:
    settings = check(Settings, given, where)
    expected = RATES[settings["lrtype"]]
    if set(settings["lrargs"]) != set(expected):
        raise UserError(
            f"{where}.lrargs: got {', '.join(settings['lrargs'])} for {settings['lrtype']}, expected {', '.join(expected)}"
        )
    rates = settings["lrargs"]
    if settings["lrtype"] == "expdecay" and rates["finish_lr"] > rates["start_lr"]:
        raise UserError(f"{where}.lrargs: got finish_lr={rates['finish_lr']}, expected at most start_lr={rates['start_lr']}")
    return settings
