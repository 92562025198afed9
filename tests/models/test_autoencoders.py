"""Autoencoders as models of a config: any data set for reconstruction, growing windows, noise, and refused data sets."""

import pytest
import torch
from torch.testing import assert_close

from seqmem import models
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.models.autoencoder import window_size, windows

SPECS = {
    "linear_ae": DataSpec("series", 3, 3, "reconstruction", None, 9),
    "lstm_ae": DataSpec("series", 3, 3, "reconstruction", None, 9),
    "conv_lstm_ae": DataSpec("video", 20, 20, "reconstruction", None, 9, frame=(4, 5)),
    "seq2seq_ae": DataSpec("series", 3, 3, "reconstruction", None, 9),
}
NAMES = list(SPECS)


def build(name, **arguments):
    torch.manual_seed(0)
    sizes = {} if name == "seq2seq_ae" else {"encoding_size": 4}
    return models.build({"network": name, **sizes, **arguments}, SPECS[name]).double()


def batch(name, steps=9, lengths=(9, 1, 5)):
    inputs = torch.randn(3, steps, SPECS[name].input_size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return Batch(inputs, inputs.clone(), torch.tensor(lengths))


@pytest.mark.parametrize("name", NAMES)
def test_padding_never_changes_an_encoding(name):
    model, whole = build(name).eval(), batch(name)
    codes, outputs = model.encode(whole), model(whole)
    assert outputs.shape == whole.targets.shape
    padded = whole.inputs.clone()
    for row, length in enumerate(whole.lengths.tolist()):
        padded[row, length:] = float("nan")
        alone = Batch(whole.inputs[row : row + 1, :length], whole.targets[row : row + 1, :length])
        assert_close(model.encode(alone)[0], codes[row])
        assert_close(model(alone)[0], outputs[row, :length])
    assert_close(model.encode(Batch(padded, whole.targets, whole.lengths)), codes)
    assert_close(model.decode(codes, 9, whole.lengths)[0], outputs[0])


def test_each_is_its_architecture():
    one = batch("lstm_ae")
    model = build("lstm_ae", hidden_sizes=[6, 5], hidden_activation="relu", encoding_activation="id")
    assert_close(model(one), model.network(one.inputs, one.lengths))
    assert [layer.output_size for layer in model.network.encoder.layers] == [6, 5, 4]
    assert isinstance(model.network.encoder.h_activ, torch.nn.ReLU)
    assert isinstance(model.network.encoder.out_activ, torch.nn.Identity)
    video = batch("conv_lstm_ae")
    model = build("conv_lstm_ae", kernel=2, conv_channels=[3])
    frames = video.inputs.unflatten(-1, (4, 5))
    assert_close(model(video).unflatten(-1, (4, 5)), model.network(frames, video.lengths))
    model = build("linear_ae", hidden_sizes=[8])
    flat = Batch(one.inputs, one.targets)
    assert_close(model(flat), model.network(one.inputs.flatten(1)).view(3, 9, 3))
    short = Batch(one.inputs[:, :4], one.targets[:, :4])
    padded = torch.cat([one.inputs[:, :4], torch.zeros(3, 5, 3)], 1)
    assert_close(model.encode(short), model.network.encoder(padded.flatten(1)))
    with pytest.raises(UserError, match="linear_ae: got 10 steps to decode, expected at most 9"):
        model.decode(model.encode(one), 10)


def test_windows_grow_by_a_factor():
    for epoch, size in enumerate([10, 14, 20, 28, 40, 40]):
        assert window_size(epoch, 40, 4, 10) == size
        assert window_size(epoch, 40, 0, 10) == 40
        assert window_size(epoch, 7, 4, 10) == 7


def test_windows_are_ranges_of_valid_steps():
    torch.manual_seed(0)
    lengths = torch.tensor([30, 3, 12] * 400)
    inputs = torch.arange(30.0).expand(1200, 30)[..., None] + 100 * torch.arange(1200.0)[:, None, None]
    cut = windows(Batch(inputs, -inputs, lengths), 10)
    assert cut.inputs.shape == (1200, 10, 1)
    assert cut.lengths.tolist() == [10, 3, 10] * 400
    assert torch.equal(cut.targets, -cut.inputs)
    starts = cut.inputs[:, 0, 0] - 100 * torch.arange(1200.0)
    for row, (start, length) in enumerate(zip(starts.tolist(), cut.lengths.tolist(), strict=True)):
        steps = cut.inputs[row, :length, 0] - 100 * row
        assert steps.tolist() == [start + k for k in range(length)]
        assert start + length <= lengths[row]
    assert set(starts[::3].tolist()) == set(map(float, range(21)))
    assert set(starts[1::3].tolist()) == {0.0}
    assert windows(Batch(inputs, inputs), 10).lengths is None


def test_training_batches_are_windows_with_noise_and_clean_targets():
    model = build("lstm_ae", growth_epochs=2, first_window=3, noise=0.5)
    whole = batch("lstm_ae", lengths=(9, 9, 9))
    model.on_epoch(0)
    cut = model.augment(whole)
    assert cut.inputs.shape == cut.targets.shape == (3, 3, 3)
    model.on_epoch(2)
    noisy = [model.augment(whole) for _ in range(200)]
    assert all(torch.equal(each.targets, whole.targets) for each in noisy)
    noise = torch.stack([each.inputs - whole.inputs for each in noisy])
    assert noise.std().item() == pytest.approx(0.5, rel=0.03)
    assert torch.equal(build("lstm_ae").augment(whole).inputs, whole.inputs)


def test_a_data_set_that_does_not_fit_is_named():
    for name, changes, message in (
        ("lstm_ae", {"task": "classification"}, "lstm_ae.* series .*dataset.reconstruction=true"),
        ("lstm_ae", {"output_size": 1}, "lstm_ae.* series .*model=seq2seq_ae"),
        ("linear_ae", {"times": True}, "linear_ae.* times .*series"),
        ("conv_lstm_ae", {"frame": None}, "got conv_lstm_ae for video, expected a data set of frames: dataset=moving_digits"),
    ):
        with pytest.raises(UserError, match=message):
            models.build({"network": name}, DataSpec(**{**SPECS[name].__dict__, **changes}))


def test_other_models_name_those_that_reconstruct():
    with pytest.raises(UserError, match="models that do that: function_approximation, conv_lstm_ae, linear_ae, lstm_ae"):
        models.build({"network": "recurrent", "cell": "gru"}, SPECS["lstm_ae"])
