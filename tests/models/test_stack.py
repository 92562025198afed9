"""The stack of residual blocks, around cells and layers."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import gelu, layer_norm
from torch.testing import assert_close

from seqmem import models, sequence
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.models.stack import BatchNorm, StackNetwork

SPEC = DataSpec("made", 3, 4, "classification", output_steps=0, max_length=9)
EACH = replace(SPEC, output_steps=None)
LENGTHS = torch.tensor([9, 4, 1])

SETTINGS = [
    {"norm": "layer", "feed_forward": "glu"},
    {"norm": "rms", "feed_forward": "mlp", "norm_first": False, "final_norm": False},
    {"norm": "batch", "feed_forward": "half_glu", "bidirectional": True},
    {"norm": "none", "feed_forward": "gelu", "gelu_form": "tanh", "pooling": "last"},
    {"norm": "batch", "feed_forward": "none", "norm_first": False},
]


def make(spec: DataSpec = SPEC, **arguments) -> StackNetwork:
    torch.manual_seed(0)
    return StackNetwork(spec, **{"mixer": "ema", "model_size": 6, "num_layers": 2, **arguments}).eval()


def batch(lengths: torch.Tensor | None = LENGTHS, rows: int = 3) -> Batch:
    inputs = torch.randn(rows, 9, 3, generator=torch.Generator().manual_seed(1))
    return Batch(inputs, torch.zeros(rows, dtype=torch.int64), lengths)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(map(str, settings.values())))
def test_padding_and_other_rows_have_no_influence(settings):
    model = make(**settings)
    given = batch()
    given.inputs[1, 4:] = 1e3
    alone = Batch(given.inputs[1:2, :4], given.targets[1:2])
    assert_close(model(given)[1:2], model(alone))


def test_a_block_is_its_formula():
    """Norm, mixer, GLU of GELU, skip; a final norm, the mean over the valid steps, the head."""
    model = make(mixer="lstm", num_layers=1)
    [block], given = model.blocks, batch()
    x = model.encoder(given.inputs)
    s, _ = block.mixer(layer_norm(x, (6,)), lengths=LENGTHS)
    value, gate = block.mixing(gelu(s)).chunk(2, -1)
    y = layer_norm(x + value * torch.sigmoid(gate), (6,))
    pooled = torch.stack([y[row, :length].mean(0) for row, length in enumerate(LENGTHS.tolist())])
    assert_close(model(given), model.head(pooled))


def test_an_mlp_is_a_second_branch():
    model = make(mixer="rnn", num_layers=1, feed_forward="mlp", norm="none", final_norm=False, expansion=2, pooling="last")
    [block], given = model.blocks, batch(None)
    x = model.encoder(given.inputs)
    x = x + block.mixer(x)[0]
    first, second = block.mlp
    assert first.out_features == 12
    assert_close(model(given), model.head((x + second(gelu(first(x))))[:, -1]))


def test_batch_norm_leaves_padding_out():
    norm, values = BatchNorm(3, 1e-5).train(), torch.randn(2, 5, 3)
    lengths = torch.tensor([5, 2])
    padded = values.clone()
    padded[1, 2:] = 1e6
    valid = torch.cat([values[0], values[1, :2]])
    normed = norm(padded, lengths)
    mean, variance = valid.mean(0), valid.var(0, correction=0)
    assert_close(normed[0], (values[0] - mean) / (variance + 1e-5).sqrt())
    assert_close(norm.norm.running_mean, 0.1 * mean)


@pytest.mark.parametrize("mixer", ["ema", "legs", "gru"])
def test_a_state_continues_a_sequence(mixer):
    model, given = make(replace(EACH, contiguous=True), mixer=mixer), batch(None)
    whole, _ = model.carry(given)
    parts, state = [], None
    for start in (0, 4):
        part = Batch(given.inputs[:, start : start + 4 + start], given.targets)
        outputs, state = model.carry(part, state)
        parts.append(outputs)
    assert_close(torch.cat(parts, 1), whole)


def test_mixers_of_other_widths_and_of_times():
    assert make(mixer="legs", mixer_args={"memory_output": True})(batch()).shape == (3, 4)
    timed = replace(SPEC, times=True)
    given = replace(batch(), times=torch.rand(3, 9).cumsum(1))
    model = make(timed, mixer="tlsi")
    assert_close(model(given)[1:2], model(Batch(given.inputs[1:2, :4], given.targets[1:2], times=given.times[1:2, :4])))


def test_every_cell_and_layer_is_a_mixer():
    for name in sequence.names():
        timed = sequence.get(name).timed
        spec = replace(EACH, times=timed)
        given = replace(batch(), times=torch.ones(3, 9).cumsum(1) if timed else None)
        assert make(spec, mixer=name, num_layers=1)(given).shape == (3, 9, 4), name


def test_training_uses_dropout_and_every_parameter():
    model = make(dropout=0.5, feed_forward="mlp", norm="batch").train()
    torch.manual_seed(0)
    first = model(batch())
    assert not torch.equal(first, model(batch()))
    first.square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(
    ("spec", "arguments", "message"),
    [
        (SPEC, {"mixer": "emma"}, "model.mixer: no cell or layer is called 'emma'; did you mean 'ema'"),
        (
            SPEC,
            {"mixer_args": {"longst": 3}},
            "model.mixer_args.longst: ema takes no argument .longst.; did you mean .longest",
        ),
        (SPEC, {"mixer": "tlsi"}, "tlsi uses the times of its steps, and made has none"),
        (EACH, {"pooling": "mean"}, "model.pooling: got mean, expected none: made expects outputs at several steps"),
        (replace(EACH, contiguous=True), {"bidirectional": True}, "the batches of made continue each other"),
        (replace(EACH, task="forecasting"), {"bidirectional": True}, "made asks for what follows each step"),
        (replace(SPEC, task="reconstruction"), {}, "made"),
    ],
    ids=["mixer", "mixer_args", "times", "pooling", "contiguous", "future", "reconstruction"],
)
def test_what_makes_no_sense_is_refused(spec, arguments, message):
    with pytest.raises(UserError, match=message):
        make(spec, **arguments)


def test_a_config_is_checked_without_building_it():
    models.check({"network": "stack", "mixer": "lstm"})
    with pytest.raises(UserError, match=r"model\.mixer_args\.hidden_size: got 0"):
        models.check({"network": "stack", "mixer": "lstm", "mixer_args": {"hidden_size": 0}})
    assert models.label({"network": "stack", "mixer": "lstm"}) == "stack_lstm"
    assert models.label({"network": "stack", "mixer": "ema"}) == "ema"
