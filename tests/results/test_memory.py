"""Tables, CSV file and figure of what a state holds."""

import csv
import io

import numpy as np
import pytest
import torch

from seqmem.data import Batch
from seqmem.diagnostics import Curves, Sample
from seqmem.hippo import Memory
from seqmem.results.memory import Measured, Reconstructed, memory_csv, memory_tables, plot_memory


@pytest.fixture
def sample():
    return Sample.of([Batch(torch.randn(6, 61, 1), torch.zeros(6))], gradients=5)


def curves(decay, effective_length, sample):
    norms = decay ** torch.arange(sample.longest + 1, dtype=torch.float64)
    r2 = 1 - sample.lags / 100
    r2[3] = torch.nan
    return Curves(12_345, norms, norms / 10, False, effective_length, r2.double())


@pytest.fixture
def states(sample):
    zeros, half = torch.zeros(61, dtype=torch.float64), torch.full((len(sample.lags),), 0.5)
    nothing = Curves(7, zeros, zeros, True, None, half)
    return [
        Measured("trained", "1", curves(0.5, 6, sample)),
        Measured("untrained", "1", curves(0.25, 3, sample)),
        Measured("trained", "2", nothing),
    ]


@pytest.fixture
def closed(sample):
    r2 = torch.where(sample.lags < 10, 0.25, torch.nan)
    return [Reconstructed(Memory(8, "legt", 10.0), layer, r2) for layer in ("1", "2")]


def test_tables_have_a_row_for_each_state_and_a_column_for_a_few_lags(states, closed, sample):
    lengths, norms, r2 = ([line.rstrip() for line in table.splitlines()] for table in memory_tables(states, closed, sample))
    assert [line.split("  ")[0] for line in lengths[2:]] == ["trained, layer 1", "untrained, layer 1", "trained, layer 2"]
    assert [line.split()[-2:] for line in lengths[2:]] == [["12,345", "6"], ["12,345", "3"], ["7", "-"]]
    assert norms[0].split() == ["model", *["0", "1", "2", "5", "10", "20", "50", "60"]]
    assert norms[2].split()[3:] == ["1", "0.5", "0.25", "0.031", "0.00098", "9.5e-07", "8.9e-16", "8.7e-19"]
    assert r2[2].split()[3:] == ["1.000", "0.990", "0.980", "0.950", "0.900", "0.800", "0.500", "0.400"]
    assert len(r2) == 2 + 4  # the closed form of both layers once
    assert r2[-1].split()[-8:] == ["0.250"] * 4 + ["-"] * 4
    assert r2[-1].startswith("closed form of legt, order 8, theta 10 ")


def test_the_csv_file_has_all_lags(states, closed, sample):
    rows = list(csv.DictReader(io.StringIO(memory_csv(states, closed, sample))))
    assert len(rows) == 3 * 61 + 2 * len(sample.lags)
    second = rows[61:122]
    assert {(row["model"], row["layer"], row["sequences"]) for row in second} == {("untrained", "1", "5")}
    assert [int(row["lag"]) for row in second] == list(range(61))
    np.testing.assert_allclose([float(row["gradient"]) for row in second], 0.25 ** np.arange(61.0))
    np.testing.assert_allclose([float(row["gradient_error"]) for row in second], 0.1 * 0.25 ** np.arange(61.0))
    np.testing.assert_allclose(float(second[2]["gradient_left"]), 0.25**3, rtol=1e-6)
    found = {int(row["lag"]): row["r2"] for row in second if row["r2"]}
    assert sorted({*sample.lags.tolist()} - {*found}) == [3]
    assert float(found[60]) == pytest.approx(0.4)
    assert {row["gradient_left"] for row in rows[122:183]} == {""}  # nothing is left of nothing
    last = rows[-len(sample.lags) :]
    assert {(row["model"], row["layer"]) for row in last} == {("closed form of legt, order 8, theta 10", "2")}
    assert [row["r2"] for row in last[8:12]] == ["0.25", "0.25", "", ""]
    assert {row["gradient"] for row in last} == {""}


def test_the_figure_has_a_line_for_each_state_and_marks_effective_lengths(states, closed, sample):
    gradient, read_out = plot_memory(states, closed, sample, "a title").axes
    lines = {line.get_label(): line for line in gradient.lines}
    first, second = lines["trained, layer 1 (effective length 6)"], lines["untrained, layer 1 (effective length 3)"]
    np.testing.assert_allclose(first.get_ydata(), 0.5 ** np.arange(61.0))
    assert (first.get_linestyle(), second.get_linestyle()) == ("-", "--")
    colors = [tuple(line.get_color()) for line in (first, second, lines["trained, layer 2"])]
    assert colors[0] == colors[1] != colors[2]
    marks = [line.get_xdata()[0] for line in gradient.lines if line.get_label().startswith("_")]
    assert marks == [6, 3]
    assert [line.get_label() for line in read_out.lines] == [
        *("trained, layer 1", "untrained, layer 1", "trained, layer 2"),
        "closed form of legt, order 8, theta 10",
    ]
    np.testing.assert_array_equal(read_out.lines[0].get_xdata(), sample.lags)
    assert read_out.lines[3].get_linestyle() == ":"
