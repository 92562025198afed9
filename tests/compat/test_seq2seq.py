"""The factory as in the original's README, and its file: saved, resumed from, refused."""

import os
import pickle
import signal
import zipfile

import numpy as np
import pytest
import torch

from seqmem.compat.seq2seq import NDS2SAEFactory as DirectFactory
from seqmem.errors import UserError
from seqmem.io import archive
from seqmem.io.interrupts import Interrupted
from seqmem.models import NDS2SAEFactory

README = """
from seqmem.models import NDS2SAEFactory

n_iterations = 3000
factory = NDS2SAEFactory()
factory.set_output('toy.zip')
factory.input_dim = 2 #  Input is 2 dimensiona;
factory.output_dim = 1 #  Output is one dimensional
factory.layer_sizes = [50, 30]

# Use exponential decaying learning rate, in here it starts at 0.02 then decreases exponentially to 0.00001
factory.lrtype = 'expdecay'
factory.lrargs = dict(start_lr=0.02, finish_lr=0.00001, decay_steps=n_iterations)

# Alternatively, set a constant rate is also possible, e.g. 0.001
# factory.lrtype = 'constant'
# factory.lrargs = dict(lr=0.001)

# For the dropout layer. Default is None. If None, the dropout layer is not used
factory.keep_prob = 0.7

# The hidden layer will be symmetric (in this case: 50:30:30:50)
# otherwise it'll be repeated (50:30:50:30)
factory.symmetric = True

# Save or load (and resume) from this zip file
encoder = factory.build()
"""
TRAIN = "encoder.train(train_generator, valid_generator, n_iterations=3000, batch_size=100, display_step=100)"


class Waves:
    """Batches of the toy signals; the last of three ends an iteration."""

    def __init__(self, count=3, seed=0, stride=1):
        self.random, self.count, self.calls, self.stride = np.random.default_rng(seed), count, 0, stride

    def __call__(self, batch_size):
        self.calls += 1
        t = [0.15 * (self.random.integers(900) + np.arange(length)) for length in self.random.integers(4, 9, batch_size or 5)]
        inputs = [2 * np.stack([np.sin(each), np.cos(each)], 1) for each in t]
        return inputs, [each.sum(1, keepdims=True)[:: self.stride] for each in inputs], self.calls % self.count == 0


def small(path, **settings):
    factory = NDS2SAEFactory()
    factory.set_output(path)
    for name, value in {"input_dim": 2, "layer_sizes": [6, 4], **settings}.items():
        setattr(factory, name, value)
    torch.manual_seed(0)
    return factory.build()


def test_the_readmes_snippets_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    space = {"train_generator": Waves(), "valid_generator": Waves(1)}
    exec(README, space)
    assert space["factory"].keep_prob == 0.7
    exec(TRAIN.replace("3000", "3").replace("100", "4", 1), space)
    encoder = space["encoder"]
    assert space["train_generator"].calls == 9
    assert capsys.readouterr().out.splitlines()[0].startswith("Epoch 0/3 - Loss ")
    sequences, _, _ = Waves()(3)
    predicted, encoded = encoder.predict(sequences), encoder.encode(sequences)
    assert all(each.ndim == 2 and each.shape[1] == 1 for each in predicted)
    assert [each.shape for each in encoded] == [(80,)] * 3
    assert [each.shape for each in encoder.encode(sequences, kernel_only=True)] == [(30,)] * 3
    assert [each.shape for each in encoder.predict(sequences, res_len=[5, 2, 9])] == [(5, 1), (2, 1), (9, 1)]
    assert np.array_equal(encoder.encode(sequences)[0], encoded[0])  # no dropout here
    assert (tmp_path / "toy.zip").exists()
    assert NDS2SAEFactory is DirectFactory


