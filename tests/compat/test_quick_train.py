"""The snippets of sequitur's README, and its users' requests."""

import inspect
import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from seqmem import datasets, quick_train
from seqmem.compat.quick_train import quick_train as direct
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.models import CONV_LSTM_AE, LINEAR_AE, LSTM_AE
from seqmem.models.sequitur_models import SeriesAutoencoder
from seqmem.training.config import TrainConfig
from seqmem.training.loop.in_memory import fit_sequences

SNIPPETS = {
    "numbers": """
import torch
from seqmem.models import LINEAR_AE
from seqmem import quick_train

train_seqs = [torch.randn(4) for _ in range(3)] # 3 sequences of length 4
encoder, decoder, _, _ = quick_train(LINEAR_AE, train_seqs, encoding_dim=2, denoise=True)

encoder(torch.randn(4)) # => torch.tensor([0.19, 0.84])
""",
    "frames": """
import torch
from seqmem.models import CONV_LSTM_AE
from seqmem import quick_train

train_set = [torch.randn(10, 5, 5) for _ in range(3)]
encoder, decoder, _, _ = quick_train(CONV_LSTM_AE, train_set, encoding_dim=4)

x = torch.randn(10, 5, 5)
z = encoder(x) # Tensor with shape [4]
x_prime = decoder(z) # Tensor with shape [10, 5, 5]
""",
    "LINEAR_AE": """
import torch
from seqmem.models import LINEAR_AE

model = LINEAR_AE(
  input_dim=10,
  encoding_dim=4,
  h_dims=[8, 6],
  h_activ=None,
  out_activ=None
)

x = torch.randn(10) # Sequence of 10 numbers
z = model.encoder(x) # z.shape = [4]
x_prime = model.decoder(z) # x_prime.shape = [10]
""",
    "LSTM_AE": """
import torch
from seqmem.models import LSTM_AE

model = LSTM_AE(
  input_dim=3,
  encoding_dim=7,
  h_dims=[64],
  h_activ=None,
  out_activ=None
)

x = torch.randn(10, 3) # Sequence of 10 3D vectors
z = model.encoder(x) # z.shape = [7]
x_prime = model.decoder(z, seq_len=10) # x_prime.shape = [10, 3]
""",
    "CONV_LSTM_AE": """
import torch
from seqmem.models import CONV_LSTM_AE

model = CONV_LSTM_AE(
  input_dims=(50, 100),
  encoding_dim=16,
  kernel=(5, 8),
  stride=(3, 5),
  h_conv_channels=[4, 8],
  h_lstm_channels=[32, 64]
)

x = torch.randn(22, 50, 100) # Sequence of 22 50x100 images
z = model.encoder(x) # z.shape = [16]
x_prime = model.decoder(z, seq_len=22) # x_prime.shape = [22, 50, 100]
""",
}
SHAPES = {
    "numbers": {},
    "frames": {"z": (4,), "x_prime": (10, 5, 5)},
    "LINEAR_AE": {"z": (4,), "x_prime": (10,)},
    "LSTM_AE": {"z": (7,), "x_prime": (10, 3)},
    "CONV_LSTM_AE": {"z": (16,), "x_prime": (22, 50, 100)},
}


@pytest.mark.parametrize("name", ["numbers", "frames"])
def test_the_originals_snippets_run(name):
    space = {}
    exec(SNIPPETS[name], space)
    for variable, shape in SHAPES[name].items():
        assert space[variable].shape == shape
    if name == "numbers":
        assert space["encoder"](torch.randn(4)).shape == (2,)
        assert isinstance(space["encoder"], nn.Module)
        assert isinstance(space["decoder"], nn.Module)


def test_the_originals_snippets_of_architectures_run():
    for name in ("LINEAR_AE", "LSTM_AE", "CONV_LSTM_AE"):
        space = {}
        exec(SNIPPETS[name], space)
        assert {variable: tuple(space[variable].shape) for variable in SHAPES[name]} == SHAPES[name]


def test_the_documented_signature():
    assert quick_train is direct
    documented = {"verbose": False, "lr": 1e-3, "epochs": 50, "clip_value": 1, "denoise": False, "device": None}
    parameters = list(inspect.signature(quick_train).parameters.values())
    assert [p.name for p in parameters[:3]] == ["model", "train_set", "encoding_dim"]
    assert {p.name: p.default for p in parameters[3:9]} == documented


