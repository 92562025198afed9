"""Settings that a config selects by name, with arguments checked against their fields."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from seqmem import plugins
from seqmem.arguments import check
from seqmem.errors import UserError, suggestion


class Selectable:
    """Base of the dataclasses behind one config key.

    A direct subclass opens a registry and sets ``key``. Below it, a subclass with a class attribute ``name`` is registered.

    Attributes:
        key: the config key that holds the name; the arguments are under ``KEY_args``.
        name: name in the config.
    """

    key: ClassVar[str]
    name: ClassVar[str]
    _registry: ClassVar[dict[str, Any]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if Selectable in cls.__bases__:
            cls._registry = {}
        elif "name" in cls.__dict__:
            plugins.register(cls._registry, cls)

    @classmethod
    def names(cls) -> list[str]:
        """Return all names, sorted."""
        return sorted(cls._registry)

    @classmethod
    def named(cls, name: str) -> type[Self]:
        """Return the class of a name.

        Raises:
            UserError: an unknown name.
        """
        if name not in cls._registry:
            raise UserError(f"{cls.key}: got '{name}', expected a registered name{suggestion(name, cls.names())}")
        return cls._registry[name]

    @classmethod
    def select(cls, name: str, arguments: Mapping[str, Any] | None = None) -> Self:
        """Create the one of a name.

        Args:
            name: from the config.
            arguments: from the config; None for the defaults.

        Raises:
            UserError: an unknown name, an unknown argument, or a value of the wrong type or range.
        """
        chosen = cls.named(name)
        return chosen(**check(chosen, arguments or {}, f"{cls.key}_args"))
