"""The space of a search: Hydra's sweep overrides as distributions of Optuna."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from math import prod
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Transformer
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from seqmem.errors import UserError

_most_choices = 10_000


@dataclass(frozen=True)
class Dimension:
    """A key that is searched.

    Attributes:
        key: as in the override, perhaps with "+".
        distribution: of its values.
        texts: the values of a choice as in an override; empty for numbers of an interval or a range.
        fractions: the values of a range of fractions, as a sweep has them; empty for others.
    """

    key: str
    distribution: BaseDistribution
    texts: tuple[str, ...] = ()
    fractions: tuple[float, ...] = ()

    def override(self, value: Any) -> str:
        """Return the override that gives the key a value of the distribution."""
        if isinstance(self.distribution, CategoricalDistribution):
            return f"{self.key}={self.texts[self.distribution.choices.index(value)]}"
        return f"{self.key}={self.trained(value)!r}"

    def trained(self, value: Any) -> Any:
        """Return the value that is trained: of a range that of a sweep, from which Optuna's differs by rounding."""
        return min(self.fractions, key=lambda each: abs(each - value)) if self.fractions else value

    def values(self) -> list[Any]:
        """Return all values.

        Raises:
            UserError: there are infinitely many.
        """
        found = self.distribution
        if isinstance(found, CategoricalDistribution):
            return list(found.choices)
        if isinstance(found, IntDistribution):
            return list(range(found.low, found.high + 1, found.step))
        assert isinstance(found, FloatDistribution)
        if found.step is None:
            raise UserError(f"{self.key}: got an interval with hydra.sweeper.sampler=grid, expected values or a range")
        low, step = Decimal(str(found.low)), Decimal(str(found.step))
        return [float(low + k * step) for k in range(len(self.fractions))]


@dataclass(frozen=True)
class Space:
    """What a search varies, and what it keeps.

    Attributes:
        dimensions: by the key without "+".
        fixed: overrides of every point, by the key.
        order: keys of both in the order of the command line.
    """

    dimensions: dict[str, Dimension]
    fixed: dict[str, str]
    order: tuple[str, ...]

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The distribution of each key."""
        return {key: dimension.distribution for key, dimension in self.dimensions.items()}

    def overrides(self, parameters: Mapping[str, Any]) -> list[str]:
        """Return the overrides of a point.

        Args:
            parameters: a value for each key.
        """
        searched = {key: dimension.override(parameters[key]) for key, dimension in self.dimensions.items()}
        return [({**self.fixed, **searched})[key] for key in self.order]

    def grid(self) -> dict[str, list[Any]]:
        """Return all values of each key.

        Raises:
            UserError: a key has infinitely many.
        """
        return {key: dimension.values() for key, dimension in self.dimensions.items()}

    def size(self) -> int:
        """Return the number of points of the grid, as for :meth:`grid`."""
        return prod(map(len, self.grid().values()))


def space_of(overrides: Sequence[Override]) -> Space:
    """Return the space of a command line.

    An interval is continuous, or holds the integers of ``int(interval(1,9))``. A range has the values that a sweep would have,
    without its end. ``tag(log, ...)`` draws the logarithm uniformly.

    Raises:
        UserError: nothing is searched, or an interval or range is empty.
    """
    dimensions, fixed = {}, {}
    for override in overrides:
        name = override.key_or_group
        if override.is_sweep_override():
            dimensions[name] = _dimension(override)
        else:
            fixed[name] = override.input_line or ""
    if not dimensions:
        raise UserError(
            "hydra/sweeper=optuna: got no key with several values, expected one such as 'train.lr=interval(0.001,0.1)'"
        )
    return Space(dimensions, fixed, tuple(override.key_or_group for override in overrides))


def _dimension(override: Override) -> Dimension:
    value, key = override.value(), (override.input_line or "").partition("=")[0]
    log = "log" in getattr(value, "tags", ())
    try:
        if isinstance(value, IntervalSweep):
            return Dimension(key, _interval(value, log))
        if isinstance(value, RangeSweep):
            found = _range(value, log)
            return Dimension(key, found, fractions=_fractions(value) if isinstance(found, FloatDistribution) else ())
        return _choice(key, override)
    except (ValueError, HydraException) as error:
        text = (override.input_line or "").partition("=")[2]
        raise UserError(f"{key}: got {text}, which cannot be searched: {error}") from None


def _interval(value: IntervalSweep, log: bool) -> BaseDistribution:
    low, high = value.start, value.end
    if low is None or high is None or not low <= high:
        raise ValueError("the lower end comes first")
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(float(low), float(high), log=log)


def _range(value: RangeSweep, log: bool) -> BaseDistribution:
    found = list(islice(value.range(), _most_choices))
    if not found:
        raise ValueError("it has no value")
    low, high, step = min(found), max(found), abs(value.step)
    if all(isinstance(each, int) for each in found):
        return IntDistribution(int(low), int(high), log=log, step=1 if len(found) == 1 else int(step))
    if log:
        raise ValueError("a range of fractions has no logarithm; expected an interval")
    # Both ends in decimals, of whose difference Optuna takes the rest of the division by the step.
    first = Decimal(str(value.start))
    ends = sorted((first, first + (len(found) - 1) * Decimal(str(value.step))))
    return FloatDistribution(*map(float, ends), step=float(step))


def _fractions(value: RangeSweep) -> tuple[float, ...]:
    return tuple(float(each) for each in islice(value.range(), _most_choices))


def _choice(key: str, override: Override) -> Dimension:
    texts = list(dict.fromkeys(str(each) for each in override.sweep_string_iterator()))
    plain = list(override.sweep_iterator(transformer=Transformer.encode))
    # Optuna takes 1, 1.0 and true for the same choice.
    choices = plain if len(set(plain)) == len(plain) == len(texts) and all(map(_is_plain, plain)) else texts
    return Dimension(key, CategoricalDistribution(choices), tuple(texts))


def _is_plain(value: Any) -> bool:
    return type(value) in (bool, int, float, str)
