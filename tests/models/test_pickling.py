"""Every public module and every trained object can be pickled, copied and saved whole, also after it has run."""

import copy
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf

from seqmem import HMLSTMNetwork, cells, models, quick_train, sequence
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.models import CONV_LSTM_AE, LINEAR_AE, LSTM_AE, NDS2SAEFactory
from seqmem.tasks import task_for
from seqmem.training.config import TrainConfig
from seqmem.training.loop.module import SequenceModule

CONFIGS = sorted((Path(__file__).parents[2] / "cfg" / "model").glob("*.yaml"))
SERIES = {"lstm_ae": 3, "seq2seq_ae": 3, "linear_ae": 3, "function_approximation": 1}


def again(value):
    """The object pickled, copied, and saved whole by torch.save."""
    yield pickle.loads(pickle.dumps(value))
    yield copy.deepcopy(value)
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    yield torch.load(file, weights_only=False)


def model_of(path):
    """The tiny model of a config, and a batch for it."""
    section = yaml.safe_load(path.read_text())
    presets = section.pop("presets", {})
    section.pop("preset", None)
    section = OmegaConf.to_container(OmegaConf.merge(section, presets.get("tiny", {})))
    network = section["network"]
    timed = section.get("cell") in cells.names() and cells.get(section["cell"]).timed
    if network in SERIES or network == "conv_lstm_ae":
        channels, frame = SERIES.get(network, 36), (6, 6) if network == "conv_lstm_ae" else None
        spec = DataSpec("made up", channels, channels, "reconstruction", None, 9, frame=frame)
    else:
        spec = DataSpec("made up", 3, 4, "classification", 0, 9, times=timed)
    torch.manual_seed(0)
    inputs = torch.randn(2, 9, spec.input_size)
    targets = inputs.clone() if spec.task == "reconstruction" else torch.zeros(2, dtype=torch.int64)
    batch = Batch(inputs, targets, times=torch.rand(2, 9).cumsum(1) if timed else None)
    return models.build(section, spec).eval(), batch


@torch.no_grad()
def test_every_model_and_its_module():
    for path in CONFIGS:
        model, batch = model_of(path)
        expected = model(batch)
        for other in again(model):
            torch.testing.assert_close(other(batch), expected, rtol=0, atol=0, msg=path.stem)
            assert other.spec == model.spec
        module = SequenceModule(model, task_for(model.spec), TrainConfig())
        torch.testing.assert_close(pickle.loads(pickle.dumps(module))(batch), expected, rtol=0, atol=0, msg=path.stem)


@torch.no_grad()
def test_every_cell_and_layer():
    for name in sequence.names():
        torch.manual_seed(0)
        make = sequence.get(name)
        layer, inputs = make(input_size=3), torch.rand(2, 5, 3).cumsum(1)
        expected, state = layer(inputs)
        for other in again(layer):
            torch.testing.assert_close(other(inputs)[0], expected, rtol=0, atol=0, msg=name)
        pickle.loads(pickle.dumps(state))


@torch.no_grad()
@pytest.mark.parametrize(
    ("architecture", "sequences"),
    [(LINEAR_AE, torch.randn(4, 5)), (LSTM_AE, torch.randn(4, 5, 2)), (CONV_LSTM_AE, torch.randn(3, 4, 5, 6))],
    ids=["LINEAR_AE", "LSTM_AE", "CONV_LSTM_AE"],
)
def test_what_quick_train_returns(architecture, sequences):
    for normalize in (True, False):
        encoder, decoder, encodings, _ = quick_train(architecture, sequences, 3, epochs=1, normalize=normalize)
        for other in again(encoder):
            torch.testing.assert_close(other(sequences[0]), encodings[0], rtol=0, atol=0)
        length = {} if architecture is LINEAR_AE else {"seq_len": len(sequences[0])}
        for other in again(decoder):
            torch.testing.assert_close(other(encodings[0], **length), decoder(encodings[0], **length), rtol=0, atol=0)


def test_names_of_the_original_are_still_accepted_after_a_copy():
    model = LSTM_AE(2, 3, [4])
    state = {name.replace("weight_ih", "weight_ih_l0"): value + 1 for name, value in model.state_dict().items()}
    for other in again(model):
        other.load_state_dict(state)
        assert torch.equal(other.encoder.layers[0].weight_ih, model.encoder.layers[0].weight_ih + 1)


def test_the_networks_and_factories_of_other_packages(tmp_path):
    random = np.random.default_rng(0)
    inputs = random.normal(size=(1, 2, 5, 1))
    network = HMLSTMNetwork(hidden_state_sizes=3, num_layers=2, embed_size=4, out_hidden_size=4)
    network.train(inputs, inputs, epochs=1, verbose=False)
    factory = NDS2SAEFactory()
    factory.layer_sizes = [3]
    factory.set_output(tmp_path / "a.zip")
    model = factory.build()
    model.train(lambda _: (inputs[0], inputs[0], True), lambda _: (inputs[0], inputs[0], True), 2, 2)
    for other in again(network):
        np.testing.assert_array_equal(other.predict(inputs[0]), network.predict(inputs[0]))
        other.train(inputs, inputs, epochs=1, verbose=False)
    for other in again(factory):
        assert other == factory
        assert other.build().iteration == 2
    for other in again(model):
        np.testing.assert_array_equal(other.encode(inputs[0]), model.encode(inputs[0]))
        other.train(lambda _: (inputs[0], inputs[0], True), lambda _: (inputs[0], inputs[0], True), 3, 2)
