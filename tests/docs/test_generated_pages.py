"""Pages of models and results: they hold what the files hold, every model has a page, and pictures can be drawn again."""

import importlib.metadata
import re
import statistics

import pytest

from benchmarks.pages import blocks, every_page, keys, models, results, table_2, trials
from benchmarks.pages.pictures import drawing
from benchmarks.pages.trials import Column, Trials
from tests.data_files import FILES as DATA_FILES
from tests.docs import pages
from tests.program import ROOT

SECTIONS = ["Idea", "Equation", "Picture", "When to use it", "Results", "Keys", "Source"]
QUICK = ("legs", "hmlstm", "stack", "sampling_rates")
LARGEST = 40_000  # bytes of a picture


def test_pages_agree_with_the_files():
    changed = [path.name for path in every_page.changed()]
    assert not changed, f"python -m benchmarks.pages updates {changed}"


@pytest.mark.parametrize("name", keys.model_names())
def test_every_model_has_a_page_with_all_parts(name):
    text = models.path(name).read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert f"![{text.splitlines()[0].removeprefix('# ')}](pictures/{name}.svg)" in text
    assert len(re.findall(r"^\$\$$", text, re.MULTILINE)) in range(2, 20, 2)
    assert re.search(rf"seqmem train .*(model={name}\b|experiment=)", text)
    first = pages.blocks(models.path(name), "python", "bash")[0]
    assert first.language == "python" or _is_quick(first.commands()[0]), first.text
    assert 2_000 < drawing.path(name).stat().st_size < LARGEST


def _is_quick(command):
    """Whether a training downloads nothing and has few epochs."""
    data, epochs = re.search(r"dataset=(\w+)", command)[1], re.search(r"train\.epochs=(\d+)", command)
    return data not in {*DATA_FILES, "uea"} and epochs is not None and int(epochs[1]) <= 5


def test_every_page_and_picture_is_of_a_model():
    names = {path.stem for path in models.FOLDER.glob("*.md")} - {"index"}
    assert names == {path.stem for path in drawing.FOLDER.iterdir()} == set(keys.model_names())
    assert {path.stem for path in drawing.RESULTS.iterdir()} == set(drawing.names()) - names
    assert {path.stem for path in (blocks.DOCS / "results").glob("*.md")} == set(results.PAGES)
    assert ROOT / "README.md" in every_page.texts()


def _locked(package):
    return re.search(rf"^{package}==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)[1]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in drawing.names()]
)
def test_pictures_can_be_drawn_again(name):
    version = importlib.metadata.version("matplotlib")
    if version != _locked("matplotlib"):
        pytest.skip(f"matplotlib {version} may arrange axes differently than {_locked('matplotlib')} of requirements.txt")
    number = re.compile(r"-?\d+(?:\.\d+)?")
    stored, again = drawing.path(name).read_text(encoding="utf-8"), drawing.drawn(name)
    identifier = re.compile(r"(id=|href=|url\()[^ >)]*")  # hashes of the content
    stored, again = identifier.sub("", stored), identifier.sub("", again)
    assert number.sub("", stored) == number.sub("", again)
    pairs = zip(number.findall(stored), number.findall(again), strict=True)
    assert max(abs(float(one) - float(other)) for one, other in pairs) < 0.5  # of a point, a seventieth of an inch


def _page_of(trials_of_rows, monkeypatch, published=None):
    rows = [
        {"name": name, "score": score, "commit": "c" * 40, "started": "2026-01-02T00:00", "processor": processor, "torch": "2"}
        for name, score, processor in trials_of_rows
    ]
    monkeypatch.setattr(trials, "read", lambda file: rows)
    return Trials(
        "page", "f.csv", lambda trial: {"model": trial["name"]}, Column("score", "score"), "`run`", published=published
    ).markdown()


