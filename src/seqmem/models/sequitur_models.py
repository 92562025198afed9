"""sequitur's three architectures as models of a config: linear_ae, lstm_ae, conv_lstm_ae."""

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


class FlatAutoencoder(Autoencoder):
    """A LINEAR_AE of all values of a sequence, padded with zeros to the length of the longest sequence."""

    bounded = True

    network: LINEAR_AE

    def encode(self, batch: Batch) -> Tensor:
        """Return encodings (B, E) of the inputs."""
        inputs = masked(batch.inputs, batch.lengths)
        return self.network.encoder(pad(inputs, (0, 0, 0, self.spec.max_length - inputs.shape[1])).flatten(1))

    def decode(self, encodings: Tensor, steps: int, lengths: Tensor | None = None) -> Tensor:
        """Return the first ``steps`` steps of the decoded sequences, (B, T, C)."""
        if steps > self.spec.max_length:
            raise UserError(
                f"linear_ae: got {steps} steps to decode, expected at most {self.spec.max_length}, the longest sequence"
            )
        return masked(self.network.decoder(encodings).unflatten(1, (-1, self.spec.input_size))[:, :steps], lengths)


class SeriesAutoencoder(Autoencoder):
    """An LSTM_AE of series."""

    network: LSTM_AE

    def encode(self, batch: Batch) -> Tensor:
        """Return encodings (B, E) of the inputs."""
        return self.network.encoder(batch.inputs, batch.lengths)

    def decode(self, encodings: Tensor, steps: int, lengths: Tensor | None = None) -> Tensor:
        """Return sequences (B, T, C)."""
        return self.network.decoder(encodings, steps, lengths)


class FrameAutoencoder(Autoencoder):
    """A CONV_LSTM_AE of frames; the channels of a step are a frame's values, row by row."""

    network: CONV_LSTM_AE

    def encode(self, batch: Batch) -> Tensor:
        """Return encodings (B, E) of the inputs."""
        assert self.spec.frame is not None
        return self.network.encoder(batch.inputs.unflatten(-1, self.spec.frame), batch.lengths)

    def decode(self, encodings: Tensor, steps: int, lengths: Tensor | None = None) -> Tensor:
        """Return sequences (B, T, C)."""
        return self.network.decoder(encodings, steps, lengths).flatten(2)


class LinearAutoencoder(FlatAutoencoder):
    """Model ``linear_ae``: a LINEAR_AE of all values of a sequence.

    Args:
        spec: the data set's spec.
        encoding_size: E, the width of an encoding.
        hidden_sizes: widths of the encoder's hidden layers; the decoder has the same widths in reverse.
        hidden_activation: activation after each hidden layer.
        encoding_activation: activation of the encoding.
        noise: standard deviation of noise that training adds to the inputs.

    Raises:
        UserError: an argument has the wrong type or range, or the data set does not fit.
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


class LSTMAutoencoder(SeriesAutoencoder):
    """Model ``lstm_ae``: an LSTM_AE of series.

    Args:
        spec: the data set's spec.
        encoding_size: E, the width of an encoding.
        hidden_sizes: widths of the encoder's layers before the last. The decoder has the same widths in reverse, the last one
            repeated.
        hidden_activation: activation of the sequences between two layers.
        encoding_activation: activation of the encoding.
        noise: standard deviation of noise that training adds to the inputs.
        growth_epochs: epochs that train on windows of the sequences, which grow to the whole sequences.
        first_window: steps of a window in the first epoch.

    Raises:
        UserError: an argument has the wrong type or range, or the data set does not fit.
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


class ConvLSTMAutoencoder(FrameAutoencoder):
    """Model ``conv_lstm_ae``: a CONV_LSTM_AE of frames.

    Args:
        spec: spec of a data set whose steps are frames.
        encoding_size: E, the width of an encoding.
        kernel: size of every convolution's kernel; one number, or one per dimension of the frame.
        stride: stride of every convolution; one number, or one per dimension of the frame.
        conv_channels: channels of each convolution.
        hidden_sizes: widths of the LSTMs before the encoding.
        noise: standard deviation of noise that training adds to the inputs.
        growth_epochs: epochs that train on windows of the sequences, which grow to the whole sequences.
        first_window: steps of a window in the first epoch.

    Raises:
        UserError: an argument has the wrong type or range, or the data set does not fit.
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
                f"model.network: got {self.name} for {spec.name}, expected a data set of frames: dataset=moving_digits, or "
                "dataset=digits dataset.frames=true"
            )
        network = CONV_LSTM_AE(spec.frame, encoding_size, kernel, stride, conv_channels, hidden_sizes)
        super().__init__(spec, network, noise=noise, growth_epochs=growth_epochs, first_window=first_window)
