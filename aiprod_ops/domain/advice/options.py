"""The keys that would help one relation: equality first, then sort, else one range or one LIKE prefix.

Source: PostgreSQL manual, "Multicolumn Indexes", "Indexes and ORDER BY".
"""

from collections.abc import Sequence
from dataclasses import dataclass

from aiprod_ops.domain.advice.coverage import Need, flipped
from aiprod_ops.domain.advice.selectivity import (
    IDLE,
    NARROW_RANGE,
    POOR,
    PREFIX,
    WIDE_RANGE,
    average,
    bar,
    commonest,
    rarest,
    share_of,
)
from aiprod_ops.domain.schema import Column, ColumnStatistics, Condition, Key, Table, TableSize
from aiprod_ops.domain.sql.queries import Access

#: With so few rows left for the most common value, one more key saves less than it costs to maintain.
FEW_ROWS = 10
#: Rows that share a sort key and are left to be sorted.
FEW_TIES = 2
#: Rows that a LIMIT is taken to stop at: its value is not known.
LIMITED_ROWS = 100

_PATTERN_CLASSES = (("character varying", "varchar_pattern_ops"), ("character", "bpchar_pattern_ops"))


class Unknown(ValueError):
    """A table or its statistics are not known; the message says which."""


@dataclass(frozen=True, slots=True)
class Target:
    """One access with what is known of its table, or of the part of it that passes `where`: a `share` of all rows."""

    access: Access
    table: Table
    size: TableSize
    where: Condition | None = None
    share: float = 1.0

    def statistics(self, column: str) -> ColumnStatistics:
        """Of a column, or of the one an expression is over. Raises Unknown."""
        found = self.size.statistics.get(self.base(column))
        if found is None:
            if not self.size.statistics:
                raise Unknown(f"no statistics of {self.table.name}: ANALYZE never ran, or this role may not read them")
            raise Unknown(f"no statistics of column {column} of {self.table.name}")
        return found

    def fixed(self, column: str) -> float | None:
        """The share of the rows that pass what the statement says of a column without a value; None if it does not."""
        said = (each for each in self.access.conditions if each.column == column and each.form != "{} IS NOT NULL")
        shares = (share_of(each, self.table, self.size) for each in said)
        found = next((share for share in shares if share is not None), None)
        return self.statistics(column).null_fraction if found is None and column in self.access.nulls else found

    def base(self, column: str) -> str:
        """The column that an expression such as `lower(email)` is over."""
        if column not in self.access.expressions:
            return column
        inner = column[column.index("(") + 1 : -1]
        return inner[1:-1].replace('""', '"') if inner.startswith('"') else inner

    def column(self, column: str) -> Column | None:
        """As declared, if a b-tree can order it."""
        found = self.table.column(self.base(column))
        return found if found is not None and found.btree else None

    def key(self, column: str) -> Key:
        return Key(column, is_expression=column in self.access.expressions)


@dataclass(frozen=True, slots=True)
class Option:
    """A need, and how many rows it leaves to an average value."""

    need: Need
    rows: float


def option(target: Target, by_join: tuple[str, ...] = ()) -> Option | None:
    """What would help one relation on its own, or looked up by these join columns; None where nothing does."""
    access, rows = target.access, target.size.rows
    equals, share, most = _equals(target, by_join)
    plain = [column for column in equals if column not in access.lists]
    order = _sort(target, (*by_join, *(c for c in access.equal if c not in access.lists)))
    left = rows * _average(target, (*by_join, *access.equal))
    keys = tuple(target.key(column) for column in equals)
    name = target.table.name
    if order and access.limit and not access.prefixes and len(plain) == len(equals):
        return Option(Need(name, keys, order, "sort"), min(left, LIMITED_ROWS))
    tail, use, narrow, wide = _tail(target, equals, order) if most > FEW_ROWS else ((), "", 1.0, 1.0)
    if not use and order and equals and len(plain) == len(equals) and most > FEW_ROWS:
        tail, use = order, "soft"
    if not keys and not tail:
        return None
    if share * narrow > bar(target.statistics((*keys, *tail)[0].column)):
        return None
    return Option(Need(name, keys, tail, use), left * wide)


