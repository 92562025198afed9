"""Device kind and path of the operators identify a trial; its hardware is recorded, and times are of one machine."""

import json

import pytest
import torch

from seqmem import training
from seqmem.errors import UserError
from seqmem.ops import extension
from seqmem.ops.gpu import support
from seqmem.results import find_runs, group_trials, summarize
from seqmem.results.sweep import Sweep
from seqmem.results.table import cells
from seqmem.training import backend as module
from seqmem.training.backend import backend, planned, requested
from seqmem.training.loop.trial import check_backend
from tests.training.test_trials import Signs, config
from tests.trials import run_trials


def table(folder):
    return cells(summarize(group_trials(find_runs(folder))))


def test_device_path_and_products_are_named(monkeypatch):
    auto, cpu = config(runner={"accelerator": "auto"}), config()
    ray = config(runner={"name": "ray", "accelerator": "auto"})
    assert {backend(each) for each in (auto, cpu, ray)} == {"cpu compiled"}
    with extension.reference_only("a test"):
        assert backend(cpu) == "cpu reference"
        assert (requested(cpu), requested(auto)) == ("cpu reference", "reference")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(support, "HAS_TRITON", False)
    assert (backend(auto), backend(cpu), backend(ray)) == ("cuda reference", "cpu compiled", "cpu compiled")
    monkeypatch.setattr(support, "HAS_TRITON", True)
    assert backend(auto) == "cuda compiled"
    assert backend(config(runner={"name": "ray", "accelerator": "auto", "gpus": 0.5})) == "cuda compiled"
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert backend(auto) == "cuda compiled tf32"


def test_products_in_bfloat16_are_named(monkeypatch):
    """Operators with and without them round differently, so that their trials are not averaged."""
    half = config(train={"precision": "bf16-mixed"})
    found = []
    for products in ("tiles", "vectors", "rounded"):
        monkeypatch.setattr(torch.ops.seqmem, "bfloat16_products", lambda products=products: products)
        found.append(backend(half))
        assert backend(config()) == "cpu compiled"
    assert found == ["cpu compiled tiles", "cpu compiled vectors", "cpu compiled rounded"]
    with extension.reference_only("a test"):
        assert backend(half) == "cpu reference eager"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(support, "HAS_TRITON", True)
    assert backend(config(train={"precision": "bf16-mixed"}, runner={"accelerator": "auto"})) == "cuda compiled"


def test_workers_with_a_gpu_are_started_from_a_machine_without(tmp_path, monkeypatch):
    ray = config(runner={"name": "ray", "accelerator": "auto", "gpus": 0.5})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(support, "HAS_TRITON", False)
    experiment = training.experiment(ray, Signs(), tmp_path)
    assert experiment.backend == "cuda compiled"
    with pytest.raises(UserError, match=r"got the backend 'cpu compiled' on .*, expected 'cuda compiled'"):
        check_backend(ray, experiment)  # a worker without a GPU
    with extension.reference_only("a test"):
        assert planned(ray) == "cuda reference"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match="got the backend 'cuda reference'"):
        check_backend(ray, experiment)  # a worker without Triton
    monkeypatch.setattr(support, "HAS_TRITON", True)
    check_backend(ray, experiment)


def test_trials_of_different_operators_are_apart_and_named_in_the_table(tmp_path, capsys):
    one = config(train={"epochs": 1, "limit_train_batches": 2})
    [compiled] = run_trials(one, Signs(), tmp_path)
    assert "backend" not in table(tmp_path)
    with extension.reference_only("a test"):
        [reference] = run_trials(one, Signs(), tmp_path)
        assert reference.read_record()["library"] is None
    assert "found in" not in capsys.readouterr().out
    assert compiled.path != reference.path
    shown = table(tmp_path)
    assert shown["n"] == ["1", "1"]
    assert dict(zip(shown["model"], shown["backend"], strict=True)) == {
        f"legs (cpu {path})": f"cpu, {path}, 32-true" for path in ("compiled", "reference")
    }
    assert "machine" not in shown


