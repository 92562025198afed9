"""The hmlstm package's interface: its README's examples, and what each of its functions promises."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf

import seqmem
from seqmem import HMLSTMNetwork, convert_to_batches, get_text, models, prepare_inputs
from seqmem.compat import hmlstm
from seqmem.data.spec import DataSpec
from seqmem.data.text import ALPHABET
from seqmem.errors import UserError

_config = yaml.safe_load((Path(__file__).parents[2] / "cfg" / "model" / "hmlstm.yaml").read_text())

CHARACTERS = """
from hmlstm import HMLSTMNetwork, prepare_inputs, get_text

batches_in, batches_out = prepare_inputs(batch_size=10, truncate_len=5000,
                                         step_size=2500, text_path='text8.txt')

network = HMLSTMNetwork(output_size=27, input_size=27, embed_size=2048,
                        out_hidden_size=1024, hidden_state_sizes=1024,
                        task='classification')

network.train(batches_in[:-1], batches_out[:-1], save_vars_to_disk=True,
              load_vars_from_disk=False, variable_path='./text8')

predictions = network.predict(batches_in[-1], variable_path='./text8')
boundaries = network.predict_boundaries(batches_in[-1], variable_path='./text8')

# visualize boundaries
viz_char_boundaries(get_text(batches_out[-1][0]), get_text(predictions[0]), boundaries[0])
"""

SIGNALS = """
from hmlstm import HMLSTMNetwork, convert_to_batches, plot_indicators

network = HMLSTMNetwork(input_size=1, task='regression', hidden_state_sizes=30,
                       embed_size=50, out_hidden_size=30, num_layers=2)

# generate signals
num_signals = 300
signal_length = 400
x = np.linspace(0, 50 * np.pi, signal_length)
signals = [np.random.normal(0, .5, size=signal_length) +
           (2 * np.sin(.6 * x + np.random.random() * 10)) +
           (5 * np.sin(.1* x + np.random.random() * 10))
    for _ in range(num_signals)]

batches_in, batches_out = convert_to_batches(signals, batch_size=10, steps_ahead=3)


network.train(batches_in[:-1], batches_out[:-1], save_vars_to_disk=True,
              load_vars_from_disk=False, variable_path='./sinusoidal')

predictions = network.predict(batches_in[-1], variable_path='./sinusoidal')
boundaries = network.predict_boundaries(batches_in[-1], variable_path='./sinusoidal')

