"""An experiment's arguments that the chosen model does not take: the lines of its file, and how to drop them."""

import re

import pytest

from seqmem.cli import choices, commandline
from seqmem.cli.choices import CONFIGS
from seqmem.errors import UserError

EXPERIMENT = "hippo/pmnist_legt_theta200"
FILE = CONFIGS / f"experiment/{EXPERIMENT}.yaml"


def refused(*arguments):
    with pytest.raises(UserError) as caught:
        commandline.compose(arguments)
    return str(caught.value)


@pytest.mark.parametrize("model", ["gru", "igloo", "stack"])
def test_dropping_what_the_message_names_is_enough(model):
    """Each line holds the key, and the end of the message can be pasted."""
    message = refused(f"experiment={EXPERIMENT}", f"model={model}")
    assert message.startswith(f"experiment: {EXPERIMENT} sets model.")
    assert FILE.name in message
    lines = FILE.read_text().splitlines()
    named = re.findall(r"(model\.\S+) \(\S*?:(\d+)\)", message)
    assert named
    for key, line in named:
        assert lines[int(line) - 1].strip().startswith(f"{key.rpartition('.')[2]}:")
    dropped = re.findall(r"'(~\S+)'", message)
    assert [key.removeprefix("~") for key in dropped] == [key for key, _ in named]
    config = commandline.compose([f"experiment={EXPERIMENT}", f"model={model}", *dropped])
    assert config["train"]["epochs"] == 50


def test_dropping_takes_a_key_that_is_null():
    """Hydra alone says that such a key does not exist."""
    message = refused("experiment=successors/pmnist_s4d", "dataset=digits")
    dropped = re.findall(r"'(~\S+)'", message)
    assert "~dataset.train_samples" in dropped
    config = commandline.compose(["experiment=successors/pmnist_s4d", "dataset=digits", *dropped])
    assert "train_samples" not in config["dataset"]


def test_one_argument_of_ones_own_file(tmp_path, monkeypatch):
    (tmp_path / "experiment").mkdir()
    content = "# @package _global_\nmodel:\n  cell_args: {hidden_size: 8, bias: false, x: 1}\n"
    (tmp_path / "experiment/mine.yaml").write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(choices, "own_folders", [])
    message = refused("--config-dir", str(tmp_path), "dataset=digits", "model=gru", "experiment=mine")
    assert message == (
        "experiment: mine sets model.cell_args.x (experiment/mine.yaml:3), which gru does not take; "
        "drop it with: '~model.cell_args.x'"
    )


def test_the_data_set_may_not_take_them_either():
    message = refused("experiment=hippo/ct_100to200_legs", "dataset=digits")
    assert "sets dataset.train_hz (" in message
    assert "which digits does not take" in message


def test_a_mistake_of_the_command_line_is_not_the_experiments():
    message = refused(f"experiment={EXPERIMENT}", "model=legt", "+model.cell_args.sise=3")
    assert message.startswith("model.cell_args.sise: ")
    assert "experiment" not in message
