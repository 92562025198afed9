"""``seqmem export --state``: programs that read a stream piece by piece."""

import json
import zipfile

import pytest
import torch

from seqmem import datasets, models
from seqmem.cli import commandline, export, export_onnx
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.training.checkpoints.files import read_checkpoint, restore
from tests.trials import run_trials

STEPS = DataSpec("steps", 2, 1, "forecasting", output_steps=None, max_length=11)
TIMED = DataSpec("timed", 2, 1, "forecasting", output_steps=None, max_length=11, times=True)
FEW = "dataset.length=20 dataset.train_samples=9 dataset.validation_samples=4 dataset.test_samples=4"
RUN = "train.epochs=1 train.batch_size=4 runner.accelerator=cpu model.preset=tiny"


def stack(mixer, **arguments):
    return {"network": "stack", "mixer": mixer, "model_size": 6, "num_layers": 2, "mixer_args": arguments}


def trained(folder, settings):
    config = commandline.compose([*settings.split(), *RUN.split()])
    [trial] = run_trials(config, datasets.load(config["dataset"]), folder)
    return trial.path


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs"), f"dataset=sinusoids model=mamba {FEW}")


@pytest.mark.parametrize(
    ("model", "spec", "lengths"),
    [
        ({"network": "recurrent", "cell": "legs", "cell_args": {"hidden_size": 5}}, STEPS, False),
        (stack("mingru", learned_state=True), STEPS, False),
        pytest.param(
            {"network": "recurrent", "cell": "tlsi", "cell_args": {"hidden_size": 5}}, TIMED, True, marks=pytest.mark.slow
        ),
        pytest.param(stack("s4d"), STEPS, True, marks=pytest.mark.slow),
        pytest.param(stack("slstm"), STEPS, False, marks=pytest.mark.slow),
        pytest.param(stack("mingru", kernel_size=3), STEPS, True, marks=pytest.mark.slow),
    ],
)
def test_pieces_are_the_whole_sequence(model, spec, lengths):
    """For other sizes than those of the export; the rows of the state are those of the inputs."""
    torch.manual_seed(0)
    program = export.Program(models.build(model, spec), spec, lengths, state=True).eval().requires_grad_(False)
    exported, sizes = export.export(program, "model")
    assert sizes == ((1, float("inf")), (1, float("inf")))
    loaded = exported.module()
    assert export.compare(program, loaded, sizes) < 1e-5
    inputs, times = torch.randn(5, 30, 2), torch.rand(5, 30).cumsum(1)
    whole = program.model(Batch(inputs, torch.empty(5, 30, 1), times=times if spec.times else None))
    state = [tensor.expand(5, *tensor.shape[1:]) for tensor in program.initial.values()]
    found = []
    for start, end in ((0, 1), (1, 18), (18, 30)):
        given = {"inputs": inputs[:, start:end], "lengths": torch.full((5,), end - start), "times": times[:, start:end]}
        outputs, *state = loaded(*(given[name] for name in program.names if name in given), *state)
        found.append(outputs)
    torch.testing.assert_close(torch.cat(found, 1), whole, rtol=1e-4, atol=1e-5)


def test_the_file_says_which_state_it_takes(trial, tmp_path, capsys):
    path = tmp_path / "stream.pt2"
    export.main([str(trial), "--state", "--out", str(path)])
    printed = capsys.readouterr().out
    assert "; state_0 (B, 3, 16) float32, zeros at first; state_1 (B, 16, 4) float32, zeros at first; " in printed
    with zipfile.ZipFile(path) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("seqmem.json")]
        description = json.loads(archive.read(name))
    assert description["initial state"] == {}
    program = torch.export.load(path).module()
    inputs = torch.randn(3, 12, 1)
    state = [torch.zeros(3, 3, 16), torch.zeros(3, 16, 4)] * 2
    pieces = []
    for piece in inputs.split(5, 1):
        outputs, *state = program(piece, *state)
        pieces.append(outputs)
    checkpoint = read_checkpoint(trial)
    model = restore(checkpoint, checkpoint.config["train"], checkpoint.spec).model
    with torch.no_grad():
        expected = model.eval()(Batch(inputs, torch.empty(3, 12, 1)))
    torch.testing.assert_close(torch.cat(pieces, 1), expected, rtol=1e-4, atol=1e-5)


def test_learned_initial_values_are_in_the_description():
    torch.manual_seed(0)
    program = export.Program(models.build(stack("mingru", learned_state=True), STEPS), STEPS, False, state=True).eval()
    described = export._describe_inputs(program, export.Sizes((1, 4), (1, 4)))
    assert described[1] == "state_0 (B, 6) float32, initial values in the file's description"
    assert program.outputs == ["outputs", "next_state_0", "next_state_1"]


def test_a_different_state_is_refused():
    torch.manual_seed(0)
    spec = {"network": "recurrent", "cell": "rnn", "cell_args": {"hidden_size": 5}}
    program = export.Program(models.build(spec, STEPS), STEPS, False, state=True).eval().requires_grad_(False)

    def wrong(*tensors):
        outputs, state = program(*tensors)
        return outputs, state + 0.1

    message = r"the program differs from the model by 1\.0e-01 in next_state_0 for 1 rows of 1 steps"
    with pytest.raises(UserError, match=message):
        export.compare(program, wrong, export.Sizes((1, 4), (1, 4)))


def test_a_model_that_carries_no_state_is_refused(tmp_path, capsys):
    trial = trained(tmp_path, f"dataset=adding model=s4d {FEW} model.pooling=mean")
    with pytest.raises(SystemExit):
        export.main([str(trial), "--state"])
    assert capsys.readouterr().err == (
        "error: --state: s4d, trained on adding, carries no state (model.pooling: got mean, expected last: the mean over the "
        "steps of a piece is not that of the sequence)\n"
    )
    assert not (trial / "model.pt2").exists()


@pytest.mark.skipif(bool(export_onnx.missing()), reason="the extra onnx is not installed")
@pytest.mark.slow
def test_an_onnx_model_takes_and_returns_the_state(trial, tmp_path):
    import onnxruntime

    export.main([str(trial), "--state", "--format", "onnx", "--out", str(tmp_path / "stream.onnx")])
    session = onnxruntime.InferenceSession(tmp_path / "stream.onnx")
    names = [f"state_{k}" for k in range(4)]
    assert [given.name for given in session.get_inputs()] == ["inputs", *names]
    assert [given.name for given in session.get_outputs()] == ["outputs", *(f"next_{name}" for name in names)]
