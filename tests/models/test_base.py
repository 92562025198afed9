"""What every model shares: how it is called."""

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