def test_a_record_names_what_computed_it(tmp_path):
    [trial] = run_trials(config(train={"epochs": 1}, smoke_test=True), Signs(), tmp_path)
    record = trial.read_record()
    assert record["backend"] == "cpu compiled"
    machine = record["machine"]
    assert (machine["threads"], machine["devices"]) == (torch.get_num_threads(), [])
    assert machine["instructions"]["operators"] == torch.ops.seqmem.instruction_set()
    assert machine["instructions"]["torch"] == torch.backends.cpu.get_cpu_capability()
    assert record["library"] == module.library()
    assert len(record["library"]["sha256"]) == 64


def test_a_record_names_variables_that_choose_other_kernels(monkeypatch):
    for name in module._CHOOSING_KERNELS:
        monkeypatch.delenv(name, raising=False)
    assert "variables" not in module.computed_by(config())["machine"]
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "")
    assert module.computed_by(config())["machine"]["variables"] == ["MKL_CBWR=AVX2"]


def test_a_record_names_what_decides_on_the_rounding_of_a_gpu(monkeypatch):
    for name, value in {"is_available": True, "get_device_name": "H100", "get_device_capability": (9, 0)}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    assert "cuda" not in module.computed_by(config())["machine"]
    machine = module.computed_by(config(runner={"accelerator": "auto"}))["machine"]
    assert (machine["devices"], machine["cuda"]["capability"]) == (["H100"], ["9.0"])
    assert (machine["cuda"]["matmul"], machine["cuda"]["deterministic"]) == ("highest", False)
    assert json.loads(json.dumps(machine)) == machine


