"""Curves of models over samples of sequences: delay lines, layers, lengths, and what is refused."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import one_hot
from torch.testing import assert_close

from seqmem import datasets, models
from seqmem.cells import LegS
from seqmem.data import Batch, DataSpec
from seqmem.diagnostics import Sample, carried_layers, closed_forms, drawn, gradient_norms, measure, reconstruction_r2
from seqmem.diagnostics.sample import read_out_lags
from seqmem.errors import UserError
from seqmem.hippo import Memory
from seqmem.models import SequenceModel

VALUES = DataSpec("made up", 2, 4, "classification", output_steps=0, max_length=12)
TOKENS = replace(VALUES, input_size=5, tokens=True)


class DelayLine(SequenceModel):
    """Carries its last ``kept`` inputs, each times a gain."""

    carries = True
    kept, gain = 4, 3.0

    def __init__(self, spec):
        super().__init__()
        self.spec, self.weight = spec, torch.nn.Parameter(torch.tensor(self.gain))

    def initial_state(self, batch_size):
        return [torch.zeros(batch_size, self.kept, self.spec.input_size), torch.zeros(batch_size, dtype=torch.int64)]

    def carry(self, batch, state=None):
        places = batch.row_lengths[:, None] - 1 - torch.arange(self.kept)
        state = self.embed(batch)[torch.arange(len(batch))[:, None], places] * self.weight
        return state[:, 0], [state, torch.zeros(len(batch), dtype=torch.int64)]

    def embed(self, batch):
        return batch.inputs if batch.inputs.is_floating_point() else one_hot(batch.inputs, self.spec.input_size).float()


class WithoutEmbed(DelayLine):
    embed = SequenceModel.embed


class Exploded(DelayLine):
    gain = float("inf")


def batches(spec=VALUES, lengths=(12, 9, 10), rows=40):
    random = torch.Generator().manual_seed(0)
    for length in lengths:
        tokens, values = torch.randint(0, 5, (rows, 12), generator=random), torch.randn(rows, 12, 2, generator=random)
        inputs = tokens if spec.tokens else values
        yield Batch(inputs, torch.zeros(rows, dtype=torch.int64), torch.full((rows,), length))


def built(spec, network="recurrent", **arguments):
    torch.manual_seed(0)
    return models.build({"network": network, **arguments}, spec)


def test_a_delay_line_has_a_constant_gradient_and_holds_its_inputs():
    sample = Sample.of(batches(rows=150), longest=8)
    curves = measure(DelayLine(VALUES), sample, probes=None)
    assert curves.size == 4 * 2
    assert_close(curves.norms, torch.tensor([3 * 2**0.5] * 4 + [0.0] * 5, dtype=torch.float64))
    assert_close(curves.errors, torch.zeros(9, dtype=torch.float64), atol=1e-6, rtol=0)
    assert curves.is_exact
    assert curves.effective_length == 3
    assert bool((curves.r2[:4] > 1 - 1e-6).all())
    assert bool((curves.r2[4:].abs() < 0.15).all())


def test_a_delay_line_of_tokens_is_read_in_one_hot_vectors():
    sample = Sample.of(batches(TOKENS), longest=8)
    curves = measure(DelayLine(TOKENS), sample, probes=None)
    assert_close(curves.norms, torch.tensor([3 * 5**0.5] * 4 + [0.0] * 5, dtype=torch.float64))
    assert bool((curves.r2[:4] > 1 - 1e-6).all())


def test_the_norms_are_means_over_the_sequences_with_their_error():
    model = built(VALUES, cell="gru", cell_args={"hidden_size": 6})
    sample = Sample.of(batches(), longest=8, gradients=20)
    assert sum(map(len, sample.gradient)) == 20
    curves = measure(model, sample)
    rows = [
        gradient_norms(lambda inputs, own=batch: model.carry(replace(own, inputs=inputs))[1], batch.inputs, batch.lengths)
        for batch in sample.gradient
    ]
    norms = torch.cat(rows)[:, :9]
    assert_close(curves.norms, norms.mean(0))
    assert_close(curves.errors, norms.std(0) / 20**0.5)
    assert curves.is_exact
    few = measure(model, sample, probes=2, seed=1)
    assert not few.is_exact
    assert_close(few.norms, curves.norms, rtol=0.25, atol=0)
    assert_close(measure(model, sample, probes=2, seed=1).norms, few.norms, rtol=0, atol=0)
    one = measure(model, replace(sample, gradient=[sample.gradient[0].rows(slice(1))]))
    assert one.errors.isnan().all()


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize(
    "model",
    [
        {"network": "recurrent", "cell": "lstm", "cell_args": {"hidden_size": 3}, "num_layers": 2},
        {"network": "stack", "mixer": "ema", "model_size": 4, "num_layers": 2},
        {"network": "hmlstm", "cell_args": {"hidden_size": 3, "num_layers": 2}},
    ],
    ids=lambda model: model["network"],
)
def test_a_carried_state_is_that_of_each_layer_and_of_all(model, tokens):
    sample = Sample.of(batches(TOKENS if tokens else VALUES, rows=8), longest=8, gradients=1)
    made = built(TOKENS if tokens else VALUES, **model)
    layers = carried_layers(made)
    assert layers == (1 if model["network"] == "hmlstm" else 2)
    made.train()
    next(made.parameters()).requires_grad_(False)
    trained = [parameter.requires_grad for parameter in made.parameters()]
    each = [measure(made, sample, layer + 1, probes=None) for layer in range(layers)]
    whole = measure(made, sample, probes=None)
    assert made.training
    assert [parameter.requires_grad for parameter in made.parameters()] == trained
    assert whole.size == sum(part.size for part in each)
    assert_close(whole.norms, torch.stack([part.norms for part in each]).square().sum(0).sqrt())  # of one sequence
    [batch] = sample.gradient
    first = gradient_norms(lambda inputs: made.carry(replace(batch, inputs=inputs))[1][0], made.embed(batch), batch.lengths)
    assert_close(each[0].norms, first[0, :9])
    expected = "1, the only layer" if layers == 1 else f"1 to {layers}, the layers"
    for wrong in (0, layers + 1):
        with pytest.raises(UserError, match=f"layer: got {wrong}, expected {expected} of the model"):
            measure(made, sample, wrong)


def test_inputs_get_the_type_of_the_weights():
    model = built(VALUES, cell="gru", cell_args={"hidden_size": 6})
    sample = Sample.of(batches())
    single, double = measure(model, sample), measure(model.double(), sample)
    assert_close(single.norms, double.norms, rtol=1e-4, atol=0)
    assert_close(single.r2, double.r2, rtol=1e-3, atol=1e-4)
    assert not torch.equal(single.norms, double.norms)


@pytest.mark.parametrize("model", [{"cell": "tlsi"}, {"network": "stack", "mixer": "tlti", "model_size": 4}])
def test_times_are_not_a_part_of_the_inputs(model):
    made = built(replace(VALUES, times=True), **model)
    random = torch.Generator().manual_seed(1)
    sample = Sample.of([replace(batch, times=torch.rand(40, 12, generator=random).cumsum(1)) for batch in batches()])
    curves = measure(made, sample)
    assert sample.inputs.shape[2] == 2
    assert bool((curves.norms > 0).all())
    assert curves.r2[0] > 0.3


def test_times_that_float32_does_not_distinguish_are_not_rounded():
    made = built(replace(VALUES, times=True), cell="tlti")
    seconds = 1.7e9 + torch.arange(12, dtype=torch.float64)
    sample = Sample.of([replace(batch, times=seconds.expand(40, 12)) for batch in batches()])
    expected = measure(deepcopy(made).double(), sample).norms
    torch.testing.assert_close(measure(made, sample).norms.double(), expected.double(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("network", "spec", "embedding_size"),
    [
        *((network, spec, None) for network in ("recurrent", "stack", "hmlstm") for spec in (VALUES, TOKENS)),
        *((network, TOKENS, 3) for network in ("recurrent", "stack", "hmlstm")),
        ("hmlstm", VALUES, 3),
    ],
)
def test_embedded_inputs_stand_for_the_inputs(network, embedding_size, spec):
    model = built(spec, network, embedding_size=embedding_size).eval()
    batch = next(batches(spec, rows=3))
    embedded = model.embed(batch).detach().requires_grad_()
    assert embedded.shape == (3, 12, (embedding_size or 5) if spec.tokens else 2)
    outputs, states = model.carry(replace(batch, inputs=embedded))
    assert_close((outputs, states), model.carry(batch))
    [gradient] = torch.autograd.grad(outputs.sum(), embedded)
    assert gradient.shape == embedded.shape


def test_models_without_a_state_are_refused():
    made = [
        built(VALUES, "stack", mixer="ema", bidirectional=True, model_size=4),
        built(VALUES, "stack", mixer="s5", bidirectional=True, model_size=4),
        built(VALUES, "tcn"),
        built(VALUES, "igloo", nb_patches=4),
    ]
    sample = Sample.of(batches(rows=2))
    for model in made:
        assert carried_layers(model) == 0
        with pytest.raises(UserError, match=f"got a {type(model).__name__} that carries no state from step to step"):
            measure(model, sample)


def test_tokens_need_embed():
    with pytest.raises(UserError, match="got a WithoutEmbed of tokens without the method embed"):
        measure(WithoutEmbed(TOKENS), Sample.of(batches(TOKENS, rows=4)))


def test_states_and_gradients_that_are_not_finite_have_no_length_and_no_r2():
    curves = measure(Exploded(VALUES), Sample.of(batches(rows=4)))
    assert curves.effective_length is None
    assert curves.r2.isnan().all()


def test_the_sample_has_long_sequences_alone_and_all_their_fields():
    given = [Batch(torch.randn(5, 12, 2), torch.arange(5), torch.tensor([12, 3, 7, 12, 8]), labels=torch.arange(5))] * 3
    given.append(Batch(torch.randn(5, 9, 2), torch.arange(5), labels=torch.arange(5)))
    sample = Sample.of(given, longest=7, gradients=6, batch_size=4)
    assert [len(batch) for batch in sample.batches] == [4, 4, 1, 4, 1]
    joined = torch.cat([batch.labels for batch in sample.batches])
    assert joined.tolist() == [0, 3, 4] * 3 + [0, 1, 2, 3, 4]
    assert sample.inputs.shape == (14, 8, 2)
    assert_close(sample.inputs[2], given[0].inputs[4, :8].flip(0))
    assert_close(sample.inputs[9:, 0], given[-1].inputs[:, -1])
    assert int(sample.fitted.sum()) == 7
    assert sum(map(len, sample.gradient)) == 6
    assert sample.steps == 12
    assert Sample.of(given).longest == 8  # the largest lag of 11 of 20 sequences


@pytest.mark.parametrize(
    ("lengths", "longest"), [(range(1, 11), 5), (range(1, 10), 4), ([9] * 5 + [20] * 5, 19), ([2, 3, 5, 7, 8, 9], 4)]
)
def test_half_of_the_sequences_have_the_default_lag(lengths, longest):
    """Or four of six."""
    lengths = torch.tensor(list(lengths))
    given = [Batch(torch.randn(len(lengths), 20, 2), torch.zeros(len(lengths)), lengths)]
    found = Sample.of(given)
    assert found.longest == longest
    assert 2 * len(found.inputs) >= len(lengths)


def test_a_lag_that_too_few_sequences_have_is_refused():
    given = [Batch(torch.randn(5, 12, 2), torch.zeros(5), torch.tensor([12, 3, 7, 12, 8]))]
    with pytest.raises(UserError, match="lags: got 7, expected at most 6, which at least 4 of 5 sequences have"):
        Sample.of(given, longest=7)
    with pytest.raises(UserError, match="got 3 sequences, expected at least 4"):
        Sample.of([given[0].rows(slice(3))])


def test_lags_of_a_read_out_are_all_the_short_ones_and_then_fewer():
    assert read_out_lags(0).tolist() == [0]
    assert read_out_lags(31).tolist() == list(range(32))
    lags = read_out_lags(5000)
    assert lags[:33].tolist() == list(range(33))
    assert lags[-1] == 5000
    assert {50, 100, 200, 500, 1000, 2000} <= {*lags.tolist()}
    assert len(lags) < 33 + 16 * 8
    assert bool((lags[1:] > lags[:-1]).all())
    assert bool((lags[33:] - lags[32:-1] <= 0.05 * lags[32:-1] + 1).all())


def test_closed_forms_are_those_of_the_layers_cells_on_the_measured_half():
    legs = {"cell": "legs", "cell_args": {"hidden_size": 3, "memory_order": 4}}
    model = built(VALUES, **legs, num_layers=2)
    sample = Sample.of(batches(lengths=(12,)))
    [(memory, found)] = closed_forms(model, sample)
    assert memory == Memory(4, "legs", None, "bilinear")
    held_out = torch.cat([batch.inputs for batch in sample.batches])[~sample.fitted]
    assert_close(found, reconstruction_r2(memory, held_out, sample.lags))
    assert closed_forms(model, sample, 2)[0][0] == memory
    model.layers[1] = LegS(3, hidden_size=3, memory_order=6)
    assert [memory.order for memory, _ in closed_forms(model, sample)] == [4, 6]
    assert [closed_forms(model, sample, layer)[0][0].order for layer in (1, 2)] == [4, 6]
    assert closed_forms(built(VALUES, cell="gru"), sample) == []


def test_sequences_are_drawn_from_the_whole_split():
    data = datasets.load({"name": "adding", "length": 11, "test_samples": 30})
    found = drawn(data, "test", 20, batch_size=8)
    assert [len(batch) for batch in found] == [8, 8, 4]
    inputs = torch.cat([batch.inputs for batch in found])
    every = data.batch("test", torch.arange(30)).inputs
    places = [int((every == row).all((1, 2)).nonzero()) for row in inputs]
    assert places == sorted(set(places))
    assert max(places) >= 20
    assert sum(map(len, drawn(data, "test", 50))) == 30
    assert_close(torch.cat([batch.inputs for batch in drawn(data, "test", 20)]), inputs)
