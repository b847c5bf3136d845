"""Which relation of a statement is read first, which are looked up from there, and the index each would profit from."""

from collections.abc import Iterator, Mapping, Sequence

from aiprod_ops.domain.advice.coverage import Need
from aiprod_ops.domain.advice.options import Option, Target, Unknown, option
from aiprod_ops.domain.advice.partial import partial
from aiprod_ops.domain.advice.selectivity import POOR, WIDE_RANGE, commonest
from aiprod_ops.domain.schema import Key, Name, Schema, TableSize
from aiprod_ops.domain.sql.queries import Access, Query

#: Smaller tables are read faster than an index is maintained: 100 pages of 8 kB are read in a millisecond.
SMALL_PAGES = 100
#: An index is widened by so many columns and bytes for statements that would look at so many rows of the table.
MOST_COVERED, COVERED_BYTES, COVERED_ROWS = 2, 32, 10_000
#: Rows that a CTE or a subquery is taken to join with: nobody knows.
UNKNOWN_ROWS = 1000


def needs(query: Query, schema: Schema, sizes: Mapping[str, TableSize]) -> tuple[list[tuple[Target, Need]], list[str]]:
    """The needs of a statement that are worth an index, and why others could not be judged.

    Joins: the relation that its own conditions leave the fewest rows of is read first; from there on, each is looked up
    by its join column if that keeps the rows read below a tenth of it ("Planner/Optimizer", nested loop).
    """
    found: list[tuple[Target, Need]] = []
    unknown: list[str] = []
    targets: list[Target] = []
    for access in query.accesses:
        if _is_systems(access):
            continue
        try:
            targets.append(_target(access, schema, sizes))
        except Unknown as exc:
            unknown.append(str(exc))
    for group in _joined(targets):
        try:
            chosen = [(target, each.need) for target, each in _group(group, targets)]
            found += [(target, need) for target, need in chosen if need.equals or need.tail]
            found += _parts_alone(group, [target for target, _ in found])
        except Unknown as exc:
            unknown.append(str(exc))
    return [pair for pair in found if pair[0].size.pages >= SMALL_PAGES], list(dict.fromkeys(unknown))


def _parts_alone(group: Sequence[Target], helped: Sequence[Target]) -> Iterator[tuple[Target, Need]]:
    """Of relations that no index of the whole helps, the small part that is wanted."""
    for target in group:
        if not any(target is each for each in helped) and (small := partial(target, None)) is not None:
            yield small


def _is_systems(access: Access) -> bool:
    """Nobody adds an index to a catalogue; unqualified, its relations are found first ("The System Catalog Schema")."""
    return access.schema in ("pg_catalog", "information_schema") or (not access.schema and access.table[:3] == "pg_")


def covering(target: Target, need: Need) -> tuple[Key, ...]:
    """The few narrow columns with which the need's index alone answers a statement that reads many rows; else none.

    Behind the keys, not in INCLUDE: equal entries are deduplicated only without it (CREATE INDEX, "INCLUDE").
    """
    access, size = target.access, target.size
    if access.reads is None or access.limit or access.join:
        return ()
    have = {key.column for key in (*need.equals, *need.tail)}
    have |= {need.where.column} if need.where else set()  # an index-only scan does not look up what its predicate says
    extra = [column for column in access.reads if column not in have]
    known = [size.statistics.get(column) for column in extra]
    if any(target.column(column) is None for column in extra) or None in known:
        return ()
    bytes_more = sum(each.width_bytes * (1 - each.null_fraction) for each in known if each is not None)
    rows = size.rows * (WIDE_RANGE if need.use in ("range", "like") else 1.0)
    for key in need.equals:
        rows *= commonest(target.statistics(key.column), size.rows)
    if not extra or len(extra) > MOST_COVERED or bytes_more > COVERED_BYTES or rows < COVERED_ROWS:
        return ()
    return tuple(Key(column) for column in extra)


