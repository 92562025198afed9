"""Public names of each package, with the first line of their docstrings; mkdocstrings adds the rest to the site."""

import inspect
from importlib import import_module
from textwrap import wrap
from types import ModuleType

from benchmarks.reference.markdown import code, generated, sentence, table

PACKAGES = (
    "seqmem",
    "seqmem.cells",
    "seqmem.layers",
    "seqmem.sequence",
    "seqmem.models",
    "seqmem.diagnostics",
    "seqmem.hippo",
    "seqmem.data",
    "seqmem.datasets",
    "seqmem.tasks",
    "seqmem.ops",
    "seqmem.ops.functional",
    "seqmem.training",
    "seqmem.results",
)
"""Packages whose names in ``__all__`` are public."""


def pages() -> dict[str, str]:
    """Return a page for each package, and their index."""
    found = {f"api/{package}.md": page(import_module(package)) for package in PACKAGES}
    rows = [(f"[{package}]({package}.md)", _first_line(import_module(package))) for package in PACKAGES]
    found["api/index.md"] = (
        f"{generated()}# API\n\nAfter this page you know which package has which public names. "
        "The site has the whole docstring of each.\n\n" + table(("package", "what it has"), rows)
    )
    return found


def page(module: ModuleType) -> str:
    """Return the page of a package: a table for reading on GitHub, and a directive of mkdocstrings for each name."""
    package = module.__name__
    rows = [(code(name), _first_line(getattr(module, name))) for name in module.__all__]
    directives = "\n\n".join(_directive(module, name) for name in module.__all__)
    return (
        f"{generated()}# {package}\n\n{sentence(_first_line(module))} Import a name with `from {package} import NAME`.\n\n"
        f"{table(('name', 'what it is'), rows)}\n## Calls\n\n```text\n{_calls(module)}\n```\n\n{directives}\n"
    )


def _directive(module: ModuleType, name: str) -> str:
    """The directive of mkdocstrings for a name; a function that is made from another one has the docstring of that one.

    mkdocstrings does not import, and so does not find a name that a module imports on its first use.
    """
    if place := getattr(module, "_lazy", {}).get(name):
        return f"::: {place}.{name}\n    options: {{heading: {name}, toc_label: {name}}}"
    thing = getattr(module, name)
    wrapped = inspect.unwrap(thing) if inspect.isfunction(thing) else thing
    if wrapped is thing or wrapped.__module__ == module.__name__ or wrapped.__name__ == name:
        return f"::: {module.__name__}.{name}"
    return f"::: {wrapped.__module__}.{wrapped.__name__}\n    options: {{heading: {name}, toc_label: {name}}}"


def _calls(module: ModuleType) -> str:
    """Each class and function with its arguments and their defaults, inherited ones too."""
    calls = []
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            arguments = inspect.signature(thing).parameters.values()
            shown = [str(argument.replace(annotation=argument.empty)) for argument in arguments]
            calls += wrap(f"{name}({', '.join(shown)})", width=110, subsequent_indent="    ", break_long_words=False)
    return "\n".join(calls)


def _first_line(thing: object) -> str:
    """First line of a docstring."""
    documented = inspect.ismodule(thing) or inspect.isclass(thing) or inspect.isfunction(thing)
    text = inspect.getdoc(thing) if documented else None
    return text.split("\n")[0].replace("``", "`").replace("::", "").rstrip() if text else "value"
