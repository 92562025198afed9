"""The stack of residual blocks, around cells and layers."""

import io
import re
import warnings
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch.nn.functional import batch_norm, gelu, layer_norm
from torch.testing import assert_close

from seqmem import models, sequence
from seqmem.data.batch import Batch
from seqmem.data.masks import valid_steps
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.models.blocks import SequenceDropout
from seqmem.models.norms import BatchNorm, make_norm
from seqmem.models.stack import StackNetwork
from seqmem.ops.states import mapped, parts
from seqmem.training.optimisation.groups import parameter_groups
from tests.cli.choices import model_settings

SPEC = DataSpec("made", 3, 4, "classification", output_steps=0, max_length=9)
EACH = replace(SPEC, output_steps=None)
TOKENS = replace(EACH, input_size=6, tokens=True, contiguous=True, task="language_modelling")
LENGTHS = torch.tensor([9, 4, 1])

SETTINGS = [
    {"norm": "layer", "feed_forward": "glu"},
    {"norm": "rms", "feed_forward": "mlp", "norm_first": False, "final_norm": False},
    {"norm": "batch", "feed_forward": "half_glu", "bidirectional": True},
    {"norm": "none", "feed_forward": "gelu", "gelu_form": "tanh", "pooling": "last"},
    {"norm": "batch", "feed_forward": "none", "norm_first": False},
    {"norm": "batch", "norm_affine": False, "feed_forward": "half_glu1", "dropout_mask": "step"},
    {"norm": "layer", "norm_affine": False},
    {"norm": "rms_unit_offset", "norm_affine": False},
    {"mixer": "mingru", "mixer_args": {"kernel_size": 3}, "norm": "rms", "feed_forward": "mlp"},
    {"norm": "rms_unit_offset", "feed_forward": "gated_mlp"},
    {"norm": "layer", "norm_shift": False, "feed_forward": "gated_mlp", "expansion": 1.3},
]
every_setting = pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(map(str, settings.values())))


def make(spec: DataSpec = SPEC, **arguments) -> StackNetwork:
    torch.manual_seed(0)
    return StackNetwork(spec, **{"mixer": "ema", "model_size": 6, "num_layers": 2, **arguments}).eval()


def batch(lengths: torch.Tensor | None = LENGTHS, rows: int = 3) -> Batch:
    inputs = torch.randn(rows, 9, 3, generator=torch.Generator().manual_seed(1))
    return Batch(inputs, torch.zeros(rows, dtype=torch.int64), lengths)


@every_setting
def test_padding_and_other_rows_have_no_influence(settings):
    model = make(**settings)
    given = batch()
    given.inputs[1, 4:] = 1e3
    alone = Batch(given.inputs[1:2, :4], given.targets[1:2])
    assert_close(model(given)[1:2], model(alone))
    for training in (False, True):  # padding may hold NaN, and a row no step
        model.train(training)
        padded = replace(batch(), lengths=torch.tensor([9, 4, 0]))
        padded.inputs[1, 4:] = padded.inputs[2] = torch.nan
        padded.inputs.requires_grad_()
        outputs = model(padded)
        outputs.sum().backward()
        gradients = [padded.inputs.grad, *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)]
        assert all(value.isfinite().all() for value in (outputs, *gradients))
        assert not padded.inputs.grad[1, 4:].any()


def test_the_data_set_chooses_the_mean_or_the_last_step():
    asked = replace(SPEC, answers_at_end=True)
    given = batch()
    for spec, arguments, pooling in ((SPEC, {}, "mean"), (asked, {}, "last"), (asked, {"pooling": "mean"}, "mean")):
        assert_close(make(spec, **arguments)(given), make(SPEC, pooling=pooling)(given))


@every_setting
def test_autocast_changes_outputs_by_its_rounding_only(settings):
    model, given = make(**settings), batch()
    with torch.autocast("cpu", torch.bfloat16), warnings.catch_warnings():
        warnings.simplefilter("error")
        outputs, state = model.train().carry(given)
        outputs.float().sum().backward()
        rounded = model.eval()(given)
    assert_close(rounded.float(), model(given), rtol=0, atol=0.05)
    assert not {part.dtype for part in parts(state)} & {torch.bfloat16}


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


