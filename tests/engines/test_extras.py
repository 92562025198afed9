"""A missing package is named with the extra that installs it."""

import re
import tomllib
from pathlib import Path

import pytest
from hydra.errors import MissingConfigException

from seqmem.cli import commandline, messages
from seqmem.errors import UserError
from seqmem.training import config

_root = Path(__file__).parents[2]
_extras = tomllib.loads((_root / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize(
    ("override", "extra"), [("runner=ray", "ray"), ("runner.wandb=offline", "wandb"), ("runner.mlflow=here", "mlflow")]
)
def test_a_package_that_is_missing_is_named(override, extra, monkeypatch):
    monkeypatch.setattr(config, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=rf"{re.escape(override.partition('=')[0])}.*{extra} is not installed.*requirements/{extra}.txt"
    ):
        commandline.compose(["dataset=digits", "model=rnn", override])


@pytest.mark.parametrize("choice", ["launcher/joblib", "launcher/submitit_local", "launcher/submitit_slurm", "sweeper/optuna"])
def test_a_plugin_that_is_missing_is_named(choice):
    error = MissingConfigException("Could not find it", f"hydra/{choice}", [])
    line = messages.explain(error, [])
    [extra] = re.findall(r"pip install -r requirements/(\w+)\.txt", line)
    assert (_root / "requirements" / f"{extra}.txt").is_file()
    assert line.startswith(f"hydra/{choice} is not installed")
    assert any("hydra" in package for package in _extras[extra])


def test_hydra_is_pinned_beside_its_plugins():
    """They ask for any version from a pre-release on, and pip would take the newest pre-release."""
    plugins = [extra for extra, packages in _extras.items() if any(package.startswith("hydra-") for package in packages)]
    assert plugins
    for extra in plugins:
        assert "hydra-core>=1.3.8,<1.4" in _extras[extra]


def test_every_extra_has_a_list_that_can_be_installed_by_itself():
    """Without a build of the project."""
    for extra, packages in _extras.items():
        assert (_root / "requirements" / f"{extra}.txt").read_text().splitlines() == packages, extra