@pytest.mark.parametrize("stop", ["head", "token"])
def test_the_loss_falls_and_the_gradient_is_clipped_by_value(tmp_path, stop):
    model = small(tmp_path / "a.zip", stop=stop, lrargs={"lr": 0.02})
    held = Waves(1, 1)(20)
    history = model.train(Waves(2), lambda _: held, 25, batch_size=10, display_step=12)
    assert [row["iteration"] for row in history] == [0, 12, 24]
    assert history[-1]["validation_loss"] < 0.9 * history[0]["validation_loss"]
    for row in history:
        assert row["validation_loss"] == pytest.approx(row["squared_error"] + row["stop_error"])
        assert (row["stop_error"] == 0) == (stop == "token")
    assert (
        max(parameter.grad.abs().max().item() for parameter in model.autoencoder.parameters() if parameter.grad is not None)
        <= 5
    )


def test_the_loss_is_a_mean_over_sequences_as_that_of_the_validation(tmp_path):
    model = small(tmp_path / "a.zip", lrargs={"lr": 1e-12})
    many, one = Waves(1, 1)(6)[0], [10 * np.ones((4, 2))]
    many, one = ((inputs, [each[:, :1] for each in inputs]) for inputs in (many, one))

    def generator(batch_size):
        generator.calls += 1
        last = generator.calls % 2 == 0
        return (*one, True) if last else (*many, False)

    generator.calls = 0
    [row] = model.train(generator, generator, 1, batch_size=6)
    assert row["loss"] == pytest.approx(row["validation_loss"], rel=1e-4)
    alone = [model.validate(lambda _, each=each: (*each, True)) for each in (many, one)]
    expected = sum(weight * sum(errors) for weight, errors in zip((6 / 7, 1 / 7), alone, strict=True))
    assert row["loss"] == pytest.approx(expected, rel=1e-4)


def test_learning_rates(tmp_path):
    constant = small(tmp_path / "a.zip", lrargs={"lr": 0.3})
    assert [constant.rate(k) for k in (0, 70)] == [0.3, 0.3]
    falling = small(tmp_path / "b.zip", lrtype="expdecay", lrargs={"start_lr": 0.02, "finish_lr": 0.0002, "decay_steps": 10})
    assert [falling.rate(k) for k in (0, 5, 10, 30)] == pytest.approx([0.02, 0.002, 0.0002, 0.0002])
    falling.train(Waves(), Waves(1), 6, batch_size=2, display_step=5)
    assert falling.optimizer.param_groups[0]["lr"] == pytest.approx(0.002)


def test_resuming_from_the_file_changes_nothing(tmp_path):
    whole, first = (small(tmp_path / name, keep_prob=None) for name in ("whole.zip", "first.zip"))
    batches = Waves(1)
    given = [batches(4) for _ in range(6)]

    def replay(start):
        remaining = iter(given[start:])
        return lambda batch_size: next(remaining)

    whole.train(replay(0), Waves(1), 6, batch_size=4)
    first.train(replay(0), Waves(1), 3, batch_size=4)
    factory = NDS2SAEFactory()
    factory.set_output(tmp_path / "first.zip")
    assert (factory.input_dim, factory.layer_sizes) == (2, [6, 4])
    again = factory.build()
    assert again.iteration == 3
    again.train(replay(3), Waves(1), 6, batch_size=4)
    for name, value in whole.autoencoder.state_dict().items():
        assert torch.equal(value, again.autoencoder.state_dict()[name]), name
    assert np.array_equal(again.predict(given[0][0])[1], whole.predict(given[0][0])[1])


def test_the_file_is_numbers_and_json(tmp_path):
    model = small(tmp_path / "a.zip")
    model.train(Waves(), Waves(1), 1, batch_size=2)
    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        names = file.namelist()
        assert names[0] == "meta.json"
        assert all(name.endswith(".npy") for name in names[1:])
        for name in names:
            with pytest.raises((pickle.UnpicklingError, ValueError, EOFError, KeyError, IndexError)):
                pickle.loads(file.read(name))


