"""Calls of every compiled operator, drawn with consistent arguments."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from seqmem.ops import extension, generators
from tests.ops.registered import compiled_operators

SIZES = st.sampled_from([0, 1, 1, 2, 3, 5, 17, 33])
FEW = st.sampled_from([0, 1, 2, 2, 3, 4])
INTEGERS = st.sampled_from([-(2**63), -1, 0, 1, 2, 7, 2**40, 2**62, 2**63 - 1])
NUMBERS = st.sampled_from([-1.0, 0.0, 1e-320, 0.5, 1e30, 1e308, float("inf"), float("-inf"), float("nan")])


@dataclass
class Call:
    """A call: an operator, and its arguments by name."""

    operator: torch._ops.OpOverload
    arguments: dict

    def __call__(self):
        results = self.operator(*(self.arguments[argument.name] for argument in self.operator._schema.arguments))
        return [results] if isinstance(results, torch.Tensor) else list(results)

    def tensors(self):
        return {name: value for name, value in self.arguments.items() if isinstance(value, torch.Tensor)}

    def contiguous(self):
        """The same call with contiguous copies; sparse and huge tensors stay, which only unused arguments may be."""
        fitting = {name: part for name, part in self.tensors().items() if not part.is_sparse and part.numel() < 2**40}
        copies = {name: value.clone(memory_format=torch.contiguous_format) for name, value in fitting.items()}
        return Call(self.operator, self.arguments | copies)


def operators():
    """All compiled operators that take arguments."""
    result = {}
    for name in sorted(compiled_operators()):
        packet, _, overload = name.removeprefix("seqmem::").partition(".")
        operator = getattr(getattr(torch.ops.seqmem, packet), overload or "default")
        if operator._schema.arguments:
            result[name.removeprefix("seqmem::")] = operator
    return result


OPERATORS = {} if extension.REASON else operators()


class Draw:
    """Draws consistent sizes and tensors."""

    def __init__(self, draw):
        self.draw = draw
        self.kind = draw(st.sampled_from([torch.float32, torch.float64]))

    def size(self):
        return self.draw(SIZES)

    def few(self):
        return self.draw(FEW)

    def flag(self):
        return self.draw(st.booleans())

    def tensor(self, *shape, kind=None):
        return torch.rand(shape, dtype=kind or self.kind) - 0.5

    def maybe(self, *shape):
        return self.tensor(*shape) if self.flag() else None

    def lengths(self, batch, steps):
        if self.flag():
            return None
        valid = st.integers(0, steps)
        lengths = valid if self.draw(st.integers(0, 4)) else INTEGERS
        return torch.tensor(self.draw(st.lists(lengths, min_size=batch, max_size=batch)), dtype=torch.int64)


def update(d, by_tensor, adjoint):
    batch, memories, order = d.few(), d.few(), d.size()
    dt = d.tensor(batch) if by_tensor else d.draw(NUMBERS)
    if adjoint:
        return {"grad": d.tensor(batch, memories, order), "dt": dt}
    return {"mem": d.tensor(batch, memories, order), "input": d.tensor(batch, memories), "dt": dt}


def quasiseparable(d, adjoint):
    arguments = update(d, True, adjoint)
    order = arguments["grad" if adjoint else "mem"].shape[-1]
    measure = d.draw(st.sampled_from(["legs", "legt", "lagt"]))
    rows = generators(measure, order) if order > 0 else torch.zeros(6, 0, dtype=torch.float64)
    return arguments | {"generators": rows, "alpha": d.draw(NUMBERS)}


def approximation(d, adjoint):
    shape = ((d.few(),) if d.flag() else ()) + (max(1, d.size()),)
    other = d.draw(st.sampled_from([-1, 0, 1, 6, 40, 2**62]))
    return {"grad": d.tensor(*shape), "length": other} if adjoint else {"input": d.tensor(*shape), "memorder": other}


def projection(d, adjoint):
    batch, order, length = d.few(), max(1, d.size()), max(1, d.size())
    start, every = d.draw(st.sampled_from([-1, 0, 1, 5, 2**40, 2**62])), d.draw(st.sampled_from([-1, 0, 1, 3, 2**62]))
    settings = {"start": start, "alpha": d.draw(st.sampled_from([None, 0.0, 0.3, 0.5, 1.0, 2.0])), "every": every}
    if adjoint:
        kept = (start + length) // every - start // every if every > 0 else 0
        return {"grad_kept": d.tensor(batch, kept, order), "grad_memory": d.tensor(batch, order), "length": length} | settings
    return {"signal": d.tensor(batch, length), "memory": d.tensor(batch, order)} | settings


def memory_sequence(d):
    batch, steps, channels, hidden, memories, order = d.size(), d.few(), d.few(), d.size(), d.few(), d.size()
    gated, long = d.flag(), torch.float64
    rows = (2 if gated else 1) * hidden
    arguments = dict.fromkeys(("step_sizes", "generators", "step", "drive"))
    if d.flag():
        sizes = d.tensor(steps, batch, kind=long) if d.flag() else d.tensor(steps, kind=long)
        matrix = generators("legt", order) if order > 0 else torch.zeros(6, 0, dtype=long)
        arguments |= {"step_sizes": sizes.abs(), "generators": matrix}
    else:
        arguments |= {"step": d.tensor(order, order, kind=long), "drive": d.tensor(order, kind=long)}
    return arguments | {
        "inputs": d.tensor(batch, steps, channels),
        "hidden": d.tensor(batch, hidden),
        "memory": d.tensor(batch, memories, order),
        "lengths": d.lengths(batch, steps),
        "weight_ux": d.maybe(memories, channels),
        "weight_uh": d.maybe(memories, hidden),
        "weight_um": d.maybe(memories, order),
        "bias_u": d.maybe(memories),
        "weight_hx": d.maybe(rows, channels),
        "weight_hm": d.maybe(rows, memories * order),
        "weight_hh": d.maybe(rows, hidden),
        "bias_h": d.maybe(rows),
        "alpha": d.draw(st.sampled_from([0.0, 0.5, 1.0])),
        "memory_activation": activation(d),
        "hidden_activation": activation(d),
        "gated": gated,
        "memory_output": d.flag(),
        "bfloat16": d.flag(),
    }


def gated_sequence(d, gates):
    batch, steps, channels, hidden = d.size(), d.few(), d.size(), d.size()
    biased = d.flag()
    of_gru = {"reset_after": d.flag(), "hidden_activation": activation(d)}
    return {
        "inputs": d.tensor(batch, steps, channels),
        "hidden": d.tensor(batch, hidden),
        "lengths": d.lengths(batch, steps),
        "weight_ih": d.tensor(gates * hidden, channels),
        "weight_hh": d.tensor(gates * hidden, hidden),
        "bias_ih": d.tensor(gates * hidden) if biased else None,
        "bias_hh": d.tensor(gates * hidden) if biased else None,
        "bfloat16": d.flag(),
        **({"memory": d.tensor(batch, hidden)} if gates == 4 else of_gru),
    }


def activation(d):
    return d.draw(st.sampled_from(["id", "tanh", "relu", "sigmoid", "tan"]))


def modrelu_sequence(d):
    batch, steps, channels, hidden = d.size(), d.few(), d.size(), d.size()
    return {
        "inputs": d.tensor(batch, steps, channels),
        "hidden": d.tensor(batch, hidden),
        "lengths": d.lengths(batch, steps),
        "weight_ih": d.tensor(hidden, channels),
        "weight_hh": d.tensor(hidden, hidden),
        "bias_ih": d.maybe(hidden),
        "bias_modrelu": d.tensor(hidden),
    }


def multiscale_sequence(d):
    batch, steps = d.size(), d.few()
    sizes = d.draw(st.lists(st.sampled_from([1, 2, 5, 17]), min_size=1, max_size=3))
    top, bias, norm, soft = d.flag(), d.flag(), d.flag(), d.flag()
    parameters = 0
    for layer, size in enumerate(sizes):
        rows = 4 * size + (layer + 1 < len(sizes) or top)
        parameters += rows * (size + sum(sizes[layer + 1 : layer + 2]) + sum(sizes[max(0, layer - 1) : layer]))
        parameters += rows * bias + 5 * size * norm + size * (norm and bias)
    return {
        "projected": d.tensor(batch, steps, 4 * sizes[0] + (len(sizes) > 1 or top)),
        "hidden": d.tensor(batch, sum(sizes)),
        "memory": d.tensor(batch, sum(sizes)),
        "boundary": d.tensor(batch, len(sizes)).round().abs(),
        "lengths": d.lengths(batch, steps),
        "draws": None if soft else d.maybe(steps, batch, len(sizes)),
        "parameters": d.tensor(parameters),
        "slope": d.tensor(),
        "sizes": sizes,
        "top_detector": top,
        "bias": bias,
        "layer_norm": norm,
        "soft": soft,
        "hard_sigmoid": d.flag(),
    }


def diagonal_scan(d):
    batch, steps, size, pair = d.size(), d.few(), d.size(), (2,) if d.flag() else ()
    return {
        "a": d.tensor(*((batch, steps) if d.flag() else ()), size, *pair),
        "b": d.tensor(batch, steps, size, *pair),
        "initial": d.maybe(batch, size, *pair),
        "lengths": d.lengths(batch, steps),
        "reverse": d.flag(),
    }


def minimal_gates(d):
    batch, steps, size = d.size(), d.few(), d.size()
    gates = d.draw(st.sampled_from(["gru", "lstm", "lstm_raw", "rnn"]))
    return {
        "projected": d.tensor(batch, steps, size * (2 if gates == "gru" else 3)),
        "initial": d.maybe(batch, size),
        "lengths": d.lengths(batch, steps),
        "gates": gates,
    }


def oscillators(d):
    batch, steps, size = d.size(), d.few(), d.size()
    return {
        "coefficients": d.tensor(4, size),
        "driven": d.tensor(batch, steps, size, 2),
        "initial": d.maybe(batch, 2, size, 2),
        "lengths": d.lengths(batch, steps),
        "keeps_velocities": True,
    }


def slstm_sequence(d):
    batch, steps, heads, size = d.size(), d.few(), d.few(), d.size()
    state = {name: d.tensor(batch, heads * size) for name in ("hidden", "memory", "normalizer", "stabilizer")}
    state["normalizer"] = state["normalizer"].abs() if d.flag() else torch.zeros_like(state["normalizer"])
    return {
        "projected": d.tensor(batch, steps, 4 * heads * size),
        **state,
        "lengths": d.lengths(batch, steps),
        "weight_hh": d.tensor(heads, 4 * size, size),
    }


def selective_scan(d):
    batch, steps, channels, states = d.few(), d.size(), d.size(), d.few()
    return {
        "inputs": d.tensor(batch, steps, channels),
        "delta": d.tensor(batch, steps, channels),
        "a": d.tensor(channels, states),
        "b": d.tensor(batch, steps, states),
        "c": d.tensor(batch, steps, states),
        "skip": d.maybe(channels),
        "gate": d.maybe(batch, steps, channels),
        "delta_bias": d.maybe(channels),
        "initial": d.maybe(batch, channels, states),
        "lengths": d.lengths(batch, steps),
        "softplus": d.flag(),
        "chunk_steps": d.draw(INTEGERS),
    }


def diagonal_ssm(d):
    batch, steps, channels, modes = d.size(), d.few(), d.size(), d.few()
    return {
        "inputs": d.tensor(batch, steps, channels),
        "a": d.tensor(channels, modes, 2),
        "b": d.maybe(channels, modes, 2),
        "c": d.tensor(channels, modes, 2),
        "skip": d.maybe(channels),
        "initial": d.maybe(batch, channels, modes, 2),
        "lengths": d.lengths(batch, steps),
        "reverse": d.flag(),
        "chunk_steps": d.draw(INTEGERS),
    }


def causal_convolution(d):
    batch, steps, channels, taps = d.few(), d.size(), d.size(), d.few()
    return {
        "inputs": d.tensor(batch, steps, channels),
        "weight": d.tensor(channels, taps),
        "bias": d.maybe(channels),
        "initial": d.maybe(batch, max(taps - 1, 0), channels),
        "lengths": d.lengths(batch, steps),
        "restarts": d.tensor(batch, steps) > 0.2 if d.flag() else None,
    }


SCANS = {
    "causal_convolution": causal_convolution,
    "diagonal_scan": diagonal_scan,
    "diagonal_ssm": diagonal_ssm,
    "minimal_gates": minimal_gates,
    "oscillators": oscillators,
    "selective_scan": selective_scan,
}


def scan_backward(d, name):
    """Draw a call of a scan's backward operator: the gradients of the results, what forward saved, its arguments."""
    forward = draw_call(d, name.removesuffix("_backward"))
    if "chunk_steps" in forward.arguments:
        forward.arguments |= {"chunk_steps": d.draw(st.sampled_from([1, 2, 1024]))}
    results = dict(zip((result.name for result in forward.operator._schema.returns), forward(), strict=True))
    gradients = {f"grad_{part}": torch.rand_like(result) if d.flag() else None for part, result in results.items()}
    flags = {"input_gradient": d.flag(), "a_gradient": d.flag()}
    return call_of(name, forward.arguments | results | gradients | flags)