def _target(access: Access, schema: Schema, sizes: Mapping[str, TableSize]) -> Target:
    shown = f"{access.schema}.{access.table}".lstrip(".")
    table = schema.table(access.schema, access.table)
    if table is None:
        raise Unknown(f"{shown} {_why_no_table(access, schema)}")
    size = sizes.get(str(table.name))
    if size is None or size.rows < 0:
        raise Unknown(f"no statistics of {table.name}: ANALYZE never ran, or this role may not read them")
    return Target(access, table, size)


def _why_no_table(access: Access, schema: Schema) -> str:
    named = [Name(place, access.table) for place in ((access.schema,) if access.schema else schema.search_path)]
    first = next((name for name in named if name in schema.taken), None)
    if first is not None and first in schema.partitioned:
        return "is partitioned: indexes are proposed for tables and partitions, not for the parent of partitions"
    if first is not None:
        return "is a view, a foreign table or something else that has no index of its own"
    names = (*(table.name for table in schema.tables), *schema.taken)
    elsewhere = sorted({name.schema for name in names if name.name == access.table})
    if elsewhere and not access.schema:
        here = ", ".join(schema.search_path) or "empty"
        return (
            f"is not in our search_path ({here}) but in {', '.join(elsewhere)}: the statement's session had one of its "
            "own, and which is not recorded; `ALTER ROLE … SET search_path` for the probe's role shows us the same"
        )
    return "is not there: it was dropped, or is a temporary table"


def _joined(targets: Sequence[Target]) -> list[list[Target]]:
    """Relations in groups that joins connect, in the order of the statement."""
    groups: list[list[Target]] = []
    for target in targets:
        linked = [group for group in groups if any(_links(target, other) or _links(other, target) for other in group)]
        groups = [group for group in groups if group not in linked]
        groups.append([*(each for group in linked for each in group), target])
    return groups


def _links(target: Target, other: Target) -> tuple[str, ...]:
    """The columns by which the target joins the other one, at the same level or at one around or within."""
    if target is other:
        return ()
    one, two = target.access, other.access
    is_other = two.alias != one.alias or two.level != one.level
    return tuple(column for column, alias, _ in one.join if alias == two.alias and is_other)


def _group(group: Sequence[Target], everyone: Sequence[Target]) -> Iterator[tuple[Target, Option]]:
    """What to build for each relation of a group, in the order in which a nested loop would read them."""
    own = [(target, option(target)) for target in group]
    able = [(found.rows, str(target.table.name), n) for n, (target, found) in enumerate(own) if found is not None]
    reached: list[tuple[Target, float]] = []
    waiting = list(range(len(own)))
    while waiting:
        linked = [n for n in waiting if any(_links(own[n][0], other) for other, _ in reached)]
        position = min(able)[2] if able and not reached else (linked or waiting)[0]
        waiting.remove(position)
        target, alone = own[position]
        chosen = _lookup(target, reached, everyone) or alone if reached or not able else alone
        if chosen is not None:
            reached.append((target, chosen.rows))
            yield target, chosen


def _lookup(target: Target, reached: Sequence[tuple[Target, float]], everyone: Sequence[Target]) -> Option | None:
    """The target looked up by its join columns from what is read already, if that is few of its rows."""
    by_join = [(column, rows) for other, rows in reached for column in _links(target, other)]
    if not by_join:
        aliases = {each.access.alias for each in everyone}
        by_join = [(column, UNKNOWN_ROWS) for column, alias, _ in target.access.join if alias not in aliases]
    usable = [(column, rows) for column, rows in by_join if target.column(column) is not None]
    if not usable:
        return None
    columns = tuple(dict.fromkeys(column for column, _ in usable))
    found = option(target, columns)
    outer = max(rows for _, rows in usable)
    if found is None or outer * found.rows > POOR * target.size.rows:
        return None
    return Option(found.need, outer * found.rows)
