"""The factory of the real-valued sequence-to-sequence autoencoder, with the names of its original."""

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
from seqmem.data.sequences import as_list, padded
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError, suggestion
from seqmem.io import archive
from seqmem.models.seq2seq_ae import Seq2SeqAutoencoder
from seqmem.training.loop.interrupts import deferred_interrupt
from seqmem.training.optimisation.schedules import learning_rate

Arrays = Sequence[np.ndarray]
Generator = Callable[[int | None], tuple[Arrays, Arrays, bool]]

CLIP = 5.0
"""Largest absolute value of each element of the gradient."""

_GO_TOKENS = {"head": 0.0, "token": -100.0}

RATES = {"constant": ("lr",), "expdecay": ("start_lr", "finish_lr", "decay_steps")}
"""Kinds of learning rate, and what each takes."""


@dataclass
class Settings:
    """What a model is made of, as in the file beside its weights.

    Attributes:
        input_dim: size of a step of the inputs.
        output_dim: size of a step of the outputs.
        layer_sizes: of the encoder's GRUs.
        symmetric: the decoder's are the same in reverse (50:30:30:50), or in the same order (50:30:50:30).
        stop: how an output says that it ends: "head", learned, or "token", by rows that hold ``stop_pad_token``.
        stop_pad_length: steps after the last one on which stopping is learned.
        stop_pad_token: what the stop rows hold.
        go_token: what the decoder reads in the first step; None for 0 with the head, which -100 would drown in the first
            steps of the training, and for the original's -100 with the token.
        keep_prob: probability with which a channel of what encoder and decoder read is kept at a step in training; None: 1.
        lrtype: "constant" or "expdecay".
        lrargs: lr; or start_lr, finish_lr and decay_steps, the iterations from one to the other.
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


class NDS2SAEFactory(Settings):
    """Settings one by one, then :meth:`build`.

        >>> factory = NDS2SAEFactory()
        >>> factory.input_dim, factory.output_dim = 2, 1
        >>> factory.layer_sizes = [50, 30]
        >>> factory.set_output("toy.zip")
        >>> autoencoder = factory.build()

    :class:`Settings` says what there is to set.
    """

    _path: Path | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        known = [each.name for each in fields(Settings)]
        if name not in known and name != "_path":
            raise UserError(f"NDS2SAEFactory has no setting '{name}'{suggestion(name, known)}")
        super().__setattr__(name, value)

    def set_output(self, filename: str | Path) -> None:
        """Choose the file that a model is saved to, and take over the settings of one that is there already.

        Raises:
            UserError: there is a file, but not one of such a model.
        """
        self._path = Path(filename)
        if self._path.exists():
            meta, _ = archive.read(self._path)
            settings = meta.get("settings")
            if not isinstance(settings, dict):
                raise UserError(f"{self._path} holds no model of NDS2SAEFactory")
            for name, value in _checked(settings, str(self._path)).items():
                setattr(self, name, value)

    def build(self) -> "NDS2SAE":
        """The model: from the file where there is one, else a new one.

        Raises:
            UserError: a setting of the wrong type or range, no output file, or a file of other settings.
        """
        if self._path is None:
            raise UserError("NDS2SAEFactory: no file to save to; call set_output(FILE) before build()")
        settings = Settings(**_checked(asdict(self), "NDS2SAEFactory"))
        if not self._path.exists():
            return NDS2SAE(settings, self._path)
        saved = archive.read(self._path)
        try:
            with torch.device("meta"):  # where sizes cost nothing, whatever a file says they are
                claimed = NDS2SAE(settings, self._path)
        except RuntimeError as error:
            raise UserError(f"{self._path}: no model can be made of its settings ({error})") from None
        claimed.check(*saved)
        model = NDS2SAE(settings, self._path)
        model.restore(*saved)
        return model


class NDS2SAE:
    """A :class:`Seq2SeqAutoencoder` that is trained, asked and saved.

    Attributes:
        settings: what it is made of.
        iteration: how many iterations it has been trained for.
        autoencoder: the torch module.
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
        self.optimizer = torch.optim.Adam(self.autoencoder.parameters(), lr=self.rate(0))

    def rate(self, iteration: int) -> float:
        """The learning rate of an iteration."""
        arguments = self.settings.lrargs
        if self.settings.lrtype == "constant":
            return arguments["lr"]
        progress = iteration / arguments["decay_steps"]
        return learning_rate("exponential", progress, arguments["start_lr"], arguments["finish_lr"])

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
        """Train until ``n_iterations`` iterations have been made, those before a save included.

        An iteration takes batches from ``training_gen(batch_size)`` until one is the last. Ctrl-C saves after a whole batch.

        Args:
            training_gen: gives input sequences (T, C), output sequences (T', D), and whether this batch is the last.
            valid_gen: the same; called with None as batch size, or again until the last batch.
            n_iterations: in all.
            batch_size: what ``training_gen`` is asked for.
            display_step: iterations between two validations, which are printed.
            save_step: iterations between two saves; None for ``display_step``. The last one is always saved.

        Returns:
            For each validation: iteration, loss (in training, of that iteration), validation_loss, its squared_error and
            stop_error, and learning_rate.

        Raises:
            UserError: an argument of the wrong type or range, sequences of another size, or a loss that is no finite number.
            KeyboardInterrupt: after saving.
        """
        history = []
        with deferred_interrupt() as interrupted:
            while self.iteration < n_iterations:
                lr = self.rate(self.iteration)
                losses = []
                for batch in self._batches(training_gen, batch_size):
                    losses.append(self._update(batch, lr))
                    if interrupted():
                        self.save()
                        raise KeyboardInterrupt
                shown = self.iteration % display_step == 0 or self.iteration == n_iterations - 1
                if shown:
                    squared, stopping = self._validate(valid_gen)
                    row = {"iteration": self.iteration, "loss": float(np.mean(losses)), "validation_loss": squared + stopping}
                    history.append({**row, "squared_error": squared, "stop_error": stopping, "learning_rate": lr})
                    print(
                        f"Epoch {self.iteration}/{n_iterations} - Loss {row['loss']:.6g} - "
                        f"Validation loss {squared + stopping:.6g} - Learning rate {lr:.6g}",
                        flush=True,
                    )
                self.iteration += 1
                if self.iteration % (save_step or display_step) == 0 or self.iteration == n_iterations:
                    self.save()
            if interrupted():  # after the last batch
                raise KeyboardInterrupt
        return history

    def predict(self, test_seq: Arrays, res_len: Sequence[int] | None = None) -> list[np.ndarray]:
        """The output of each sequence, up to where the model says that it ends.

        Args:
            test_seq: sequences (T, C).
            res_len: how long each output shall be instead.

        Returns:
            Arrays (T', D).

        Raises:
            UserError: sequences of another size, or ``res_len`` of another number of them, or below 1.
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
        """The states (E,) of all layers after each sequence (T, C), in the decoder's order; or of the last layer alone."""
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
        """Refuse what was read from a file unless it is of a model like this one.

        Raises:
            UserError: the file is damaged, or of a model of other sizes.
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
        """Go on from what :meth:`save` wrote; :meth:`check` comes first."""
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

    def _update(self, batch: Batch, lr: float) -> float:
        self.autoencoder.train()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.autoencoder.longest.clamp_(min=batch.targets.shape[1])
        loss = torch.stack(self.autoencoder.errors(batch)).sum()
        if not loss.isfinite():
            raise UserError(f"the loss became {loss.item()} in iteration {self.iteration}; try a smaller learning rate")
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_value_(self.autoencoder.parameters(), CLIP)
        self.optimizer.step()
        return loss.item()

    def _validate(self, valid_gen: Generator) -> tuple[float, float]:
        """Squared error and stop error over the validation set, each sequence counting once."""
        self.autoencoder.eval()
        total, count = torch.zeros(2), 0
        with torch.no_grad():
            for batch in self._batches(valid_gen, None):
                total += torch.stack(self.autoencoder.errors(batch)) * len(batch)
                count += len(batch)
        squared, stopping = (total / count).tolist()
        return squared, stopping

    def _batches(self, generator: Generator, batch_size: int | None) -> Any:
        last = False
        while not last:
            inputs, outputs, last = generator(batch_size)
            if len(inputs) != len(outputs):
                raise UserError(f"got {len(inputs)} input and {len(outputs)} output sequences, expected as many")
            batch, wanted = self._inputs(inputs), _padded(outputs, self.settings.output_dim, "output")
            yield Batch(batch.inputs, wanted.inputs, batch.lengths, target_lengths=_lengths(wanted))

    def _inputs(self, sequences: Arrays) -> Batch:
        return _padded(sequences, self.settings.input_dim, "input")

    def _encoded(self, sequences: Arrays) -> Tensor:
        self.autoencoder.eval()
        with torch.no_grad():
            return self.autoencoder.encode(self._inputs(sequences))


def _padded(sequences: Arrays, size: int, side: str) -> Batch:
    tensors = as_list(sequences)
    if tensors[0].dim() != 2 or tensors[0].shape[1] != size:
        raise UserError(f"got {side} sequences of shape {tuple(tensors[0].shape)}, expected (T, {side}_dim={size})")
    return padded(tensors)


def _lengths(batch: Batch) -> Tensor:
    """Where inputs and outputs differ in length, None would mean the inputs'."""
    return torch.full((len(batch),), batch.inputs.shape[1]) if batch.lengths is None else batch.lengths


def _checked(given: dict[str, Any], where: str) -> dict[str, Any]:
    settings = check(Settings, given, where)
    wanted = RATES[settings["lrtype"]]
    if set(settings["lrargs"]) != set(wanted):
        raise UserError(
            f"{where}.lrargs: got {', '.join(settings['lrargs'])} for {settings['lrtype']}, expected {', '.join(wanted)}"
        )
    rates = settings["lrargs"]
    if settings["lrtype"] == "expdecay" and rates["finish_lr"] > rates["start_lr"]:
        raise UserError(f"{where}.lrargs: got finish_lr={rates['finish_lr']}, expected at most start_lr={rates['start_lr']}")
    return settings
