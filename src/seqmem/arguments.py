"""Checks of arguments against the annotations of a signature, with one-line errors.

The annotations of a constructor are its schema: ``hidden_size: PositiveInt``, ``gate: Literal["G", "N"] = "G"``. Values from
the command line and from Python code are checked in the same way.
"""

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache, wraps
from textwrap import shorten
from typing import Any, TypeVar, get_args, get_type_hints

import numpy as np
from pydantic import ConfigDict, ValidationError, create_model

from seqmem.errors import UnknownArgumentError, UserError, suggestion

Function = TypeVar("Function", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)


def check(owner: Callable[..., Any], given: Mapping[str, Any], where: str = "", skip: Collection[str] = ()) -> dict[str, Any]:
    """Check keyword arguments against the signature of a class, a dataclass or a function.

    NumPy numbers are taken as Python numbers.

    Args:
        owner: its signature has the arguments, their types, ranges and defaults.
        given: the arguments by name.
        where: prefix of a name in an error, for example ``"model.cell_args"``.
        skip: parameters of ``owner`` that the program supplies, and that ``given`` may not have.

    Returns:
        ``given`` with defaults filled in.

    Raises:
        UserError: an unknown name, a missing one, or a value of the wrong type or out of range.
    """
    schema = _schema(owner, frozenset(skip))
    given = plain(given)
    _refuse_long_integers(given, where)
    try:
        checked = schema(**{str(name): value for name, value in given.items()})
    except ValidationError as error:
        raise _explained(error, owner, given, where, schema) from None
    return {name: getattr(checked, name) for name in schema.model_fields}