def call_of(name, drawn):
    """A call with those of the drawn values that the operator takes."""
    wanted = {argument.name for argument in OPERATORS[name]._schema.arguments}
    return Call(OPERATORS[name], {key: value for key, value in drawn.items() if key in wanted})


def draw_call(d, name):
    """Draw a consistent call of an operator; sizes may be zero, and numbers out of range."""
    if name in SCANS:
        return Call(OPERATORS[name], SCANS[name](d))
    if name.removesuffix("_backward") in SCANS:
        return scan_backward(d, name)
    if name.endswith("_sequence_backward"):
        forward = draw_call(d, name.removesuffix("_backward"))
        forward.arguments |= {"chunk_steps": d.draw(st.sampled_from([1, 2, 2**63 - 1]))}
        results = dict(zip((result.name for result in forward.operator._schema.returns), forward(), strict=True))
        arguments = forward.arguments | results | {"input_gradient": d.flag()}
        for part in ("outputs", "boundaries", "hidden", "memory", "boundary", "normalizer", "stabilizer"):
            if part in arguments:
                arguments[f"grad_{part}"] = torch.rand_like(arguments[part]) if d.flag() else None
        return call_of(name, arguments)
    packet, _, overload = name.partition(".")
    adjoint = packet.endswith("_adjoint")
    if packet.startswith("quasiseparable"):
        arguments = quasiseparable(d, adjoint)
    elif packet.startswith("legs_function_approx"):
        arguments = approximation(d, adjoint)
    elif packet.startswith("legs_projection"):
        arguments = projection(d, adjoint)
    elif packet.endswith("_sequence"):
        chunks = {"chunk_steps": d.draw(INTEGERS)}
        if packet == "memory_sequence":
            arguments = memory_sequence(d) | chunks
        elif packet == "multiscale_sequence":
            arguments = multiscale_sequence(d) | chunks
        elif packet == "modrelu_sequence":
            arguments = modrelu_sequence(d) | chunks
        elif packet == "slstm_sequence":
            arguments = slstm_sequence(d) | chunks
        else:
            arguments = gated_sequence(d, 4 if packet == "lstm_sequence" else 3) | chunks
    else:
        arguments = update(d, overload == "tensor", adjoint)
    return Call(OPERATORS[name], arguments)
