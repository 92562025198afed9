"""The compiled operators called by several threads at once, and with several threads of their own."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.testing import assert_close

from seqmem.cells import GRU, HMLSTM, LSTM, LegS, LegT
from seqmem.ops import extension, legs_function_approximation, memory_update

pytestmark = pytest.mark.skipif(bool(extension.REASON), reason=f"no compiled operators: {extension.REASON}")

CALLERS = 8


@pytest.fixture(params=[1, 2, 4], ids=lambda threads: f"threads {threads}")
def threads(request):
    """How many threads torch uses."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def sequences():
    """One cell of each operator, rows enough for several groups."""
    torch.manual_seed(0)
    cells = [
        LegS(3, hidden_size=18),
        LegT(3, hidden_size=5, memory_order=19),
        LSTM(3, hidden_size=17),
        GRU(3, hidden_size=33),
        HMLSTM(3, hidden_size=9),
    ]
    return [(cell, torch.randn(70, 23, 3), torch.randint(0, 24, (70,))) for cell in cells]


def trained(cell, inputs, lengths):
    """Outputs and all gradients."""
    inputs = inputs.clone().requires_grad_()
    outputs, _ = cell(inputs, lengths=lengths)
    return [outputs.detach(), *torch.autograd.grad(outputs.square().sum(), [inputs, *cell.parameters()])]


def updated(seed):
    """Updates of memories of all measures, and an approximation."""
    noise = torch.Generator().manual_seed(seed)
    memory, inputs, dt = (torch.rand(shape, generator=noise) for shape in [(40, 3, 35), (40, 3), (40,)])
    methods = [("legs", "bilinear"), ("legs", "zoh"), ("lmu", "forward"), ("lagt", "backward"), ("legt", 0.3)]
    results = [memory_update(memory, inputs, dt, measure, method) for measure, method in methods]
    return [*results, legs_function_approximation(torch.rand(60, 90, generator=noise), 24)]


def assert_equal(given, wanted):
    for one, other in zip(given, wanted, strict=True):
        assert torch.equal(one, other)


def test_calls_at_once_give_what_they_give_alone(threads):
    tasks = [lambda given=given: trained(*given) for given in sequences()] + [lambda s=s: updated(s) for s in range(3)]
    alone = [task() for task in tasks]
    with ThreadPoolExecutor(CALLERS, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        runs = [pool.submit(task) for _ in range(CALLERS) for task in tasks]
        for run, wanted in zip(runs, alone * CALLERS, strict=True):
            assert_equal(run.result(), wanted)


def test_the_number_of_threads_changes_nothing_but_the_order_of_sums(threads):
    several = [trained(*given) for given in sequences()]
    torch.set_num_threads(1)
    for given, wanted in zip(several, [trained(*given) for given in sequences()], strict=True):
        for one, other in zip(given, wanted, strict=True):
            assert_close(one, other, rtol=0, atol=1e-5 * other.abs().max().item())