def as_declared(owner: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with integers as floats where ``owner`` declares a float, so that 1 and 1.0 are one experiment."""
    hints = get_type_hints(inspect.unwrap(owner.__init__ if inspect.isclass(owner) else owner))
    return {
        name: float(value) if type(value) is int and float in (types := _flat(hints.get(name))) and int not in types else value
        for name, value in given.items()
    }


def _flat(hint: Any) -> list[Any]:
    """Return a type, or the types of a union."""
    return [part for inner in get_args(hint) for part in _flat(inner)] if get_args(hint) else [hint]


def plain(value: Any) -> Any:
    """Return a value with NumPy numbers, 0-d arrays included, as Python numbers, in mappings, lists and tuples of any depth."""
    if isinstance(value, np.generic | np.ndarray):
        return value.item() if value.ndim == 0 else value
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return type(value)(plain(part) for part in value) if type(value) in (list, tuple) else value


def checked_width(name: str, factor: float, size_name: str, size: int, whole: Callable[[float], int]) -> int:
    """Return a width that is a multiple of a size.

    Args:
        name: of the factor in an error.
        factor: a positive number.
        size_name: name of the size in an error.
        size: the size.
        whole: rounds the product to a whole number. Before it the product is rounded to six decimals: 1.15 * 100 is
            114.99999999999999 in float64.

    Raises:
        UserError: the width is 0, or above 2^31 - 1.
    """
    width = whole(min(round(factor * size, 6), 2.0**31))
    if not 0 < width < 2**31:
        raise UserError(f"{name}: got {factor}, expected a product with {size_name}={size} from 1 to 2^31 - 1")
    return width


def checked(function: Function) -> Function:
    """Decorate a function or an ``__init__`` so that the arguments of its calls are checked by :func:`check`.

    An instance whose class has an attribute ``given_arguments`` keeps there the arguments of its constructor, with defaults.
    """
    signature = inspect.signature(function)
    supplied = {name for name in signature.parameters if name == "self"}

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        # A base class's constructor checks the arguments of the class that was called.
        label = type(args[0]).__name__ if supplied and args else _name(function)
        unknown = [name for name in kwargs if name not in signature.parameters]
        if unknown:
            known = [name for name in signature.parameters if name not in supplied]
            raise UserError(f"{label} takes no argument '{unknown[0]}'{suggestion(unknown[0], known)}")
        try:
            arguments = dict(signature.bind_partial(*args, **kwargs).arguments)
        except TypeError as error:
            raise UserError(f"{label}: {error}") from None
        owner = {name: arguments.pop(name) for name in supplied}
        given = check(function, arguments, skip=supplied)
        if hasattr(owner.get("self"), "given_arguments"):
            owner["self"].__dict__.setdefault("given_arguments", given)  # those of the outermost constructor
        return function(**owner, **given)

    return call  # type: ignore[return-value]


def extends(base: Callable[..., Any]) -> Callable[[Function], Function]:
    """Decorate a function with ``**rest`` that passes ``rest`` to ``base``; use it below :func:`checked`.

    The function's signature becomes that of ``base`` with the function's own parameters, which replace those of the same name
    and otherwise come last.
    """

    def decorate(function: Function) -> Function:
        inherited, own = inspect.signature(base).parameters, inspect.signature(function).parameters
        named = {name: p for name, p in own.items() if p.kind is not inspect.Parameter.VAR_KEYWORD}
        merged = [named.get(name, p) for name, p in inherited.items()]
        merged += [p for name, p in named.items() if name not in inherited]
        hints = get_type_hints(inspect.unwrap(base), include_extras=True) | get_type_hints(function, include_extras=True)
        function.__signature__ = inspect.Signature(merged)  # type: ignore[attr-defined]
        function.__annotations__ = {p.name: hints[p.name] for p in merged if p.name in hints}
        return function

    return decorate


def parameters(owner: Callable[..., Any], skip: Collection[str] = ()) -> dict[str, Any]:
    """Return the arguments of ``owner`` with their defaults, ``inspect.Parameter.empty`` for a required one."""
    signature = inspect.signature(owner)
    defaults = {name: p.default for name, p in signature.parameters.items() if name not in skip and name != "self"}
    if is_dataclass(owner):  # its signature has a placeholder for the default of a factory
        factories = {item.name: item.default_factory for item in fields(owner) if item.default_factory is not MISSING}
        defaults |= {name: factory() for name, factory in factories.items() if name in defaults}
    return defaults


def describe_arguments(instance: Any) -> str:
    """Return the ``given_arguments`` of an instance for ``repr``: all sizes, and others that differ from their defaults.

    A value that the constructor replaced, such as -1 for a size, is that of the attribute of the same name.
    """
    defaults = parameters(type(instance))
    shown = {}
    for name, value in instance.given_arguments.items():
        if name.endswith(("size", "order", "layers")) or value != defaults[name]:
            kept = getattr(instance, name, value)
            shown[name] = kept if isinstance(kept, int) and isinstance(value, int | None) else value
    return ", ".join(f"{name}={value!r}" for name, value in shown.items())


def complete_docstrings(owner: Class) -> Class:
    """List every argument of a class's constructor, inherited ones too, in its docstring and in that of its ``__init__``.

    A description is taken from the ``Args`` of the class or of the nearest base class that has one. A class without a
    constructor of its own also gets the paragraph ``Parameters:`` and the section ``Raises`` of its base class. Base classes
    must be complete already.
    """
    described: dict[str, str] = {}
    for part in reversed(owner.__mro__):
        described |= _described(inspect.cleandoc(vars(part).get("__doc__") or ""))
    names = [name for name in parameters(owner) if name in described]
    if not names:
        return owner
    section = "Args:\n" + "\n".join(described[name] for name in names)
    own = inspect.cleandoc(vars(owner).get("__doc__") or "")
    if own:
        before, _, after = _split_arguments(own)
        if "__init__" not in vars(owner):
            above, _, below = _split_arguments(inspect.cleandoc(owner.__base__.__doc__ or ""))
            if "Parameters:" not in before and (found := re.search(r"^Parameters:.*(?:\n.+)*", above, re.MULTILINE)):
                before = f"{before}\n\n{found[0]}"
            after = after or below
        owner.__doc__ = "\n\n".join(part for part in (before, section, after) if part)
    constructor = vars(owner).get("__init__")
    if constructor is not None and not constructor.__doc__:
        constructor.__doc__ = f"Check the arguments and initialise the instance.\n\n{section}"
    return owner


def _split_arguments(doc: str) -> tuple[str, str, str]:
    """Split a clean docstring at its ``Args``: the text before, the entries, the text after."""
    match = re.search(r"^Args:\n((?: .*\n?|\n(?= ))*)", doc, re.MULTILINE)
    if match:
        return doc[: match.start()].strip(), match[1], doc[match.end() :].strip()
    following = re.search(r"^(?:Returns|Raises|Attributes):\n", doc, re.MULTILINE)
    place = following.start() if following else len(doc)
    return doc[:place].strip(), "", doc[place:].strip()


def _described(doc: str) -> dict[str, str]:
    """Return the lines about each argument under ``Args`` of a clean docstring."""
    entries = re.finditer(r"^    (\w+): .*(?:\n {5,}.*)*", _split_arguments(doc)[1], re.MULTILINE)
    return {entry[1]: entry[0] for entry in entries}


@cache
def _schema(owner: Callable[..., Any], skip: frozenset[str]) -> Any:
    function = owner.__init__ if inspect.isclass(owner) else owner
    hints = get_type_hints(inspect.unwrap(function), include_extras=True)
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if default is inspect.Parameter.empty else default)
        for name, default in parameters(owner, skip).items()
    }
    config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True, protected_namespaces=(), allow_inf_nan=False)
    return create_model(_name(owner), __config__=config, **fields)


def _refuse_long_integers(given: Any, where: str) -> None:
    """Raise UserError for an integer beyond the 64 bits of a tensor's sizes."""
    if isinstance(given, Mapping | list | tuple):
        parts = given.items() if isinstance(given, Mapping) else enumerate(given)
        for name, value in parts:
            _refuse_long_integers(value, f"{where}.{name}".lstrip("."))
    elif isinstance(given, int) and given.bit_length() > 63:
        raise UserError(f"{where}: got {given}, expected an integer of at most 64 bits")


def _explained(error: ValidationError, owner: Any, given: Mapping[str, Any], where: str, schema: Any) -> UserError:
    items = error.errors()
    if len(items) == 1 and items[0]["type"] == "extra_forbidden":
        return _unknown(_path(items[0]["loc"], given), owner, where, schema)
    message = _explain(error, owner, given, where, schema)
    if any(item["type"] != "extra_forbidden" for item in items):
        return UserError(message)
    return UnknownArgumentError(message, [".".join([where, *_path(item["loc"], given)]).lstrip(".") for item in items])


def _unknown(path: list[str], owner: Any, where: str, schema: Any) -> UnknownArgumentError:
    """The error about an argument, or a key of an argument that is a typed dict, which does not exist."""
    key = ".".join(part for part in (where, *path) if part)
    hint = schema.model_fields[path[0]].annotation if len(path) > 1 else None
    choices = list(schema.model_fields) if hint is None else list(get_type_hints(hint))
    takes = f"{_name(owner)} takes no argument" if hint is None else f"{path[0]} has no key"
    fact = f"{key}: {takes} '{path[-1]}'"
    return UnknownArgumentError(fact + suggestion(path[-1], choices), [key], fact)


def _explain(error: ValidationError, owner: Any, given: Mapping[str, Any], where: str, schema: Any) -> str:
    problems: dict[str, list[str]] = {}
    nearest: dict[str, str] = {}
    for item in error.errors():
        path = _path(item["loc"], given)
        key = ".".join(part for part in (where, *path) if part)
        if item["type"] == "extra_forbidden":
            problems.setdefault(f"{key}: ", []).append(str(_unknown(path, owner, where, schema)).removeprefix(f"{key}: "))
        elif item["type"] == "missing":
            problems.setdefault(f"{'.'.join([key, str(item['loc'][-1])]).lstrip('.')}: ", []).append("a value is required")
        else:
            start = f"{key}: got {shorten(repr(item['input']), 80, placeholder=' ...')}, expected "
            said = item["msg"].removeprefix("Value error, ").partition(" after validation, not ")[0]
            expected = re.sub(r"^\w+ should (be|have) ", "", said)
            if item["type"] == "literal_error":
                choices = [choice.strip("' ") for choice in item["ctx"]["expected"].replace(" or ", ", ").split(",")]
                near = suggestion(item["input"], choices)
                nearest[start] = near if near.endswith("?") else ""
            problems.setdefault(start, []).append(expected)
    return "; ".join(start + " or ".join(dict.fromkeys(ends)) + nearest.get(start, "") for start, ends in problems.items())


def _path(location: tuple[int | str, ...], given: Any) -> list[str]:
    """The keys of ``location`` that exist in ``given``; pydantic mixes them with names of types."""
    path = []
    for part in location:
        try:
            given = given[part]
        except (KeyError, IndexError, TypeError):
            continue
        path.append(str(part))
    return path


def _name(owner: Any) -> str:
    own = getattr(owner, "name", None)
    return own if isinstance(own, str) else owner.__qualname__.removesuffix(".__init__")
