"""The cells with a linear memory against the original's numbers, by the compiled sequence and step by step."""

import pytest
import torch
from torch.testing import assert_close

from seqmem import cells
from tests.cells import golden

_NOT_ARGUMENTS = ("cell", "batch", "length", "input_size")


def parameters(data, kind, features):
    """A case's parameters ("param") or their gradients ("grad") under this project's names and layout."""
    given = {name.removeprefix(f"{kind}."): array for name, array in data.items() if name.startswith(f"{kind}.")}
    candidate, gate = given["W_hxm.weight"], given["W_gxm.W_g.weight"]
    order = candidate.shape[1] - features
    found = {
        "weight_ux": given["W_uxh.weight"][:, :features],
        "weight_uh": given["W_uxh.weight"][:, features:],
        "weight_hx": torch.cat([candidate[:, :features], gate[:, :features]]),
        "weight_hm": torch.cat([candidate[:, features:], gate[:, features : features + order]]),
    }
    if "W_um" in given:
        found["weight_um"] = given["W_um"]
    if "W_hh.weight" in given:
        found["weight_hh"] = torch.cat([given["W_hh.weight"], gate[:, features + order :]])
    if "W_uxh.bias" in given:
        found["bias_u"] = given["W_uxh.bias"]
        found["bias_h"] = torch.cat([given["W_hxm.bias"], given["W_gxm.W_g.bias"]])
    return found


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("case", ["legs", "legs_m2", "legt", "lmu", "tlsi"])
def test_values_and_gradients_equal_the_originals(case, compiled):
    data = golden.arrays(case)
    arguments = dict(golden.cases()[case])
    taken = {key: value for key, value in arguments.items() if key not in _NOT_ARGUMENTS}
    cell = cells.get(arguments["cell"])(input_size=arguments["input_size"], **taken).double()
    features = arguments["input_size"] - (arguments["cell"] == "tlsi")
    cell.load_state_dict(parameters(data, "param", features))

    inputs = data["x"].transpose(0, 1).clone().requires_grad_(not compiled)
    if compiled and not cell.obstacle(inputs):
        outputs, state = cell(inputs)
        assert cell.path == "one compiled call"
    else:
        outputs, state = cell.run_stepwise(inputs, cell.initial_state(len(inputs)), None, True)
    (outputs * data["cotangent"].transpose(0, 1)).sum().backward()

    tolerance = {"rtol": 2e-5, "atol": 2e-6}
    assert_close(outputs, data["outputs"].transpose(0, 1), **tolerance)
    assert_close(state.memory, data["memory_final"], **tolerance)
    if not compiled:
        assert_close(inputs.grad, data["grad_x"].transpose(0, 1), **tolerance)
    for name, gradient in parameters(data, "grad", features).items():
        assert_close(cell.get_parameter(name).grad, gradient, **tolerance, msg=lambda text, name=name: f"{name}: {text}")
