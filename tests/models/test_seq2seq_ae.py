"""The sequence-to-sequence autoencoder: its loss by hand, the end of outputs, and independent rows."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqmem import models
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.models.seq2seq_ae import Seq2SeqAutoencoder, _mean, find_stop, with_stop
from seqmem.tasks import task_for

SPEC = DataSpec("made up", 3, 2, "reconstruction", None, 9)

LENGTHS, TARGET_LENGTHS = torch.tensor([6, 1, 4]), torch.tensor([3, 7, 5])


def model(**arguments):
    torch.manual_seed(0)
    return Seq2SeqAutoencoder(SPEC, **{"layer_sizes": [5, 4], "stop_steps": 2, "go_token": -3.0, **arguments}).double()


def batch():
    generator = torch.Generator().manual_seed(1)
    inputs, targets = (
        torch.randn(3, steps, size, dtype=torch.float64, generator=generator) for steps, size in ((6, 3), (7, 2))
    )
    return Batch(inputs, targets, LENGTHS, target_lengths=TARGET_LENGTHS)


def test_its_loss_is_a_mean_over_sequences():
    net, whole = model(), batch()
    task = task_for(SPEC)
    for training in (True, False):
        net.train(training)
        parts = [whole.rows(rows) for rows in (slice(0, 1), slice(1, 3))]
        losses = torch.stack([net.learn(part, task)[1] for part in parts])
        weights = torch.tensor([net.loss_weight(part, task) for part in parts], dtype=torch.float64)
        assert_close((losses * weights).sum() / weights.sum(), net.learn(whole, task)[1])


def rolled(layers, inputs, states):
    """Layers step by step over (T, C), one row; the outputs of the last and all last states."""
    outputs = []
    for value in inputs:
        value = value[None]
        for k, layer in enumerate(layers):
            value, state = layer.step(value, type(layer.initial_state(1))(states[k]))
            states[k] = state.hidden
        outputs.append(value[0])
    return torch.stack(outputs), states


def by_hand(net, one, k, stop):
    """Squared error and cross-entropy of row k, and its encoding, by the equations."""
    x, y = one.inputs[k, : LENGTHS[k]], one.targets[k, : TARGET_LENGTHS[k]]
    if stop == "token":
        x = torch.cat([x, torch.full((2, 3), 0.5, dtype=x.dtype)])
    _, states = rolled(net.encoder, x, [x.new_zeros(1, size) for size in (5, 4)])
    states = states[::-1] if net.symmetric else states
    code = torch.cat(states, -1)[0]
    expected = torch.cat([y, torch.full((2, 2), 0.5, dtype=y.dtype)])
    fed = torch.cat([torch.full((1, 2), -3.0, dtype=y.dtype), expected[:-1]])
    hidden, _ = rolled(net.decoder, fed, list(states))
    made, p = net.projection(hidden), net.stop(hidden)[:, 0].sigmoid()
    errors = (made - expected).square().sum(1)
    if stop == "token":
        return errors.mean(), torch.zeros((), dtype=y.dtype), code
    n = len(y)
    return errors[:n].mean(), -torch.cat([(1 - p[:n]).log(), p[n:].log()]).mean(), code


@pytest.mark.parametrize(("stop", "symmetric"), [("head", True), ("head", False), ("token", True)])
def test_the_loss_is_its_formula(stop, symmetric):
    made = model(stop=stop, symmetric=symmetric, stop_token=0.5)
    assert [layer.output_size for layer in made.network.decoder] == ([4, 5] if symmetric else [5, 4])
    one = batch()
    rows = [by_hand(made.network, one, k, stop) for k in range(3)]
    squared, stopping = made.errors(one)
    assert_close(squared, torch.stack([row[0] for row in rows]).mean())
    assert_close(stopping, torch.stack([row[1] for row in rows]).mean())
    assert_close(made.encode(one), torch.stack([row[2] for row in rows]))
    assert_close(made.centre(one), made.encode(one)[:, :4] if symmetric else made.encode(one)[:, 5:])
    outputs, loss = made.train().learn(one, task_for(SPEC))
    assert_close(loss, squared + stopping)
    assert outputs.shape == one.targets.shape


@pytest.mark.parametrize("stop", ["head", "token"])
def test_padding_and_other_rows_change_nothing(stop):
    made, one = model(stop=stop).eval(), batch()
    for row in range(3):
        one.inputs[row, LENGTHS[row] :] = float("nan")
        one.targets[row, TARGET_LENGTHS[row] :] = float("nan")
    codes, errors = made.encode(one), torch.stack(made.errors(one))
    alone = []
    for row in range(3):
        mine = Batch(one.inputs[row : row + 1, : LENGTHS[row]], one.targets[row : row + 1, : TARGET_LENGTHS[row]])
        assert_close(made.encode(mine)[0], codes[row])
        alone.append(torch.stack(made.errors(mine)))
    assert_close(torch.stack(alone).mean(0), errors)
    sum(made.errors(one)).backward()
    unused = {"network.stop.weight", "network.stop.bias"} if stop == "token" else set()
    for name, parameter in made.named_parameters():
        assert name in unused or parameter.grad.isfinite().all()


def test_its_own_outputs_are_its_inputs_without_targets():
    made, one = model().eval(), batch()
    code = made.encode(one)
    outputs = made.decode(code, 7)
    fed = Batch(one.inputs, outputs, LENGTHS)
    forced, _, _ = made._forced(code, Batch(one.inputs, outputs, target_lengths=torch.full((3,), 7)))
    assert_close(forced[:, :7], outputs)
    assert_close(made.learn(fed, task_for(SPEC))[0], outputs)
    assert_close(made(fed), outputs)


def test_the_head_ends_an_output_where_it_crosses_one_half():
    made, one = model().eval(), batch()
    code = made.encode(one)
    made.longest.fill_(4)
    with torch.no_grad():
        made.network.stop.bias.fill_(-1e6)
    outputs, lengths = made.write(code)
    assert lengths.tolist() == [8, 8, 8]  # twice the longest
    assert_close(outputs, made.decode(code, 8))
    assert made.write(code, max_steps=3)[0].shape == (3, 3, 2)
    with torch.no_grad():
        logits = made._write(code, 20, until_stop=False)[1] + 1e6
        made.network.stop.bias.fill_(-1e6 - logits[1, 2].item() + 1e6 + 1e-6)
        crossing = logits - logits[1, 2] + 1e-6 > 0
    expected = [min(int(row.int().argmax()), 8) if row.any() else 8 for row in crossing]
    assert made.write(code)[1].tolist() == expected
    with torch.no_grad():
        made.network.stop.bias.fill_(1e6)
    assert made.write(code)[1].tolist() == [0, 0, 0]


def test_find_stop_by_hand():
    outputs = torch.full((5, 8, 2), 3.0)
    outputs[0, 5:] = 0.1  # to the end
    outputs[1, 2:4] = 0.0  # too short
    outputs[2, 3:6] = torch.tensor([0.2, -0.2])
    outputs[3, :, 0] = 0.0  # one channel only
    outputs[4, 7] = 0.0  # all that is left
    assert find_stop(outputs, steps=3).tolist() == [5, 8, 3, 8, 7]
    assert find_stop(outputs, steps=2).tolist() == [5, 2, 3, 8, 7]
    assert find_stop(outputs, steps=3, tolerance=0.15).tolist() == [5, 8, 8, 8, 7]
    assert find_stop(outputs, token=3.0, steps=3).tolist() == [0, 4, 0, 8, 0]


def test_stop_rows_follow_each_row():
    values = torch.arange(1.0, 7).view(2, 3, 1)
    stopped, lengths = with_stop(values, torch.tensor([1, 3]), 2, 0.5)
    assert stopped[..., 0].tolist() == [[1, 0.5, 0.5, 0, 0], [4, 5, 6, 0.5, 0.5]]
    assert lengths.tolist() == [3, 5]
    assert with_stop(values, None, 1, 9.0)[0][..., 0].tolist() == [[1, 2, 3, 9], [4, 5, 6, 9]]


def test_dropout_is_for_training_alone():
    made, one = model(dropout=0.5), batch()
    made.train()
    assert not torch.equal(made.encode(one), made.encode(one))
    made.eval()
    assert torch.equal(made.encode(one), made.encode(one))
    assert_close(made.encode(one), model().eval().encode(one))
    assert torch.equal(made.decode(made.encode(one), 5), made.decode(made.encode(one), 5))


def test_initial_weights():
    torch.manual_seed(0)
    made = Seq2SeqAutoencoder(SPEC, [200])
    weight = made.network.projection.weight
    assert weight.abs().max() <= 0.2
    assert np.isclose(weight.std().item(), 0.088, atol=0.008)  # of a normal cut at two deviations
    assert (made.network.projection.bias == 0).all()


def test_wrong_arguments_are_named():
    for changes, message in (
        ({"layer_sizes": []}, "layer_sizes"),
        ({"layer_sizes": [3, 0]}, "layer_sizes.1: got 0"),
        ({"dropout": 1.0}, "dropout: got 1.0"),
        ({"stop": "heads"}, "did you mean 'head'"),
        ({"stop_step": 1}, "did you mean 'stop_steps'"),
    ):
        with pytest.raises(UserError, match=message):
            models.check({"network": "seq2seq_ae", **changes})


def test_means_over_steps_do_not_overflow_in_float16():
    values, valid = torch.full((2, 3000), 100.0).half(), torch.arange(3000) < torch.tensor([[3000], [2500]])
    known = torch.ones(2, 3000, 3, dtype=torch.bool)
    for given in (None, known):
        assert_close(_mean(values, valid, given), torch.tensor(100.0).half(), rtol=0, atol=0)
