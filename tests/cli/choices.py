"""Names of the files in a group of cfg/."""

from tests.program import ROOT


def choices(group: str) -> list[str]:
    """The choices of a group, in alphabetical order."""
    folder = ROOT / "cfg" / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))
