"""sequitur's three architectures in the framework's (B, T, C), and as models of a config."""

from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import pad

from seqmem.arguments import checked
from seqmem.data.batch import Batch
from seqmem.data.masks import masked
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.models.autoencoder import Autoencoder
from seqmem.models.conv_lstm_ae import CONV_LSTM_AE, Sizes
from seqmem.models.linear_ae import LINEAR_AE
from seqmem.models.lstm_ae import LSTM_AE

Activation = Literal["id", "tanh", "relu", "sigmoid"]

_activations: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "sigmoid": nn.Sigmoid, "id": nn.Identity}


class OfValues(Autoencoder):
    """A LINEAR_AE of all values of a sequence at once; a shorter one is continued with zeros to the longest one's length."""

    network: LINEAR_AE

    def encode(self, batch: Batch) -> Tensor:
        """Encodings (B, E) of the inputs."""
        inputs = masked(batch.inputs, batch.lengths)
        return self.network.encoder(pad(inputs, (0, 0, 0, self.spec.max_length - inputs.shape[1])).flatten(1))

    def decode(self, encodings: Tensor, steps: int, lengths: Tensor | None = None) -> Tensor:
        """The first ``steps`` of the longest sequence's."""
        if steps > self.spec.max_length:
            raise UserError(
                f"linear_ae: got {steps} steps to decode, expected at most {self.spec.max_length}, the longest seen"
            )
        return masked(self.network.decoder(encodings).unflatten(1, (-1, self.spec.input_size))[:, :steps], lengths)


class OfSeries(Autoencoder):
    """An LSTM_AE."""

    network: LSTM_AE

    def encode(self, batch: Batch) -> Tensor:
        """Encodings (B, E) of the inputs."""
        return self.network.encoder(batch.inputs, batch.lengths)

    def decode(self, encodings: Tensor, steps: int, lengths: Tensor | None = None) -> Tensor:
        """Sequences (B, T, C)."""
        return self.network.decoder(encodings, steps, lengths)


class OfFrames(Autoencoder):
    """A CONV_LSTM_AE of frames whose values are the channels, row by row."""

    network: CONV_LSTM_AE

    def encode(self, batch: Batch) -> Tensor:
        """Encodings (B, E) of the inputs."""
        assert self.spec.frame is not None
        return self.network.encoder(batch.inputs.unflatten(-1, self.spec.frame), batch.lengths)

    def decode(self, encodings: Tensor, steps: int, lengths: Tensor | None = None) -> Tensor:
        """Sequences (B, T, C)."""
        return self.network.decoder(encodings, steps, lengths).flatten(2)


class LinearAutoencoder(OfValues):
    """All values of a sequence into a LINEAR_AE at once; a shorter one is continued with zeros to the longest one's length.

    Args:
        spec: the data set it is for.
        encoding_size: E.
        hidden_sizes: widths of the encoder's hidden layers; the decoder's are the same in reverse.
        hidden_activation: after each hidden layer.
        encoding_activation: of the encoding.
        noise: standard deviation of noise on the inputs in training.

    Raises:
        UserError: an argument of the wrong type or range, or a data set that it is not for.
    """

    name = "linear_ae"

    @checked
    def __init__(
        self,
        spec: DataSpec,
        encoding_size: PositiveInt = 16,
        hidden_sizes: list[PositiveInt] = [],  # noqa: B006
        hidden_activation: Activation = "sigmoid",
        encoding_activation: Activation = "tanh",
        noise: NonNegativeFloat = 0.0,
    ):
        activations = _activations[hidden_activation](), _activations[encoding_activation]()
        network = LINEAR_AE(spec.max_length * spec.input_size, encoding_size, hidden_sizes, *activations)
        super().__init__(spec, network, noise=noise)


class LSTMAutoencoder(OfSeries):
    """An LSTM_AE.

    Args:
        spec: the data set it is for.
        encoding_size: E.
        hidden_sizes: widths of the encoder's layers before the last; the decoder's are the same in reverse, the last twice.
        hidden_activation: of the sequences between two layers.
        encoding_activation: of the encoding.
        noise: standard deviation of noise on the inputs in training.
        growth_epochs: windows of the sequences are trained on in the first so many epochs, and grow to the whole.
        first_window: steps of a window in the first epoch.

    Raises:
        UserError: an argument of the wrong type or range, or a data set that it is not for.
    """

    name = "lstm_ae"

    @checked
    def __init__(
        self,
        spec: DataSpec,
        encoding_size: PositiveInt = 16,
        hidden_sizes: list[PositiveInt] = [64],  # noqa: B006
        hidden_activation: Activation = "sigmoid",
        encoding_activation: Activation = "tanh",
        noise: NonNegativeFloat = 0.0,
        growth_epochs: NonNegativeInt = 0,
        first_window: PositiveInt = 10,
    ):
        activations = _activations[hidden_activation](), _activations[encoding_activation]()
        network = LSTM_AE(spec.input_size, encoding_size, hidden_sizes, *activations)
        super().__init__(spec, network, noise=noise, growth_epochs=growth_epochs, first_window=first_window)


class ConvLSTMAutoencoder(OfFrames):
    """A CONV_LSTM_AE.

    Args:
        spec: a data set whose steps are frames.
        encoding_size: E.
        kernel: size of the convolutions, or one size a dimension of the frame.
        stride: the same.
        conv_channels: channels of each convolution.
        hidden_sizes: widths of the LSTMs before the encoding.
        noise: standard deviation of noise on the inputs in training.
        growth_epochs: windows of the sequences are trained on in the first so many epochs, and grow to the whole.
        first_window: steps of a window in the first epoch.

    Raises:
        UserError: an argument of the wrong type or range, or a data set that it is not for.
    """

    name = "conv_lstm_ae"

    @checked
    def __init__(
        self,
        spec: DataSpec,
        encoding_size: PositiveInt = 16,
        kernel: Sizes = 3,
        stride: Sizes = 1,
        conv_channels: list[PositiveInt] = [8],  # noqa: B006
        hidden_sizes: list[PositiveInt] = [64],  # noqa: B006
        noise: NonNegativeFloat = 0.0,
        growth_epochs: NonNegativeInt = 0,
        first_window: PositiveInt = 10,
    ):
        if spec.frame is None:
            raise UserError(
                f"model.network: {self.name} reads frames, and the steps of {spec.name} are none; dataset=moving_digits and "
                "dataset=digits dataset.frames=true have them"
            )
        network = CONV_LSTM_AE(spec.frame, encoding_size, kernel, stride, conv_channels, hidden_sizes)
        super().__init__(spec, network, noise=noise, growth_epochs=growth_epochs, first_window=first_window)
