"""Drawing a rare, a median and a common value of a column from pg_stats: real values, picked by rule, not by chance."""

from dataclasses import dataclass

from aiprod_ops.domain.values.literals import quote
from aiprod_ops.domain.values.parts import element, json_key, json_member

#: Where in the histogram one end of a range is taken, by value class: few rows, half of them, nearly all.
_ONE_SIDED = {">": {"rare": 0.95, "median": 0.50, "common": 0.05}, "<": {"rare": 0.05, "median": 0.50, "common": 0.95}}
#: The same for both ends of one range: a twentieth of the rows, half of them, nine tenths.
_TWO_SIDED = {
    ">": {"rare": 0.50, "median": 0.25, "common": 0.05},
    "<": {"rare": 0.55, "median": 0.75, "common": 0.95},
}
_SPREAD = {"rare": 0.05, "median": 0.50, "common": 0.95}
_PREFIX = 3  #: characters of a value that the shortest LIKE pattern keeps


@dataclass(frozen=True, slots=True)
class ColumnValues:
    """A column's real values: the most common with their share, and the histogram's bounds, both in pg_stats' order.

    All as the type's output function writes them, unquoted. Users' data: measured with, never stored and never shown.
    Source: PostgreSQL manual, view pg_stats (most_common_vals, most_common_freqs, histogram_bounds).
    """

    common: tuple[tuple[str, float], ...] = ()
    bounds: tuple[str, ...] = ()
    type: str = ""


def is_drawable(column: ColumnValues) -> bool:
    """Whether it has any value at all."""
    return bool(column.common or column.bounds)


def draw(kind: str, operator: str, column: ColumnValues, *, is_pair: bool = False) -> str:
    """An SQL literal of one value class (`rare`, `median`, `common`) for a comparison. The column must be drawable.

    Values outside the most common ones are rarer than all of those, so a rare one is the middle bound of the histogram.
    A SET gets the same value in each class: what is written does not decide which rows are read.
    """
    if operator in ("<", ">"):
        ends = _TWO_SIDED if is_pair else _ONE_SIDED
        return quote(_at(_ordered(column), ends[operator][kind]))
    value = _single("common" if operator == "set" else kind, column)
    if operator.split(" ", 1)[0] in PARTS:
        return quote(_part(operator, value))
    if operator == "any":
        return quote(_array(value))
    return quote(_pattern(value, kind) if operator == "like" else value)


#: Operators of slots that are compared with a part of a value: an array's element, a JSON object's key, its member.
PARTS = ("element", "key", "member")


def _part(operator: str, value: str) -> str:
    """The part of a real value, or the value itself where it has none."""
    base, _, key = operator.partition(" ")
    found = element(value) if base == "element" else json_key(value) if base == "key" else json_member(value, key)
    return value if found is None else found


def _single(kind: str, column: ColumnValues) -> str:
    common = [value for value, _ in column.common]
    if not common:
        return _at(column.bounds, _SPREAD[kind])
    if kind == "common":
        return common[0]
    if kind == "rare":
        return _at(column.bounds, 0.5) if column.bounds else common[-1]
    if len(common) > 1:
        return common[len(common) // 2]
    return _at(column.bounds, 0.25) if column.bounds else common[0]


def _ordered(column: ColumnValues) -> tuple[str, ...]:
    """The bounds; without a histogram the common values, as numbers where all are."""
    if column.bounds:
        return column.bounds
    values = [value for value, _ in column.common]
    try:
        return tuple(sorted(values, key=float))
    except ValueError:
        return tuple(sorted(values))


def _at(values: tuple[str, ...], share: float) -> str:
    return values[round(share * (len(values) - 1))]


def _pattern(value: str, kind: str) -> str:
    """`abc%` from a real value: all of it, half, or its first characters; wildcards are escaped (manual, "LIKE")."""
    kept = {"rare": len(value), "median": max(_PREFIX, len(value) // 2), "common": _PREFIX}
    start = value[: kept[kind]]
    for special in ("\\", "%", "_"):
        start = start.replace(special, "\\" + special)
    return start + "%"


def _array(value: str) -> str:
    """A one-dimensional array of one value (PostgreSQL manual, "Array Value Input")."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{{"{escaped}"}}'
