"""Lines of the jobs of a sweep in a terminal."""

import io

import pytest
from rich.console import Console

from seqmem.training.engines.job_lines import JobLines


def drawn(view, height=25, width=100):
    console = Console(file=io.StringIO(), force_terminal=True, height=height, width=width)
    return [line.plain for line in view.lines(console)]


@pytest.fixture
def view():
    view = JobLines(5)
    for number in range(5):
        view.add(str(number), f"gru (train.lr=0.{number + 1}) on digits")
    view.refresh = lambda: None  # nothing is drawn in a test
    return view


def test_each_job_has_a_line_with_its_state(view):
    for number, folder in ((0, "a"), (1, "b"), (2, "c"), (3, "d")):
        view.begin(str(number), f"gru (train.lr=0.{number + 1}) on digits", folder)
    title = "gru (train.lr=0.1) on digits"
    for seed in (0, 1):
        status = f"{title}, seed {seed}: epoch {seed + 3} of 9, 30%, validation accuracy 0.5000, 12 s left"
        view.show("status", f"a/seed_{seed}", status)
    view.end("1", "done", "validation accuracy 0.9, test 0.8")
    view.end("2", "failed", "the training loss became nan")
    view.end("3", "pruned", "after epoch 2 of 9: validation accuracy 0.1000")
    place = "30%, validation accuracy 0.5000, 12 s left"
    assert drawn(view, width=200) == [
        f"running  {title}: seed 0, epoch 3 of 9, {place} | seed 1, epoch 4 of 9, {place}",
        "done     gru (train.lr=0.2) on digits: validation accuracy 0.9, test 0.8",
        "failed   gru (train.lr=0.3) on digits: the training loss became nan",
        "pruned   gru (train.lr=0.4) on digits: after epoch 2 of 9: validation accuracy 0.1000",
        "waiting  gru (train.lr=0.5) on digits",
        "3 of 5 jobs ended, 1 failed, 1 pruned, 1 running, 1 waiting",
    ]
    view.show("end", "a/seed_0", "")
    assert drawn(view)[0] == f"running  {title}: seed 1, epoch 4 of 9, {place}"


def test_a_low_terminal_shows_running_jobs_and_those_before_and_after(view):
    for number in (0, 1, 2):
        view.begin(str(number), f"job {number}", f"folder_{number}")
    view.end("0", "done", "validation accuracy 0.9, test 0.8")
    view.end("1", "done", "validation accuracy 0.9, test 0.8")
    lines = drawn(view, height=5)
    assert [line.split(":")[0] for line in lines] == [
        "done     job 1",
        "running  job 2",
        "waiting  gru (train.lr=0.4) on digits",
        "2 of 5 jobs ended, 1 running, 2 waiting",
    ]


def test_a_search_counts_the_points_that_it_has_not_drawn():
    view = JobLines(30, "points")
    view.refresh = lambda: None
    view.begin("0", "gru on digits", "a")
    assert drawn(view)[-1] == "0 of 30 points ended, 1 running, 29 waiting"
    view = JobLines(None, "points")
    view.refresh = lambda: None
    view.begin("0", "gru on digits", "a")
    assert drawn(view)[-1] == "0 points ended, 1 running"


def test_a_line_that_is_printed_is_not_a_position(view, capsys):
    view.begin("0", "gru on digits", "a")
    view.show("line", "a/seed_0", "gru on digits, seed 0: epoch 1 of 2")
    view.show("error", "a/seed_0", "a warning")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("gru on digits, seed 0: epoch 1 of 2\n", "a warning\n")
    assert drawn(view)[0] == "running  gru on digits"