def _equals(target: Target, by_join: tuple[str, ...]) -> tuple[tuple[str, ...], float, float]:
    """Equality columns that earn a key, most selective first, with the share of the rarest and rows of the commonest.

    Join columns come first: they are what the lookup is by.
    """
    access, rows = target.access, target.size.rows
    usable = [column for column in access.equal if target.column(column) is not None and column not in by_join]
    ranked = sorted(usable, key=lambda c: (c in access.lists, average(target.statistics(c), rows), c))
    chosen: list[str] = []
    share, most = 1.0, rows
    for column in (*by_join, *ranked):
        statistics = target.statistics(column)
        low, high = rarest(statistics, rows), commonest(statistics, rows)
        if (known := target.fixed(column)) is not None:
            low = high = known
        if low > IDLE or most <= FEW_ROWS:
            continue
        chosen.append(column)
        share, most = share * low, most * high
    return tuple(chosen), share, most


def _average(target: Target, equals: Sequence[str]) -> float:
    """Share of the rows that an average value of each equality column leaves."""
    share = 1.0
    for column in dict.fromkeys(equals):
        if target.table.column(target.base(column)) is None:
            continue
        known = target.fixed(column)
        share *= known if known is not None else average(target.statistics(column), target.size.rows)
    return max(share, 1.0 / max(target.size.rows, 1.0))


def _sort(target: Target, fixed: Sequence[str]) -> tuple[Key, ...]:
    """The sort keys that are left when equality fixes some, read forwards; none when one cannot be ordered.

    What stands behind a nearly unique key only orders a few ties, and the server sorts those as it reads ("incremental
    sort", since PostgreSQL 13): it earns no key.
    """
    keys: list[Key] = []
    for column, descending, nulls_first in target.access.sort:
        if target.column(column) is None:
            return ()
        if column not in fixed and column not in [key.column for key in keys]:
            keys.append(Key(column, descending, nulls_first, is_expression=column in target.access.expressions))
            if average(target.statistics(column), target.size.rows) * target.size.rows <= FEW_TIES:
                break
    return flipped(keys) if keys and keys[0].descending else tuple(keys)


def _tail(target: Target, equals: tuple[str, ...], order: tuple[Key, ...]) -> tuple[tuple[Key, ...], str, float, float]:
    """One LIKE prefix or one range column after the equality ones, with the share of a narrow and of a wide one.

    Only one: columns behind a range do not narrow what is read ("Multicolumn Indexes").
    """
    access = target.access
    for column in access.prefixes:
        declared = target.column(column)
        if declared is not None and declared.is_text and column not in equals and _varies(target, column):
            return (_pattern(target, column, declared),), "like", PREFIX, PREFIX
    ranges = [c for c in access.ranges if target.column(c) is not None and c not in equals and _varies(target, c)]
    if not ranges:
        return (), "", 1.0, 1.0
    sorted_by = order[0].column if order else ""
    best = min(ranges, key=lambda c: (c != sorted_by, -target.statistics(c).distinct, c))
    return (target.key(best),), "range", NARROW_RANGE, WIDE_RANGE


def _varies(target: Target, column: str) -> bool:
    return average(target.statistics(column), target.size.rows) <= POOR


def _pattern(target: Target, column: str, declared: Column) -> Key:
    """Source: PostgreSQL manual, "Operator Classes": pattern classes serve LIKE where the collation is not C."""
    if declared.is_c_collated:
        return target.key(column)
    name = next((name for start, name in _PATTERN_CLASSES if declared.type.startswith(start)), "text_pattern_ops")
    return Key(column, operator_class=name, is_expression=column in target.access.expressions)
