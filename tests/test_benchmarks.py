"""Rules of the benchmark: no ratio if the sides disagree, and the rows of other runs are kept."""

import pytest
import torch

from benchmarks import run
from benchmarks.cases import Case, builders


@pytest.fixture(autouse=True)
def single_calls(monkeypatch):
    """Measures each side once, without the slow compilation of torch.compile."""
    monkeypatch.setattr(run, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(run, "sides", without_torch_compile)


def without_torch_compile(case):
    return {name: build() for name, build in builders(case).items() if "compile" not in name}


@pytest.mark.parametrize(("kind", "loss"), [("legs", "all"), ("tlsi", "all"), ("lstm", "last"), ("gru", "last")])
def test_all_sides_of_a_cell_agree(kind, loss):
    rows = run.measure(Case(kind, 8, 12, 3, loss=loss), turns=1)
    assert rows[0]["side"] == "seqmem"
    assert len(rows) >= 3
    for row in rows:
        assert row["times_ours"] > 0
        assert row["agreement"] == "no values" if row["side"] == "bare products" else float(row["agreement"]) < 1e-4


def test_both_implementations_of_patches_agree():
    ours, gathered = run.measure(Case("igloo", 3, 40, 5), turns=1)
    assert (ours["side"], gathered["side"]) == ("seqmem", "all patches gathered")
    assert float(gathered["agreement"]) < 1e-4


def test_an_autoencoder_gets_the_same_gradients_from_a_batch_and_from_its_rows():
    ours, original = run.measure(Case("lstm_ae", 5, 11, 3), turns=1)
    assert (ours["side"], original["side"]) == ("seqmem", "original (one sequence at a time)")
    assert float(original["agreement"]) < 1e-4
    assert original["processor_seconds"] > 0


def test_bfloat16_and_projections_agree():
    for case in (Case("legs", 32, 12, 3, torch.bfloat16), Case("projection", 16, 500, 1), Case("projection", 16, 500, 3)):
        assert all(row["agreement"] != "DISAGREES" for row in run.measure(case, turns=1))


def test_no_ratio_if_a_gradient_differs(monkeypatch):
    def sides(case):
        calls = without_torch_compile(case)
        outputs, gradients = calls["original (dense)"]()
        calls["original (dense)"] = lambda: (outputs, [gradients[0] * 1.01, *gradients[1:]])
        return calls

    monkeypatch.setattr(run, "sides", sides)
    [row] = [row for row in run.measure(Case("legs", 8, 12, 3), turns=1) if row["side"] == "original (dense)"]
    assert row["agreement"] == "DISAGREES"
    assert row["times_ours"] is None


def test_a_run_of_some_cases_keeps_the_rows_of_the_others(tmp_path):
    path, (first, second) = tmp_path / "speed.csv", run.CASES[:2]
    rows = [{"case": case.title, "side": "seqmem", "seconds": 1.0} for case in (first, second)]
    run.save(rows, [], path)
    again = [{"case": second.title, "side": "seqmem", "seconds": 2.0}]
    run.save(again, run.other_rows(path, [second]), path)
    assert [(row["case"], float(row["seconds"])) for row in run.other_rows(path, [])] == [
        (first.title, 1.0),
        (second.title, 2.0),
    ]
