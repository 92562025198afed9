"""``make configs``: write the defaults and comments of cfg/ from the constructors that take them.

A default and its meaning are written once: in the signature and under ``Args`` of the docstring. For each file of cfg/model/,
cfg/dataset/, cfg/train/ and cfg/runner/, this module writes one line for each argument: its default, the first sentence about
it, and its choices. These parts are kept:

- interpolations, ``data_dir: ${oc.env:SEQMEM_DATA,data}``, and arguments without a default;
- lines whose comment begins with "source's value", the paper or code that a page names, for settings
  that differ from the default on purpose;
- ``mixer_args: {}``, where the file leaves open which mixer it is, the heading of the file, and its presets.
"""

import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import yaml
from typing_extensions import is_typeddict

from seqmem import datasets, sequence
from seqmem.arguments import parameters
from seqmem.cli.choices import on_one_line
from seqmem.cli.overrides import CONFIGS
from seqmem.data.dataset import DataSet
from seqmem.io.files import write_text
from seqmem.models import SequenceModel
from seqmem.training.config import RayConfig, RunnerConfig, TrainConfig

_PAPER = "source's value"
_column = 32
_width = 128
_preset_comment = "apply one of the presets below; keys on the command line win"
_parts = ("cell", "mixer")  # arguments that name a registered class, whose arguments follow in cell_args, mixer_args


def main() -> None:
    """Write every file whose defaults or comments have changed."""
    for path in files():
        text = path.read_text(encoding="utf-8")
        generated = generate(path)
        if generated != text:
            write_text(path, generated)
            print(f"wrote {path.relative_to(CONFIGS.parent)}")


def files() -> list[Path]:
    """The files that this module writes."""
    return sorted(path for group in ("model", "dataset", "train", "runner") for path in (CONFIGS / group).glob("*.yaml"))


def generate(path: Path) -> str:
    """The content of a file with the defaults of the signatures.

    Raises:
        UserError: the file names an unknown model, data set or cell.
    """
    text = path.read_text(encoding="utf-8")
    section = yaml.safe_load(text)
    kept = dict(_kept(yaml.compose(text), text.splitlines()))
    lines = list(takewhile(lambda line: line.startswith("#"), text.splitlines()))
    match path.parent.name:
        case "model":
            lines += [f"network: {section['network']}", *_lines(_named(SequenceModel, section["network"]), section, kept)]
            presets = text[text.index("\npresets:") :].strip() if "presets" in section else "presets: {}"
            lines += [_line("", "preset", "null", _preset_comment), presets]
        case "dataset":
            datasets.names()  # imports every data set
            lines += [f"name: {section['name']}", *_lines(_named(DataSet, section["name"]), section, kept)]
        case "train":
            lines += _lines(TrainConfig, section, kept)
        case "runner":
            lines += _lines({"pl": RunnerConfig, "ray": RayConfig}[section["name"]], section, kept)
    return "\n".join(lines) + "\n"


class _Kept(NamedTuple):
    """A value that stays as the file has it."""

    text: str
    paper: bool


def _kept(node: yaml.Node, lines: list[str], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], _Kept]]:
    """Values kept from the file, by the path of their keys."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        here = (*path, key.value)
        if here == ("presets",):
            continue
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            yield from _kept(value, lines, here)
            continue
        line = lines[value.start_mark.line]
        text = line[value.start_mark.column : value.end_mark.column]
        paper = line[value.end_mark.column :].strip().startswith(f"# {_PAPER}")
        yield here, _Kept(text, paper)


def _lines(
    owner: Callable[..., Any],
    section: Mapping[str, Any],
    kept: Mapping[tuple[str, ...], _Kept],
    path: tuple[str, ...] = (),
) -> Iterator[str]:
    """One line for each argument of ``owner``; more for the arguments of a cell or for a dict of switches."""
    comments, hints = _comments(owner), _hints(owner)
    above: tuple[str, ...] = ()
    for name, default in parameters(owner, ("spec", "input_size")).items():
        here, hint, indent = (*path, name), hints[name], "  " * len(path)
        part = name.removesuffix("_args")
        is_open = section.get(f"{part}_args") == {}
        if name in _parts:
            yield _line(indent, name, section[name], comments.get(name, "") if is_open else "")
        elif part in _parts and is_open:
            yield _line(indent, name, "{}", comments.get(name, ""))
        elif part in _parts:
            yield f"{indent}{name}:"
            yield from _lines(sequence.get(section[part]), section.get(name, {}), kept, here)
        elif here == ("mixer_args", "hidden_size"):
            yield _line(indent, name, "null", f"{comments.get(name, 'H')}; null for model_size")
        elif get_origin(hint) is Literal and len(get_args(hint)) == 1 and name != "name":
            continue  # it can have no other value
        elif is_typeddict(hint):
            yield _line(indent, name, "", comments.get(name, ""))
            yield from _switches(hint, getattr(owner, f"default_{name}"), f"{indent}  ")
        else:
            text, comment = _value(kept.get(here), default, comments.get(name, ""))
            choices = _choices(hint)
            yield _line(indent, name, text, comment, () if choices == above else choices)
            above = choices


def _value(kept: _Kept | None, default: Any, comment: str) -> tuple[str, str]:
    """An argument's value in YAML, and its comment."""
    if kept and (kept.paper or "${" in kept.text or default is inspect.Parameter.empty):
        return kept.text, f"{_PAPER}; {comment}" if kept.paper else comment
    return on_one_line(default), comment