def test_rows_with_few_trials_stand_apart(monkeypatch):
    rows = [("a", "1"), ("a", "2"), ("a", "3"), ("b", "4"), ("b", "6"), ("c", "5")]
    text = _page_of([(*row, "P(R)") for row in rows], monkeypatch)
    enough, few = text.split("Rows with fewer than 3 trials")
    assert "| a | 3 | 2.000 +/- 1.000 | -0.484 to 4.484 |" in enough  # 2 +/- 4.303 / sqrt(3)
    assert "| b |" not in enough
    assert "| b | 2 | 5.000 +/- 1.414 |\n| c | 1 | 5.000 |" in few
    assert "Command: `run`; commit `cccccccccc`; 2026-01-02; P; torch 2. Every trial:" in few


def test_rows_say_their_machine_where_there_are_several(monkeypatch):
    text = _page_of([("a", "1", "P(R)"), ("a", "2", "Q"), ("b", "4", "Q"), ("c", "5", "P")], monkeypatch)
    assert "| model | n | score | machine |" in text
    assert re.findall(r"^\| ([abc]) .* \| ([^|]*) \|$", text, re.MULTILINE) == [("a", "a, b"), ("b", "b"), ("c", "a")]
    assert "; (a) P; (b) Q; torch 2." in text


def test_times_are_of_the_machine_with_most_trials_or_else_the_newest(monkeypatch):
    given = [
        ("a", "P", "1", 2),
        ("a", "P", "1", 4),
        ("a", "Q", "1", 90),
        ("b", "P", "1", 5),
        ("b", "P", "2", 7),
        ("c", "Q", "1", 8),
    ]
    rows = [
        {"model": model, "score": "1", "seconds": str(seconds), "processor": processor, "threads": threads}
        | {"commit": "c" * 40, "started": f"2026-01-0{day}", "torch": "2"}
        for day, (model, processor, threads, seconds) in enumerate(given, 1)
    ]
    monkeypatch.setattr(trials, "read", lambda file: rows)
    columns = [Column("seconds, all", "seconds", digits=1, timed=True)]
    text = Trials(
        "page", "f.csv", lambda trial: {"model": trial["model"]}, Column("score", "score"), "`run`", columns
    ).markdown()
    found = re.findall(r"^\| (\w) .* \| ([^|]*) \| ([^|]*) \|$", text, re.MULTILINE)
    assert found == [("a", "3.0 +/- 1.4", "a, b"), ("b", "7.0", "a"), ("c", "8.0", "b")]
    assert (
        'Columns that are of one machine alone (seconds): "a", 2 of 3 trials (a); "b", 1 of 2 trials (a). Every trial' in text
    )


def test_published_numbers_lie_inside_the_interval_or_above_it_or_below(monkeypatch):
    numbers = {"a": "4.4", "b": "4.5", "c": "-0.5", "d": "", "e": "2"}
    published = Column("published", "", spread=False, of=lambda trial: numbers[trial["name"]])
    rows = [(name, score, "P") for name in "abcd" for score in "123"]  # 2 +/- 2.484
    enough, few = _page_of([*rows, ("e", "1", "P")], monkeypatch, published).split("Rows with fewer")
    found = re.findall(r"^\| (\w) .* \| ([^|]*) \|$", enough, re.MULTILINE)
    assert found == [("a", "4.400, inside"), ("b", "4.500, above"), ("c", "-0.500, below"), ("d", "")]
    assert "| e | 1 | 1.000 | 2.000 |" in few


def test_table_2_in_the_papers_layout_has_the_means_of_every_row():
    lines = [line.strip("| ").split(" | ") for line in table_2.shifts().splitlines()[2:]]
    shown = sorted(cell for _, _, *cells in lines for cell in cells if cell.strip())
    rows = table_2.CHARACTERS.rows()
    assert len(shown) == len(rows)
    means = sorted(f"{statistics.fmean(float(trial['test']) for trial in row.trials):.3f}" for row in rows)
    assert [cell[:5] for cell in shown] == means
    assert sum(", n = " in cell for cell in shown) == sum(len(row.trials) < 3 for row in rows)