def test_a_norm_may_follow_the_skip():
    model = make(mixer="rnn", num_layers=1, norm_first=False, final_norm=False, feed_forward="half_glu", pooling="last")
    [block], given = model.blocks, batch(None)
    x = model.encoder(given.inputs)
    s, _ = block.mixer(x)
    y = layer_norm(x + s * torch.sigmoid(block.mixing(gelu(s))), (6,))
    assert_close(model(given), model.head(y[:, -1]))


def test_biases_and_norms_may_have_no_weight_decay():
    """As sLSTM and Mamba were trained; what a mixer exempts by itself stays exempt."""
    mamba = {"mixer": "mamba", "mixer_args": {"bias": True}}
    for mixer, bias_decay in product((mamba, {"mixer": "hmlstm"}), (True, False)):
        model = make(**mixer, feed_forward="mlp", norm="layer", bias_decay=bias_decay)
        exempt = {id(value) for group in parameter_groups(model, 0.1) if "weight_decay" in group for value in group["params"]}
        for name, value in model.named_parameters():
            own = name.endswith(("mixer.log_rate", "mixer.weight_skip"))
            of_norm = "norm" in name or name.endswith("gain")
            assert (id(value) in exempt) == (own or (not bias_decay and ("bias" in name or of_norm)))


@pytest.mark.parametrize(("form", "approximate"), [("exact", "none"), ("tanh", "tanh")])
def test_the_activation_alone_may_follow_the_mixer(form, approximate):
    model = make(mixer="rnn", num_layers=1, feed_forward="gelu", gelu_form=form, norm="none", pooling="last")
    [block], given = model.blocks, batch(None)
    x = model.encoder(given.inputs)
    y = x + gelu(block.mixer(x)[0], approximate=approximate)
    assert_close(model(given), model.head(y[:, -1]), rtol=0, atol=1e-6)


def test_half_glu1_gates_the_activated_outputs():
    """The default of S5; half_glu gates the mixer's outputs themselves."""
    model = make(mixer="rnn", num_layers=1, feed_forward="half_glu1", norm="none", final_norm=False, pooling="last")
    [block], given = model.blocks, batch(None)
    x = model.encoder(given.inputs)
    y = gelu(block.mixer(x)[0])
    assert_close(model(given), model.head((x + y * torch.sigmoid(block.mixing(y)))[:, -1]))


def test_an_mlp_is_a_second_branch():
    model = make(mixer="rnn", num_layers=1, feed_forward="mlp", norm="none", final_norm=False, expansion=2, pooling="last")
    [block], given = model.blocks, batch(None)
    x = model.encoder(given.inputs)
    x = x + block.mixer(x)[0]
    first, second = block.mlp
    assert first.out_features == 12
    assert_close(model(given), model.head((x + second(gelu(first(x))))[:, -1]))


@pytest.mark.parametrize("expansion", [1e-9, 1e300])
def test_a_width_of_the_mlp_that_cannot_be_is_refused(expansion):
    message = rf"^model\.expansion: got {re.escape(str(expansion))}, expected a product with model_size=6 from 1 to 2\^31 - 1$"
    with pytest.raises(UserError, match=message):
        make(expansion=expansion, feed_forward="mlp")
    with pytest.raises(UserError, match=message):
        StackNetwork.check({"mixer": "ema", "model_size": 6, "expansion": expansion})
    with pytest.raises(UserError, match="expansion_multiple: got 1099511627776, expected less than"):
        make(expansion_multiple=2**40)