def waves(count=24, steps=20):
    torch.manual_seed(0)
    phases = torch.rand(count, 1, 1) * 2 * math.pi + torch.tensor([0.0, math.pi / 2])
    return (0.5 * torch.arange(steps)[:, None] + phases).sin()


def test_it_learns_and_returns_what_it_says(capsys):
    series = 100 * waves() + torch.tensor([1000.0, -3.0])
    encoder, decoder, encodings, losses = quick_train(LSTM_AE, list(series), 4, True, 2e-2, 50, h_dims=[16], batch_size=8)
    assert len(losses) == 50
    variance = series.var((0, 1), correction=0).mean().item()
    assert losses[0] > 0.2 * variance > losses[-1]  # in the data's units
    with torch.no_grad():
        made = decoder(encoder(series))
    assert (made - series).square().mean().item() == pytest.approx(losses[-1], rel=0.3)
    assert [code.shape for code in encodings] == [(4,)] * 24
    assert not any(code.requires_grad for code in encodings)
    assert_close(torch.stack(encodings), encoder(series).detach())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Epoch: 1, Loss: {losses[0]}"
    assert len(lines) == 50


def test_series_of_any_length_as_list_padded_tensor_and_data_set():
    rows, lengths = waves(10, 12), torch.tensor([12, 3, 7, 12, 1, 5, 9, 11, 2, 4])
    listed = [row[:length] for row, length in zip(rows, lengths.tolist(), strict=True)]
    rows = rows.clone()
    for row, length in zip(rows, lengths.tolist(), strict=True):
        row[length:] = math.nan

    class Own(torch.utils.data.Dataset):
        def __len__(self):
            return 10

        def __getitem__(self, k):
            return listed[k], k % 2

    found = []
    for given, more in ((listed, {}), (rows, {"lengths": lengths}), (Own(), {}), ([row.numpy() for row in listed], {})):
        torch.manual_seed(1)
        found.append(quick_train(LSTM_AE, given, 3, epochs=2, **more))
    for other in found[1:]:
        assert other[3] == found[0][3]
        assert_close(torch.stack(other[2]), torch.stack(found[0][2]), rtol=0, atol=0)
    encoder, decoder, encodings, _ = found[0]
    for code, row in zip(encodings, listed, strict=True):
        assert_close(encoder(row).detach(), code)
        assert decoder(code, seq_len=len(row)).shape == row.shape


def test_frames_and_a_data_set_of_this_project():
    data = datasets.load(
        {"name": "moving_digits", "length": 3, "size": 9, "train_samples": 6, "validation_samples": 1, "test_samples": 1}
    )
    encoder, decoder, encodings, _ = quick_train(CONV_LSTM_AE, data, 3, epochs=1, h_conv_channels=[2])
    assert len(encodings) == 6
    video = torch.rand(5, 9, 9)
    assert decoder(encoder(video)).shape == video.shape
    volumes = [torch.randn(length, 4, 5, 6) for length in (2, 3)]
    encoder, decoder, _, _ = quick_train(CONV_LSTM_AE, volumes, 3, epochs=1)
    assert decoder(encoder(volumes[1])).shape == (3, 4, 5, 6)


def test_denoising_learns_from_noise_and_normalisation_can_be_left_out():
    series = list(waves(8, 9))
    losses = {}
    for name, more in {
        "plain": {},
        "denoise": {"denoise": True, "noise": 2.0},
        "unused": {"noise": 2.0},
        "raw": {"normalize": False},
    }.items():
        torch.manual_seed(0)
        losses[name] = quick_train(LSTM_AE, series, 3, epochs=2, **more)[3]
    assert losses["plain"] == losses["unused"]
    assert losses["denoise"] != losses["plain"]
    assert losses["raw"] != losses["plain"]
    encoder, decoder, _, _ = quick_train(LINEAR_AE, torch.randn(6, 5), 2, epochs=1, normalize=False)
    assert type(encoder).__name__ == type(decoder).__name__ == "MLP"


