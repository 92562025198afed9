"""Pictures of recurrences whose gates depend on the inputs alone: what is kept of a state, and how a state forgets."""

from collections.abc import Callable

import torch
from matplotlib.figure import Figure
from torch.nn.functional import softplus

from seqmem.layers.mingru import MinGRU
from seqmem.layers.minlstm import MinLSTM
from seqmem.ops.minimal_gates import candidate_activation
from seqmem.ops.rg_lru import rg_lru_terms


def mingru(figure: Figure) -> None:
    """Draw the activation of the candidate, and a state that is written at a few steps and kept between them."""
    activation, memory = figure.subplots(1, 2, width_ratios=[1, 2])
    inputs = torch.linspace(-4, 3, 200)
    activation.plot(inputs, candidate_activation(inputs), label="$g(k)$")
    activation.plot(inputs, torch.sigmoid(inputs), color="0.7", linestyle=":", label=r"$\sigma(k)$")
    activation.set(xlabel="$k$", title="activation of the candidate")
    activation.legend(fontsize=7)
    layer = MinGRU(2, 1)
    with torch.no_grad():
        layer.weight_in.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))  # the inputs are k_h and k_z
        steps = torch.arange(120)
        values = 1.5 + torch.sin(steps / 4) + 0.3 * torch.sin(steps * 1.7)
        opened = torch.full((120,), -6.0)
        opened[[10, 45, 80]] = 6.0
        states, _ = layer(torch.stack([values, opened], -1)[None])
    memory.plot(steps, candidate_activation(values), color="0.75", label="$g(k_h)$")
    memory.plot(steps, states[0, :, 0], color="C3", label="$h$")
    memory.plot([10, 45, 80], states[0, [10, 45, 80], 0], "o", color="C3", markersize=4, label="gate open")
    memory.set(xlabel="step", title="written at three steps, kept in between", ylim=(0, 4.6))
    memory.legend(fontsize=7, ncols=3, loc="upper right")


def minlstm(figure: Figure) -> None:
    """Draw the normalised forget gate against both inputs of the gates, and the response to one input for three of them."""
    gates, response = figure.subplots(1, 2, width_ratios=[1, 2])
    line = torch.linspace(-6, 6, 200)
    for other in (-4.0, 0.0, 4.0):
        forget, chosen = line.sigmoid(), torch.tensor(other).sigmoid()
        gates.plot(line, forget / (forget + chosen), label=f"$k_i$ = {other:g}")
    gates.plot(line, line.sigmoid(), color="0.7", linestyle=":", label=r"$\sigma(k_f)$")
    gates.set(xlabel="$k_f$", title="normalised forget gate $f'$")
    gates.legend(fontsize=7)
    layer, steps = MinLSTM(3, 1), 60
    with torch.no_grad():
        layer.weight_in.copy_(torch.eye(3))  # the inputs are k_h, k_f and k_i
        for forget in (1.0, 3.0, 5.0):
            inputs = torch.tensor([-9.0, forget, -0.5]).repeat(1, steps, 1)
            inputs[0, 5, 0], inputs[0, 5, 2] = 3.0, 6.0
            inputs[0, 6:, 2] = -forget
            states, _ = layer(inputs)
            response.plot(states[0, :, 0], label=f"$k_f = -k_i$ = {forget:g}")
    response.set(xlabel="step", title="state after one input at step 5")
    response.legend(fontsize=7)


def rglru(figure: Figure) -> None:
    """Draw the factor of the state against the recurrence gate, and the weight of the inputs at both ends of that gate."""
    factor, response = figure.subplots(1, 2, width_ratios=[1, 2])
    line, ones = torch.linspace(-5, 5, 200), torch.ones(1, 200, 3)
    radius = torch.tensor([0.9, 0.99, 0.999])
    decay = torch.log(1 / radius - 1)
    assert torch.allclose(torch.exp(-softplus(decay)), radius)
    a, _ = rg_lru_terms(ones, line[:, None] * ones, 9 * ones, decay)
    for n, value in enumerate(radius.tolist()):
        factor.plot(line, a[0, :, n], color=f"C{n}", label=f"{value:g}")
    factor.set(xlabel="recurrence gate before its sigmoid", title="factor $a$ of the state")
    factor.legend(fontsize=7, title=r"$e^{-softplus(\Lambda)}$", title_fontsize=7)
    steps = torch.arange(120)
    for gate, style in ((-3.0, "-"), (3.0, "--")):
        a, b = rg_lru_terms(ones, gate * ones, 9 * ones, decay)
        for n in range(3):
            weight = b[0, 0, n] * a[0, 0, n] ** steps
            response.plot(steps, weight, style, color=f"C{n}", label="gate -3" if style == "-" else "gate 3")
    handles, labels = response.get_legend_handles_labels()
    response.legend(handles[2::3], labels[2::3], fontsize=7)
    response.set(xlabel="lag in steps", title="weight of an input if the gate stays as it is", yscale="log", ylim=(1e-3, 1))


PICTURES: dict[str, Callable[[Figure], None]] = {"mingru": mingru, "minlstm": minlstm, "rglru": rglru}