def test_a_gated_mlp_multiplies_the_activated_half_by_the_other():
    arguments = {"expansion": 1.3, "expansion_multiple": 5, "mlp_bias": False, "norm": "none", "final_norm": False}
    model = make(mixer="rnn", num_layers=1, feed_forward="gated_mlp", pooling="last", **arguments)
    [block], given = model.blocks, batch(None)
    x = model.encoder(given.inputs)
    x = x + block.mixer(x)[0]
    first, second = block.mlp
    assert (first.out_features, second.in_features, first.bias, second.bias) == (20, 10, None, None)  # 7.8 is rounded to 10
    value, gate = first(x).chunk(2, -1)
    assert_close(model(given), model.head((x + second(gelu(value) * gate))[:, -1]))


def test_the_small_initialisation_of_an_mlp():
    model = make(mixer="rnn", feed_forward="gated_mlp", model_size=64, mlp_init="small")
    first, second = model.blocks[0].mlp
    assert_close(first.weight.var().item(), 2 / (5 * 64), rtol=0.05, atol=0)
    assert_close(second.weight.var().item(), 1 / 64, rtol=0.05, atol=0)
    assert not first.bias.any()
    assert not second.bias.any()


def test_a_layer_norm_without_shift():
    model = make(norm_shift=False)
    assert {name for name, _ in model.norm.named_parameters()} == {"norm.weight"}


def test_weight_decay_pulls_a_scale_with_unit_offset_to_one():
    """As in Griffin, whose scale is 1 + w; without the offset it is pulled to 0."""
    values = torch.randn(2, 5, 6)
    for kind, expected in (("rms_unit_offset", 1.0), ("rms", 0.0)):
        norm = make_norm(kind, 6, 1e-6)
        assert_close(norm(values, None), values / (values.square().mean(-1, keepdim=True) + 1e-6).sqrt())
        with torch.no_grad():
            norm.norm.weight.copy_(torch.arange(6))
        optimiser = torch.optim.AdamW(parameter_groups(norm, 0.5), lr=0.5, weight_decay=0.5)
        for _ in range(100):
            (0 * norm(values, None)).sum().backward()
            optimiser.step()
        assert_close(norm(values, None), expected * make_norm("rms", 6, 1e-6)(values, None))


def test_no_model_whose_original_has_the_unit_offset_decays_a_scale_to_zero():
    """Griffin's scales 1 + w decay to 1, those of xLSTM not at all."""
    settings = {name: model_settings(name) for name in ("rglru", "slstm")}
    assert settings["rglru"]["norm"] == "rms_unit_offset"
    assert (settings["slstm"]["norm"], settings["slstm"]["bias_decay"]) == ("layer", False)


@pytest.mark.parametrize("lengths", [[5, 2, 0], [1, 0, 0], [0, 0, 0]], ids=str)
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_of_a_gpu_is_that_of_the_host(lengths, affine):
    """A GPU computes the statistics from sums, so that nobody waits for the number of valid steps."""
    values = torch.randn(3, 5, 4, dtype=torch.float64) + 3
    valid, results = valid_steps(torch.tensor(lengths), 5), []
    for on_gpu in (False, True):
        norm, given = BatchNorm(4, 1e-5, 0.3, affine).train().double(), values.clone().requires_grad_()
        with torch.no_grad():
            norm.norm.running_mean.add_(0.5)
            if affine:
                norm.norm.weight.add_(torch.arange(4))
        if on_gpu:
            outputs = norm._normalized_where(valid[..., None], given.where(valid[..., None], torch.nan))
        else:
            outputs = norm(given, torch.tensor(lengths))
        (outputs * values).sum().backward()
        gradients = [parameter.grad for parameter in norm.parameters()]
        results.append((outputs, given.grad, *gradients, *norm.norm.buffers()))
    assert_close(*results)


def test_means_over_time_do_not_overflow_in_float16():
    hidden, lengths = torch.full((2, 3000, 6), 100.0).half(), torch.tensor([3000, 1500])
    hidden[1, 1500:] = torch.nan
    given = Batch(torch.zeros(2, 3000, 3), torch.zeros(2).long(), lengths)
    assert torch.equal(make().half()._pooled(hidden, given), hidden[:, 0])
    norm = BatchNorm(6, 1e-5).half().train()
    values = hidden.clone()
    values[:, ::2] = -50
    outputs = norm._normalized_where(valid_steps(lengths, 3000)[..., None], values)
    assert_close(outputs[0, :2, 0], torch.tensor([-1.0, 1.0]).half())
    assert_close(norm.norm.running_mean, torch.full((6,), 25.0).half())
    assert norm.norm.running_mean.dtype == norm.norm.running_var.dtype == torch.float16


