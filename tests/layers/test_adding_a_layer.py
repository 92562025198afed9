"""A scan-type layer is one module and one YAML file: in a stack it trains and exports, and it passes the battery.

The guide's layer trains in the ordinary run (tests/docs/test_blocks.py).
"""

import pytest

from tests import program

LAYER = '''
"""A gated average: h_t = (1 - z_t) h_{t-1} + z_t W x_t, with z_t = sigmoid(V x_t)."""

from typing import NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from seqmem.arguments import checked
from seqmem.sequence import SequenceLayer


class GatedAverageState(NamedTuple):
    """State: ``average`` (B, H)."""

    average: Tensor


class GatedAverage(SequenceLayer[GatedAverageState]):
    """Averages with gates that depend on the inputs.

    Args:
        input_size: C.
        hidden_size: H.
    """

    name = "gated_average"
    operator = "diagonal_scan"

    @checked
    def __init__(self, input_size: PositiveInt, hidden_size: PositiveInt = 256):
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.project = nn.Linear(input_size, 2 * hidden_size)

    def initial_state(self, batch_size: int) -> GatedAverageState:
        """Return zeros."""
        return GatedAverageState(self.project.weight.new_zeros(batch_size, self.output_size))

    def fused_forward(self, run, inputs, state, lengths, fresh):
        """Compute a whole sequence by a diagonal scan."""
        gate, value = self.project(inputs).float().to(state.average.dtype).chunk(2, -1)
        outputs, last = run(torch.sigmoid(-gate), torch.sigmoid(gate) * value, state.average, lengths)
        return outputs, GatedAverageState(last)
'''

# One process: its start takes longer than each of the commands.
COMMANDS = """
import runpy, sys

import pytest

sys.path.insert(0, ".")
sys.argv = ["train.py", "model=gated_average", "dataset=sinusoids", "smoke_test=True", "output_dir=runs"]
sys.argv += ["model.preset=tiny", "model.num_layers=1"]
runpy.run_path("train.py", run_name="__main__")

from pathlib import Path
from seqmem.cli import export

[checkpoint] = Path("runs").rglob("best.ckpt")
export.main([str(checkpoint), "--lengths"])
chosen = ["-k", "gated_average and not export and not compiles", "tests/layers/test_battery.py"]
sys.exit(pytest.main(["-q", "--assert=plain", "-n", "0", *chosen]))
"""


@pytest.mark.slow
def test_a_layer_is_one_module_and_one_yaml(tmp_path):
    program.copy_checkout(tmp_path, "tests/layers", "tests/cells")
    (tmp_path / "src/seqmem/layers/gated_average.py").write_text(LAYER)
    yaml = (tmp_path / "cfg/model/stack.yaml").read_text()
    (tmp_path / "cfg/model/gated_average.yaml").write_text(yaml.replace("mixer: ema", "mixer: gated_average"))
    done = program.run_in_copy(tmp_path, "-c", COMMANDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gated_average on sinusoids, trial 1 of 1" in done.stdout
    assert "runs without seqmem" in done.stdout
    assert " passed" in done.stdout
