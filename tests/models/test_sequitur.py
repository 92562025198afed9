"""The three architectures: the original's numbers, batches against single rows, and refused inputs."""

import io
import json
from copy import deepcopy
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from seqmem.errors import UserError
from seqmem.models import CONV_LSTM_AE, LINEAR_AE, LSTM_AE

MODELS = {"linear_ae": LINEAR_AE, "lstm_ae": LSTM_AE, "conv_lstm_ae": CONV_LSTM_AE}

FRAMES = {
    "2-D": {"input_dims": (7, 9), "kernel": (3, 4), "stride": (2, 1), "h_conv_channels": [3]},
    "3-D": {"input_dims": (5, 6, 4), "kernel": 2, "h_conv_channels": [2, 3], "h_lstm_channels": [5]},
    "plain": {"input_dims": (6, 5)},
}


@cache
def golden():
    with np.load(Path(__file__).parents[1] / "golden" / "sequitur_models.npz") as archive:
        return {name: json.loads(str(archive[name])) if name == "index" else archive[name] for name in archive.files}


def arrays(case):
    return {name.partition("/")[2]: torch.from_numpy(array) for name, array in golden().items() if name.startswith(f"{case}/")}


def original(case, changes=None):
    model = MODELS[case](**golden()["index"][case], **(changes or {}))
    state = {name.removeprefix("param."): value for name, value in arrays(case).items() if name.startswith("param.")}
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("case", MODELS)
def test_encodings_and_decodings_are_the_originals(case):
    model, data = original(case), arrays(case)
    code = model.encoder(data["x"])
    assert_close(code, data["z"], rtol=1e-5, atol=1e-6)
    for decoded in (model.decoder(code), model(data["x"]), model(data["x"][None])[0]):
        assert_close(decoded, data["y"], rtol=1e-5, atol=1e-6)


def test_weights_of_the_original_without_activations_are_numbered_by_layers():
    model, data = original("linear_ae", {"h_activ": None, "out_activ": None}), arrays("linear_ae")
    chained = data["x"]
    for k in (0, 2, 4):
        chained = data[f"param.encoder.nn.{k}.weight"] @ chained + data[f"param.encoder.nn.{k}.bias"]
    assert_close(model.encoder(data["x"]), chained)
    numbered = LINEAR_AE(10, 4, [8, 6], None, None)
    state = model.state_dict()
    numbered.load_state_dict({name.replace("layers", "nn"): value for name, value in state.items()})
    assert_close(numbered(data["x"]), model(data["x"]))


def torch_encoder_and_decoder(model, inputs, h_activ):
    """The same with torch.nn.LSTM."""

    def run(layers, outputs):
        for k, layer in enumerate(layers):
            twin = nn.LSTM(layer.input_size, layer.output_size, batch_first=True).double()
            twin.load_state_dict({f"{name}_l0": value for name, value in layer.state_dict().items()})
            outputs, (hidden, _) = twin(outputs if k == 0 else h_activ(outputs))
        return outputs, hidden

    code = run(model.encoder.layers, inputs[None])[1][0, 0].tanh()
    outputs = run(model.decoder.layers, code.expand(1, len(inputs), -1))[0][0]
    return code, outputs @ model.decoder.dense_matrix


@pytest.mark.parametrize("h_dims", [[], [11, 8, 3]])
def test_an_lstm_autoencoder_computes_what_torch_lstms_do(h_dims):
    model = LSTM_AE(2, 5, h_dims, nn.ReLU()).double()
    inputs = torch.randn(13, 2, dtype=torch.float64)
    code, outputs = torch_encoder_and_decoder(model, inputs, torch.relu)
    assert_close(model.encoder(inputs), code)
    assert_close(model(inputs), outputs)
    assert [layer.output_size for layer in model.encoder.layers] == [*h_dims, 5]
    assert [layer.output_size for layer in model.decoder.layers] == ([*h_dims[::-1], h_dims[0]] if h_dims else [5])


