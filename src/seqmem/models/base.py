"""The contract of every sequence model, and the registry of networks for configs."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from seqmem import arguments as _arguments
from seqmem import cells, plugins, sequence
from seqmem.data.batch import Batch
from seqmem.data.places import at_places
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError, suggestion
from seqmem.models.inputs import check_shape, check_times
from seqmem.ops.lengths import checked_lengths
from seqmem.sequence import SequenceLayer
from seqmem.tasks import Task, task_for

_registry: dict[str, type["SequenceModel"]] = {}


class SequenceModel(nn.Module):
    """A model that is built from a data set's spec and called on its batches.

    A subclass with a class attribute ``name`` is registered, and a config selects it by ``model.network``. The arguments of its
    constructor are ``spec`` and the other keys of the config's ``model`` section.

    Attributes:
        name: the name in configs.
        carries: the model defines :meth:`carry` and :meth:`initial_state`, as data sets with contiguous batches require.
        segments: the model defines :meth:`boundaries`: its layers detect the ends of segments.
        bounded: the model takes at most ``spec.max_length`` steps.
        spec: of the data set that the model was built for; :func:`build` sets it.
    """

    name: ClassVar[str]
    carries: ClassVar[bool] = False
    segments: ClassVar[bool] = False
    bounded: ClassVar[bool] = False
    spec: DataSpec

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            plugins.register(_registry, cls)

    @classmethod
    def check(cls, arguments: dict[str, Any]) -> None:
        """Raise UserError unless ``arguments`` are valid constructor arguments other than ``spec``; build nothing."""
        raise NotImplementedError

    @classmethod
    def label(cls, arguments: dict[str, Any]) -> str:
        """Return the name of the model in tables."""
        return cls.name

    def paths(self) -> list[str]:
        """Return the path of each sequence layer: "one compiled call", or "step by step" with the fallback reason."""
        return [module.path for module in self.modules() if isinstance(module, SequenceLayer)]

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Compute statistics of the training batches, once before training."""

    def on_epoch(self, epoch: int) -> None:
        """Pass the number of the epoch, from 0, that begins or that a loaded checkpoint belongs to, to each layer."""
        for module in self.modules():
            if isinstance(module, SequenceLayer):
                module.on_epoch(epoch)

    def penalty(self) -> Tensor | None:
        """Return a scalar that training adds to the task's loss; None for no penalty."""
        return None

    def __call__(self, batch: Batch) -> Tensor:
        """Compute :meth:`forward`, with torch's hooks.

        Raises:
            UserError: the argument is not a Batch.
        """
        if not isinstance(batch, Batch):
            names = f"{type(self).__name__}: got {type(batch).__name__}"
            raise UserError(f"{names}, expected seqmem.data.Batch; predict(inputs) takes values alone")
        outputs: Tensor = super().__call__(batch)
        return outputs

    def forward(self, batch: Batch) -> Tensor:
        """Compute the outputs at the steps that the spec defines."""
        raise NotImplementedError

    def predict(self, inputs: Any, lengths: Any = None, times: Any = None) -> Tensor:
        """Compute the outputs of :meth:`forward` for inputs without targets.

        Args:
            inputs: (B, T, C) values, or (B, T) tokens: a tensor or an array, converted to the device and the floating-point
                type of the weights.
            lengths: (B,) valid leading steps of each row; None if all T are valid.
            times: (B, T) of data sets with times, of any type; None if steps are evenly spaced.

        Returns:
            Logits or values, (B, K), (B, k, K) or (B, T, K) as ``spec.output_steps`` defines. Gradients are recorded unless
            ``torch.no_grad`` turns them off.

        Raises:
            UserError: inputs of another shape or number of channels than those of the spec, a token or length that is not whole
                or out of range, times that decrease or that the data set does not have, or no times where it has them.
        """
        spec, weight = self.spec, next((value for value in self.parameters() if value.is_floating_point()), torch.empty(0))
        inputs = _as_tensor(inputs, weight.device)
        check_shape(spec.name, inputs, () if spec.tokens else (spec.input_size,))
        inputs = _whole(f"{spec.name}: got the token", inputs) if spec.tokens else inputs.to(weight.dtype)
        if spec.tokens and bool((wrong := (inputs < 0) | (inputs >= spec.input_size)).any()):
            raise UserError(f"{spec.name}: got the token {inputs[wrong][0]}, expected one from 0 to {spec.input_size - 1}")
        # Models that reconstruct a sequence take its length from the targets.
        targets = inputs.new_empty(*inputs.shape[:2], spec.output_size, dtype=weight.dtype)
        if lengths is not None:
            lengths = _whole(f"{spec.name}: got the length", _as_tensor(lengths, weight.device))
            lengths = checked_lengths(spec.name, lengths, inputs.shape[0], inputs.shape[1], weight.device)
        if times is not None:
            # In their own type: timed layers compute step sizes from times as given.
            times = _as_tensor(times if isinstance(times, Tensor) else np.asarray(times), weight.device)
        check_times(spec.name, times, inputs, spec)
        return self(Batch(inputs, targets, lengths, times))

    def augment(self, batch: Batch) -> Batch:
        """Return the batch to train on instead of one of the data set's training batches."""
        return batch

    def learn(self, batch: Batch, task: Task) -> tuple[Tensor, Tensor]:
        """Compute the outputs for the task's metrics, and the loss, which a subclass may define itself."""
        outputs = at_places(self(batch), batch)
        return outputs, task.loss(outputs, batch)

    def loss_weight(self, batch: Batch, task: Task) -> float:
        """Return the weight of a batch's loss in a mean over batches: of how many values :meth:`learn` averages it.

        A subclass that defines its own loss defines it, unless that loss is a mean over the targets that count.
        """
        return task.weight(batch)

    def augmented_weight(self, batch: Batch, task: Task) -> float:
        """Return :meth:`loss_weight` of :meth:`augment`'s result before it is drawn, since each process draws its own.

        A subclass whose augmentation changes lengths defines it.
        """
        return self.loss_weight(batch, task)

    def carry(self, batch: Batch, state: Any = None) -> tuple[Tensor, Any]:
        """Compute the outputs of :meth:`forward` from a state.

        An output for a whole sequence has no meaning for a row that ended in an earlier batch, and has length 0 now.

        Args:
            batch: B sequences.
            state: the state that an earlier call returned for the same rows; None for the initial state.

        Returns:
            The outputs, and the state after each row's last valid step: tensors whose first dimension is B, in tuples and lists
            of any depth.
        """
        raise NotImplementedError

    def embed(self, batch: Batch) -> Tensor:
        """Return the inputs (B, T, C) in floating point: values as they are, tokens embedded or one-hot.

        :meth:`carry` takes a batch with these as inputs, and computes the same, so that tokens have gradients, too. A subclass
        for tokens defines it.
        """
        if self.spec.tokens:
            raise NotImplementedError
        return batch.inputs

    def initial_state(self, batch_size: int) -> Any:
        """Return the state that :meth:`carry` begins with if it gets none; defined where ``carries``."""
        raise NotImplementedError

    def boundaries(self, batch: Batch, state: Any = None) -> Tensor:
        """Compute the boundary indicators of each step and layer.

        Args:
            batch: B sequences.
            state: the state that :meth:`carry` returned for the same rows; None for the initial state.

        Returns:
            (B, T, L), from 0 to 1, layers from the bottom up, zero in the padding.
        """
        raise NotImplementedError