def test_batch_norm_excludes_padding():
    norm, values = BatchNorm(3, 1e-5).train(), torch.randn(2, 5, 3)
    lengths = torch.tensor([5, 2])
    padded = values.clone()
    padded[1, 2:] = 1e6
    valid = torch.cat([values[0], values[1, :2]])
    normed = norm(padded, lengths)
    mean, variance = valid.mean(0), valid.var(0, correction=0)
    assert_close(normed[0], (values[0] - mean) / (variance + 1e-5).sqrt())
    assert_close(norm.norm.running_mean, mean)
    for single, one in ((values[:1, :1], None), (values[:1], torch.tensor([1])), (values[:1], torch.tensor([0]))):
        assert norm(single, one).isfinite().all()  # a single step has no variance
    assert_close(norm.norm.running_mean, mean)
    assert norm.norm.num_batches_tracked == 1


def test_a_norm_has_the_momentum_and_the_scale_that_are_asked_for():
    model = make(norm="batch", norm_momentum=0.05, norm_affine=False).train()
    assert not [name for name, _ in model.named_parameters() if "norm" in name]
    norm, given = model.blocks[0].norm.norm, batch()
    norm.num_batches_tracked.fill_(1000)
    model(given)
    x = model.encoder(given.inputs)[valid_steps(LENGTHS, 9)]
    assert_close(norm.running_mean, 0.05 * x.mean(0))


def test_the_first_batches_replace_the_initial_statistics():
    norm, values = BatchNorm(2, 1e-5, momentum=0.2).train().double(), torch.randn(50, 1, 40, 2).double()
    kept = [norm.norm.running_mean, norm.norm.running_var]
    expected = [torch.zeros(2).double(), torch.ones(2).double()]
    for n, batch in enumerate(values, 1):
        outputs = norm(batch, None)
        assert_close(outputs, batch_norm(batch[0], None, None, norm.norm.weight, norm.norm.bias, training=True)[None])
        weight = max(0.2, 10 / (9 + n))
        own = batch[0].mean(0), batch[0].var(0)
        expected = [(1 - weight) * before + weight * now for before, now in zip(expected, own, strict=True)]
        assert_close(kept, expected)
        assert n > 1 or torch.equal(kept[0], own[0])
        if n == 20:  # a checkpoint continues the average
            state, norm = norm.state_dict(), BatchNorm(2, 1e-5, momentum=0.2).train().double()
            norm.load_state_dict(state)
            kept = [norm.norm.running_mean, norm.norm.running_var]


def test_dropout_may_have_a_mask_for_each_step():
    model = make(dropout=0.5, dropout_mask="step", feed_forward="none", norm="none", mixer="rnn", num_layers=1).train()
    [block] = model.blocks
    torch.manual_seed(0)
    outputs, _ = block(torch.zeros(4, 9, 6).add(1), None, None, None)
    dropped = outputs == 1
    assert 0.2 < dropped.float().mean() < 0.8
    assert not torch.equal(dropped, dropped[:, :1].expand_as(dropped))


def test_dropout_has_one_mask_for_all_steps():
    dropout = SequenceDropout(0.5).train()
    torch.manual_seed(0)
    dropped = dropout(torch.ones(4, 7, 20))
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert dropped.unique().tolist() == [0, 2]
    assert dropout.eval()(dropped) is dropped


