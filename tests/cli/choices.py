"""Names of the files in a group of cfg/."""

from functools import cache
from typing import Any

import yaml

from tests.program import ROOT


def choices(group: str) -> list[str]:
    """The choices of a group, in alphabetical order."""
    folder = ROOT / "cfg" / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


@cache
def model_settings(name: str) -> dict[str, Any]:
    """Content of a file of cfg/model/, not to be changed."""
    return yaml.load((ROOT / "cfg" / "model" / f"{name}.yaml").read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
