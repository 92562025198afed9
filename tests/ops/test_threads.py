"""Compiled operators called concurrently, and with several threads of their own."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.testing import assert_close

from seqmem.cells import GRU, HMLSTM, LSTM, LegS, LegT
from seqmem.layers import S4D, SLSTM
from seqmem.ops import extension, legs_function_approximation, memory_update
from seqmem.ops.diagonal_scan import diagonal_scan
from seqmem.ops.minimal_gates import minimal_gates_scan
from seqmem.ops.oscillators import oscillator_scan

pytestmark = pytest.mark.skipif(bool(extension.REASON), reason=f"no compiled operators: {extension.REASON}")

CALLERS = 8


@pytest.fixture(autouse=True)
def restored_threads():
    """Restores the number of threads of torch."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def sequences():
    """One cell of each operator, with enough rows for several groups.

    HM-LSTM runs in float64. Its layer normalisation amplifies rounding errors about a thousand times over these steps, and the
    projection of the inputs, a product of torch, rounds differently with a different number of threads.
    """
    torch.manual_seed(0)
    cells = [
        LegS(3, hidden_size=18),
        LegT(3, hidden_size=5, memory_order=19),
        LSTM(3, hidden_size=17),
        GRU(3, hidden_size=33),
        HMLSTM(3, hidden_size=9),
        S4D(3, hidden_size=3, state_size=8),
        SLSTM(3, hidden_size=9, num_heads=3),
    ]
    given = [(cell, torch.randn(70, 23, 3), torch.randint(0, 24, (70,))) for cell in cells]
    return [
        (cell.double(), inputs.double(), lengths) if isinstance(cell, HMLSTM) else (cell, inputs, lengths)
        for cell, inputs, lengths in given
    ]


def trained(cell, inputs, lengths):
    """Outputs and all gradients of a cell."""
    inputs = inputs.clone().requires_grad_()
    outputs, _ = cell(inputs, lengths=lengths)
    return [outputs.detach(), *torch.autograd.grad(outputs.square().sum(), [inputs, *cell.parameters()])]


def scans():
    """Calls of the scans, with few rows and with many: functions and arguments."""
    torch.manual_seed(0)
    calls = []
    for scan, shapes in (
        (diagonal_scan, [(130,), (70, 23, 130), (70, 130)]),
        (diagonal_scan, [(1, 23, 1000, 2), (1, 23, 1000, 2), (1, 1000, 2)]),
        (minimal_gates_scan, [(3, 23, 400), (3, 200)]),
        (oscillator_scan, [(130,), (130,), (5, 23, 130, 2), (5, 2, 130, 2)]),
    ):
        calls.append((scan, [torch.rand(shape) / 2 for shape in shapes], torch.randint(0, 24, (shapes[-1][0],))))
    return calls


def scanned(calls):
    """Outputs and all gradients of scans."""
    found = []
    for scan, given, lengths in calls:
        leaves = [part.clone().requires_grad_() for part in given]
        results = scan(*leaves, lengths)
        found += [*results, *torch.autograd.grad([part.square().sum() for part in results], leaves)]
    return [part.detach() for part in found]


def updated(seed):
    """Updates of several measures, and a function approximation."""
    noise = torch.Generator().manual_seed(seed)
    memory, inputs, dt = (torch.rand(shape, generator=noise) for shape in [(40, 3, 35), (40, 3), (40,)])
    methods = [("legs", "bilinear"), ("legs", "zoh"), ("lmu", "forward"), ("lagt", "backward"), ("legt", 0.3)]
    results = [memory_update(memory, inputs, dt, measure, method) for measure, method in methods]
    return [*results, legs_function_approximation(torch.rand(60, 90, generator=noise), 24)]


@pytest.mark.parametrize("threads", [1, 4])
def test_concurrent_calls_equal_single_calls(threads):
    torch.set_num_threads(threads)
    tasks = [lambda given=given: trained(*given) for given in sequences()] + [lambda s=s: updated(s) for s in range(3)]
    calls = scans()
    tasks.append(lambda: scanned(calls))
    single = [task() for task in tasks]
    with ThreadPoolExecutor(CALLERS, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        runs = [pool.submit(task) for _ in range(CALLERS) for task in tasks]
        for run, expected in zip(runs, single * CALLERS, strict=True):
            for one, other in zip(run.result(), expected, strict=True):
                assert torch.equal(one, other)


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_the_number_of_threads_changes_only_the_order_of_sums(threads):
    torch.set_num_threads(threads)
    several = [trained(*given) for given in sequences()]
    torch.set_num_threads(1)
    for results, expected in zip(several, [trained(*given) for given in sequences()], strict=True):
        for one, other in zip(results, expected, strict=True):
            tolerance = 1e-5 if other.dtype == torch.float32 else 1e-11
            assert_close(one, other, rtol=0, atol=tolerance * other.abs().max().item())


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_the_results_of_scans_do_not_depend_on_the_number_of_threads(threads):
    calls = scans()
    torch.set_num_threads(1)
    expected = scanned(calls)
    torch.set_num_threads(threads)
    for one, other in zip(scanned(calls), expected, strict=True):
        assert torch.equal(one, other)