@pytest.mark.parametrize("mixer", ["ema", "legs"])
def test_a_state_continues_a_sequence(mixer):
    """A state of an earlier batch, or as a checkpoint holds it: plain tuples, which load without classes."""
    model, tokens = make(TOKENS, mixer=mixer), torch.randint(0, 6, (3, 9))
    whole, last = model.carry(Batch(tokens, tokens))
    first, state = model.carry(Batch(tokens[:, :4], tokens))
    file = io.BytesIO()
    torch.save([tuple(parts(part)) for part in state], file)
    file.seek(0)
    for given in (state, torch.load(file, weights_only=True)):
        second, after = model.carry(Batch(tokens[:, 4:], tokens), mapped(torch.detach, given))
        assert_close(torch.cat([first, second], 1), whole)
        assert_close(parts(after), parts(last))


@pytest.mark.parametrize(
    "arguments", [{"mixer": "lru"}, {"mixer": "s5", "mixer_args": {"state_size": 4, "blocks": 1}}], ids=str
)
def test_a_stack_in_both_directions_carries_no_state(arguments):
    """The state that it returned would restart it at each part of a sequence, without a word."""
    model, given = make(bidirectional=True, **arguments), batch()
    outputs, state = model.carry(given)
    assert state == model.initial_state(3) == [None, None]
    assert torch.equal(outputs, model(given))
    for wrong in (state, make(**arguments).initial_state(3)):
        with pytest.raises(UserError, match="stack: got a state, expected None: its mixers are not causal and carry none"):
            model.carry(given, wrong)


def test_a_mean_over_the_steps_carries_no_state():
    """The outputs for the second piece would be a mean over that piece."""
    whole = batch(lengths=None)
    halves = [replace(whole, inputs=whole.inputs[:, part]) for part in (slice(4), slice(4, 9))]
    mean, last = (make(SPEC, pooling=pooling) for pooling in ("mean", "last"))
    with pytest.raises(UserError, match=r"got a state, expected None: with pooling=mean .*; pooling=last carries a state"):
        mean.carry(halves[1], mean.carry(halves[0])[1])
    assert_close(last.carry(halves[1], last.carry(halves[0])[1])[0], last(whole))


def test_predictions_need_inputs_of_the_data_sets_shape():
    values, tokens = make(SPEC), make(TOKENS)
    for model, shape, message in (
        (values, (2, 9, 5), r"made: got inputs of shape \(2, 9, 5\), expected \(B, T, 3\)"),
        (values, (9, 3), r"got inputs of shape \(9, 3\), expected \(B, T, 3\)"),
        (tokens, (2, 9, 1), r"got inputs of shape \(2, 9, 1\), expected \(B, T\), tokens"),
    ):
        with pytest.raises(UserError, match=message):
            model.predict(torch.zeros(shape))


def test_outputs_are_at_the_steps_that_the_data_set_defines():
    assert make(replace(SPEC, output_steps=3))(batch()).shape == (3, 3, 4)
    assert make(EACH)(batch()).shape == (3, 9, 4)
    tokens = Batch(torch.randint(0, 6, (2, 9)), None)
    assert make(TOKENS)(tokens).shape == (2, 9, 4)
    embedded = make(TOKENS, embedding_size=5)
    assert embedded.encoder.in_features == 5
    assert embedded(tokens).shape == (2, 9, 4)


def test_every_cell_and_layer_is_a_mixer():
    for name in sequence.names():
        timed = sequence.get(name).timed
        spec = replace(EACH, times=timed)
        given = replace(batch(), times=torch.ones(3, 9).cumsum(1) if timed else None)
        assert make(spec, mixer=name, num_layers=1)(given).shape == (3, 9, 4), name
    assert make(mixer="legs", mixer_args={"memory_output": True})(batch()).shape == (3, 4)


def test_a_timed_mixer_gets_the_times():
    given = replace(batch(), times=torch.rand(3, 9).cumsum(1))
    model = make(replace(SPEC, times=True), mixer="tlsi")
    assert_close(model(given)[1:2], model(Batch(given.inputs[1:2, :4], given.targets[1:2], times=given.times[1:2, :4])))
    stretched = replace(given, times=given.times + torch.arange(9))
    hidden = [block.mixer(torch.zeros(3, 9, 6), times=stretched.times)[1].time for block in model.blocks]
    assert_close(hidden, [stretched.times[:, -1]] * 2)


