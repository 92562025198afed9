"""The notebooks: their stored pictures, and every cell in a process of its own, which shows the same."""

import base64
import io
import json
import os
import subprocess
import sys

import pytest
from matplotlib import image

from tests.program import ROOT

_notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
# The claim of each notebook, checked after its last cell.
_shown = {
    "autoencoder_encodings": "assert losses[-1] < 0.2 * variance; assert plane.shape == (90, 2)",
    "hippo_quick_training": "assert errors[64] < errors[32] < errors[16]; assert curves['LegS'][-1] > curves['LSTM'][-1] + 0.1",
    "hmlstm_boundaries": "assert error < 0.3 * batches_out[-1].var(); assert rates.shape == (2,)",
}
# Runs the cells from stdin as Jupyter does, and prints the number of pictures that each shows.
_run = """
import ast, json, sys
from matplotlib import pyplot as plt

def show():
    global pictures
    pictures += len(plt.get_fignums())
    plt.close("all")

plt.show = show
cells, check = json.load(sys.stdin)
names, counts = {"__name__": "__main__"}, []
for cell in cells:
    tree, pictures = ast.parse(cell), 0
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        pictures += len(value._repr_png_()) > 1000 if hasattr(value, "_repr_png_") else 0
    counts.append(pictures)
exec(check, names)
print(json.dumps(counts))
"""


def cells(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def stored_pictures(cell):
    found = [output["data"].get("image/png") for output in cell["outputs"] if "data" in output]
    return ["".join(picture) for picture in found if picture]


@pytest.mark.parametrize("path", _notebooks, ids=lambda path: path.stem)
def test_pictures_are_stored(path):
    drawing = [cell for cell in cells(path) if "plt.show()" in "".join(cell["source"]) or "plot_" in "".join(cell["source"])]
    assert drawing
    for cell in drawing:
        [picture] = stored_pictures(cell)
        pixels = image.imread(io.BytesIO(base64.b64decode(picture)))
        assert min(pixels.shape[:2]) > 200
        assert 0.01 < (pixels[..., :3] < 0.9).any(-1).mean() < 0.9  # neither blank nor black
    for cell in cells(path):
        assert cell["execution_count"]
        text = json.dumps(cell["outputs"])
        assert '"text/plain": ["<Figure' not in text or "image/png" in text
        for unwanted in ('"output_type": "error"', '"name": "stderr"', str(ROOT), "/tmp/", "/home/"):
            assert unwanted not in text


@pytest.mark.slow
@pytest.mark.parametrize("path", _notebooks, ids=lambda path: path.stem)
def test_every_cell_runs_and_shows_its_pictures(path):
    sources = ["".join(cell["source"]) for cell in cells(path)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _run],
        input=json.dumps([sources, _shown[path.stem]]),
        cwd=path.parent,
        env={**os.environ, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [len(stored_pictures(cell)) for cell in cells(path)]