def test_a_page_whose_parts_are_not_those_of_the_generator_is_an_error(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- one: python -m benchmarks.pages -->\nold\n<!-- end of one -->\n")
    assert blocks.updated(page, {"one": lambda: "new"}).splitlines()[1] == "new"
    with pytest.raises(SystemExit, match=r"got the generated parts \['one'\], expected \['two'\]"):
        blocks.updated(page, {"two": lambda: "new"})
    with pytest.raises(SystemExit, match=r"got a page without <!-- one: python -m benchmarks\.abilities --> and"):
        blocks.replaced(page.read_text(), "one", "benchmarks.abilities", "new")


def test_a_model_without_a_page_is_named(monkeypatch):
    monkeypatch.setattr(keys, "model_names", lambda: ["legs", "s4nd"])
    with pytest.raises(SystemExit, match=r"cfg/model/s4nd\.yaml has no page docs/models/s4nd\.md"):
        models.pages()


def test_keys_have_the_comments_of_the_file():
    text = keys.keys("lmu_plain")
    assert "| `model.cell_args.theta` | `100.0` | length of the window |" in text
    assert "- `model.preset=psmnist`: `model.cell_args.hidden_size=212`, " in text
    assert "| `model.dropout` | `0.0` | " in text
    assert "`model.network`" not in text
    rows = re.findall(r"^\| `model\.(\S+)`", keys.keys("legs"), re.MULTILINE)
    assert rows[:4] == ["cell_args.hidden_size", "cell_args.memory_order", "num_layers", "dropout"]
    assert len(rows) == len(set(rows)) == 31


def test_results_on_pages_of_models_have_something_beside_them():
    text = results.measured("gru")
    assert re.search(r"100 Hz to 200 Hz, test accuracy \|.* legs 0\.\d{3}, .*lstm 0\.\d{3}, .*chance 0\.050 \| \[hippo\]", text)
    for name in keys.model_names():
        rows = [line.split(" | ") for line in results.measured(name).splitlines()[2:]]
        assert all(cells[-2].strip() for cells in rows), name


def test_numbers_in_the_text_of_pages_are_those_of_the_files():
    def text(name):
        return " ".join((blocks.DOCS / "results" / f"{name}.md").read_text(encoding="utf-8").split())

    lstm = [row for row in results.SUCCESSORS.rows() if row.settings["model"] == "lstm" and "100 Hz" in row.settings["task"]]
    first, second = ([f"{value:.3f}" for value in row.values(Column("", "test_accuracy_unshifted"))] for row in lstm)
    named = "it has {}, {} and {} by seed if that is 100 Hz, and {}, {} and {} if it is 200 Hz."
    assert named.format(*first, *second) in text("successors")
    arithmetic, recall = results.MEMORY["modular_arithmetic"], results.MEMORY["mqar"]
    [accuracy] = [
        row.shown(Column("", "test_accuracy", 2, False)) for row in arithmetic.rows() if row.settings["model"] == "lstm"
    ]
    assert f"the LSTM 0.80 and {accuracy}." in text("memory")
    others = [row for row in recall.rows() if row.settings["model"] not in ("lmu_plain", "mamba", "slstm")]
    ranges = [sorted(row.shown(Column("", key, 2, False)) for row in others) for key in ("at_64", "test_accuracy")]
    (few, some), (least, most) = ((found[0], found[-1]) for found in ranges)
    assert f"they have {few} to {some}, and {least} to {most}." in text("memory")
    published = {row.settings["CharacterTrajectories"]: row.against_published() for row in _mgu()}
    assert sorted(each.partition(", ")[2] for each in published.values()) == ["above", "above", "inside", "inside"]
    assert published["missing values, upsample"] == "0.282, above"


def _mgu():
    rows = table_2.CHARACTERS.rows()
    return [row for row in rows if row.settings["model"] == "mgu" and row.settings["row of the paper"] == "GRU"]
