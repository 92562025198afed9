"""The notebooks, cell after cell, in a process of their own."""

import json
import os
import subprocess
import sys

import pytest

from tests.program import ROOT

_notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
# The claim of each notebook, checked after its last cell.
_shown = {
    "autoencoder_encodings": "assert losses[-1] < 0.2 * variance; assert plane.shape == (90, 2)",
    "hippo_quick_training": "assert errors[64] < errors[32] < errors[16]; assert curves['LegS'][-1] > curves['LSTM'][-1] + 0.1",
    "hmlstm_boundaries": "assert error < 0.3 * batches_out[-1].var(); assert rates.shape == (2,)",
}


@pytest.mark.slow
@pytest.mark.parametrize("path", _notebooks, ids=lambda path: path.stem)
def test_every_cell_runs(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells), "clear the outputs before committing"
    script = "\n".join(["".join(cell["source"]) for cell in cells] + [_shown.get(path.stem, "")])
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=path.parent,
        env={**os.environ, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
