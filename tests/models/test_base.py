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
