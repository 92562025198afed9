"""Keys and choices that pages of models, results, explanations and migration name in code spans exist in ``cfg/``."""

import re

import pytest

from seqmem.cli import choices
from tests.docs import pages

GROUPS = ("dataset", "model", "train", "runner")
FOLDERS = ("models", "results", "explanations", "migration")

_key = re.compile(rf"^({'|'.join(GROUPS)})\.([a-z]\w*(?:\.\w+)*)")
_free = re.compile(r"(optimizer|schedule|measure|mixer)_args\.")
_choice = re.compile(r"\b(dataset|model)=([\w,]+)")
KEYS = {
    group: {key for name in choices.names(group) if (path := choices.file(group, name)) for key in choices.keys(path)}
    for group in GROUPS
}


def wrong_names(text):
    """Keys and choices in the code spans of a text that do not exist."""
    wrong = []
    for span in re.findall(r"`([^`\n]+)`", text):
        for word in span.split():
            found = _key.match(word)
            if found and found[2] not in {*KEYS[found[1]], "py"} and not _free.search(found[2]):
                wrong.append(word)
        for group, names in _choice.findall(span):
            wrong += [name for name in names.split(",") if name not in choices.names(group)]
    return wrong


@pytest.mark.parametrize("page", [page for page in pages.ALL if page.parent.name in FOLDERS], ids=pages.name)
def test_named_keys_and_choices_exist(page):
    assert not wrong_names(pages.without_code(page))


def test_a_wrong_name_is_found():
    text = "`model.cell_args.hidden_sizes=3`, `train.py`, `model=legz`, `train.lr=1`, `seqmem train dataset=digits,mnits`"
    assert wrong_names(text) == ["model.cell_args.hidden_sizes=3", "legz", "mnits"]
    assert wrong_names("`model.hidden=3` and `train.lrr`") == ["model.hidden=3", "train.lrr"]
