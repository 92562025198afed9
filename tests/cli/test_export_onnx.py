"""``python -m seqmem.export --format onnx``: the values of onnxruntime are those of the model, at any size."""

import json

import pytest
import torch

from benchmarks import onnx_models
from benchmarks.pages import blocks
from seqmem import datasets
from seqmem.cli import commandline, export, export_onnx
from seqmem.errors import UserError
from tests.cli.test_export import LAST, TIMED, VALUES, made, recurrent
from tests.trials import run_trials

MISSING = export_onnx.missing()
installed = pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed: pip install -e '.[onnx]'")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of onnx, onnxscript and torch.onnx themselves
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def exported(model, spec, path, lengths=False, double=False):
    program = made(model, spec, lengths)
    if double:
        program = program.double()
        program.dtype = torch.float64
    translated, sizes = export.export(program, "model")
    export_onnx.save(translated, "model", program.names, program.outputs, {"model": "model"}, path)
    return program, export_onnx.load(path), sizes


def trained(model, folder):
    given = ["dataset=digits", f"model={model}", "model.preset=tiny", "smoke_test=true"]
    config = commandline.compose(given)
    [trial] = run_trials(config, datasets.load(config["dataset"]), folder)
    return trial


@installed
@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "spec", "lengths", "double"),
    [
        pytest.param(recurrent("legs", memory_order=4), LAST, True, False, id="legs"),
        pytest.param(recurrent("tlti"), TIMED, True, True, id="tlti"),
        pytest.param(recurrent("orthogonal", method="cayley"), VALUES, False, True, id="cayley"),
        pytest.param(recurrent("orthogonal", method="exprnn"), VALUES, True, False, id="exponential"),
        pytest.param({"network": "stack", "mixer": "ema", "model_size": 4}, VALUES, True, False, id="ema"),
    ],
)
def test_values_agree_at_other_sizes(model, spec, lengths, double, tmp_path):
    program, session, sizes = exported(model, spec, tmp_path / "model.onnx", lengths, double)
    assert export.compare(program, session, sizes) < (1e-9 if double else 1e-5)
    example = program.example(7, 40)
    with torch.no_grad():
        expected = program(*example)
    [outputs] = session(*example)
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-9 if double else 1e-5)


@installed
@pytest.mark.slow
def test_a_trial_becomes_a_file_that_describes_itself(tmp_path, capsys):
    trial = trained("gru", tmp_path)
    capsys.readouterr()
    export.main([str(trial.path), "--format", "onnx", "--lengths"])
    out = capsys.readouterr().out
    assert "runs without seqmem and torch" in out
    assert "inputs (B, T, 1) float32, B any, T any; lengths (B,) int64" in out
    import onnx
    import onnxruntime

    model = onnx.load(trial.path / "model.onnx")
    onnx.checker.check_model(model)
    [metadata] = [each.value for each in model.metadata_props if each.key == "seqmem"]
    assert json.loads(metadata)["dataset"] == "digits"
    sizes = {
        given.name: [each.dim_param or each.dim_value for each in given.type.tensor_type.shape.dim]
        for given in model.graph.input
    }
    assert sizes == {"inputs": ["B", "T", 1], "lengths": ["B"]}
    session = onnxruntime.InferenceSession(trial.path / "model.onnx")
    inputs, lengths = torch.randn(3, 20, 1), torch.tensor([20, 4, 1])
    from seqmem import load

    with torch.no_grad():
        expected = load(trial.path).predict(inputs, lengths)
    [outputs] = session.run(None, {"inputs": inputs.numpy(), "lengths": lengths.numpy()})
    torch.testing.assert_close(torch.from_numpy(outputs), expected, rtol=1e-4, atol=1e-5)


@installed
@pytest.mark.slow
def test_a_difference_leaves_no_file(tmp_path, monkeypatch):
    trial = trained("rnn", tmp_path)
    original = export_onnx.Session.__call__
    monkeypatch.setattr(export_onnx.Session, "__call__", lambda self, *tensors: (original(self, *tensors)[0] + 0.01,))
    before = sorted(trial.path.iterdir())
    with pytest.raises(UserError, match=r"the program differs from the model by 1\.0e-02"):
        export.run(export._parser().parse_args([str(trial.path), "--format", "onnx"]))
    assert sorted(trial.path.iterdir()) == before


@installed
@pytest.mark.slow
def test_an_operation_without_translation_is_one_line(tmp_path):
    class Eigenvalues(torch.nn.Module):
        def forward(self, inputs):
            return torch.linalg.eigvalsh(inputs)

    program = torch.export.export(Eigenvalues(), (torch.eye(3),))
    with pytest.raises(
        UserError, match=r"eigen cannot be translated to ONNX \(.*_linalg_eigh.*\); --format pt2 can hold it"
    ) as caught:
        export_onnx.save(program, "eigen", ["inputs"], ["outputs"], {}, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)


@installed
@pytest.mark.slow
@pytest.mark.parametrize("model", ["lstm", "ema", "igloo", "function_approximation"])
def test_the_guide_lists_the_models(model):
    assert f"\n| {' | '.join(onnx_models.tried(model).row())} |\n" in onnx_models.PAGE.read_text(encoding="utf-8")


def test_the_guide_has_a_row_of_every_model():
    part = blocks.content(onnx_models.PAGE.read_text(encoding="utf-8"), *onnx_models.PART)
    assert [line.split("`")[1] for line in part.splitlines() if line.startswith("| `")] == onnx_models.names()


def test_missing_packages_are_one_line(monkeypatch):
    monkeypatch.setattr(export_onnx, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        export.run(export._parser().parse_args(["trial", "--format", "onnx"]))
    assert str(caught.value) == "--format onnx: onnx is not installed; install it with: pip install -r requirements/onnx.txt"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "a.pt2"], "--out: got a.pt2, expected a name that ends in .onnx; --format pt2 writes such a file"),
        (["--operators", "required"], "--operators: got required, expected decomposed, since ONNX has no operators of seqmem"),
    ],
)
def test_contradictions_are_one_line(arguments, message, monkeypatch):
    monkeypatch.setattr(export_onnx, "find_spec", lambda name: True)
    monkeypatch.setattr(export, "read_checkpoint", lambda path: None)
    with pytest.raises(UserError) as caught:
        export.run(export._parser().parse_args(["trial", "--format", "onnx", *arguments]))
    assert str(caught.value) == message
