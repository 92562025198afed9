"""The page in a headless Chromium: it sorts, opens and filters, without errors on the console."""

import re
import shutil
import subprocess

import pytest

from seqmem.cli import report
from tests.results.lengths import evaluated
from tests.results.synthetic import configuration, write_run

_chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(_chromium is None, reason="there is no chromium, chromium-browser or google-chrome"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The path of a report's page: three models, one of them without a finished trial."""
    folder = tmp_path_factory.mktemp("runs")
    for model, test in (("legs", 0.9), ("gru", 0.7), ("lstm", 0.8)):
        for seed in range(2):
            config = configuration(model, seed=seed)
            write_run(folder / model / f"seed_{seed}", config, test + 0.01 * seed, epochs=5, started=f"2026-01-01T0{seed}")
    write_run(folder / "rnn" / "seed_0", configuration("rnn"), status="failed", reason="ValueError: x", started="2026-01-02")
    (folder / "published.csv").write_text("task,model,metric,value\ndigits,legs,test accuracy (%),98.3\nenwik8,gru,bpc,1\n")
    report.main([str(folder), "--against", str(folder / "published.csv")])
    return folder / "report.html"


def dom(page, script):
    """The document after a script of the test."""
    changed = page.with_name("changed.html")
    changed.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))
    command = [
        _chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--dump-dom",
        changed.as_uri(),
    ]
    profile = f"--user-data-dir={page.parent / 'profile'}"
    done = subprocess.run([*command[:-1], profile, command[-1]], capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


def models(document):
    """The models of the table's rows from top to bottom, those that are shown."""
    table = document[document.index('id="rows"') : document.index("</section>")]
    bodies = re.findall(r"<tbody ([^>]*)>.*?<td[^>]*>digits</td>\s*<td[^>]*><a[^>]*>(\w+)</a>", table, re.DOTALL)
    return [model for attributes, model in bodies if "hidden" not in attributes]


def click(heading, times=1):
    return f"""
        const button = [...document.querySelectorAll("#rows th button")].find((each) => each.textContent === "{heading}");
        for (let k = 0; k < {times}; k++) button.click();
    """


def test_a_script_that_fails_would_be_seen(page):
    with pytest.raises(AssertionError, match="CONSOLE"):
        dom(page, "undefinedName.x")


def test_a_heading_sorts_and_rows_without_a_number_stay_last(page):
    for script, order in [
        ("", ["gru", "legs", "lstm", "rnn"]),
        (click("test accuracy"), ["legs", "lstm", "gru", "rnn"]),
        (click("test accuracy", 2), ["gru", "lstm", "legs", "rnn"]),
        (click("model"), ["gru", "legs", "lstm", "rnn"]),
        (click("model", 2), ["rnn", "lstm", "legs", "gru"]),
    ]:
        assert models(dom(page, script)) == order


def test_a_number_opens_its_trials(page):
    script = """
        const row = document.getElementById("row-1");
        const height = () => row.rows[1].getBoundingClientRect().height;
        const heights = [height()];
        for (let k = 0; k < 2; k++) { row.querySelector("a").click(); heights.push(height()); }
        document.title = heights.map((each) => each > 50).join();
    """
    assert "<title>false,true,false</title>" in dom(page, script)


def test_a_curve_leads_to_its_row(page):
    script = """
        const curve = document.querySelector("#curves a[*|href='#row-2'] path");
        curve.dispatchEvent(new MouseEvent("mousemove", { bubbles: true }));
        const shown = document.getElementById("tip").textContent;
        curve.dispatchEvent(new MouseEvent("click", { bubbles: true }));
        document.title = shown + ": " + document.getElementById("row-2").className;
    """
    assert "<title>lstm on digits: open</title>" in dom(page, script)


def test_words_in_the_search_field_leave_the_rows_that_have_them(page):
    script = """
        const field = document.getElementById("filter");
        field.value = "DIGITS st";
        field.dispatchEvent(new Event("input"));
    """
    assert models(dom(page, script)) == ["lstm"]


def test_two_picked_rows_are_compared(page):
    script = """
        const [first, second] = ["first", "second"].map((name) => document.getElementById("compare-" + name));
        const pick = (select, value) => { select.value = value; select.dispatchEvent(new Event("change")); };
        const said = () => document.querySelector("#compare-result p").textContent;
        const lines = [said()];
        pick(second, "2");
        lines.push(said());
        pick(first, "3");
        lines.push([...second.options].map((each) => each.textContent).join(), second.value, said());
        document.title = lines.join("; ");
    """
    title = re.findall("<title>(.*?)</title>", dom(page, script))[0]
    start = "On digits, {} has the higher test accuracy by {} on average over two shared seeds"
    before, after, others, value, failed = title.split("; ")
    assert before.startswith(start.format("legs", "0.2000"))
    assert after.startswith(start.format("lstm", "0.1000"))
    assert (others, value) == ("gru on digits,legs on digits,lstm on digits", "2")
    assert failed.startswith("On digits, rnn and lstm share no seed with a result")


@pytest.fixture(scope="module")
def page_by_length(tmp_path_factory):
    """The path of the page of two models that were evaluated at several lengths."""
    folder = tmp_path_factory.mktemp("lengths")
    evaluated(folder)
    report.main([str(folder)])
    return folder / "report.html"


def test_the_table_by_length_sorts(page_by_length):
    script = """
        const names = () => [...document.querySelectorAll("#lengths tbody tr")].map((row) => row.cells[0].textContent).join();
        const press = (length) => {
          const find = (each) => each.textContent === length;
          [...document.querySelectorAll("#lengths th button")].find(find).click();
          return names();
        };
        document.title = [names(), press("200"), press("200"), press("50"), press("model")].join("; ");
    """
    assert "<title>gru,lstm; gru,lstm; lstm,gru; gru,lstm; gru,lstm</title>" in dom(page_by_length, script)


def test_the_picture_by_length_is_drawn_and_its_lines_lead_to_their_rows(page_by_length):
    script = """
        const drawing = document.querySelector("#lengths svg").getBoundingClientRect();
        const line = document.querySelector("#lengths a[*|href='#row-1'] path").getBoundingClientRect();
        const inside = line.left > drawing.left && line.right < drawing.right && line.top > drawing.top;
        document.querySelector("#lengths tbody a[href='#row-0']").click();
        document.title = [drawing.width > 300, drawing.height > 150, inside, document.getElementById("row-0").className].join();
    """
    assert "<title>true,true,true,open</title>" in dom(page_by_length, script)
