"""Pictures of layers and networks that are not recurrent cells: their averages, patches, receptive fields and operations."""

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch.nn.functional import softplus

from seqmem.hippo import project, reconstruct
from seqmem.layers import EMA, LRU, S4D, S5, SLSTM, LinOSS, Mamba
from seqmem.models import IGLOO1D
from seqmem.ops.selective_scan import selective_scan_reference


def ema(figure: Figure) -> None:
    """Draw the learned decays in the unit disc, and the response of some averages to one input."""
    torch.manual_seed(0)
    layer = EMA(input_size=1, hidden_size=32, shortest=2, longest=100)
    with torch.no_grad():
        decay = torch.exp(-torch.exp(layer.nu)) * torch.exp(1j * layer.theta)
    disc, response = figure.subplots(1, 2, width_ratios=[1, 2])
    disc.add_patch(Circle((0, 0), 1, fill=False, color="0.6"))
    disc.scatter(decay.real, decay.imag, s=9)
    disc.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal", xlabel="real part", title="decays $a$, untrained")
    steps = torch.arange(100)
    for n in (0, 10, 20, 31):
        response.plot((decay[n] ** steps).real, label=f"|a| = {decay[n].abs():.3f}")
    response.set(xlabel="lag in steps", title="real part of the weight $a^k$ of an input $k$ steps ago")
    response.legend(fontsize=7)


def lru(figure: Figure) -> None:
    """Draw the factors of an untrained layer in the unit disc, and the weight of a past input in some recurrences."""
    torch.manual_seed(0)
    layer = LRU(input_size=1, hidden_size=1, state_size=64, r_min=0.9, r_max=0.999)
    with torch.no_grad():
        factors = torch.view_as_complex(layer.recurrence()[0])
        gains = layer.gamma.exp()
    disc, weights = figure.subplots(1, 2, width_ratios=[1, 2])
    disc.add_patch(Circle((0, 0), 1, fill=False, color="0.6"))
    disc.scatter(factors.real, factors.imag, s=9)
    disc.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal", xlabel="real part", title=r"factors $\lambda$, untrained")
    steps = torch.arange(150)
    for n in factors.abs().argsort()[[10, 35, 55, 63]]:
        weights.plot(gains[n] * factors[n].abs() ** steps, label=rf"$|\lambda|$ = {factors[n].abs():.3f}")
    weights.set(xlabel="lag in steps", title=r"modulus of the weight $e^{\gamma} \lambda^k$ of an input $k$ steps ago")
    weights.legend(fontsize=7)


def mamba(figure: Figure) -> None:
    """Draw the initial time constants of the states, and how the step size decides what a state holds."""
    torch.manual_seed(0)
    layer = Mamba(input_size=64, hidden_size=64)
    constants, held = figure.subplots(1, 2)
    with torch.no_grad():
        steps = softplus(layer.bias_step).sort()[0]
        rates = layer.log_rate.exp()[0]
    for n in (0, 3, 15):
        constants.plot(1 / (steps * rates[n]), label=f"state {n + 1} of 16")
    constants.set(xlabel="channel, by step size", yscale="log", title="initial time constants in steps")
    constants.legend(fontsize=7)
    inputs = torch.sin(torch.arange(120) / 4)
    sizes = torch.full((120,), 0.003)
    sizes[[22, 70]] = 3.0
    ones = torch.ones(1, 120, 1)
    states, _ = selective_scan_reference(inputs[None, :, None], sizes[None, :, None], -torch.ones(1, 1), ones, ones)
    held.plot(inputs, color="0.7", label="input")
    held.plot(states[0, :, 0] / 3, color="C3", label="state / 3, step size 3 at two steps, else 0.003")
    held.set(xlabel="step", title="a state takes in the inputs with a large step size")
    held.legend(fontsize=7)