def test_validation_chooses_the_weights_and_patience_stops():
    torch.manual_seed(0)
    noise = torch.randn(12, 6, 2)
    _, _, encodings, losses = quick_train(LSTM_AE, noise, 2, lr=0.3, epochs=40, validation=0.25, patience=2)
    assert 3 <= len(losses) < 24  # six steps are whole from the first epoch on, so nothing is waited for
    assert len(encodings) == 12


def test_the_weights_that_are_left_are_the_best_in_validation():
    torch.manual_seed(0)
    train, held = torch.randn(8, 14, 2), torch.randn(4, 14, 2)
    network = LSTM_AE(2, 2, [3])
    spec = DataSpec("noise", 2, 2, "reconstruction", None, 14)
    model = SeriesAutoencoder(spec, network, growth_epochs=5)
    seen = []

    def note(epoch, loss):
        with torch.no_grad():
            seen.append((network(held) - held).square().mean().item())

    fit_sequences(model, list(train), TrainConfig(lr=0.3, epochs=12), validation=list(held), on_epoch=note, seed=5)
    with torch.no_grad():
        left = (network(held) - held).square().mean().item()
    assert left == pytest.approx(min(seen[5:]), rel=1e-5)  # of the epochs that trained on whole sequences
    assert left < seen[-1]


def test_it_trains_where_gradients_are_off_and_units_die():
    torch.manual_seed(0)
    vectors = [torch.randn(6) for _ in range(20)]
    with torch.no_grad():
        _, _, encodings, losses = quick_train(LINEAR_AE, vectors, 2, epochs=10, lr=0.3, h_dims=[4], h_activ=nn.ReLU())
    assert len(losses) == 10
    assert torch.stack(encodings).isfinite().all()


def test_everything_random_follows_from_the_seed():
    """Whatever was drawn before, and without a change of the global state. Without a seed only the weights depend on that."""
    series = list(waves(9, 14))
    options = {"epochs": 3, "denoise": True, "validation": 0.3, "batch_size": 2, "h_dims": [3]}
    results = []
    for drawn in (0, 5):
        torch.manual_seed(drawn)
        random.seed(drawn)
        before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
        results.append(quick_train(LSTM_AE, series, 3, seed=4, **options))
        after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
        assert torch.equal(before[0], after[0])
        assert before[1:] == after[1:]
    assert results[0][3] == results[1][3]
    assert torch.equal(torch.stack(results[0][2]), torch.stack(results[1][2]))
    assert quick_train(LSTM_AE, series, 3, seed=5, **options)[3] != results[0][3]


def test_the_order_of_the_batches_without_a_seed_is_always_the_same(monkeypatch):
    orders, series = [], waves(6, 5)
    learn = SeriesAutoencoder.learn

    def noted(self, batch, task):
        orders[-1].append(batch.inputs)
        return learn(self, batch, task)

    monkeypatch.setattr(SeriesAutoencoder, "learn", noted)
    for drawn in (0, 5):
        torch.manual_seed(drawn)
        orders.append([])
        quick_train(LSTM_AE, series, 2, epochs=3, batch_size=2, validation=0.2)
    assert all(torch.equal(one, other) for one, other in zip(*orders, strict=True))
    first, second = orders[0][:3], orders[0][4:7]  # the fourth validates
    assert not all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("scale", [1e20, 1e-25])
def test_losses_in_units_whose_squares_exceed_float32(scale):
    series = waves(8, 9)
    _, _, _, expected = quick_train(LSTM_AE, series, 3, epochs=2, seed=0)
    _, decoder, encodings, losses = quick_train(LSTM_AE, scale * series, 3, epochs=2, seed=0)
    assert losses == pytest.approx([scale**2 * loss for loss in expected], rel=1e-4)
    assert (decoder(encodings[0]) / scale).isfinite().all()


def test_encoders_take_no_other_number_of_channels():
    encoder, _, _, _ = quick_train(LSTM_AE, [torch.randn(4, 2)], 2, epochs=1)
    with pytest.raises(UserError, match=r"got a tensor of shape \(4, 1\), expected \(T, 2\) or \(B, T, 2\)"):
        encoder(torch.randn(4, 1))