def build(model: Mapping[str, Any], spec: DataSpec) -> SequenceModel:
    """Build the model of a config's ``model`` section for a data set.

    Raises:
        UserError: the section does not describe a model, or the model does not support the data set.
    """
    network, arguments = _resolved(model)
    if spec.contiguous and not network.carries:
        raise UserError(
            f"model.network: {network.name} carries no state from batch to batch, as the chunks of {spec.name} require; "
            f"dataset.step={spec.max_length} makes each chunk an independent sequence"
        )
    built = network(spec=spec, **arguments)
    built.spec = spec
    return built


def check(model: Mapping[str, Any]) -> None:
    """Raise UserError unless a config's ``model`` section describes a model."""
    network, arguments = _resolved(model)
    network.check(arguments)


def as_declared(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checked ``model`` section with numbers in the types of the constructors of network, cell and mixer.

    See :func:`seqmem.arguments.as_declared`.
    """
    network, _ = _resolved(model)
    found = _arguments.as_declared(network, model)
    for part in ("cell", "mixer"):
        if found.get(f"{part}_args"):
            found[f"{part}_args"] = _arguments.as_declared(sequence.get(found[part]), found[f"{part}_args"])
    return found


def label(model: Mapping[str, Any]) -> str:
    """Return the name in tables of the model of a config's ``model`` section."""
    network, arguments = _resolved(model)
    return network.label(arguments)


def check_states(label: str, state: Any, count: int) -> None:
    """Refuse a state that does not have one part for each layer; None is the initial state.

    Args:
        label: name of the network in messages.
        state: the argument of :meth:`SequenceModel.carry`.
        count: number of layers.

    Raises:
        UserError: it is not a list or tuple of as many states.
    """
    if state is None:
        return
    if not isinstance(state, list | tuple):
        raise UserError(f"{label}: got a state of type {type(state).__name__}, expected a list of {count}, one for each layer")
    if len(state) != count:
        raise UserError(f"{label}: got a list of {len(state)} states, expected {count}, one for each layer")


def refuse_reconstruction(network: SequenceModel, spec: DataSpec) -> None:
    """Raise UserError if a data set requires reconstruction, which a network with outputs at its steps does not support."""
    if task_for(spec).reconstructs:
        raise UserError(
            f"model.network: {network.name} predicts outputs at its steps, and {spec.name} requires reconstruction from the "
            "last state; models that do that: function_approximation, conv_lstm_ae, linear_ae, lstm_ae, seq2seq_ae"
        )


def _as_tensor(values: Any, device: torch.device) -> Tensor:
    """Return a tensor or an array, of any strides, as a tensor on a device."""
    if isinstance(values, np.ndarray):
        values = np.ascontiguousarray(values).reshape(values.shape)
    return torch.as_tensor(values, device=device)


def _whole(start: str, values: Tensor) -> Tensor:
    """Return whole numbers as int64; ``start`` begins the message about another number."""
    if values.is_floating_point() and bool((wrong := values != values.round()).any()):
        raise UserError(f"{start} {values[wrong][0]:g}, expected a whole number")
    return values.long()


def _resolved(model: Mapping[str, Any]) -> tuple[type[SequenceModel], dict[str, Any]]:
    if not isinstance(model, Mapping):
        raise UserError(f"model: got {model!r}, expected a mapping as {{'network': 'stack', 'mixer': 's4d'}}")
    arguments = dict(model)
    if "network" not in arguments:
        raise UserError(f"model.network: a value is required; choose from: {', '.join(sorted(_registry))}")
    name = arguments.pop("network")
    if not isinstance(name, str) or name not in _registry:
        part = {"network=recurrent with cell": cells.names(), "network=stack with mixer": sequence.names()}
        of = next((f"; did you mean {key}={name}?" for key, known in part.items() if name in known), "")
        raise UserError(f"model.network: no network is called '{name}'{of or suggestion(name, sorted(_registry))}")
    return _registry[name], arguments
