"""The house: arrows between its rooms run one way, and no module imports what would close a circle."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src"

FLOORS = [
    {"errors"},
    {"arguments", "plugins"},
    {"io"},
    {"data"},
    {"ops"},
    {"sequence", "tasks"},
    {"cells", "hippo"},
    {"layers"},
    {"models"},
    {"diagnostics"},
    {"results", "datasets"},
    {"training"},
    {"compat"},
    {"cli"},
]
"""Rooms from the ground up: a module may import from its own room and from those on lower floors."""

ENTRIES = {
    *("report", "compare", "encode", "decode", "evaluate", "export", "publish", "boundaries", "memory", "predict"),
    *("__init__", "__main__"),
}
"""Modules that only start what lies in a room."""

ONLY_ABOVE = {"hydra": {"cli"}, "omegaconf": {"cli"}, "pytorch_lightning": {"training", "compat", "cli"}}
"""Packages that lower rooms do without."""


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted([*SOURCES.rglob("*.py"), *(ROOT / "datasets").glob("*.py")]):
        inside = path.relative_to(SOURCES) if path.is_relative_to(SOURCES) else Path("seqmem", path.relative_to(ROOT))
        name = ".".join(inside.with_suffix("").parts).removesuffix(".__init__")
        if name.startswith("seqmem"):
            found[name] = path
    return found


@cache
def imported(path: Path) -> set[str]:
    """What a module imports anywhere in it, for types too; a name of a package may be a module."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def at_the_top(path: Path) -> set[str]:
    """What is imported when the module is."""
    tree = ast.parse(path.read_text())
    names = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def room(module: str) -> str:
    return [*module.split("."), "__init__"][1]


MODULES = modules()


def test_no_arrow_runs_upwards():
    floor = {name: number for number, rooms in enumerate(FLOORS) for name in rooms}
    wrong = []
    for module, path in MODULES.items():
        if room(module) in ENTRIES:
            continue
        for target in imported(path) & MODULES.keys():
            if room(target) == "__init__":
                continue
            below = room(target) in floor and floor[room(target)] < floor[room(module)]
            if room(target) != room(module) and not below:
                wrong.append(f"{module} -> {target}")
    assert not wrong


BENCHMARKS = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "benchmarks").rglob("*.py")
}


@pytest.mark.parametrize("modules", [MODULES, BENCHMARKS], ids=["package", "benchmarks"])
def test_no_circle(modules):
    """An import of a package counts as an import of the modules that are named."""
    graph = {}
    for module, path in modules.items():
        targets = imported(path) & modules.keys()
        # "from seqmem.ops import lstm" is an arrow to the module lstm alone.
        targets -= {name for name in targets if any(other.startswith(f"{name}.") for other in targets)}
        graph[module] = targets - {module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("package", ONLY_ABOVE)
def test_lower_rooms_do_without(package):
    users = {room(module) for module, path in MODULES.items() if any(name.split(".")[0] == package for name in imported(path))}
    assert users <= ONLY_ABOVE[package]


def test_no_private_module_of_torch_is_imported_by_every_cell():
    private = {
        (module, name)
        for module, path in MODULES.items()
        for name in at_the_top(path)
        if name.startswith("torch.") and any(part.startswith("_") for part in name.split(".")[1:-1])
    }
    assert not private


def test_rooms_hold_every_module():
    rooms = {room(module) for module in MODULES} - ENTRIES
    assert rooms == set().union(*FLOORS)


def test_configurations_are_yaml_alone():
    assert {path.suffix for path in (ROOT / "cfg").rglob("*") if path.is_file() and "__pycache__" not in path.parts} == {
        ".yaml"
    }
    assert {path.name for path in ROOT.glob("*.py")} == {"train.py", "evaluate.py", "boundaries.py", "setup.py"}