# visualize boundaries
plot_indicators(batches_out[-1][0], predictions[0], indicators=boundaries[0])
"""


def run_example(text, sizes, missing):
    """Run an example of the original's README with the package's name, its missing imports and some numbers changed."""
    text = text.replace("from hmlstm import ", f"{missing}\nfrom seqmem import ")
    for before, after in sizes.items():
        assert before in text
        text = re.sub(rf"\b{re.escape(before)}\b", after, text)
    names = {}
    exec(text, names)
    return names


def test_the_readmes_characters(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("text8.txt").write_text("the quick brown fox jumps over the lazy dog " * 3)
    sizes = {"batch_size=10": "batch_size=2", "5000": "20", "2500": "10", "2048": "6", "1024": "5"}
    names = run_example(CHARACTERS, sizes, "from seqmem import viz_char_boundaries")
    assert len(names["batches_in"]) == 12 // 2
    assert names["predictions"].shape == (2, 20, 27)
    assert names["boundaries"].shape == (2, 3, 20)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("Epoch")] == ["Epoch 0", "Epoch 1", "Epoch 2"]
    assert len([line for line in lines if line.startswith("loss: ")]) == 3 * 5
    drawn = lines[-6:]
    assert [set(line) <= {"0", "1"} and len(line) == 20 for line in drawn[:3]] == [True] * 3
    assert drawn[0] == "".join(str(z) for z in names["boundaries"][0, 2])
    assert drawn[4] == get_text(names["batches_out"][-1][0])
    assert drawn[5] == ""
    assert sorted(os.listdir()) == ["text8", "text8.txt"]


def test_the_readmes_signals(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = {"num_signals = 300": "num_signals = 40", "signal_length = 400": "signal_length = 25", "30": "4", "50,": "6,"}
    names = run_example(SIGNALS, sizes, "import numpy as np")
    assert names["batches_in"].shape == names["batches_out"].shape == (4, 10, 22, 1)
    assert names["predictions"].shape == (10, 22, 1)
    assert names["boundaries"].shape == (10, 2, 22)
    assert os.listdir() == ["sinusoidal"]


def test_the_names_are_found_in_the_package_and_no_others():
    for name in hmlstm.__all__:
        assert getattr(seqmem, name) is getattr(hmlstm, name)
        assert name in seqmem.__all__
    with pytest.raises(AttributeError, match="no attribute 'HMLSTMNetwrk'"):
        _ = seqmem.HMLSTMNetwrk


def test_the_package_alone_imports_nothing_of_them():
    code = "import seqmem, sys; sys.exit(any(name in sys.modules for name in ('torch', 'seqmem.compat')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def network(seed=0, **changes):
    torch.manual_seed(seed)
    sizes = {"hidden_state_sizes": [3, 4], "num_layers": 2, "embed_size": 6, "out_hidden_size": 5}
    return HMLSTMNetwork(**{**sizes, **changes})


def signals(channels=1, count=3):
    random = np.random.default_rng(0)
    return convert_to_batches(random.normal(size=(7 * count, 12, channels)), batch_size=7, steps_ahead=2)


def quickly(trained, *batches, **arguments):
    trained.train(*batches, verbose=False, **arguments)
    return trained


def test_the_network_is_the_reference_preset():
    spec = DataSpec("made up", 2, 5, "regression", None, 9)
    plain = {key: value for key, value in _config.items() if key not in ("preset", "presets")}
    section = OmegaConf.to_container(OmegaConf.merge(plain, _config["presets"]["reference"]))
    expected, made = models.build(section, spec), HMLSTMNetwork(input_size=2, output_size=5)._model
    shapes = [{name: value.shape for name, value in model.state_dict().items()} for model in (expected, made)]
    assert shapes[0] == shapes[1]
    for name in ("sizes", "boundary", "boundary_activation", "first_slope", "slope_growth"):
        assert getattr(expected.layers[0], name) == getattr(made.layers[0], name)


def test_the_loss_of_each_batch_is_printed_and_can_be_silent(capsys):
    batches = signals()
    made = quickly(network(), *batches, epochs=0)
    [first] = ((made.predict(batches[0][0]) - batches[1][0]) ** 2).mean(keepdims=True).ravel()
    made.train(*batches, epochs=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Epoch 0"
    assert float(lines[1].removeprefix("loss: ")) == pytest.approx(first, rel=1e-5)
    assert len(lines) == 1 + 3
    quickly(made, *batches, epochs=1)
    assert capsys.readouterr().out == ""


def test_classes_are_learned_by_cross_entropy_of_one_hot_targets(capsys):
    random = np.random.default_rng(1)
    targets = np.eye(4)[random.integers(0, 4, (1, 5, 6))]
    inputs = random.normal(size=(1, 5, 6, 2))
    made = quickly(network(input_size=2, output_size=4, task="classification"), inputs, targets, epochs=0)
    logits = made.predict(inputs[0])
    expected = (np.log(np.exp(logits).sum(-1)) - (logits * targets[0]).sum(-1)).mean()
    made.train(inputs, targets, epochs=1)
    assert float(capsys.readouterr().out.split()[-1]) == pytest.approx(expected, rel=1e-5)
    quickly(made, inputs, targets, epochs=60)
    capsys.readouterr()
    made.train(inputs, targets, epochs=1)
    assert float(capsys.readouterr().out.split()[-1]) < expected * 0.95


def test_training_continues_in_memory_and_from_a_file(tmp_path):
    batches, file = signals(), tmp_path / "variables"
    whole = quickly(network(), *batches, epochs=4)
    twice = quickly(quickly(network(), *batches, epochs=2), *batches, epochs=2, save_vars_to_disk=True, variable_path=file)
    expected = whole.predict(batches[0][0])
    np.testing.assert_array_equal(twice.predict(batches[0][0]), expected)
    quickly(network(), *batches, epochs=2, save_vars_to_disk=True, variable_path=file)
    again = network(seed=1)
    quickly(again, *batches, epochs=2, load_vars_from_disk=True, variable_path=file)
    np.testing.assert_array_equal(again.predict(batches[0][0]), expected)


def test_nothing_is_written_unless_requested(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = quickly(network(), *signals(), epochs=1)
    made.predict(signals()[0][0])
    assert os.listdir() == []


def test_a_trained_network_ignores_a_file_and_loading_always_loads(tmp_path):
    batches, file = signals(), tmp_path / "variables"
    one, two = quickly(network(seed=1), *batches, epochs=1), quickly(network(seed=2), *batches, epochs=1)
    one.save_variables(file)
    before = two.predict(batches[0][0])
    np.testing.assert_array_equal(two.predict(batches[0][0], variable_path=file), before)
    fresh = network(seed=3)
    np.testing.assert_array_equal(fresh.predict(batches[0][0], variable_path=file), one.predict(batches[0][0]))
    np.testing.assert_array_equal(network().predict_boundaries(batches[0][0], file), one.predict_boundaries(batches[0][0]))
    two.load_variables(file)
    np.testing.assert_array_equal(two.predict(batches[0][0]), one.predict(batches[0][0]))


def test_boundaries_are_those_of_the_model_layers_first():
    made = quickly(network(hidden_state_sizes=3, num_layers=5, input_size=2, output_size=2), *signals(channels=2), epochs=1)
    batch = signals(channels=2)[0][1]
    found = made.predict_boundaries(batch)
    assert found.shape == (7, 5, 10)
    assert set(np.unique(found)) == {0, 1}
    _, state = made._model.layers[0](torch.tensor(batch[:, :4], dtype=torch.float32))
    np.testing.assert_array_equal(found[:, :, 3], state.boundary.detach().numpy())


def test_gradients_of_the_last_output():
    """Summed over its values, for each row on its own, through the straight-through boundaries."""
    random = np.random.default_rng(2)
    inputs, targets = random.normal(size=(1, 4, 6, 2)), random.normal(size=(1, 4, 6, 3))
    made = quickly(network(input_size=2, output_size=3), inputs, targets, epochs=1)
    outputs, gradients = made.predict(inputs[0], return_gradients=True)
    np.testing.assert_array_equal(outputs, made.predict(inputs[0]))
    assert gradients.shape == (4, 6, 2)
    row = torch.tensor(inputs[0, 2:3], dtype=torch.float32, requires_grad=True)
    hidden, _ = made._model.layers[0](row)
    expected = sum(torch.autograd.grad(made._model.head(hidden)[0, -1, k], row, retain_graph=True)[0] for k in range(3))
    np.testing.assert_allclose(gradients[2], expected[0], rtol=1e-4, atol=1e-7)


def written(tmp_path, text):
    path = tmp_path / "text.txt"
    path.write_text(text, encoding="utf-8")
    return path


def texts(batches):
    return [[get_text(window) for window in batch] for batch in batches]


def test_windows_of_a_text_by_hand(tmp_path):
    path = written(tmp_path, "Ab\n\n c?  de")  # cleaned: "ab c  de", the first of the two spaces having been the ?
    inputs, targets = prepare_inputs(batch_size=2, truncate_len=3, text_path=path, step_size=1)
    assert texts(inputs) == [["ab ", "b c"], [" c ", "c  "]]
    assert texts(targets) == [["b c", " c "], ["c  ", "  d"]]
    assert inputs[0][0].shape == (3, len(ALPHABET))
    assert inputs[0][0].sum(1).tolist() == [1, 1, 1]
    inputs, targets = prepare_inputs(1, 5, path)
    assert texts(inputs) == [["ab c "], [" c  d"]]
    assert texts(targets) == [["b c  "], ["c  de"]]


def test_a_number_of_batches_can_be_requested(tmp_path):
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    path = written(tmp_path, alphabet)
    for given in (None, 1, 4):
        inputs, targets = prepare_inputs(3, 4, path, given, num_batches=2)
        step = given or 2
        starts = [[0, step, 2 * step], [3 * step, 4 * step, 5 * step]]
        assert texts(inputs) == [[alphabet[start : start + 4] for start in batch] for batch in starts]
        assert texts(targets) == [[alphabet[start + 1 : start + 5] for start in batch] for batch in starts]


def test_texts_that_make_no_batches(tmp_path):
    path = written(tmp_path, "abcdefgh")
    for arguments, message in (
        ({"text_path": "nowhere.txt"}, "text_path: cannot read nowhere.txt"),
        ({"truncate_len": 8}, "the 8 characters of .* make 0 windows, expected 10 for 1 batch"),
        ({"batch_size": 2, "truncate_len": 4, "num_batches": 3, "step_size": 4}, "make 1 windows, expected 6 for 3 batches"),
        ({"truncate_len": 4, "step_size": 5, "num_batches": 1}, "step_size: got 5, expected at most truncate_len=4"),
        ({"batch_size": 0}, "batch_size: got 0, expected greater than 0"),
    ):
        with pytest.raises(UserError, match=message):
            prepare_inputs(**{"text_path": path, **arguments})


def test_batches_of_signals_keep_the_last_full_one_and_the_channels_apart():
    values = np.arange(300 * 6).reshape(300, 6)
    inputs, targets = convert_to_batches(list(values), batch_size=10, steps_ahead=2)
    assert inputs.shape == targets.shape == (30, 10, 4, 1)
    np.testing.assert_array_equal(inputs[29, 9, :, 0], values[299, :4])
    np.testing.assert_array_equal(targets[29, 9, :, 0], values[299, 2:])
    several = np.random.default_rng(0).normal(size=(7, 6, 3))
    inputs, targets = convert_to_batches(several, batch_size=3)
    assert inputs.shape == (2, 3, 5, 3)
    np.testing.assert_array_equal(inputs[1, 2], several[5, :-1])
    np.testing.assert_array_equal(targets[1, 2], several[5, 1:])


def test_signals_that_make_no_batches():
    for given, message in (
        ([[1.0, 2.0], [1.0]], "signals: got different shapes"),
        (np.zeros(5), r"signals: got an array of shape \(5,\), expected \(N, T\) or \(N, T, C\)"),
        (np.zeros((1, 5)), "signals: got 1, expected at least batch_size=2"),
        (np.zeros((2, 3)), "steps_ahead: got 3, expected less than the 3 steps"),
    ):
        with pytest.raises(UserError, match=message):
            convert_to_batches(given, batch_size=2, steps_ahead=3)


def test_text_of_scores_takes_the_first_of_the_largest():
    scores = np.zeros((3, 27))
    scores[0, [4, 7]] = 2
    scores[1, 26] = 0.5
    assert get_text(scores) == "e a"
    with pytest.raises(UserError, match=r"got an array of shape \(3, 5\), expected \(T, 27\)"):
        get_text(scores[:, :5])


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_files_that_are_not_of_this_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = quickly(network(), *signals(), epochs=1)
    made.save_variables("good")
    before = made.predict(signals()[0][0])
    Path("text").write_text("not a checkpoint")
    torch.save({"weights": 1}, "other")
    torch.save(Evil(), "evil")
    Path("cut").write_bytes(Path("good").read_bytes()[:1000])
    good = torch.load("good", weights_only=True)
    for name, change in {
        "shape": {"architecture": 1},
        "numbers": {"weights": {"a": 1}},
        "state": {"optimizer": {"x": 1}},
    }.items():
        torch.save(good | change, name)
    for name, message in [
        ("nowhere", "cannot read the checkpoint nowhere"),
        (".", "cannot read the checkpoint"),
        ("text", "text is not a checkpoint"),
        ("cut", "cut is not a checkpoint"),
        ("other", "other is not a checkpoint of HMLSTMNetwork"),
        ("shape", "shape is not a checkpoint of HMLSTMNetwork"),
        ("numbers", "numbers is not a checkpoint: its weights are not plain tensors by name"),
        ("state", "state is not a checkpoint of HMLSTMNetwork"),
        ("evil", "evil is not a checkpoint: it is damaged, or holds more than tensors and plain values"),
    ]:
        with pytest.raises(UserError, match=message):
            made.load_variables(name)
    assert not Path("executed").exists()
    with pytest.raises(UserError, match=r"variable_path: got the folder \., expected a file"):
        made.train(*signals(), variable_path=".", save_vars_to_disk=True)
    np.testing.assert_array_equal(made.predict(signals()[0][0]), before)
    with pytest.raises(
        UserError, match=r"different network: got hidden_state_sizes=\[3, 4\], expected hidden_state_sizes=\[4, 3\]"
    ):
        network(hidden_state_sizes=[4, 3]).predict(signals()[0][0], "good")
    with pytest.raises(UserError, match=r"\./hmlstm_ckpt does not exist, and this network has not been trained"):
        network().predict(signals()[0][0])


def test_wrong_arguments_are_named():
    for changes, message in (
        ({"hidden_state_sizes": [3, 4, 5]}, r"got \[3, 4, 5\], expected one size or as many as num_layers=2"),
        ({"task": "regresion"}, "did you mean 'regression'"),
        ({"embed_size": 0}, "embed_size: got 0"),
        ({"hidden_size": 3}, "takes no argument 'hidden_size'; did you mean"),
    ):
        with pytest.raises(ValueError, match=message):
            network(**changes)


def test_wrong_batches_are_named():
    inputs, targets = signals()
    for given, message in (
        ((inputs[:-1], targets), "got 2 batches_in and 3 batches_out"),
        ((inputs[:0], targets[:0]), "got 0 batches_in and 0 batches_out"),
        ((inputs[..., 0], targets), r"batches_in\[0\]: got shape \(7, 10\), expected \(B, T, 1\)"),
        ((inputs, targets[:, :, :-1]), r"batches_out\[0\]: got shape \(7, 9, 1\), expected the \(7, 10\) of batches_in\[0\]"),
        ((inputs * np.nan, targets), r"batches_in\[0\]: got a value that is not finite"),
        (
            (inputs, targets * 1e30),
            "the training loss became inf at batch 0 of epoch 1 .*; try inputs and targets of",
        ),
    ):
        with pytest.raises(UserError, match=message):
            quickly(network(), *given)


def test_a_missing_folder_is_named_before_training(tmp_path, capsys):
    with pytest.raises(UserError, match=r"variable_path: got .*, but there is no folder"):
        network().train(*signals(), variable_path=tmp_path / "no" / "file", save_vars_to_disk=True)
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="epochs: got -1"):
        network().train(*signals(), epochs=-1)


def test_a_text_in_a_different_script_is_not_read_as_blanks(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("\u0432\u043e\u0439\u043d\u0430 " * 300, encoding="utf-8")
    with pytest.raises(UserError, match=r"^text_path: .*book\.txt: 100\.0% of the letters are not a to z"):
        prepare_inputs(text_path=path)
    path.write_bytes(b"abc\xff" * 300)
    with pytest.raises(UserError, match=r"^text_path: .*book\.txt: got a byte at 3 that is not UTF-8"):
        prepare_inputs(text_path=path)