@pytest.mark.parametrize("arguments", FRAMES.values(), ids=FRAMES)
def test_a_frame_becomes_a_vector_and_a_vector_a_frame(arguments):
    """By the layers' own definitions, in float64."""
    model = CONV_LSTM_AE(encoding_dim=4, **arguments).double()
    frame = torch.randn(arguments["input_dims"], dtype=torch.float64)
    kernel, stride = arguments.get("kernel", 3), arguments.get("stride", 1)
    two = frame.dim() == 2
    convolve, deconvolve = (
        (nn.functional.conv2d, nn.functional.conv_transpose2d)
        if two
        else (
            nn.functional.conv3d,
            nn.functional.conv_transpose3d,
        )
    )
    outputs, shapes = frame[None, None], [frame.shape]
    for layer in model.encoder.frames.convolutions:
        outputs = convolve(outputs, layer.weight, layer.bias, stride).relu()
        shapes.append(outputs.shape[2:])
    vector = model.encoder.frames.linear(outputs.flatten())
    assert vector.shape == (sum(arguments["input_dims"]),)
    assert_close(model.encoder.frames(frame[None])[0], vector)
    back = model.decoder.frames.linear(vector).view(outputs.shape)
    kernels, strides = ([size] * frame.dim() if isinstance(size, int) else size for size in (kernel, stride))
    for layer, shape in zip(model.decoder.frames.convolutions, shapes[-2::-1], strict=True):
        padding = [s - ((b - 1) * st + k) for s, b, st, k in zip(shape, back.shape[2:], strides, kernels, strict=True)]
        back = deconvolve(back, layer.weight, layer.bias, stride, output_padding=padding)
    assert_close(model.decoder.frames(vector[None])[0], back[0, 0])
    assert back[0, 0].shape == frame.shape


def test_initial_weights_undo_the_activation_between_layers():
    """To first order around 0, where a sigmoid is 1/2 + x / 4; forget gates start open."""
    model = LSTM_AE(2, 5, [40, 30])
    first, *others = [*model.encoder.layers]
    for layer, scale in ((first, 1), *((other, 4) for other in others)):
        bound = scale * (6 / (layer.input_size + layer.output_size)) ** 0.5
        assert 0.95 * bound < layer.weight_ih.abs().max() < 1.01 * bound
        offset = layer.bias_ih + layer.bias_hh + (layer.weight_ih.sum(1) / 2 if layer is not first else 0)
        assert_close(offset, torch.tensor([0.0, 1.0, 0.0, 0.0]).repeat_interleave(layer.output_size), atol=1e-5, rtol=0)
        assert_close(
            layer.weight_hh[: layer.output_size] @ layer.weight_hh[: layer.output_size].T, torch.eye(layer.output_size)
        )


def sequence_models():
    return {"lstm": LSTM_AE(3, 4, [6])} | {name: CONV_LSTM_AE(encoding_dim=4, **each) for name, each in FRAMES.items()}


