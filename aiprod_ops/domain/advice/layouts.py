"""Key orders that serve the needs of one table, merged into as few indexes as serve them all."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from aiprod_ops.domain.advice.coverage import Need, follows, serves
from aiprod_ops.domain.advice.options import LIMITED_ROWS, Target
from aiprod_ops.domain.advice.selectivity import commonest, is_spread, rarest
from aiprod_ops.domain.schema import Condition, Key, TableSize

#: Index entries that may be read and left out by a filter within the index: about 200 pages, 2 ms.
NEAR_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Wish:
    """A need of some statements, with their time; `cover` are further columns that they read, if these are few.

    One of a part of the table names as `whole` what would do instead: the same of all its rows.
    """

    need: Need
    target: Target
    times: Mapping[int, float]  #: total time by query id
    cover: tuple[Key, ...] = ()
    whole: tuple[Target, Need] | None = None

    @property
    def total(self) -> float:
        return sum(time for _, time in sorted(self.times.items()))


@dataclass(frozen=True, slots=True)
class Layout:
    """An order of keys, and the wishes that it serves."""

    keys: tuple[Key, ...]
    wishes: tuple[Wish, ...]

    @property
    def where(self) -> Condition | None:
        """What all rows of the index pass: its wishes are of one table, and of one part of it."""
        return self.wishes[0].need.where

    @property
    def times(self) -> dict[int, float]:
        """Total time of the statements served, each counted once."""
        times: dict[int, float] = {}
        for wish in self.wishes:
            for query_id, time in wish.times.items():
                times[query_id] = max(times.get(query_id, 0.0), time)
        return dict(sorted(times.items()))

    @property
    def total(self) -> float:
        return sum(self.times.values())


def layouts(wishes: Sequence[Wish], updated: frozenset[str], *, is_written: bool) -> list[Layout]:
    """As few indexes as serve all wishes of one table; `updated` are the columns that its updates set.

    A table that nobody is known to write has no price to save: there each need keeps the order that suits it best.
    """
    merged = _merged(_ordered(wishes, updated))
    if is_written:
        merged = _joined(merged)
    return _distinct([_covering(each, updated) for each in merged])


def nearly(keys: Sequence[Key], need: Need, size: TableSize) -> bool:
    """Whether these keys give the need at the price of a filter within the index.

    `(user, created)` with `status` behind it gives `user = … and status = … order by created`: entries of other
    statuses are passed over without a look at the table. That is cheap while the leading keys leave few entries, or
    where a LIMIT stops early: then no value of the filter may be rare, or stand together at the other end.
    Source: PostgreSQL manual, "Multicolumn Indexes" (constraints on columns to the right are checked in the index).
    """
    wanted = {(key.column, key.is_expression) for key in need.equals}
    count = next((n for n, key in enumerate(keys) if (key.column, key.is_expression) not in wanted), len(keys))
    lead, rest = keys[:count], keys[count:]
    filters = wanted - {(key.column, key.is_expression) for key in lead}
    if not lead or need.use == "like" or not filters <= {(key.column, key.is_expression) for key in rest}:
        return False
    if need.use in ("sort", "range") and not follows(rest, need):
        return False
    left = size.rows
    for key in lead:
        statistics = size.statistics.get(key.column)
        left *= commonest(statistics, size.rows) if statistics else 1.0
    return left <= NEAR_ROWS or (need.use == "sort" and _passed(filters, size) <= NEAR_ROWS)


def _passed(filters: Iterable[tuple[str, bool]], size: TableSize) -> float:
    """Entries that are read until a LIMIT is reached, if only those count that pass all filters; at worst."""
    passed = float(LIMITED_ROWS)
    for column, _ in sorted(filters):
        statistics = size.statistics.get(column)
        if statistics is None or not is_spread(statistics):
            return math.inf
        passed /= rarest(statistics, size.rows)
    return passed


def _ordered(wishes: Sequence[Wish], updated: frozenset[str]) -> list[Layout]:
    """Key orders, shortest first: equality columns are free, so a need begins with the longest shorter one in it.

    Columns that updates set come last among them: the new entry then lands beside the old one.
    """
    done: list[Layout] = []
    for wish in sorted(wishes, key=lambda each: (len(each.need.equals) + len(each.need.tail), repr(each.need))):
        equals = sorted(wish.need.equals, key=lambda key: key.column in updated)
        still = [key for key in equals if key.column not in updated] or equals
        prefixes = [each.keys for each in done if len(each.keys) <= len(equals) and _within(each.keys, still)]
        prefix = max(prefixes, key=lambda keys: (len(keys), repr(keys)), default=())
        columns = [key.column for key in prefix]
        rest = tuple(key for key in equals if key.column not in columns)
        done.append(Layout((*prefix, *rest, *wish.need.tail), (wish,)))
    return done


def _within(keys: Sequence[Key], equals: Sequence[Key]) -> bool:
    return {(key.column, key.is_expression) for key in keys} <= {(key.column, key.is_expression) for key in equals}


def _merged(ordered: Sequence[Layout]) -> list[Layout]:
    """As few indexes as serve all: the longest first, and each need goes to every one of those kept that serves it.

    >>> from aiprod_ops.domain.schema import Name
    >>> a, b = Key("a"), Key("b")
    >>> need = Need(Name("s", "t"), (a,), (b,), "sort")
    >>> serves((a, b), need), serves((b, a), need)
    (True, False)
    """
    kept: list[tuple[Key, ...]] = []
    longest = sorted(ordered, key=lambda each: (-len(each.keys), -each.total, repr(each.keys)))
    wishes = [wish for each in longest for wish in each.wishes]
    for layout in longest:
        if not any(serves(keys, layout.wishes[0].need) for keys in kept):
            kept.append(layout.keys)
    return [Layout(keys, tuple(wish for wish in wishes if serves(keys, wish.need))) for keys in kept]


def _joined(merged: Sequence[Layout]) -> list[Layout]:
    """Give up an index where another one, with the missing columns behind its keys, does nearly as well.

    Each index less saves an entry for every insert and every update that is not HOT. Least time served goes first.
    """
    kept = list(merged)
    for layout in sorted(merged, key=lambda each: (each.total, repr(each.keys))):
        others = [other for other in kept if other is not layout]
        able = [(other, wide) for other in others if (wide := _widened(other, layout)) is not None]
        if able and layout in kept:
            other, wide = min(able, key=lambda each: (len(each[1].keys), -each[0].total, repr(each[1].keys)))
            kept = [wide if each is other else each for each in kept if each is not layout]
    return kept


def _widened(layout: Layout, given_up: Layout) -> Layout | None:
    """The layout with what the other one's wishes miss behind its keys; None where that does not serve them."""
    have = {key.column for key in layout.keys}
    missing = [key for wish in given_up.wishes for key in wish.need.equals if key.column not in have]
    keys = (*layout.keys, *dict.fromkeys(missing))
    table_size = given_up.wishes[0].target.size
    if not all(serves(keys, wish.need) or nearly(keys, wish.need, table_size) for wish in given_up.wishes):
        return None
    more = tuple(wish for wish in given_up.wishes if wish not in layout.wishes)
    return Layout(keys, (*layout.wishes, *more))


def _covering(layout: Layout, updated: frozenset[str]) -> Layout:
    """The columns behind the keys with which a statement that reads many rows needs no look at the table.

    Not those that updates set: they would take HOT from updates that have it.
    """
    have = {key.column for key in layout.keys}
    wanted = dict.fromkeys(key for wish in layout.wishes for key in wish.cover if key.column not in have)
    return Layout((*layout.keys, *(key for key in wanted if key.column not in updated)), layout.wishes)


def _distinct(found: Sequence[Layout]) -> list[Layout]:
    """Without those that another one begins with: it serves their wishes, too."""
    kept: list[Layout] = []
    for layout in sorted(found, key=lambda each: (-len(each.keys), repr(each.keys))):
        longer = next((n for n, each in enumerate(kept) if each.keys[: len(layout.keys)] == layout.keys), None)
        if longer is None:
            kept.append(layout)
        else:
            more = tuple(wish for wish in layout.wishes if wish not in kept[longer].wishes)
            kept[longer] = Layout(kept[longer].keys, (*kept[longer].wishes, *more))
    return kept
