"""Which indexes a workload is missing: the needs of its statements, merged into as few b-trees as serve them all."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from aiprod_ops.domain.advice.coverage import Need, NewIndex, exists, is_usable, name_for, serves, serving
from aiprod_ops.domain.advice.needs import needs
from aiprod_ops.domain.advice.options import Target
from aiprod_ops.domain.advice.selectivity import index_size
from aiprod_ops.domain.schema import Key, Name, Schema, TableSize
from aiprod_ops.domain.sql.queries import Unreadable, read
from aiprod_ops.domain.statements import Statement
from aiprod_ops.units import Bytes, show

__all__ = ["MOST_FOR_TABLE", "Advice", "Candidate", "Need", "NewIndex", "advise", "exists", "is_usable", "serves"]

#: No more for one table at once: each index costs every write; the eight of the seeds took WAL from 13 to 24 kB a job.
MOST_FOR_TABLE = 5


@dataclass(frozen=True, slots=True)
class Candidate:
    """An index worth proving, with the statements it is for (query ids, sorted) and its size as estimated."""

    index: NewIndex
    serves: tuple[int, ...]
    size: Bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Advice:
    """Candidates, largest total time served first; `unread` holds (query id, reason) of what could not be judged."""

    candidates: tuple[Candidate, ...] = ()
    unread: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Wish:
    """A need of some statements, with their time."""

    need: Need
    target: Target
    times: Mapping[int, float]  #: total time by query id

    @property
    def total(self) -> float:
        return sum(time for _, time in sorted(self.times.items()))


def advise(statements: Sequence[Statement], schema: Schema, sizes: Mapping[str, TableSize]) -> Advice:
    """The indexes that these statements miss. Pure: the order of statements does not matter.

    Never what an existing valid, full b-tree already serves, never a partial index (a generic plan cannot use one).
    What it proposes is a hypothesis to be measured on a copy. Time: quadratic in the needs of one table.
    """
    wishes: dict[Need, _Wish] = {}
    unread: list[tuple[int, str]] = []
    for statement in sorted(statements, key=lambda each: (each.query_id, each.text)):
        try:
            found, unknown = needs(read(statement.text, schema), schema, sizes)
        except Unreadable as exc:
            found, unknown = [], [str(exc)]
        unread += [(statement.query_id, reason) for reason in unknown]
        for target, need in found:
            if serving(target.table, need) is None:
                known = wishes.get(need)
                times = dict(known.times) if known else {}
                times[statement.query_id] = max(times.get(statement.query_id, 0.0), statement.total)
                wishes[need] = _Wish(need, known.target if known else target, times)
    tables: dict[Name, list[_Wish]] = {}
    for wish in wishes.values():
        tables.setdefault(wish.need.table, []).append(wish)
    taken = _names(schema)
    proposed = [each for name in sorted(tables) for each in _for_table(tables[name], taken[name.schema])]
    proposed.sort(key=lambda each: (-each[0], str(each[1].index.name)))
    return Advice(tuple(candidate for _, candidate in proposed), tuple(sorted(set(unread))))


def _names(schema: Schema) -> dict[str, set[str]]:
    """Relation names in use by schema: tables and indexes share one name space ("Schemas")."""
    taken: dict[str, set[str]] = {}
    for table in schema.tables:
        taken.setdefault(table.name.schema, set()).update(
            {table.name.name, *(index.name.name for index in table.indexes)}
        )
    for name in schema.taken:
        taken.setdefault(name.schema, set()).add(name.name)
    return taken


def _for_table(wishes: Sequence[_Wish], taken: set[str]) -> Iterator[tuple[float, Candidate]]:
    table, size = wishes[0].target.table, wishes[0].target.size
    merged = _merged(_ordered(wishes))
    ranked = sorted(merged, key=lambda each: (-_time(each[1]), [key.column for key in each[0]]))[:MOST_FOR_TABLE]
    for keys, served in ranked:
        name = name_for(table, keys, taken)
        taken.add(name.name)
        ids = sorted({query_id for wish in served for query_id in wish.times})
        best = max(served, key=lambda wish: (wish.need.use == "sort", wish.total, repr(wish.need)))
        index = NewIndex(name, table.name, keys)
        yield _time(served), Candidate(index, tuple(ids), index_size(keys, table, size), _reason(best))


def _time(wishes: Iterable[_Wish]) -> float:
    """Total time of the statements served, each counted once."""
    times: dict[int, float] = {}
    for wish in wishes:
        for query_id, time in wish.times.items():
            times[query_id] = max(times.get(query_id, 0.0), time)
    return sum(time for _, time in sorted(times.items()))


def _ordered(wishes: Sequence[_Wish]) -> list[tuple[tuple[Key, ...], _Wish]]:
    """Key orders, shortest first: equality columns are free, so a need begins with the longest shorter one in it."""
    done: list[tuple[tuple[Key, ...], _Wish]] = []
    for wish in sorted(wishes, key=lambda each: (len(each.need.equals) + len(each.need.tail), repr(each.need))):
        equals = wish.need.equals
        prefixes = [keys for keys, _ in done if len(keys) <= len(equals) and _within(keys, equals)]
        prefix = max(prefixes, key=lambda keys: (len(keys), repr(keys)), default=())
        columns = [key.column for key in prefix]
        rest = tuple(key for key in equals if key.column not in columns)
        done.append(((*prefix, *rest, *wish.need.tail), wish))
    return done


def _within(keys: Sequence[Key], equals: Sequence[Key]) -> bool:
    return {(key.column, key.is_expression) for key in keys} <= {(key.column, key.is_expression) for key in equals}


def _merged(ordered: Sequence[tuple[tuple[Key, ...], _Wish]]) -> list[tuple[tuple[Key, ...], list[_Wish]]]:
    """As few indexes as serve all: the longest first, and each need goes to every one of those kept that serves it.

    >>> a, b = Key("a"), Key("b")
    >>> need = Need(Name("s", "t"), (a,), (b,), "sort")
    >>> serves((a, b), need), serves((b, a), need)
    (True, False)
    """
    kept: list[tuple[tuple[Key, ...], list[_Wish]]] = []
    longest = sorted(ordered, key=lambda each: (-len(each[0]), -each[1].total, repr(each[0])))
    for keys, wish in longest:
        if not any(serves(other, wish.need) for other, _ in kept):
            kept.append((keys, []))
    for keys, served in kept:
        served += [wish for _, wish in longest if serves(keys, wish.need)]
    return kept


def _reason(wish: _Wish) -> str:
    """One sentence: the conditions, and what is read instead of what."""
    need, size = wish.need, wish.target.size
    parts = [f"{key.column} = …" for key in need.equals]
    text = " and ".join(parts)
    column = need.tail[0].column if need.tail else ""
    rows = show(size.rows, "rows")
    if need.use == "sort":
        order = f"ORDER BY {', '.join(key.column for key in need.tail)}"
        lead = f"{text}, then {order}" if text else order
        return f"{lead}: the LIMIT's rows are read in order instead of all {rows}"
    if need.use in ("range", "like"):
        text = " and ".join([*parts, f"{column} {'LIKE a prefix' if need.use == 'like' else 'in a range'}"])
    return f"{text}: only the rows that match are read instead of all {rows}"
