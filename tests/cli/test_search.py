"""Settings and space of a search."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from seqmem.cli.overrides import parse
from seqmem.cli.search import settings
from seqmem.cli.search.settings import SearchSettings, search_settings
from seqmem.errors import UserError

ROOT = Path(__file__).parents[2]


def space(*overrides):
    """The space of a command line; it has Optuna's distributions."""
    pytest.importorskip("optuna", reason="optuna is not installed: pip install -r requirements/optuna.txt")
    from seqmem.cli.search.space import space_of

    return space_of(parse(overrides))


def test_the_file_has_every_setting_with_its_default():
    section = yaml.safe_load((ROOT / "cfg/hydra/sweeper/optuna.yaml").read_text())
    section.pop("_target_")
    default = SearchSettings()
    assert section == {each.name: getattr(default, each.name) for each in fields(default)}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"n_trials": 0}, "hydra.sweeper.n_trials: got 0"),
        ({"n_trials": None}, "hydra.sweeper.n_trials: got null, expected a number of points, or hydra.sweeper.timeout_minutes"),
        ({"sampler": "tpee"}, "hydra.sweeper.sampler: got 'tpee'.*did you mean 'tpe'"),
        ({"pruner": "medium"}, "hydra.sweeper.pruner: got 'medium'.*did you mean 'median'"),
        ({"timeout_minutes": -1}, "hydra.sweeper.timeout_minutes: got -1"),
        ({"storage": "lr.db"}, "expected a URL such as sqlite:///lr.db"),
    ],
)
def test_settings_are_refused_by_name(section, message):
    with pytest.raises(UserError, match=message):
        search_settings(section)


@pytest.mark.parametrize(
    ("found", "message"),
    [(None, "optuna is not installed"), ("2.10.1", "got optuna 2.10.1, expected 4 or later")],
)
def test_optuna_is_required(found, message, monkeypatch):
    monkeypatch.setattr(settings, "find_spec", lambda name: found)
    monkeypatch.setattr(settings, "version", lambda name: found)
    with pytest.raises(UserError, match=rf"hydra/sweeper=optuna: {message}.*pip install -r requirements/optuna.txt"):
        search_settings({})


@pytest.mark.parametrize(
    ("override", "distribution"),
    [
        ("train.lr=tag(log,interval(0.0001,0.1))", "FloatDistribution(high=0.1, log=True, low=0.0001, step=None)"),
        ("train.lr=interval(0.5,2)", "FloatDistribution(high=2.0, log=False, low=0.5, step=None)"),
        ("train.epochs=int(interval(2,9))", "IntDistribution(high=9, log=False, low=2, step=1)"),
        ("train.epochs=tag(log,int(interval(1,64)))", "IntDistribution(high=64, log=True, low=1, step=1)"),
        ("train.wd=float(interval(0,1))", "FloatDistribution(high=1.0, log=False, low=0.0, step=None)"),
        ("train.epochs=range(2,9,3)", "IntDistribution(high=8, log=False, low=2, step=3)"),
        ("train.epochs=range(9,2,-3)", "IntDistribution(high=9, log=False, low=3, step=3)"),
        ("train.wd=range(0,0.3,0.1)", "FloatDistribution(high=0.2, log=False, low=0.0, step=0.1)"),
        ("model=gru,lstm", "CategoricalDistribution(choices=('gru', 'lstm'))"),
        ("train.wd=choice(0,0.5)", "CategoricalDistribution(choices=(0, 0.5))"),
        ("train.epochs=1,1.0", "CategoricalDistribution(choices=('1', '1.0'))"),
        ("model.cell_args.measure_args={alpha:1},{alpha:2}", "CategoricalDistribution(choices=('{alpha:1}', '{alpha:2}'))"),
    ],
)
def test_each_sweep_of_hydra_is_a_distribution(override, distribution):
    [found] = space(override).distributions.values()
    values = {key: getattr(found, key) for key in ("choices", "high", "log", "low", "step") if hasattr(found, key)}
    assert f"{type(found).__name__}({', '.join(f'{key}={value!r}' for key, value in values.items())})" == distribution


def test_a_point_is_the_command_line_with_values_in_the_place_of_sweeps():
    found = space(
        "dataset=digits", "+train.optimizer_args.momentum=interval(0.5,0.9)", "train.wd=choice(0,0.5)", "model='a b',c"
    )
    point = {"train.optimizer_args.momentum": 0.625, "train.wd": 0, "model": "'a b'"}
    assert found.overrides(point) == ["dataset=digits", "+train.optimizer_args.momentum=0.625", "train.wd=0", "model='a b'"]


def test_a_grid_has_every_value():
    found = space("train.epochs=range(1,7,2)", "train.wd=range(0,0.3,0.1)", "model=gru,lstm", "dataset=digits")
    assert found.size() == 18
    lines = [dimension.override(value) for dimension in found.dimensions.values() for value in dimension.values()]
    expected = [f"train.epochs={epochs}" for epochs in (1, 3, 5)] + [f"train.wd={wd}" for wd in (0.0, 0.1, 0.2)]
    assert lines == [*expected, "model=gru", "model=lstm"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("given", ["range(0.1,0.35,0.1)", "range(0.35,0.04,-0.1)", "range(0.7,0.9,0.025)"])
def test_a_range_has_the_values_of_a_sweep(given):
    [override] = parse([f"train.lr={given}"])
    [dimension] = space(f"train.lr={given}").dimensions.values()
    values = sorted(override.sweep_iterator(transformer=lambda value: value))
    assert sorted(map(dimension.trained, dimension.values())) == values
    assert sorted(map(dimension.override, dimension.values())) == sorted(f"train.lr={value!r}" for value in values)
    assert all(map(dimension.distribution._contains, dimension.values()))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dataset=digits"], "got no key with several values"),
        (["train.lr=interval(0.1,0.01)"], "train.lr: got .*the lower end comes first"),
        (["train.lr=tag(log,interval(0,0.1))"], "train.lr: got tag.* cannot be searched"),
        (["train.epochs=range(3,3)"], "train.epochs: got range.3,3., which cannot be searched: it has no value"),
        (["train.wd=tag(log,range(0.1,0.5,0.1))"], "has no logarithm"),
    ],
)
def test_what_cannot_be_searched_is_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        space(*overrides)


def test_an_interval_has_no_grid():
    with pytest.raises(UserError, match=r"train\.lr: got an interval with hydra.sweeper.sampler=grid"):
        space("train.lr=interval(0.01,0.1)").size()
