"""Checks of arguments: wrong ones are refused in one line with the value, what was expected and the nearest choice."""

import pickle
from typing import Annotated, Literal

import pytest
from pydantic import Field, PositiveInt

from seqmem.arguments import check, checked, parameters
from seqmem.errors import UnknownArgumentError, UserError, suggestion


class Thing:
    name = "thing"

    @checked
    def __init__(
        self,
        size: PositiveInt,
        depth: PositiveInt = 2,
        mode: Literal["fast", "slow"] = "fast",
        rate: float = 0.5,
        limit: PositiveInt | Literal["none"] = "none",
        widths: Annotated[list[PositiveInt], Field(max_length=3)] = [],  # noqa: B006
    ):
        self.given = (size, depth, mode, rate, limit, widths)


def test_defaults_are_filled_in_and_integers_pass_for_floats():
    filled = {"size": 3, "depth": 2, "mode": "fast", "rate": 1, "limit": "none", "widths": []}
    assert check(Thing, {"size": 3, "rate": 1}) == filled
    assert Thing(3, rate=1).given == tuple(filled.values())
    assert parameters(Thing, skip=("size",)) == {name: filled[name] for name in list(filled)[1:]} | {"rate": 0.5}


ERRORS = [
    ({}, "a.size: a value is required"),
    ({"size": 0}, "a.size: got 0, expected greater than 0"),
    ({"size": True}, "a.size: got True, expected a valid integer"),
    ({"size": 2.0}, "a.size: got 2.0, expected a valid integer"),
    ({"size": None}, "a.size: got None, expected a valid integer"),
    ({"size": 3, "rate": float("nan")}, "a.rate: got nan, expected a finite number"),
    ({"size": 3, "mode": "fats"}, "a.mode: got 'fats', expected 'fast' or 'slow'; did you mean 'fast'?"),
    ({"size": 3, "limit": "non"}, "a.limit: got 'non', expected a valid integer or 'none'; did you mean 'none'?"),
    ({"size": 3, "widths": [4, -1]}, "a.widths.1: got -1, expected greater than 0"),
    ({"size": 3, "widths": [1, 2, 3, 4]}, "a.widths: got [1, 2, 3, 4], expected at most 3 items"),
    ({"size": 3, "dept": 1}, "a.dept: thing takes no argument 'dept'; did you mean 'depth'?"),
    ({"size": -1, "rate": "x"}, "a.size: got -1, expected greater than 0; a.rate: got 'x', expected a valid number"),
]


def test_errors():
    for given, message in ERRORS:
        with pytest.raises(UserError) as caught:
            check(Thing, given, "a")
        assert str(caught.value) == message


def test_an_unknown_argument_keeps_its_key_through_pickle():
    with pytest.raises(UnknownArgumentError) as caught:
        check(Thing, {"size": 3, "dept": 1}, "a")
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (copied.keys, copied.fact) == (("a.dept",), "a.dept: thing takes no argument 'dept'")
    assert str(copied) == f"{copied.fact}; did you mean 'depth'?"


def test_constructors_are_checked_in_the_same_way():
    with pytest.raises(UserError, match="size: got 0, expected greater than 0"):
        Thing(0)
    with pytest.raises(UserError, match="Thing takes no argument 'dept'; did you mean 'depth'"):
        Thing(3, dept=1)
    with pytest.raises(UserError, match=r"^size: a value is required$"):
        Thing()
    with pytest.raises(UserError, match=r"^Thing: too many positional arguments$"):
        Thing(*range(8))
    with pytest.raises(UserError, match=r"^size: got \[0, 0, .{,70} \.\.\., expected a valid integer$"):
        Thing([0] * 1000)


def test_suggestions():
    assert suggestion("legz", ["legs", "lstm"]) == "; did you mean 'legs'?"
    assert suggestion("transformer", ["legs", "lstm"]) == "; choose from: legs, lstm"
    assert suggestion("LegS", ["legs", "lstm"]) == "; did you mean 'legs'?"
    assert suggestion("anything", []) == ""
    assert suggestion("CharacterTrajectories", ["ct", "charades"]) == "; did you mean 'ct'?"
    assert suggestion("weight_decay", ["wd", "lr_decay"]) == "; did you mean 'wd'?"
    assert suggestion("hidden_siz", ["hs", "hidden_size"]) == "; did you mean 'hidden_size'?"


def test_messages_are_one_line():
    assert "\n" not in str(UserError("one\n  two"))
