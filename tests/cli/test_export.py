"""``python -m seqmem.export``: programs that agree with the model, run where seqmem is not, and are refused if not."""

import json
import subprocess
import sys
import zipfile

import pytest
import torch
from torch import Tensor

from seqmem import datasets, models
from seqmem.cli import commandline, export
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.ops import extension
from seqmem.training.checkpoints.files import read_checkpoint, restore
from tests.trials import run_trials

compiled = pytest.mark.skipif(bool(extension.REASON), reason="there are no compiled operators")

# A process that can import nothing of this project loads a program and runs it on the inputs next to it.
ALONE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("seqmem", "pytorch_lightning"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import torch
program = torch.export.load(sys.argv[1]).module()
inputs, expected = torch.load(sys.argv[2])
print((program(*inputs) - expected).abs().max().item())
"""

VALUES = DataSpec("values", 2, 3, "classification", output_steps=0, max_length=11)
STEPS = DataSpec("steps", 2, 1, "forecasting", output_steps=None, max_length=11)
LAST = DataSpec("last", 6, 6, "classification", output_steps=3, max_length=11, tokens=True)
TIMED = DataSpec("timed", 2, 3, "classification", output_steps=0, max_length=11, times=True)
SERIES = DataSpec("series", 2, 2, "reconstruction", output_steps=None, max_length=11)


def recurrent(cell, **arguments):
    return {"network": "recurrent", "cell": cell, "cell_args": {"hidden_size": 5, **arguments}}


HMLSTM = {"network": "hmlstm", "cell_args": {"hidden_size": [3, 4], "num_layers": 2}, "output_embedding_size": 5}
IGLOO = {"network": "igloo", "nb_patches": 7, "nb_filters_conv1d": 3}


def made(model, spec, lengths=False):
    torch.manual_seed(0)
    built = models.build(model, spec)
    return export.Program(built, spec, lengths).eval().requires_grad_(False)


def saved(exported, folder):
    torch.export.save(exported, folder / "program.pt2")
    return torch.export.load(folder / "program.pt2").module()


def operators(exported):
    return {str(node.target) for part in export._graphs(exported) for node in part.graph.nodes if "seqmem" in str(node.target)}


@pytest.mark.parametrize(
    ("model", "spec", "lengths", "steps"),
    [
        pytest.param(recurrent("legs", memory_order=4), LAST, True, (3, float("inf")), id="legs"),
        pytest.param(recurrent("tlsi"), TIMED, False, (1, float("inf")), id="tlsi", marks=pytest.mark.slow),
        pytest.param(recurrent("lmu"), STEPS, True, (1, float("inf")), id="lmu", marks=pytest.mark.slow),
        pytest.param(recurrent("gru"), STEPS, True, (1, float("inf")), id="gru", marks=pytest.mark.slow),
        pytest.param(recurrent("rnn"), STEPS, True, (1, float("inf")), id="rnn", marks=pytest.mark.slow),
        pytest.param(recurrent("mgu"), VALUES, True, (1, float("inf")), id="mgu", marks=pytest.mark.slow),
        pytest.param(recurrent("relu_gru"), VALUES, True, (1, float("inf")), id="relu_gru", marks=pytest.mark.slow),
        pytest.param(recurrent("exprnn"), VALUES, True, (1, float("inf")), id="exprnn", marks=pytest.mark.slow),
        pytest.param(HMLSTM, STEPS, True, (1, float("inf")), id="hmlstm", marks=pytest.mark.slow),
        pytest.param(IGLOO, VALUES, False, (11, 11), id="igloo"),
        pytest.param({"network": "tcn", "hidden_size": 4}, LAST, False, (4, float("inf")), id="tcn"),
        pytest.param(
            {"network": "lstm_ae", "encoding_size": 3}, SERIES, False, (1, float("inf")), id="lstm_ae", marks=pytest.mark.slow
        ),
    ],
)
def test_a_decomposed_program_agrees_with_its_model_at_other_sizes(model, spec, lengths, steps, tmp_path):
    whole = made(model, spec, lengths)
    exported, sizes = export.export(whole, "model")
    assert sizes == ((1, float("inf")), steps)
    assert operators(exported) == set()
    loaded = saved(exported, tmp_path)
    assert 0 <= export.compare(whole, loaded, sizes) < 1e-5
    example = whole.example(7, 11)
    with torch.no_grad():
        torch.testing.assert_close(loaded(*example), whole(*example), rtol=1e-4, atol=1e-5)


@compiled
@pytest.mark.parametrize(
    ("model", "spec", "operator", "lengths"),
    [
        (recurrent("legs"), VALUES, "memory_sequence", True),
        (recurrent("lstm"), LAST, "lstm_sequence", False),
        pytest.param(recurrent("tlsi"), TIMED, "memory_sequence", False, marks=pytest.mark.slow),
        pytest.param(recurrent("mgu"), VALUES, "memory_sequence", False, marks=pytest.mark.slow),
        pytest.param(recurrent("gru"), STEPS, "gru_sequence", True, marks=pytest.mark.slow),
        pytest.param(HMLSTM, STEPS, "multiscale_sequence", True, marks=pytest.mark.slow),
    ],
)
def test_a_program_with_required_operators_gives_the_models_own_numbers(model, spec, operator, lengths, tmp_path):
    whole = made(model, spec, lengths)
    exported, sizes = export.export(whole, "model", required=True)
    assert operators(exported) == {f"seqmem.{operator}.default"}
    assert export.compare(whole, saved(exported, tmp_path), sizes) == 0


def test_sizes_can_be_fixed_and_float64_stays(tmp_path):
    whole = made({"network": "tcn", "hidden_size": 4}, VALUES).double()
    whole.dtype = torch.float64
    exported, sizes = export.export(whole, "tcn", rows=2, steps=9)
    assert sizes == ((2, 2), (9, 9))
    assert export._describe_inputs(whole, sizes) == ["inputs (B, T, 2) float64, B=2, T=9"]
    assert export.compare(whole, saved(exported, tmp_path), sizes) < 1e-12


def test_a_program_that_differs_is_refused():
    whole = made({"network": "tcn", "hidden_size": 4}, VALUES)
    with pytest.raises(UserError, match=r"the program differs from the model by 1\.0e-01 for 1 rows of 1 steps"):
        export.compare(whole, lambda inputs: whole(inputs) + 0.1, export.Sizes((1, 4), (1, 4)))


def test_a_model_that_cannot_be_exported_is_named():
    class Branching(export.Program):
        def forward(self, *tensors: Tensor) -> Tensor:
            outputs = super().forward(*tensors)
            return outputs if outputs.sum() > 0 else -outputs

    torch.manual_seed(0)
    branching = Branching(models.build({"network": "tcn", "hidden_size": 4}, VALUES), VALUES, False).eval()
    with pytest.raises(UserError, match=r"tcn cannot be exported \(\w+: .*\)"):
        export.export(branching, "tcn")
    assert not extension.FORCED or extension.REASON


def test_a_program_that_would_refuse_one_size_is_not_written():
    """As many rows as a parameter has numbers, which comparisons at other sizes do not find."""

    class Comparing(export.Program):
        def forward(self, *tensors: Tensor) -> Tensor:
            outputs = super().forward(*tensors)
            return outputs if tensors[0].shape[0] != 7 else -outputs

    comparing = Comparing(models.build({"network": "tcn", "hidden_size": 4}, VALUES), VALUES, False).eval()
    with pytest.raises(UserError, match=r"tcn cannot be exported \(UserError: not for all sizes: .* != 7\)"):
        export.export(comparing, "tcn")


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    small = "dataset.length=20 dataset.train_samples=8 dataset.validation_samples=4 dataset.test_samples=4 train.batch_size=4"
    settings = (
        "dataset=sinusoids",
        *small.split(),
        "model=lstm",
        "model.preset=tiny",
        "train.epochs=1",
        "runner.accelerator=cpu",
    )
    config = commandline.compose(settings)
    [trial] = run_trials(config, datasets.load(config["dataset"]), tmp_path_factory.mktemp("runs"))
    return trial.path


def test_the_programs_file_holds_a_program_without_operators_and_says_so(trial, tmp_path, capsys):
    export.main([str(trial), "--out", str(tmp_path / "mine.pt2")])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"lstm, trained on sinusoids, epoch 1: {tmp_path}/mine.pt2, ")
    assert printed[1:3] == ["inputs: inputs (B, T, 1) float32, B any, T any", "runs without seqmem"]
    assert printed[3].startswith("greatest difference from the model on random inputs: ")
    with zipfile.ZipFile(tmp_path / "mine.pt2") as archive:
        [name] = [name for name in archive.namelist() if name.endswith("seqmem.json")]
        described = json.loads(archive.read(name))
    assert described["import first"] is None
    assert described["checkpoint"] == str(trial / "checkpoints" / "best.ckpt")
    assert operators(torch.export.load(tmp_path / "mine.pt2")) == set()


@pytest.mark.slow
def test_the_programs_file_runs_in_a_process_without_this_project(trial, tmp_path):
    export.main([str(trial), "--out", str(tmp_path / "mine.pt2")])
    checkpoint = read_checkpoint(trial)
    model = restore(checkpoint, checkpoint.config["train"], checkpoint.spec).model.eval()
    inputs = torch.randn(6, 33, 1)
    with torch.no_grad():
        expected = model(Batch(inputs, inputs))
    torch.save(((inputs,), expected), tmp_path / "inputs.pt")
    command = [sys.executable, "-c", ALONE, "mine.pt2", "inputs.pt"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-5


def test_a_float64_trial_keeps_every_digit(tmp_path):
    small = "dataset.train_samples=4 dataset.validation_samples=4 dataset.test_samples=4 train.batch_size=4 train.lr=0.01"
    keys = f"dataset=sinusoids dataset.length=9 {small} model=legs model.preset=tiny train.epochs=1 train.precision=64-true"
    config = commandline.compose([*keys.split(), "runner.accelerator=cpu"])
    [trial] = run_trials(config, datasets.load(config["dataset"]), tmp_path)
    weights = read_checkpoint(trial.path).weights
    program = export._program(read_checkpoint(trial.path), lengths=False)
    found = {name: value for name, value in program.state_dict().items() if name in weights}
    assert len(found) == len(weights) > 4
    assert all(torch.equal(value, weights[name]) for name, value in found.items())
    assert any((value != value.float()).any() for value in found.values())
    assert program.dtype == torch.float64


@compiled
def test_a_program_with_required_operators_says_what_to_import(trial, tmp_path, capsys):
    export.main([str(trial), "--operators", "required", "--lengths", "--out", str(tmp_path / "mine.pt2")])
    printed = capsys.readouterr().out
    assert "import seqmem.ops before loading it\n" in printed
    assert "lengths (B,) int64, the valid steps of each row\n" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "cannot read the checkpoint nowhere"),
        (("TRIAL", "--out", "a.pt"), "--out: got a.pt, expected a name that ends in .pt2"),
        (("TRIAL", "--out", "no/a.pt2"), "--out: got no/a.pt2, but there is no folder no"),
        (("TRIAL", "--out", "there.pt2"), "--out: got there.pt2, which exists already"),
        (("TRIAL", "--length", "0"), "argument --length: got '0', expected a whole number of at least 1"),
        (("TRIAL", "--operator", "all"), "invalid choice: 'all'"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, trial, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.pt2").write_text("kept")
    with pytest.raises(SystemExit) as ended:
        export.main([str(trial) if argument == "TRIAL" else argument for argument in arguments])
    shown = capsys.readouterr()
    assert ended.value.code == 2
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert message in shown.err
    assert (tmp_path / "there.pt2").read_text() == "kept"
    assert not (trial / "model.pt2").exists()


def test_without_compiled_operators_none_can_be_required(monkeypatch):
    monkeypatch.setattr(extension, "REASON", "there is no compiler")
    with pytest.raises(UserError, match="--operators: got required, but there is no compiler; build it with"):
        export.export(made({"network": "tcn", "hidden_size": 4}, VALUES), "tcn", required=True)


def test_a_memory_alone_is_not_exported():
    noise = DataSpec("noise", 1, 1, "reconstruction", output_steps=None, max_length=11)
    with pytest.raises(UserError, match="legs cannot be exported: it is a memory without weights"):
        export.export(made({"network": "function_approximation"}, noise), "legs")
