"""The contract of every sequence model, and how a config names one."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError, suggestion
from seqmem.sequence import SequenceLayer
from seqmem.tasks import Task

_registry: dict[str, type["SequenceModel"]] = {}


class SequenceModel(nn.Module):
    """Built from a data set's spec, called on its batches.

    A subclass with a class attribute ``name`` is registered: a config selects it by ``model.network``. Its constructor takes
    ``spec`` and the config's other keys.
    """

    name: ClassVar[str]
    carries: ClassVar[bool] = False
    """Whether it writes :meth:`carry`, as a data set of contiguous batches asks for."""
    segments: ClassVar[bool] = False
    """Whether it writes :meth:`boundaries`: its layers find where the segments of their inputs end."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            _registry[cls.name] = cls

    @classmethod
    def check(cls, arguments: dict[str, Any]) -> None:
        """Raise UserError if ``arguments`` are not what the constructor takes beside ``spec``; build nothing."""
        raise NotImplementedError

    @classmethod
    def label(cls, arguments: dict[str, Any]) -> str:
        """How tables call the model."""
        return cls.name

    def paths(self) -> list[str]:
        """How the latest sequence went through each recurrence: in "one compiled call", or "step by step" and why."""
        return [module.path for module in self.modules() if isinstance(module, SequenceLayer)]

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Called once with the training batches, before training: for what is computed from them and not learned."""

    def on_epoch(self, epoch: int) -> None:
        """Tell each recurrence the number of the epoch, from 0, that begins or that a loaded checkpoint is of."""
        for module in self.modules():
            if isinstance(module, SequenceLayer):
                module.on_epoch(epoch)

    def penalty(self) -> Tensor | None:
        """What training adds to the task's loss, a scalar; None for nothing."""
        return None

    def forward(self, batch: Batch) -> Tensor:
        """Outputs at the steps that the spec wants."""
        raise NotImplementedError

    def augment(self, batch: Batch) -> Batch:
        """The training batch that is learned from in place of one of the data set's."""
        return batch

    def learn(self, batch: Batch, task: Task) -> tuple[Tensor, Tensor]:
        """Outputs for the task's metrics, and the loss: the task's, unless a subclass has one of its own."""
        outputs = self(batch)
        return outputs, task.loss(outputs, batch)

    def carry(self, batch: Batch, state: Any = None) -> tuple[Tensor, Any]:
        """What :meth:`forward` gives, from a state on, and the state after each row's last valid step.

        Args:
            batch: B sequences.
            state: what an earlier call returned for the same rows; None for the beginning.

        Returns:
            The outputs; and the state, tensors whose first dimension is B in tuples and lists as one likes.
        """
        raise NotImplementedError

    def boundaries(self, batch: Batch, state: Any = None) -> Tensor:
        """The boundary indicators of each step and layer.

        Args:
            batch: B sequences.
            state: what :meth:`carry` returned for the same rows; None for the beginning.

        Returns:
            (B, T, L), from 0 to 1, layers from the bottom up, zero where padded.
        """
        raise NotImplementedError


def build(model: Mapping[str, Any], spec: DataSpec) -> SequenceModel:
    """The model that a config's ``model`` section describes, for a data set.

    Raises:
        UserError: the section does not describe a model, or not one that fits the data set.
    """
    network, arguments = _resolved(model)
    if spec.contiguous and not network.carries:
        raise UserError(
            f"model.network: {network.name} carries no state from batch to batch, as the chunks of {spec.name} ask for; "
            f"dataset.step={spec.max_length} makes each a sequence for itself"
        )
    return network(spec=spec, **arguments)


def check(model: Mapping[str, Any]) -> None:
    """Raise UserError if a config's ``model`` section does not describe a model."""
    network, arguments = _resolved(model)
    network.check(arguments)


def label(model: Mapping[str, Any]) -> str:
    """How tables call the model of a config's ``model`` section."""
    network, arguments = _resolved(model)
    return network.label(arguments)


def refuse_reconstruction(network: SequenceModel, spec: DataSpec) -> None:
    """Raise UserError if a data set wants a whole signal back, which a network with outputs at its steps cannot give."""
    if spec.task == "reconstruction":
        raise UserError(
            f"model.network: {network.name} answers step by step, and {spec.name} is to be given back from the last state; "
            "models that do that: function_approximation, conv_lstm_ae, linear_ae, lstm_ae, seq2seq_ae"
        )


def _resolved(model: Mapping[str, Any]) -> tuple[type[SequenceModel], dict[str, Any]]:
    arguments = dict(model)
    name = arguments.pop("network", None)
    if not isinstance(name, str) or name not in _registry:
        raise UserError(f"model.network: no network is called '{name}'{suggestion(name, sorted(_registry))}")
    return _registry[name], arguments