def test_training_uses_dropout_and_every_parameter():
    model = make(dropout=0.5, feed_forward="mlp", norm="batch").train()
    torch.manual_seed(0)
    first = model(batch())
    assert not torch.equal(first, model(batch()))
    first.square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_optimisers_see_gates_and_parameters_without_decay():
    groups = parameter_groups(make(mixer="lstm"), 0.1, by_gates=True)
    assert {len(parameter) for group in groups if group.get("blocks") == 4 for parameter in group["params"]} == {24}
    model = make()
    [kept] = [group for group in parameter_groups(model, 0.1) if group.get("weight_decay") == 0]
    assert {id(parameter) for parameter in kept["params"]} == {
        id(parameter) for block in model.blocks for parameter in (block.mixer.nu, block.mixer.theta)
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # from torch._dynamo
def test_a_stack_compiles():
    model, given = make(replace(EACH, contiguous=True), num_layers=1), batch(None)
    compiled = torch.compile(model.carry, backend="aot_eager")
    _, state = model.carry(given)
    assert_close(compiled(given, state)[0], model.carry(given, state)[0])


def test_settings_that_a_data_set_does_not_support_are_refused():
    for spec, arguments, message in (
        (SPEC, {"mixer": "emma"}, "model.mixer: no cell or layer is called 'emma'; did you mean 'ema'"),
        (
            SPEC,
            {"mixer_args": {"longst": 3}},
            "model.mixer_args.longst: ema takes no argument .longst.; did you mean .longest",
        ),
        (SPEC, {"mixer": "tlsi"}, "tlsi requires the times of the steps, and made has none"),
        (
            replace(SPEC, times=True),
            {"mixer": "tlsi", "bidirectional": True},
            "model.bidirectional: got true, expected false: the mixer tlsi uses the times",
        ),
        (EACH, {"pooling": "mean"}, "model.pooling: got mean, expected none: made expects outputs at several steps"),
        (SPEC, {"pooling": "none"}, "model.pooling: got none, expected mean or last: made expects one output"),
        (replace(EACH, contiguous=True), {"bidirectional": True}, "the batches of made continue each other"),
        (replace(EACH, task="forecasting"), {"bidirectional": True}, "made predicts the values after each step"),
        (
            replace(EACH, task="regression", later_targets=True),
            {"bidirectional": True},
            "made predicts the values after each step",
        ),
        (replace(SPEC, task="reconstruction"), {}, "made requires reconstruction"),
    ):
        with pytest.raises(UserError, match=message):
            make(spec, **arguments)


def test_a_config_is_checked_without_building_it():
    for section, message in (
        ("mamba", "model: got 'mamba', expected a mapping as {'network': 'stack', 'mixer': 's4d'}"),
        ({"mixer": "mamba"}, "model.network: a value is required; choose from: alternating, "),
        ({"network": "mamba"}, "no network is called 'mamba'; did you mean network=stack with mixer=mamba?"),
        ({"network": "legs"}, "no network is called 'legs'; did you mean network=recurrent with cell=legs?"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            models.check(section)
    models.check({"network": "stack", "mixer": "lstm"})
    with pytest.raises(UserError, match=r"model\.mixer_args\.hidden_size: got 0"):
        models.check({"network": "stack", "mixer": "lstm", "mixer_args": {"hidden_size": 0}})
    with pytest.raises(UserError, match=r"model\.mixer_args\.longest: got 20, expected at least shortest=50"):
        models.check({"network": "stack", "mixer": "ema", "mixer_args": {"shortest": 50, "longest": 20}})
    with pytest.raises(UserError, match=r"model\.bidirectional: got true, expected false"):
        models.check({"network": "stack", "mixer": "tlsi", "bidirectional": True})
    assert models.label({"network": "stack", "mixer": "lstm"}) == "stack_lstm"
    assert models.label({"network": "stack", "mixer": "ema"}) == "ema"
