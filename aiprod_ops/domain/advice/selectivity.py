"""Which share of a table's rows a condition keeps, and how large an index gets, from ANALYZE's statistics.

A parameter's value is not known, so a condition is judged twice: by the rarest value (what an index can gain) and by
the average one (what a join or a limit may count on).
"""

import math
from collections.abc import Sequence

from aiprod_ops.domain.schema import ColumnStatistics, Condition, Key, Table, TableSize
from aiprod_ops.units import Bytes

#: Above this share an index scan reads about as many pages as the table has: a page read out of order is priced at
#: four in order (`random_page_cost` 4, `seq_page_cost` 1), and a page holds tens of rows.
#: Source: PostgreSQL manual, "Planner Cost Constants".
POOR = 0.10
#: The same where the table lies in the order of the column: matching rows then share their pages.
CLUSTERED = 0.20
#: A key that leaves more than half of the rows even for its rarest value only makes the index larger.
IDLE = 0.50
#: Shares that the planner takes for a comparison with an unknown value; ours for a range is what a narrow one keeps.
#: Source: PostgreSQL source, selfuncs.h (DEFAULT_INEQ_SEL 0.3333, DEFAULT_MATCH_SEL 0.005).
WIDE_RANGE, NARROW_RANGE, PREFIX = 0.3333, 0.05, 0.005

_PAGE = 8192 - 24 - 16  #: without page header and b-tree special space ("Database Page Layout")
_POINTER, _HEADER, _TUPLE_ID = 4, 8, 6
_FILL = 0.90  #: default fillfactor of b-tree leaf pages (CREATE INDEX, "Index Storage Parameters")
_POSTING = 1350  #: a posting list is at most a sixth of a page (nbtree README, "Notes about deduplication")
_NOT_DEDUPLICATED = ("numeric", "jsonb", "real", "double precision")


def bar(column: ColumnStatistics) -> float:
    """The share above which reading by this column gains nothing, between POOR and CLUSTERED by correlation squared.

    Source: PostgreSQL source, cost_index(): pages read are interpolated by the square of the correlation.
    """
    return POOR + (CLUSTERED - POOR) * min(1.0, column.correlation**2)


def rarest(column: ColumnStatistics, rows: float) -> float:
    """Share of the rarest value known: the least common of the list, or an average one of those not listed."""
    listed = column.frequencies
    others = max(column.distinct, 1.0) - len(listed)
    rest = max(0.0, 1.0 - column.null_fraction - sum(listed))
    shares = [*listed, rest / others] if others >= 1 and (rest > 0 or not listed) else [*listed]
    return _share(min(shares, default=1.0), rows)


def average(column: ColumnStatistics, rows: float) -> float:
    """Share of one value, all values being asked for equally often (the planner's guess for a generic plan)."""
    return _share((1.0 - column.null_fraction) / max(column.distinct, 1.0), rows)


def commonest(column: ColumnStatistics, rows: float) -> float:
    """Share of the most common value."""
    return max((*column.frequencies, average(column, rows)))


def share_of(condition: Condition, table: Table, size: TableSize) -> float | None:
    """Which share of the rows passes; None where nobody knows, and where none can: the column is NOT NULL."""
    column, known = table.column(condition.column), size.statistics.get(condition.column)
    if column is None or known is None or (column.is_not_null and "NULL" in condition.form):
        return None
    if "NULL" in condition.form:
        share = 1.0 - known.null_fraction if "NOT" in condition.form else known.null_fraction
    elif known.true is None:
        return None
    else:
        share = 1.0 - known.null_fraction - known.true if "NOT" in condition.form else known.true
    return _share(share, size.rows)


def is_spread(column: ColumnStatistics) -> bool:
    """Whether equal values lie scattered over the table, not together at one end.

    ANALYZE counts equal values as being in order, so a column that chance has spread shows a correlation of the sum of
    its squared shares; what lies together shows more. Source: PostgreSQL source, analyze.c, compute_scalar_stats().
    """
    rest = max(0.0, 1.0 - column.null_fraction - sum(column.frequencies))
    return abs(column.correlation) <= sum(share**2 for share in column.frequencies) + rest**2 + 0.05


def _share(value: float, rows: float) -> float:
    return min(1.0, max(value, 1.0 / max(rows, 1.0)))


def index_size(keys: Sequence[Key], table: Table, size: TableSize) -> Bytes:
    """Size of a b-tree just built: item pointer 4 B, header 8 B and keys aligned to 8, leaves filled to 90 %.

    Equal keys are joined into posting lists, 6 B for each row, where the types allow it; of several columns the
    distinct combinations are taken as the product, at the most one for each row.
    Source: PostgreSQL manual, "Database Page Layout", "B-Tree Indexes: Deduplication".
    """
    known = [size.statistics.get(key.column) for key in keys]
    item = _POINTER + _aligned(_HEADER + width(keys, size))
    combinations = math.prod(max(column.distinct, 1.0) if column else size.rows for column in known)
    groups = min(max(combinations, 1.0), max(size.rows, 1.0))
    data = size.rows * item
    if all(_deduplicates(key, table) for key in keys) and size.rows > groups:
        lists = groups * max(1.0, size.rows / groups * _TUPLE_ID / _POSTING)
        data = min(data, lists * item + size.rows * _TUPLE_ID)
    pages = 1 + math.ceil(data / (_PAGE * _FILL) * 1.005)
    return Bytes(pages * 8192)


def width(keys: Sequence[Key], size: TableSize) -> int:
    """Average bytes of the keys of one entry; NULLs take none."""
    known = [size.statistics.get(key.column) for key in keys]
    return sum(min(column.width_bytes, 2000) if column else 16 for column in known)


def _aligned(width: int) -> int:
    return -(-width // 8) * 8


def _deduplicates(key: Key, table: Table) -> bool:
    column = table.column(key.column)
    return column is None or not (column.type.startswith(_NOT_DEDUPLICATED) or column.type.endswith("[]"))