def test_ctrl_c_saves_and_stops_and_leaves_nothing_else(tmp_path):
    model = small(tmp_path / "a.zip")
    batches = Waves(2)

    def interrupting(batch_size):
        if batches.calls == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return batches(batch_size)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        model.train(interrupting, Waves(1), 1000, batch_size=2)
    assert batches.calls == 4
    assert signal.getsignal(signal.SIGINT) is before
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
    again = small(tmp_path / "a.zip")
    assert again.iteration == 1
    for name, value in model.autoencoder.state_dict().items():
        assert torch.equal(value, again.autoencoder.state_dict()[name])


def test_sigterm_saves_before_the_former_handler_gets_it(tmp_path):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append((tmp_path / "a.zip").exists()))

    def interrupting(batch_size):
        os.kill(os.getpid(), signal.SIGTERM)
        return Waves(1)(batch_size)

    try:
        with pytest.raises(Interrupted):
            small(tmp_path / "a.zip").train(interrupting, Waves(1), 1000, batch_size=2)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [True]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    model = small(tmp_path / "a.zip")
    model.save()
    before = (tmp_path / "a.zip").read_bytes()
    monkeypatch.setattr(np.lib.format, "write_array", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(UserError, match=r"cannot write .*a\.zip \(No space left\)"):
        model.save()
    assert (tmp_path / "a.zip").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


WRONG = [
    ({"input_dims": 2}, "NDS2SAEFactory has no setting 'input_dims'; did you mean 'input_dim'"),
    ({"layer_sizes": []}, "NDS2SAEFactory.layer_sizes"),
    ({"keep_prob": 0.0}, "NDS2SAEFactory.keep_prob: got 0.0"),
    ({"lrtype": "linear"}, "NDS2SAEFactory.lrtype: got 'linear'"),
    ({"lrtype": "expdecay"}, "lrargs: got lr for expdecay, expected start_lr, finish_lr, decay_steps"),
    (
        {"lrtype": "expdecay", "lrargs": {"start_lr": 0.1, "finish_lr": 0.2, "decay_steps": 3}},
        "expected at most start_lr=0.1",
    ),
]


def test_wrong_settings_are_named(tmp_path):
    for change, message in WRONG:
        with pytest.raises(UserError, match=message):
            small(tmp_path / "a.zip", **change)


def test_a_hostile_or_damaged_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "a.zip"
    small(path).train(Waves(1), Waves(1), 1, batch_size=2)
    content, (meta, arrays) = path.read_bytes(), archive.read(path)

    def load():
        factory = NDS2SAEFactory()
        factory.set_output(path)
        return factory.build()

    random = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(content)
        damaged[random.integers(len(content))] ^= random.integers(1, 256)
        path.write_bytes(damaged)
        try:
            load()
        except UserError:
            refused += 1
    assert refused > 40  # elsewhere are dates and the like
    moment = "optimizer/network.projection.weight/exp_avg"
    for changed, others, message in (
        ({"iteration": "x"}, {}, "got iteration 'x'"),
        ({"iteration": -1}, {}, "got iteration -1"),
        ({"settings": [1]}, {}, "is not a model of NDS2SAEFactory"),
        ({"settings": {**meta["settings"], "layer_sizes": [10**5]}}, {}, "does not match its settings"),
        ({"settings": {**meta["settings"], "layer_sizes": [10**15]}}, {}, "its settings are invalid"),
        ({}, {moment: torch.zeros(3)}, rf"got {moment} \(3,\), expected \(1, 6\)"),
        ({}, {"weights/more": torch.zeros(3)}, r"got weights/more \(3,\), expected none"),
    ):
        archive.write(path, {**meta, **changed}, {**arrays, **others})
        with pytest.raises(UserError, match=message):
            load()


def test_an_interrupt_after_the_last_batch_is_not_lost(tmp_path):
    def interrupting(batch_size):
        os.kill(os.getpid(), signal.SIGINT)
        return Waves(1)(batch_size)

    model = small(tmp_path / "a.zip")
    with pytest.raises(KeyboardInterrupt):
        model.train(Waves(1), interrupting, 1, batch_size=2)
    assert small(tmp_path / "a.zip").iteration == 1


def test_the_first_input_of_the_decoder_depends_on_the_kind_of_stopping(tmp_path):
    for number, (settings, token) in enumerate([({}, 0.0), ({"stop": "token"}, -100.0), ({"go_token": 3.0}, 3.0)]):
        assert small(tmp_path / f"{number}.zip", **settings).autoencoder.go_token == token


def test_arguments_of_training_and_prediction_are_checked(tmp_path):
    model = small(tmp_path / "a.zip")
    large = [np.full((4, 2), 1e30)], [np.full((4, 1), 1e30)], True
    with pytest.raises(UserError, match=r"loss became (inf|nan) at batch 0 of epoch 1 .*; try a smaller learning rate"):
        model.train(lambda _: large, Waves(1), 3, 1)
    with pytest.raises(UserError, match="display_step: got 0"):
        model.train(Waves(1), Waves(1), 3, 2, display_step=0)
    for lengths in ([3], [3, 0]):
        with pytest.raises(UserError, match="expected a length of at least 1 for each of 2 sequences"):
            model.predict([np.zeros((4, 2))] * 2, res_len=lengths)


def test_a_file_of_something_else_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"call set_output\(FILE\) before build"):
        NDS2SAEFactory().build()
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(UserError, match=r"text\.zip is not a file of a model, or damaged"):
        NDS2SAEFactory().set_output(tmp_path / "text.zip")
    small(tmp_path / "a.zip").save()
    with pytest.raises(UserError, match=r"a\.zip does not match its settings: got weights/.* expected"):
        small(tmp_path / "a.zip", layer_sizes=[7, 4])
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="or damaged"):
        small(tmp_path / "a.zip")
    archive.write(tmp_path / "b.zip", {"settings": {"input_dim": "two"}}, {})
    with pytest.raises(UserError, match=r"b\.zip\.input_dim: got 'two'"):
        NDS2SAEFactory().set_output(tmp_path / "b.zip")
    with pytest.raises(UserError, match=r"got input sequences of shape \(4, 3\), expected \(T, input_dim=2\)"):
        small(tmp_path / "c.zip").encode([np.zeros((4, 3))])
    with pytest.raises(UserError, match="got 2 input and 1 output sequences"):
        small(tmp_path / "c.zip").train(lambda _: ([np.zeros((4, 2))] * 2, [np.zeros((4, 1))], True), Waves(1), 1, 2)