def _switches(hint: Any, defaults: Mapping[str, Any], indent: str) -> Iterator[str]:
    """One line for each key of a typed dict."""
    comments, hints = _key_comments(hint), get_type_hints(hint)
    above: tuple[str, ...] = ()
    for name, default in defaults.items():
        choices = _choices(hints[name])
        yield _line(indent, name, on_one_line(default), comments.get(name, ""), () if choices == above else choices)
        above = choices


def _line(indent: str, name: str, text: str, comment: str, choices: tuple[str, ...] = ()) -> str:
    line = f"{indent}{name}: {text}".rstrip()
    fitting = _described(comment, choices, _width - max(len(line), _column - 1) - 3)
    return f"{line.ljust(_column - 1)} # {fitting}" if fitting else line


def _described(comment: str, choices: tuple[str, ...], width: int) -> str:
    """The comment, followed by the choices if it names fewer than two of them."""
    fitting = _fitting(comment, width)
    if sum(bool(re.search(rf"(?<!\w){re.escape(choice)}(?!\w)", fitting)) for choice in choices) >= min(len(choices), 2):
        return fitting
    listed = _listed(choices, max(width // 2, width - len(fitting) - 2))
    return f"{_fitting(comment, width - len(listed) - 2)}: {listed}".removeprefix(": ")


def _listed(choices: tuple[str, ...], width: int) -> str:
    """The choices if they fit, else the first of them and the number of the rest."""
    listed, count = ", ".join(choices), len(choices)
    while len(listed) > width and count > 1:
        count -= 1
        listed = f"{', '.join(choices[:count])} and {len(choices) - count} more"
    return listed


def _fitting(comment: str, width: int) -> str:
    """The comment if it fits, else its first clauses."""
    clauses = comment
    while len(clauses) > width or clauses.count("(") > clauses.count(")") or clauses.count("[") > clauses.count("]"):
        end = max(clauses.rfind(separator) for separator in ("; ", " (", ", "))
        if end < 0:
            return shorten(comment, width, placeholder=" ...")
        clauses = clauses[:end]
    return clauses


def _choices(hint: Any) -> tuple[str, ...]:
    """The strings that a type allows by name."""
    origin = get_origin(hint)
    if origin is Literal:
        return tuple(choice for choice in get_args(hint) if isinstance(choice, str))
    if origin is Annotated:
        return _choices(get_args(hint)[0])
    if origin in (Union, types.UnionType):
        return tuple(choice for part in get_args(hint) for choice in _choices(part))
    return ()


def _comments(owner: Any) -> dict[str, str]:
    """The first sentence about each argument: from a class, its constructor, its bases, and classes that it refers to."""
    found: dict[str, str] = {}
    for part in owner.__mro__:
        for documented in (part, vars(part).get("__init__"), *_referred(part)):
            for name, text in _entries(inspect.getdoc(documented) or "") if documented is not None else ():
                found.setdefault(name, text)
    return found


def _referred(owner: Any) -> list[Any]:
    """Classes whose arguments ``owner`` takes, too: ``:class:`NAME``` in the first paragraph of its docstring."""
    first = (vars(owner).get("__doc__") or "").split("\n\n")[0]
    module = inspect.getmodule(owner)
    return [
        value for name in re.findall(r":class:`[\w.]*?(\w+)`", first) if inspect.isclass(value := getattr(module, name, None))
    ]


def _entries(doc: str) -> Iterator[tuple[str, str]]:
    """Name and first sentence of each entry under ``Args`` or ``Attributes``."""
    for block in re.findall(r"^(?:Args|Attributes):\n((?:[ ].*\n?|\n)+)", doc, re.MULTILINE):
        for name, text in re.findall(r"^    (\w+): ((?:.*\n?)(?:     .*\n?)*)", block, re.MULTILINE):
            yield name, _sentence(text)


def _key_comments(hint: Any) -> dict[str, str]:
    """The first sentence about each key of a typed dict, without the default that the line shows."""
    return {name: re.sub(r"\s*\(default[^)]*\)", "", text) for name, text in _entries(inspect.getdoc(hint) or "")}


def _sentence(text: str) -> str:
    """The first sentence in the notation of a YAML comment."""
    text = re.sub(r":\w+:`[\w.]*?(\w+)`", r"\1", " ".join(text.split()))
    text = re.sub(r"``([^`]*)``|\"([\w./-]+)\"", lambda match: match[1] or match[2], text)
    for python, plain in {"None": "null", "True": "true", "False": "false"}.items():
        text = re.sub(rf"\b{python}\b", plain, text)
    return re.split(r"(?<!\.)\.(?:\s+|$)", text)[0]


def _hints(owner: Any) -> dict[str, Any]:
    return get_type_hints(inspect.unwrap(owner.__init__), include_extras=True)


def _named(base: type, name: str) -> Any:
    """The subclass that is registered under a name."""
    return next(owner for owner in _subclasses(base) if vars(owner).get("name") == name)


def _subclasses(base: type) -> Iterator[type]:
    derived: type
    for derived in type.__subclasses__(base):
        yield derived
        yield from _subclasses(derived)


if __name__ == "__main__":
    main()