@pytest.mark.parametrize("name", ["lstm", "2-D", "3-D"])
def test_a_batch_is_its_rows_and_padding_changes_nothing(name):
    model = sequence_models()[name].double()
    shape = (3,) if name == "lstm" else FRAMES[name]["input_dims"]
    lengths = torch.tensor([9, 1, 5, 8])
    inputs = torch.randn(4, 9, *shape, dtype=torch.float64)
    padded = inputs.clone()
    for row, length in enumerate(lengths.tolist()):
        padded[row, length:] = float("nan")
    codes, outputs = model.encoder(padded, lengths), model(padded, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = inputs[row, :length]
        assert_close(codes[row], model.encoder(alone))
        assert_close(outputs[row, :length], model(alone))
        assert (outputs[row, length:] == 0).all()
    outputs.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert_close(model(inputs), torch.stack([model(row) for row in inputs]))


@pytest.mark.parametrize("name", ["lstm", "2-D"])
def test_the_decoder_takes_a_length_or_that_of_the_last_encoding(name):
    model = sequence_models()[name]
    shape = (3,) if name == "lstm" else FRAMES[name]["input_dims"]
    with pytest.raises(UserError, match=r"decoder: got seq_len=None, expected a number of steps"):
        model.decoder(torch.zeros(4))
    assert model.decoder(torch.zeros(2, 4), seq_len=3).shape == (2, 3, *shape)
    code = model.encoder(torch.randn(5, *shape))
    assert model.decoder(code).shape == (5, *shape)
    copied = deepcopy(model)
    model.encoder(torch.randn(2, 7, *shape))
    assert model.decoder(code).shape == (7, *shape)
    assert copied.decoder(code).shape == (5, *shape)
    assert_close(model.decoder(code, seq_len=4), model.decoder(code, seq_len=6)[:4])
    with pytest.raises(UserError, match="got seq_len=0, expected at least 1"):
        model.decoder(code, seq_len=0)


def test_weights_round_trip():
    for (name, model), other in zip(sequence_models().items(), sequence_models().values(), strict=True):
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
        shape = (3,) if name == "lstm" else FRAMES[name]["input_dims"]
        inputs = torch.randn(2, 4, *shape)
        assert torch.equal(model(inputs), other(inputs))


def test_the_gradient_is_the_true_one():
    model = LSTM_AE(2, 3, [4]).double()
    lengths = torch.tensor([5, 2])
    inputs = torch.randn(2, 5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: model(x, lengths), inputs)


def test_encoder_and_decoder_are_modules_that_share_no_weight():
    for model in [LINEAR_AE(5, 2, [4]), *sequence_models().values()]:
        parts = [{id(p) for p in part.parameters()} for part in (model.encoder, model.decoder)]
        assert not parts[0] & parts[1]
        assert parts[0] | parts[1] == {id(p) for p in model.parameters()}


def test_activations_are_where_they_belong():
    inputs = torch.randn(4, 6)
    bare = LINEAR_AE(6, 2, [5, 4], None, None)
    weight = torch.linalg.multi_dot([layer.weight for layer in reversed(bare.encoder.layers)])
    zero = bare.encoder(torch.zeros(6))
    assert_close(bare.encoder(inputs), inputs @ weight.T + zero)
    model = LINEAR_AE(6, 2, [5, 4], nn.ReLU(), nn.Sigmoid())
    model.load_state_dict(bare.state_dict())
    hidden = inputs
    for layer in model.encoder.layers[:-1]:
        hidden = layer(hidden).relu()
    assert_close(model.encoder(inputs), model.encoder.layers[-1](hidden).sigmoid())
    widths = [(layer.in_features, layer.out_features) for part in (model.encoder, model.decoder) for layer in part.layers]
    assert widths == [*pairwise([6, 5, 4, 2]), *pairwise([2, 4, 5, 6])]


REFUSED = [
    (lambda: LSTM_AE(0, 3), "input_dim: got 0, expected greater than 0"),
    (lambda: LSTM_AE(2, 3, h_dim=[4]), "takes no argument 'h_dim'; did you mean 'h_dims'"),
    (lambda: LSTM_AE(2, 3, [4, 0]), "h_dims.1: got 0"),
    (lambda: LINEAR_AE(2, 3, h_activ="relu"), "h_activ: got 'relu'"),
    (lambda: LINEAR_AE(5, 3)(torch.randn(2, 4)), r"got a tensor of shape \(2, 4\), expected \(5,\) or \(B, 5\)"),
    (lambda: LSTM_AE(5, 3)(torch.randn(10, 4)), r"got a tensor of shape \(10, 4\), expected \(T, 5\) or \(B, T, 5\)$"),
    (lambda: LSTM_AE(5, 3)(torch.randn(0, 5)), r"got a tensor of shape \(0, 5\)"),
    (lambda: LSTM_AE(5, 3)(torch.randn(10, 2, 2, 5)), "CONV_LSTM_AE takes sequences of frames"),
    (lambda: LSTM_AE(5, 3).decoder(torch.randn(4), 7), r"got encodings of shape \(4,\), expected \(3,\) or \(B, 3\)"),
    (lambda: CONV_LSTM_AE((5,), 3), r"got input_dims=\(5,\), expected the shape of a frame"),
    (lambda: CONV_LSTM_AE((5, 6), 3, kernel=(2, 2, 2)), r"got kernel=\(2, 2, 2\), expected one size, or one for each of 2"),
    (lambda: CONV_LSTM_AE((9, 5), 3, 4, 2, [1, 1]), r"a frame of \(9, 5\) becomes \(3, 1\)"),
    (lambda: CONV_LSTM_AE((5, 6), 3)(torch.randn(4, 6, 5)), r"expected \(T, 5, 6\) or \(B, T, 5, 6\)"),
]


def test_what_does_not_fit_is_refused_in_one_line():
    for make, message in REFUSED:
        with pytest.raises(UserError, match=message):
            make()


def test_no_two_models_share_an_activation():
    first, second = LSTM_AE(2, 3, [4]), LSTM_AE(2, 3, [4])
    first.encoder.eval()
    assert second.encoder.h_activ.training
    assert first.decoder.h_activ.training