def slstm(figure: Figure) -> None:
    """Draw the initial forget biases by block, and the weights of past inputs in the average before and after a large gate."""
    layer = SLSTM(input_size=1, hidden_size=32, num_heads=1)
    biases, weights = figure.subplots(1, 2)
    for block in range(3):
        layer.on_depth(block, 3)
        biases.plot(layer.bias.detach().view(4, 32)[1], label=f"block {block + 1} of 3")
    biases.set(xlabel="unit of a head", title="initial bias of the forget gate")
    biases.legend(fontsize=7)
    entry = torch.zeros(80)
    entry[40] = 4.0
    kept = torch.nn.functional.logsigmoid(torch.tensor(3.0))
    for step in (39, 41, 79):
        logits = entry[: step + 1] + kept * torch.arange(step, -1, -1)
        weights.plot(torch.softmax(logits, 0), label=f"at step {step}")
    weights.set(xlabel="step of the input", yscale="log", title="weights of inputs; i = 4 at step 40, f = 3")
    weights.legend(fontsize=7)


def s5(figure: Figure) -> None:
    """Draw the factors of an untrained layer in the unit disc, and the time constants of its modes."""
    torch.manual_seed(0)
    layer = S5(input_size=1, hidden_size=1, state_size=128, blocks=4)
    with torch.no_grad():
        factors = torch.view_as_complex(layer.recurrence()[0])
    disc, constants = figure.subplots(1, 2, width_ratios=[1, 2])
    disc.add_patch(Circle((0, 0), 1, fill=False, color="0.6"))
    disc.scatter(factors.real, factors.imag, s=9)
    disc.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal", xlabel="real part", title="factors $a$, untrained")
    constants.plot((-1 / factors.abs().log()).sort().values)
    constants.set(xlabel="mode, sorted", yscale="log", title="steps after which a mode has lost 63 %")


def linoss(figure: Figure) -> None:
    """Draw the positions of some oscillators after one push, by both methods."""
    for axes, method in zip(figure.subplots(1, 2, sharey=True), ("im", "imex"), strict=True):
        layer = LinOSS(input_size=1, hidden_size=3, state_size=3, method=method)
        with torch.no_grad():
            layer.stiffness.copy_(torch.tensor([0.02, 0.1, 0.5]))
            layer.step_size.zero_()
            layer.weight_in.fill_(1)
            layer.weight_out.copy_(torch.eye(3)[..., None] * torch.tensor([1.0, 0]))
            layer.weight_skip.zero_()
            layer.projection.fill_(1 / 3)
            positions = layer(torch.eye(1, 100).T[None])[0][0]
        for n, stiffness in enumerate(layer.stiffness.tolist()):
            axes.plot(positions[:, n], label=f"A = {stiffness:.2f}")
        axes.set(xlabel="steps after the push", title=f"position, {method}")
    axes.legend(fontsize=7)


def s4d(figure: Figure) -> None:
    """Draw the factors of an untrained layer in the unit disc, and the response of some channels to one input."""
    torch.manual_seed(0)
    layer = S4D(input_size=4, hidden_size=4, state_size=16, init="legs")
    with torch.no_grad():
        layer.log_step.copy_(torch.tensor([0.003, 0.01, 0.03, 0.1]).log())
        factors = torch.view_as_complex(layer.discretized()[0])
        response = layer(torch.eye(1, 100).T.reshape(1, 100, 1).expand(1, 100, 4))[0][0, 1:]
    disc, weights = figure.subplots(1, 2, width_ratios=[1, 2])
    disc.add_patch(Circle((0, 0), 1, fill=False, color="0.6"))
    for h, step in enumerate(layer.log_step.exp().tolist()):
        disc.scatter(factors[h].real, factors[h].imag, s=9)
        weights.plot(response[:, h] / response[:, h].abs().max(), label=rf"$\Delta$ = {step:.3f}")
    disc.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal", xlabel="real part", title="factors $a$, untrained")
    weights.set(xlabel="lag in steps", title="weight of an input $k$ steps ago, divided by the largest")
    weights.legend(fontsize=7)


