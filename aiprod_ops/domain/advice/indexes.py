"""Which indexes a workload is missing: the needs of its statements, merged into as few b-trees as serve them all."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from aiprod_ops.domain.advice.coverage import Need, NewIndex, exists, is_usable, name_for, serves, serving
from aiprod_ops.domain.advice.layouts import Layout, Wish, layouts, nearly
from aiprod_ops.domain.advice.needs import covering, needs
from aiprod_ops.domain.advice.options import Target
from aiprod_ops.domain.advice.partial import needed, partial, parts
from aiprod_ops.domain.advice.selectivity import index_size
from aiprod_ops.domain.advice.writes import Cost, Writes, cost, indexed, writes
from aiprod_ops.domain.schema import Condition, Key, Name, Schema, Table, TableSize
from aiprod_ops.domain.sql.queries import Unreadable, read
from aiprod_ops.domain.statements import Statement
from aiprod_ops.units import Bytes, show

__all__ = [
    "MOST_FOR_TABLE", "UNLIMITED", "Advice", "Budget", "Candidate", "Need", "NewIndex", "advise", "exists", "is_usable",
    "serves",
]  # fmt: skip

#: No more for one table at once: each index costs every write; the eight of the seeds took WAL from 13 to 24 kB a job.
MOST_FOR_TABLE = 5


#: An estimate may be wrong by a factor of ten (measured: a cost predicted 21,655 × smaller, and 2.9 × slower in fact).
WORTH = 10.0


#: What takes HOT from updates that have it costs more than its entries: dead versions are no longer pruned in passing,
#: and vacuum reads every index for them. It must save this share of all the time that the statements take.
HOT_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Budget:
    """What new indexes may cost together: bytes on disk, and bytes of WAL for each row that is written."""

    size: float = math.inf
    wal: float = math.inf


UNLIMITED = Budget()


@dataclass(frozen=True, slots=True)
class Candidate:
    """An index worth proving, with the statements it is for (query ids, sorted) and its size as estimated.

    `wal` is what it adds to a row that is written, on average, as estimated. `replaces` are existing indexes whose
    keys it begins with: once it is there, they serve nobody.
    """

    index: NewIndex
    serves: tuple[int, ...]
    size: Bytes
    reason: str
    wal: Bytes = Bytes(0)
    replaces: tuple[Name, ...] = ()


@dataclass(frozen=True, slots=True)
class Advice:
    """Candidates, largest total time served first; `unread` holds (query id, reason) of what could not be judged.

    `declined` holds (query id, reason) of statements that an index would help, but not for what it costs.
    """

    candidates: tuple[Candidate, ...] = ()
    unread: tuple[tuple[int, str], ...] = ()
    declined: tuple[tuple[int, str], ...] = ()


def advise(
    statements: Sequence[Statement],
    schema: Schema,
    sizes: Mapping[str, TableSize],
    *,
    workload: Sequence[Statement] = (),
    budget: Budget = UNLIMITED,
) -> Advice:
    """The indexes that these statements miss, weighed all at once by their total time. Pure: order does not matter.

    `workload` is what else is executed; its writes and those of `statements` are what an index costs. An index that
    saves less than WORTH times its cost is not proposed, nor what an existing valid b-tree serves already, nor a
    partial index whose predicate is a value (a generic plan cannot use one). What is proposed is a hypothesis to be
    measured on a copy.
    Time: quadratic in the needs of one table.
    """
    everything = {each.query_id: each for each in (*workload, *statements)}
    written, rows = writes(everything.values(), schema)
    wishes, unread = _wishes(statements, schema, sizes)
    tables: dict[Name, list[Wish]] = {}
    for wish in wishes:
        tables.setdefault(wish.need.table, []).append(wish)
    found: list[Layout] = []
    for name in sorted(tables):
        merged = _layouts(tables[name], written.get(name, Writes()), is_written=name in written)
        found += sorted(merged, key=lambda each: (-each.total, [key.column for key in each.keys]))[:MOST_FOR_TABLE]
    total = math.fsum(each.total for each in statements)
    chosen, declined = _worthwhile(found, written, max(rows, 1), budget, total)
    candidates = tuple(_candidates(chosen, schema, max(rows, 1)))
    helped = {query_id for each in candidates for query_id in each.serves}
    return Advice(candidates, unread, tuple(sorted((n, why) for n, why in declined.items() if n not in helped)))


def _layouts(wishes: Sequence[Wish], written: Writes, *, is_written: bool) -> list[Layout]:
    """Of one table: what serves the whole, then the parts that are still wanted, each for itself."""
    whole = [wish for wish in wishes if wish.need.where is None]
    found = layouts(whole, written.updated, is_written=is_written)
    conditions: dict[Condition, list[Wish]] = {}
    for wish in sorted(wishes, key=lambda each: (-each.total, repr(each.need))):
        if wish.need.where is None:
            continue
        also = [*whole, Wish(wish.whole[1], wish.whole[0], wish.times)] if wish.whole and whole else []
        shared = layouts(also, written.updated, is_written=is_written)
        if also and len(shared) <= len(found):
            whole, found = also, shared  # it takes no further index
        else:
            conditions.setdefault(wish.need.where, []).append(wish)
    for _, each in sorted(conditions.items()):
        found += layouts(each, written.updated, is_written=is_written)
    return found


def _wishes(
    statements: Sequence[Statement], schema: Schema, sizes: Mapping[str, TableSize]
) -> tuple[list[Wish], tuple[tuple[int, str], ...]]:
    """The needs that no existing index gives, each with the statements that have it; and what could not be judged."""
    found: dict[Need, Wish] = {}
    unread: list[tuple[int, str]] = []
    for statement in sorted(statements, key=lambda each: (each.query_id, each.text)):
        try:
            asked, unknown = needs(read(statement.text, schema), schema, sizes)
        except Unreadable as exc:
            asked, unknown = [], [str(exc)]
        unread += [(statement.query_id, reason) for reason in unknown]
        for target, need, whole in _choices(asked):
            known = found.get(need)
            times = dict(known.times) if known else {}
            times[statement.query_id] = max(times.get(statement.query_id, 0.0), statement.total)
            cover = dict.fromkeys([*(known.cover if known else ()), *covering(target, need)])
            found[need] = Wish(need, known.target if known else target, times, tuple(cover), whole)
    return list(found.values()), tuple(sorted(set(unread)))


def _choices(
    asked: Sequence[tuple[Target, Need]],
) -> Iterator[tuple[Target, Need, tuple[Target, Need] | None]]:
    """What no index gives yet: of the part that is asked for where that is small, else of the whole."""
    for target, need in asked:
        if need.where is not None:
            if serving(target.table, need) is None:
                yield target, need, None
        elif not _is_served(target, need):
            small = partial(target, need)
            yield (*small, (target, need)) if small else (target, need, None)


def _is_served(target: Target, need: Need) -> bool:
    table = target.table
    if serving(table, need) is not None:
        return True
    if any(is_usable(index) and nearly(index.keys, need, target.size) for index in table.indexes):
        return True
    has_parts = any(index.predicate for index in table.indexes)
    asked = [needed(part) for part in parts(target)] if has_parts else []
    return any(each is not None and serving(table, each) is not None for each in asked)


def _worthwhile(
    found: Sequence[Layout], written: Mapping[Name, Writes], rows: int, budget: Budget, total: float
) -> tuple[list[tuple[Layout, Cost]], dict[int, str]]:
    """Those that pay, most time saved for what they cost first, while the budget lasts; and why the others do not.

    A need is counted once: an index saves what none of those chosen before it does.
    """
    chosen: list[tuple[Layout, Cost]] = []
    declined: dict[int, str] = {}
    spent = Budget(0.0, 0.0)
    waiting, late = sorted(found, key=lambda each: repr(each.keys)), list[Layout]()
    while waiting:
        priced = [(each, _left(each, chosen), _cost(each, written, chosen)) for each in waiting]
        layout, saved, costs = max(priced, key=lambda each: (each[1] / (1.0 + each[2].ms), repr(each[0].keys)))
        waiting.remove(layout)
        size = index_size(layout.keys, layout.wishes[0].target.table, layout.wishes[0].target.size)
        asked = Budget(spent.size + size, spent.wal + costs.wal / rows)
        trouble = _trouble(saved, costs, asked, budget, total)
        if not trouble:
            chosen.append((layout, costs))
            waiting, late, spent = waiting + late, [], asked  # HOT that is lost once costs the next one nothing
        elif saved:
            late.append(layout)
            columns = ", ".join(key.column for key in layout.keys)
            declined |= dict.fromkeys(layout.times, f"an index on ({columns}) {trouble}")
    return chosen, declined


def _trouble(saved: float, costs: Cost, asked: Budget, budget: Budget, total: float) -> str:
    """Why an index is not worth its cost, in words that follow its name; empty where it is."""
    if asked.size > budget.size:
        return f"takes more than the {show(budget.size, 'B')} that are allowed"
    if asked.wal > budget.wal:
        return f"writes more WAL than the {show(budget.wal, 'B')} a row that are allowed"
    if costs.cold and saved < HOT_SHARE * total:
        return f"takes HOT from {costs.cold:,.0f} updates and saves {saved / max(total, 1e-9):.1%} of the time"
    if saved < WORTH * costs.ms or not saved:
        return f"saves {show(saved, 'ms')}, less than {WORTH:g} × the {show(costs.ms, 'ms')} that its writes may cost"
    return ""


def _left(layout: Layout, chosen: Sequence[tuple[Layout, Cost]]) -> float:
    """Total time of the needs that no index chosen gives already."""
    given = {wish.need for each, _ in chosen for wish in each.wishes}
    return Layout(layout.keys, tuple(wish for wish in layout.wishes if wish.need not in given)).total


def _table(layout: Layout) -> Name:
    return layout.wishes[0].need.table


def _cost(layout: Layout, written: Mapping[Name, Writes], chosen: Sequence[tuple[Layout, Cost]]) -> Cost:
    target = layout.wishes[0].target
    others = [indexed(index.keys, index.predicate) for index in target.table.indexes]
    others += [
        indexed(each.keys, each.where.column if each.where else "")
        for each, _ in chosen
        if _table(each) == _table(layout)
    ]
    written_here = written.get(_table(layout), Writes())
    return cost(layout.keys, target.table, target.size, written_here, others, layout.where)


def _candidates(chosen: Sequence[tuple[Layout, Cost]], schema: Schema, rows: int) -> Iterator[Candidate]:
    taken = _names(schema)
    for layout, costs in sorted(chosen, key=lambda each: (-each[0].total, str(_table(each[0])), repr(each[0].keys))):
        target = layout.wishes[0].target
        name = name_for(target.table, layout.keys, taken[target.table.name.schema], layout.where)
        taken[target.table.name.schema].add(name.name)
        best = max(layout.wishes, key=lambda wish: (wish.need.use == "sort", wish.total, repr(wish.need)))
        yield Candidate(
            NewIndex(name, target.table.name, layout.keys, layout.where),
            tuple(layout.times),
            index_size(layout.keys, target.table, target.size),
            _reason(best),
            Bytes(round(costs.wal / rows)),
            () if layout.where else tuple(_narrower(target.table, layout.keys)),
        )


def _narrower(table: Table, keys: Sequence[Key]) -> Iterator[Name]:
    """Existing indexes that the wide one makes droppable: their keys are its first ones, and they enforce nothing."""
    for index in table.indexes:
        is_prefix = 0 < len(index.keys) < len(keys) and tuple(index.keys) == tuple(keys[: len(index.keys)])
        if is_prefix and is_usable(index) and not (index.is_unique or index.constraint or index.include):
            yield index.name


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


def _reason(wish: Wish) -> str:
    """One sentence: the conditions, and what is read instead of what."""
    need, size = wish.need, wish.target.size
    parts = [need.where.text(need.where.column)] if need.where else []
    parts += [f"{key.column} = …" for key in need.equals if not _only_points(key, wish.target)]
    text = " and ".join(parts)
    column = need.tail[0].column if need.tail else ""
    rows = show(size.rows / wish.target.share, "rows")
    if need.use == "sort":
        order = f"ORDER BY {', '.join(key.column for key in need.tail)}"
        lead = f"{text}, then {order}" if text else order
        return f"{lead}: the LIMIT's rows are read in order instead of all {rows}"
    if need.use in ("range", "like"):
        text = " and ".join([*parts, f"{column} {'LIKE a prefix' if need.use == 'like' else 'in a range'}"])
    return f"{text}: only the rows that match are read instead of all {rows}"


def _only_points(key: Key, target: Target) -> bool:
    """Whether it is in a partial index only because one has to have a key: nobody compares it."""
    return target.where is not None and key.column not in target.access.equal