WRONG = [
    ((nn.Linear, [torch.randn(3, 2)], 2), {}, "got model=Linear; choose from: LINEAR_AE, LSTM_AE, CONV_LSTM_AE"),
    ((LSTM_AE, [], 2), {}, "got no sequences"),
    ((LSTM_AE, [torch.randn(10, 5, 5)], 2), {}, r"LSTM_AE: got sequences of shape \(10, 5, 5\), expected \(T, C\)"),
    (
        (LINEAR_AE, [torch.randn(4), torch.randn(5)], 2),
        {},
        "LINEAR_AE: got sequences of 4 and 5 numbers, expected one length",
    ),
    ((LSTM_AE, [torch.randn(4, 2), torch.randn(5, 3)], 2), {}, r"sequence 1: got steps of shape \(3,\), expected \(2,\)"),
    ((LSTM_AE, [torch.randn(4, 2), torch.full((3, 2), math.nan)], 2), {}, "sequence 1: got a value at step 0"),
    ((LSTM_AE, [torch.randn(4, 2)], 0), {}, "quick_train.encoding_dim: got 0, expected greater than 0"),
    ((LSTM_AE, None, 2), {}, "got a NoneType, expected sequences of numbers"),
    ((LSTM_AE, ["ab", "cd"], 2), {}, "got a list, expected sequences of numbers"),
    ((LSTM_AE, torch.randn(2, 4, 2), 2), {"lengths": [4]}, "got 1 lengths of 2 sequences"),
    ((LSTM_AE, torch.randn(2, 4, 2), 2), {"lengths": [4, 5]}, "sequence 1: got a length of 5, expected 1 to 4"),
    ((LSTM_AE, [torch.randn(4, 2)], 2), {"device": "abacus"}, "quick_train.device: got 'abacus', which cannot be used"),
    ((LSTM_AE, [torch.randn(4, 2)], 2), {"lr": -1.0}, "quick_train.lr: got -1.0"),
    ((LSTM_AE, [torch.randn(4, 2)], 2), {"validation": 0.5}, "got validation=0.5 of 1 sequences"),
    ((LSTM_AE, [torch.randn(4, 2)], 2), {"patience": 3}, "got patience=3 without a validation set"),
    ((LSTM_AE, [torch.randn(4, 2)], 2), {"h_dim": [3]}, "takes no argument 'h_dim'; did you mean 'h_dims'"),
    ((CONV_LSTM_AE, [torch.randn(4, 2, 2)], 2), {}, r"a frame of \(2, 2\)"),
    ((LINEAR_AE, torch.full((4, 3), 1e30), 2), {"normalize": False}, "got values up to 1e\\+30 with normalize=False, expected"),
    ((LINEAR_AE, torch.full((4, 3), 1e-30), 2), {"normalize": False}, "got values up to 1e-30 with normalize=False, expected"),
    ((LINEAR_AE, 3e38 * torch.tensor([[1.0, -1.0], [-1.0, -1.0]]), 2), {}, "up to 3e\\+38, which float32 cannot standardize"),
    ((LINEAR_AE, 3e38 * torch.eye(3), 2), {"seed": -1}, "quick_train.seed: got -1"),
    (
        (LINEAR_AE, torch.eye(3), 2),
        {"lr": 1e30},
        "loss became (inf|nan) .*; try an lr below 1e\\+30, or",
    ),
]


def test_what_does_not_fit_is_refused_in_one_line():
    for arguments, settings, message in WRONG:
        with pytest.raises(UserError, match=message):
            quick_train(*arguments, **settings)


@pytest.mark.slow
@pytest.mark.parametrize(("epochs", "fraction"), [(120, 0.5), (300, 0.1)])
def test_two_sinusoids_of_150_steps_are_learned_where_the_original_stays_at_the_mean(epochs, fraction):
    """Frequencies and phases are independent."""
    generator = torch.Generator().manual_seed(0)
    frequencies, phases = (torch.rand(100, 1, 2, generator=generator) for _ in range(2))
    series = (torch.arange(150)[:, None] * (0.05 + 0.25 * frequencies) + 2 * math.pi * phases).sin()
    variance = series.var((0, 1), correction=0).mean()
    torch.manual_seed(0)
    encoder, decoder, _, losses = quick_train(LSTM_AE, list(series), 16, lr=7e-3, epochs=epochs, h_dims=[64], batch_size=20)
    with torch.no_grad():
        assert (decoder(encoder(series)) - series).square().mean() < fraction * variance
    assert losses[-1] < fraction * variance