class Stretches:
    """The toy signals of the original's main script: new stretches of 20 to 40 points of a grid, 100 an iteration."""

    def __init__(self, seed):
        self.random, self.left = np.random.default_rng(seed), 100

    def draw(self, count):
        lengths = self.random.integers(20, 41, count)
        t = [np.linspace(0, 150, 1000)[self.random.integers(1001 - length) :][:length] for length in lengths]
        inputs = [2 * np.stack([np.sin(each), np.cos(each)], 1) for each in t]
        return inputs, [each.sum(1, keepdims=True) for each in inputs]

    def __call__(self, batch_size):
        count = min(batch_size, self.left)
        self.left = self.left - count or 100
        return *self.draw(count), self.left == 100


@pytest.mark.slow
def test_most_outputs_of_the_toy_signals_stop_within_a_step_of_where_they_should(tmp_path):
    rates = {"start_lr": 0.01, "finish_lr": 1e-5, "decay_steps": 1000}
    model = small(tmp_path / "a.zip", layer_sizes=[50, 30], lrtype="expdecay", lrargs=rates)
    held = Stretches(1000).draw(300)
    history = model.train(Stretches(0), lambda _: (*held, True), 1000, batch_size=30, display_step=100)
    assert history[-1]["squared_error"] < 0.0015
    inputs, outputs = Stretches(77).draw(1000)
    off = [len(made) - len(expected) for made, expected in zip(model.predict(inputs), outputs, strict=True)]
    assert np.mean(np.abs(off) <= 1) > 0.9