def test_cudnn_multiplies_in_the_precision_of_other_products(monkeypatch):
    """torch lets cuDNN alone round to TF32, so that an LSTM would be less exact than every other recurrence."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    for precision, expected in (("highest", False), ("high", True)):
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda precision=precision: precision)
        with module.cudnn_as_matmul():
            assert module.cudnn_tf32() is expected
        assert module.cudnn_tf32() is True


def test_cudnn_settings_of_a_program_stay():
    before = torch.backends.cudnn.rnn.fp32_precision
    torch.backends.cudnn.rnn.fp32_precision = "ieee"
    try:
        assert module.cudnn_tf32() is None
        with module.cudnn_as_matmul():
            assert torch.backends.cudnn.rnn.fp32_precision == "ieee"
    finally:
        torch.backends.cudnn.rnn.fp32_precision = before
    assert module.cudnn_tf32() is not None


def test_the_checksum_is_that_of_the_loaded_library_not_of_a_later_build(tmp_path, monkeypatch):
    before = module.library()
    (tmp_path / "rebuilt.so").write_bytes(extension.LIBRARY.read_bytes() + b"another build")
    monkeypatch.setattr(extension, "LIBRARY", tmp_path / "rebuilt.so")
    assert module.library() == before


def test_another_machine_neither_trains_nor_resumes_in_silence(tmp_path, monkeypatch):
    one = config(train={"epochs": 1}, smoke_test=True)
    planned = training.experiment(one, Signs(), tmp_path)
    with extension.reference_only("a test"), pytest.raises(UserError, match="got the backend 'cpu reference' on "):
        training.run_trials(one, Signs(), planned)
    assert not planned.trial(3).path.joinpath("record.json").exists()
    [trial] = training.run_trials(one, Signs(), planned)
    resumed = config(train={"epochs": 1, "resume": str(trial.path)}, smoke_test=True)
    with extension.reference_only("a test"), pytest.raises(UserError, match="was trained with the backend 'cpu compiled'"):
        run_trials(resumed, Signs(), tmp_path / "elsewhere")


def test_times_of_different_machines_are_not_averaged(tmp_path):
    trials = run_trials(config(train={"epochs": 1}, runner={"ntrials": 3}, smoke_test=True), Signs(), tmp_path)
    for trial, seconds in zip(trials, (10.0, 20.0, 90.0), strict=True):
        record = trial.read_record()
        trial.write_record({**record, "seconds": seconds})
    assert table(tmp_path)["seconds"] == ["40.0"]
    assert "machine" not in table(tmp_path)
    record = trials[2].read_record()
    slow = {**record["machine"], "processor": "Abacus", "threads": 3}
    trials[2].write_record({**record, "machine": slow})
    shown = table(tmp_path)
    assert shown["seconds"] == ["15.0"]
    assert shown["machine"][0].endswith(" (seconds of 2 of 3 trials)")
    assert shown["n"] == ["3"]
    for trial in trials[:2]:
        (trial.path / "record.json").unlink()
    trials[2].write_record({**record, "machine": slow, "earlier_machines": [record["machine"]]})
    [row] = summarize(group_trials(find_runs(tmp_path))).to_dict("records")[-1:]
    assert row["machine"] == "several machines"


def test_a_trial_that_resumes_on_another_machine_names_both(tmp_path):
    one = config(train={"epochs": 2})
    [trial] = run_trials(one, Signs(), tmp_path)
    record = trial.read_record()
    other = {**record["machine"], "processor": "Abacus"}
    trial.write_record({**record, "status": "interrupted", "machine": other})
    [trial] = run_trials(one, Signs(), tmp_path)
    assert trial.read_record()["earlier_machines"] == [other]


def test_records_of_earlier_versions_are_read(tmp_path):
    trials = run_trials(config(train={"epochs": 1}, runner={"ntrials": 4}, smoke_test=True), Signs(), tmp_path)
    changes = [
        {},
        {"operators": {"a": "reference (SEQMEM_REFERENCE is set)"}},
        {"gpu": "NVIDIA H100"},
        {"gpu": "NVIDIA H100", "accelerator": "auto"},
    ]
    for trial, change in zip(trials, changes, strict=True):
        record = trial.read_record()
        machine = {key: record["machine"][key] for key in ("processor", "threads", "gpu", "system")}
        old = {key: value for key, value in record.items() if key not in ("backend", "library", "earlier_machines")}
        old["machine"] = machine | {key: value for key, value in change.items() if key == "gpu"}
        trial.write_record(old | {key: value for key, value in change.items() if key == "operators"})
        if "accelerator" in change:
            settings = trial.read_config()
            trial.write_config({**settings, "runner": {**settings["runner"], "accelerator": "auto"}})
    runs = find_runs(tmp_path)
    assert [run.backend for run in runs] == ["cpu compiled", "cpu reference", "cpu compiled", "cuda compiled"]
    assert [run.machine.startswith("NVIDIA") for run in runs] == [False, False, False, True]
    assert table(tmp_path)["n"] == ["2", "1", "1"]


def test_a_manifest_keeps_jobs_of_different_devices_and_reads_earlier_ones(tmp_path):
    job = {"overrides": [], "dataset": "signs", "model": "gru", "group": "a", "seeds": [0]}
    sweep = Sweep(tmp_path)
    sweep.add([{**job, "requested": "cpu"}, {**job, "requested": "gpu"}])
    sweep.add([{**job, "requested": "gpu", "backend": "cuda compiled"}])
    assert [(each["requested"], each["backend"]) for each in sweep.jobs()] == [("cpu", None), ("gpu", "cuda compiled")]
    content = json.loads((tmp_path / "sweep.json").read_text())
    for each in content["jobs"]:
        del each["requested"], each["backend"], each["data_settings"], each["data_name"]
    (tmp_path / "sweep.json").write_text(json.dumps({**content, "jobs": content["jobs"][:1]}))
    sweep.add([{**job, "requested": "", "failure": "none"}])
    assert len(sweep.jobs()) == 1