def igloo(figure: Figure) -> None:
    """Draw the steps that each patch of a layer holds: the backbone covers every step, the others are random."""
    layer = IGLOO1D((120, 1), nb_patches=70, nb_filters_conv1d=4, return_sequences=False, seed=0)
    indices = layer.stacks[0].global_patches.indices[0].numpy()
    axes = figure.subplots()
    backbone = -(-119 // 3)
    for start, end, colour, label in ((0, backbone, "C0", "backbone"), (backbone, 70, "C1", "random patches")):
        rows = np.repeat(np.arange(start, end), indices.shape[1])
        axes.scatter(indices[start:end].ravel(), rows, s=4, color=colour, label=label, marker="s", linewidths=0)
    axes.set(xlabel="step", ylabel="patch", title="the four steps of each of 70 patches, sequences of 120 steps")
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))


def tcn(figure: Figure) -> None:
    """Draw the inputs that the last output of four blocks of kernel 3 depends on, one row a block of two convolutions."""
    axes = figure.subplots()
    needed = {60}
    for block in range(4, 0, -1):
        above, dilation = needed, 2 ** (block - 1)
        needed = {step - taps * dilation for step in above for taps in range(5)}
        lines = np.array([[step - taps * dilation, step, np.nan] for step in sorted(above) for taps in range(5)])
        levels = np.tile([block - 1, block, np.nan], len(lines))
        axes.plot(lines.ravel(), levels, color="0.8", linewidth=0.4, zorder=0)
        axes.plot(sorted(above), [block] * len(above), "o", markersize=2.5, color="C0")
    axes.plot(sorted(needed), [0] * len(needed), "o", markersize=2.5, color="C0")
    axes.set_yticks(range(5), ["inputs", "dilation 1", "dilation 2", "dilation 4", "dilation 8"])
    axes.set(xlabel="step", title=f"the {len(needed)} inputs that one output of four blocks of kernel 3 depends on")


def hmlstm(figure: Figure) -> None:
    """Draw the operation of each layer at each step for given boundaries: UPDATE, COPY or FLUSH."""
    steps = 28
    boundaries = np.zeros((3, steps), dtype=int)
    boundaries[0, [4, 9, 12, 17, 23, 26]] = 1
    boundaries[1, [9, 23]] = 1
    operations = np.zeros((3, steps), dtype=int)
    for layer in range(3):
        below = np.ones(steps, dtype=int) if layer == 0 else boundaries[layer - 1]
        for t in range(steps):
            flush = t > 0 and boundaries[layer, t - 1]
            operations[layer, t] = 2 if flush else int(below[t])
    axes = figure.subplots()
    axes.pcolormesh(operations, cmap=ListedColormap(["#eeeeee", "#8ab6d6", "#e07a5f"]), edgecolors="white", linewidth=1.5)
    for layer, step in zip(*np.nonzero(boundaries), strict=True):
        axes.plot([step + 1] * 2, [layer, layer + 1], color="black", linewidth=2)
    for value, name in enumerate(("COPY", "UPDATE", "FLUSH")):
        axes.scatter([], [], marker="s", color=["#dddddd", "#8ab6d6", "#e07a5f"][value], label=name)
    axes.plot([], [], color="black", linewidth=2, label="boundary")
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    axes.set_yticks([0.5, 1.5, 2.5], ["layer 1", "layer 2", "layer 3"])
    axes.set(xlabel="step", title="operation of each layer, for boundaries at the black lines")


def function_approximation(figure: Figure) -> None:
    """Draw a signal and its reconstruction from 32 numbers by two memories."""
    times = torch.linspace(0, 1, 400, dtype=torch.float64)
    signal = torch.sin(20 * times) + 0.5 * torch.sin(47 * times + 1) + 0.3 * torch.cos(71 * times)
    for axes, measure in zip(figure.subplots(1, 2, sharey=True), ("legs", "lmu"), strict=True):
        settings = {} if measure == "legs" else {"measure": measure, "theta": len(signal)}
        again = reconstruct(project(signal, order=32, **settings), length=len(signal), **settings)
        axes.plot(signal, color="0.7", linewidth=2.5, label="signal")
        axes.plot(again, color="C3", label="from 32 numbers")
        axes.set(xlabel="sample", title=f"memory={measure}")
    axes.legend(fontsize=7)


_DRAWN = (ema, linoss, lru, mamba, s4d, s5, slstm, igloo, tcn, hmlstm, function_approximation)
PICTURES: dict[str, Callable[[Figure], None]] = {function.__name__: function for function in _DRAWN}
