"""What `service.toml` promises of tiers and prices: [tiers.NAME], [prices]."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from aiprod_ops.config import Promises
from aiprod_ops.domain.tiers import Prices, Tier
from aiprod_ops.errors import ConfigurationError

_NUMBERS = tuple(each.name for each in fields(Tier) if each.name != "name")
_MOST = 2**53  #: Redis' Lua counts in doubles


def tiers(promises: Promises) -> dict[str, Tier]:
    """By name. Raises ConfigurationError where a value is missing, unknown or no whole number from 1."""
    read = {name: _numbers(promises, f"tiers.{name}", _NUMBERS) for name in _table(promises, "tiers")}
    return {name: Tier(name, **numbers) for name, numbers in read.items()}


def prices(promises: Promises) -> Prices:
    """Raises ConfigurationError where a price is no whole number from 1."""
    return Prices(_numbers(promises, "prices", tuple(_table(promises, "prices"))))


def _numbers(promises: Promises, path: str, names: tuple[str, ...]) -> dict[str, int]:
    table = _table(promises, path)
    if set(table) != set(names):
        lacking = [f"lacks {', '.join(sorted(set(names) - set(table)))}"] if set(names) - set(table) else []
        unknown = [f"has unknown keys: {', '.join(sorted(set(table) - set(names)))}"] if set(table) - set(names) else []
        raise ConfigurationError(
            f"{promises.origin}: [{path}] {' and '.join([*lacking, *unknown])}",
            hint=f"expected {', '.join(names)}: of your own file the whole table counts",
        )
    for name, value in table.items():
        if type(value) is not int or not 1 <= value <= _MOST:
            raise ConfigurationError(
                f"{promises.origin}: {path}.{name} is {value!r}, expected a whole number from 1 to 2^53"
            )
    return dict(table)


def _table(promises: Promises, path: str) -> Mapping[str, Any]:
    value = promises.get(path)
    if not isinstance(value, Mapping) or not value:
        raise ConfigurationError(f"{promises.origin}: {path} is {value!r}, expected a table")
    return value
