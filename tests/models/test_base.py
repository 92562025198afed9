"""What every model shares: how it is called."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from seqmem import models
from seqmem.data import Batch, DataSpec
from seqmem.errors import UserError

SPEC = DataSpec("made", 3, 4, "classification", output_steps=0, max_length=9)
SETTINGS = [
    {"network": "recurrent", "cell": "gru", "cell_args": {"hidden_size": 5}},
    {"network": "stack", "mixer": "lru", "model_size": 4, "num_layers": 1},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings["network"])
def test_a_call_with_values_alone_names_the_method_that_takes_them(settings):
    model = models.build(settings, SPEC).eval()
    inputs = torch.randn(2, 9, 3)
    for given, name in ((inputs, "Tensor"), (inputs.numpy(), "ndarray")):
        with pytest.raises(UserError, match=rf"Network: got {name}, expected seqmem\.data\.Batch; predict\(inputs\) takes"):
            model(given)
    torch.testing.assert_close(model.predict(inputs), model(Batch(inputs, torch.zeros(2).long())))


WITH_INPUTS = [
    SETTINGS[1],
    {"network": "tcn", "hidden_size": 4, "num_layers": 1},
    {"network": "igloo", "nb_filters_conv1d": 2, "nb_patches": 3},
]
"""Networks whose first layer has no checks of its own."""
LABELS, VALUES, STEPS = torch.zeros(2).long(), torch.zeros(2, 9, 3), torch.arange(9.0).expand(2, 9)
TOKENS = replace(SPEC, tokens=True, input_size=5)


@pytest.mark.parametrize("settings", WITH_INPUTS, ids=lambda settings: settings["network"])
@pytest.mark.parametrize(
    ("spec", "batch", "message"),
    [
        (replace(SPEC, times=True), (VALUES,), r"got no times, expected times \(B, T\)"),
        (SPEC, (VALUES, None, STEPS), "got times, expected none: the data set has no times"),
        (replace(SPEC, times=True), (VALUES, None, STEPS[0]), r"got times of shape \(9,\), expected \(2, 9\)"),
        (SPEC, (VALUES.double(),), r"got inputs of torch\.float64, expected torch\.float32, the type of its weights"),
        (SPEC, (VALUES.long(),), r"got inputs of torch\.int64, expected torch\.float32"),
        (SPEC, (VALUES[..., :2],), r"got inputs of shape \(2, 9, 2\), expected \(B, T, 3\)"),
        (SPEC, (VALUES[..., 0],), r"got inputs of shape \(2, 9\), expected \(B, T, 3\)"),
        (SPEC, (VALUES, [9, 3]), "got lengths of type list, expected a tensor"),
        (SPEC, (VALUES, torch.tensor([9, 10])), r"got lengths \[10\], expected each between 0 and T=9"),
        (TOKENS, (VALUES[..., 0],), r"got tokens of torch\.float32, expected torch\.int64"),
        (TOKENS, (VALUES,), r"got inputs of shape \(2, 9, 3\), expected \(B, T, 5\)"),
        (TOKENS, (VALUES.long(),), r"got inputs of shape \(2, 9, 3\), expected \(B, T\), tokens"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(settings, spec, batch, message):
    inputs, *rest = batch
    with pytest.raises(UserError, match=rf"^model of made: {message}"):
        models.build(settings, spec)(Batch(inputs, LABELS, *rest))


@pytest.mark.parametrize("settings", [*SETTINGS, *WITH_INPUTS[1:]], ids=lambda settings: settings["network"])
def test_predict_refuses_inputs_that_do_not_fit(settings):
    model, timed, tokens = (models.build(settings, spec).eval() for spec in (SPEC, replace(SPEC, times=True), TOKENS))
    for network, arguments, message in (
        (timed, (VALUES,), r"got no times, expected times \(B, T\)"),
        (model, (VALUES, None, STEPS), "got times, expected none"),
        (timed, (VALUES, None, STEPS[0]), r"got times of shape \(9,\), expected \(2, 9\)"),
        (model, (VALUES, [9, 2.7]), r"got the length 2\.7, expected a whole number"),
        (model, (VALUES, [9, 10]), r"got lengths \[10\], expected each between 0 and T=9"),
        (model, (VALUES, [9]), r"got lengths of shape \(1,\), expected \(2,\)"),
        (tokens, (np.full((2, 9), 1.5),), r"got the token 1\.5, expected a whole number"),
        (tokens, (np.full((2, 9), 5),), "got the token 5, expected one from 0 to 4"),
        (tokens, (np.full((2, 9), -1),), "got the token -1, expected one from 0 to 4"),
        (tokens, (np.full((2, 9), np.inf),), "got the token -?[0-9]+, expected one from 0 to 4"),
    ):
        with pytest.raises(UserError, match=rf"^made: {message}"):
            network.predict(*arguments)
    whole = np.arange(18).reshape(2, 9) % 5
    for given, same in (((whole.astype(float), [9.0, 3.0]), (whole, [9, 3])), ((whole[:, ::-1],), (whole[:, ::-1].copy(),))):
        assert torch.equal(tokens.predict(*given), tokens.predict(*same))
    values = np.random.default_rng(0).standard_normal((2, 9, 3))
    lengths = np.array([3, 9])
    assert torch.equal(model.predict(values[:, ::-1], lengths[::-1]), model.predict(values[:, ::-1].copy(), [9, 3]))
    assert torch.equal(
        timed.predict(values, times=STEPS.numpy()[::-1, ::-1][::-1, ::-1]), timed.predict(values, times=STEPS.tolist())
    )


@pytest.mark.parametrize(
    "settings",
    [{**SETTINGS[0], "num_layers": 2}, {**SETTINGS[1], "num_layers": 2, "pooling": "last"}],
    ids=lambda each: each["network"],
)
def test_carry_refuses_a_different_number_of_states(settings):
    model, batch = models.build(settings, SPEC).eval(), Batch(VALUES, LABELS)
    state = model.carry(batch)[1]
    for given, found in (
        (state[:1], "a list of 1 states"),
        ([*state, state[0]], "a list of 3 states"),
        (VALUES, "a state of type"),
    ):
        with pytest.raises(UserError, match=rf"^{settings['network']}: got {found}.*, expected .*2, one for each layer$"):
            model.carry(batch, given)
    assert torch.equal(model.carry(batch, tuple(state))[0], model.carry(batch, state)[0])


@pytest.mark.parametrize("settings", [{**SETTINGS[0], "cell": "tlsi"}, {**SETTINGS[1], "mixer": "tlsi"}], ids=["cell", "mixer"])
def test_times_are_not_rounded(settings):
    model = models.build(settings, replace(SPEC, times=True)).eval()
    inputs, seconds = torch.randn(2, 9, 3), np.arange(9.0) + np.arange(1, 3)[:, None]
    expected = model(Batch(inputs, torch.zeros(2).long(), times=torch.tensor(seconds).float()))
    for given in (seconds, seconds.tolist(), seconds.astype(np.int64), torch.tensor(seconds).float()):
        torch.testing.assert_close(model.predict(inputs, times=given), expected)
    unix = seconds + 1.7e9  # seconds since 1970, which float32 rounds to multiples of 128
    expected = deepcopy(model).double().predict(inputs, times=unix).float()
    for given in (unix, unix.tolist(), unix.astype(np.int64), torch.tensor(unix)):
        torch.testing.assert_close(model.predict(inputs, times=given), expected)
    with pytest.raises(UserError, match="got time 1700000009 after 1700000010 at step 1 of row 0"):
        model.predict(inputs, times=unix[:, ::-1].copy() + 1)
