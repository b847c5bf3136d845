"""Partial indexes: for statements that want a small part of a table, by a condition that holds no value.

`processed_at IS NULL`, `NOT sent`, and what a comparison implies, `parent = $1` of a column that is mostly NULL: these
stand in the statement as they are, so a generic plan proves the predicate as well as a custom one. A literal does not:
in a normalised statement it is a parameter, and no plan with a parameter takes an index of `status = 'queued'`.
Source: PostgreSQL manual, "Partial Indexes"; predicate_implied_by() in optimizer/util/predtest.c.
"""

from collections.abc import Iterator
from dataclasses import replace

from aiprod_ops.domain.advice.coverage import Need
from aiprod_ops.domain.advice.options import Option, Target, option
from aiprod_ops.domain.advice.selectivity import POOR, share_of
from aiprod_ops.domain.schema import Condition, Key

#: A larger part is served by the whole index, which other statements can share.
PART = 0.2
_NOT_NULL = "{} IS NOT NULL"
_NARROW_BYTES = 32  #: a key that only points to the rows is no wider


def partial(target: Target, need: Need | None) -> tuple[Target, Need] | None:
    """The smallest part of the table that the statement asks for, and what it needs there; None where that is much.

    `need` is what it needs of the whole table: one that is by a join stays as it is, the other side asks for it.
    """
    whole = option(target)
    if (whole.need if whole else None) != need:
        return None
    for part in parts(target):
        if part.share > PART:
            return None
        found = needed(part)
        if found is not None:
            return part, found
    return None


def parts(target: Target) -> list[Target]:
    """The target as seen by each of its conditions, the smallest part first."""
    found = [_part(target, condition) for condition in dict.fromkeys(_conditions(target))]
    return sorted((each for each in found if each is not None), key=lambda each: (each.share, repr(each.where)))


def needed(part: Target) -> Need | None:
    """What the statement needs of a part; None where its index would serve no better than reading the table."""
    found: Option | None = option(part)
    if found is not None:
        return replace(found.need, where=part.where)
    key = _narrow_key(part) if part.share <= POOR else None
    return Need(part.table.name, (), (key,), "part", part.where) if key else None


def _conditions(target: Target) -> Iterator[Condition]:
    """Those that stand there, and IS NOT NULL of what is compared: a comparison is never true of NULL."""
    access = target.access
    yield from access.conditions
    for column in (*access.equal, *access.ranges):
        if column not in (*access.lists, *access.nulls, *access.expressions):
            yield Condition(column, _NOT_NULL)


def _part(target: Target, condition: Condition) -> Target | None:
    share = share_of(condition, target.table, target.size)
    if share is None:
        return None
    access, column = target.access, condition.column
    if condition.form != _NOT_NULL:
        equal, nulls = ([each for each in columns if each != column] for columns in (access.equal, access.nulls))
        access = replace(access, equal=tuple(equal), nulls=tuple(nulls))
    size = replace(target.size, rows=target.size.rows * share)
    return replace(target, access=access, size=size, where=condition, share=share)


def _narrow_key(part: Target) -> Key | None:
    """Something to index where the condition alone tells the rows: the key of a unique index, or the column itself."""
    unique = [index.keys[0] for index in part.table.indexes if index.is_unique and len(index.keys) == 1]
    able = [*(key for key in unique if not key.is_expression), *([Key(part.where.column)] if part.where else [])]
    for key in able:
        known = part.size.statistics.get(key.column)
        if part.column(key.column) is not None and known is not None and known.width_bytes <= _NARROW_BYTES:
            return replace(key, descending=False, nulls_first=False)
    return None
