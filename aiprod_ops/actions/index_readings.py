"""What a check of indexes reads beyond the catalogue: scans on every node and their history, pages of b-trees, and of
tables as many as the budget has room for."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta

import msgspec

from aiprod_ops.actions.index_builds import LONGEST, index_size
from aiprod_ops.domain.catalogue import bloat, damage
from aiprod_ops.domain.catalogue.faults import Existing, Fault
from aiprod_ops.domain.catalogue.indexes import Catalogue
from aiprod_ops.domain.catalogue.inspections import Inspection, Trouble, with_copy, within
from aiprod_ops.domain.catalogue.usage import NodeUsage, UsageSnapshot
from aiprod_ops.domain.findings import Finding, waived
from aiprod_ops.domain.plans import Plan
from aiprod_ops.domain.schema import Name
from aiprod_ops.engine.runbook import Context, Copy
from aiprod_ops.errors import Failed, OpsError
from aiprod_ops.ports import Database
from aiprod_ops.units import Bytes, Ratio, Seconds, seconds, show

USAGE = "index-usage"  #: the name of the snapshots in the target's history
_BLOAT, _DAMAGE = "bloat-on-copy", "damage-on-copy"
_ALL = Bytes(1 << 62)
#: As pg_amcheck installs what is missing: in no schema of the users.
_AMCHECK = "create extension if not exists amcheck with schema pg_catalog"
_INDEXES = """
select s.nspname::text as schema, x.relname::text as name, m.amname = 'btree' as is_tree,
       m.amname = 'btree' and x.relkind = 'i' and i.indisvalid and i.indisready and i.indislive as is_readable,
       coalesce(pg_relation_size(c.oid), 0) as table_size
from pg_index i
join pg_class x on x.oid = i.indexrelid join pg_namespace s on s.oid = x.relnamespace join pg_am m on m.oid = x.relam
join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' /* aiprod-ops: indexes to compare with their tables */
"""
_NAMED = 20
_BATCH = Seconds(60)  #: reading so many indexes as are sent at once, on a server that others use


def index_usage(ctx: Context, window: Seconds) -> tuple[UsageSnapshot, ...]:
    """The stored snapshots that the window needs, oldest first, and the one of now. A replica that cannot be read is
    named in it, with the reason."""
    now = ctx.clock.now()
    nodes: dict[str, NodeUsage] = {ctx.target.name: ctx.db.index_usage()}
    unread: dict[str, str] = {}
    for name, replica in ctx.replicas.items():
        try:
            nodes[name] = replica.index_usage()
        except OpsError as error:
            unread[name] = error.told
    stored = ctx.history.all(USAGE, since=now - timedelta(seconds=window))
    former = (msgspec.convert(snapshot.value, UsageSnapshot) for snapshot in stored)
    return (*former, UsageSnapshot(now, nodes, unread))


def index_bloat(ctx: Context, catalogue: Catalogue, least: Bytes, budget: Bytes) -> Inspection:
    """What pgstatindex counts in the larger b-trees, the most suspicious first, within a budget of bytes."""
    if catalogue.pgstattuple.missing:
        return Inspection()
    chosen, left_out = within(bloat.order(catalogue.indexes, least), budget)
    ctx.report(f"reading {len(chosen)} indexes for bloat")
    read = replace(ctx.db.bloat([index.name for index in chosen]), left_out=tuple(index.name for index in left_out))
    known = _of_copy(ctx, _BLOAT)
    return bloat.known_from_copy(with_copy(read, known, catalogue.indexes), known) if known else read


def index_damage(ctx: Context, catalogue: Catalogue, budget: Bytes, timeout: Seconds = _BATCH) -> Inspection:
    """What amcheck finds in the b-trees, small ones first, within a budget of bytes. What is left of it goes into the
    tables, small ones first: an index that lacks rows is sound in itself."""
    if catalogue.amcheck.missing:
        return Inspection()
    chosen, left_out = within(damage.order(catalogue.indexes), budget)
    rest = Bytes(budget - sum(index.size for index in chosen))
    compared, alone = within(damage.order_with_tables(chosen), rest, lambda index: index.table_size)
    ctx.report(f"looking for damage in {len(chosen)} indexes, in {len(compared)} of them for each row of the table")
    full = ctx.db.damage([index.name for index in compared], rows=True, timeout=timeout)
    # An expression may fail for a row, a table be too large for the time: the index by itself is looked at still.
    failed = [trouble.index for trouble in full.troubles if not trouble.is_damage]
    uncompared = (*(index.name for index in alone), *failed)
    plain = ctx.db.damage(uncompared, timeout=timeout)
    read = Inspection(
        full.checked + plain.checked,
        troubles=(*(trouble for trouble in full.troubles if trouble.is_damage), *plain.troubles),
        left_out=tuple(index.name for index in left_out),
        uncompared=uncompared,
    )
    known = _of_copy(ctx, _DAMAGE) if left_out or uncompared else None
    return with_copy(read, known, catalogue.indexes) if known else read


def read_copy(ctx: Context, least: Bytes, share: Ratio) -> list[Fault]:
    """Read all indexes of a copy and their tables, whatever their size, and keep what was seen for the checks that may
    not read so much. Answers what is damaged.

    A copy is made page by page: what is bloated or damaged there is so on the target. Where the count of bloat is only
    a lower bound of `share`, a rebuild tells, and is taken back.
    """
    catalogue, now = ctx.db.catalogue(), ctx.clock.now()
    read = index_bloat(ctx, catalogue, least, _ALL)
    tried = {}
    for index in bloat.doubtful(catalogue.indexes, read, share):
        ctx.report(f"rebuilding {index.name} to see what that gives back")
        tried[str(index.name)] = replace(read.trees[str(index.name)], rebuilt=_rebuilt(ctx.db, index.name))
    files = {str(index.name): index.filenode for index in catalogue.indexes}
    checked = index_damage(ctx, catalogue, _ALL, LONGEST)
    ctx.history.keep(_BLOAT, now, replace(read, trees=read.trees | tried, files=files))
    ctx.history.keep(_DAMAGE, now, replace(checked, files=files))
    return [fault for fault in damage.faults(catalogue, checked, read) if fault.repair is not None]


def install_amcheck(copy: Database) -> None:
    """Of a disposable copy: in a database of users nothing is created."""
    copy.execute(_AMCHECK)


@dataclass(frozen=True, slots=True)
class Trees:
    """The b-trees of a copy that are compared with their tables, largest table first, each with its size; how many of
    larger tables are not; and how many indexes are none."""

    compared: tuple[tuple[Name, int], ...]
    larger: int
    others: int

    @property
    def largest(self) -> list[Name]:
        """Whose structure nobody else has to look at, too: what is won with the small ones is less than naming them."""
        return [name for name, _ in self.compared[:_NAMED]]


def trees(copy: Database, most: Bytes) -> Trees:
    """Compared are those of tables of no more than `most` bytes."""
    found = copy.query(_INDEXES)
    able = sorted((each for each in found if each["is_readable"]), key=lambda each: -each["table_size"])
    compared = [(Name(each["schema"], each["name"]), each["table_size"]) for each in able if each["table_size"] <= most]
    return Trees(tuple(compared), len(able) - len(compared), sum(not each["is_tree"] for each in found))


def lacking_rows(copy: Database, most: Bytes, known: Trees | None = None) -> Finding:
    """Whether each b-tree of a copy is in order and has every row of its table, where that has no more than `most`
    bytes.

    pg_amcheck's own look for it counts an expression that fails, of a function that rests on a search_path, as damage.
    Such a b-tree is looked at without its rows, and nothing may fail then.
    """
    known = known or trees(copy, most)

    with closing(copy.another()) as first, closing(copy.another()) as second:

        def read(session: Database, share: Sequence[Name]) -> tuple[list[Trouble], list[Trouble]]:
            full = session.damage(share, rows=True, timeout=LONGEST).troubles
            failed = [each for each in full if not each.is_damage]
            alone = session.damage([each.index for each in failed], timeout=LONGEST).troubles if failed else ()
            broken = {each.index for each in alone}
            lacking = [*(each for each in full if each.is_damage), *alone]
            return lacking, [each for each in failed if each.index not in broken]

        with ThreadPoolExecutor(2) as pool:
            parts = list(pool.map(read, (first, second), _halves(known.compared)))
    lacking = sorted((each for part, _ in parts for each in part), key=lambda each: each.index)
    failed = sorted((each for _, part in parts for each in part), key=lambda each: each.index)
    checked = len(known.compared) - len(lacking) - len(failed)
    notes = [f"{each.index}: {each.said}" for each in lacking[:3]] or [f"{checked} b-trees have each row"]
    if failed:
        notes.append(f"{len(failed)} cannot be compared ({failed[0].index}: {failed[0].said})")
    if known.larger:
        notes.append(f"{known.larger} of tables beyond {show(most, 'B')} are not compared")
    if known.others:
        notes.append(f"{known.others} that are no b-trees are not compared: nothing can look into them")
    return Finding("indexes that lack rows", float(len(lacking)), "", crit=1, note="; ".join(notes))


def _halves(indexes: Sequence[tuple[Name, int]]) -> tuple[list[Name], list[Name]]:
    """Two shares in which there is about as much to read."""
    shares: tuple[list[Name], list[Name]] = ([], [])
    sizes = [0, 0]
    for name, size in indexes:
        less = sizes.index(min(sizes))
        shares[less].append(name)
        sizes[less] += size
    return shares


def unmended(copy: Copy, plan: Plan, damaged: Sequence[Fault]) -> tuple[Finding, ...]:
    """What is damaged on a copy and neither rebuilt nor removed by the plan. While an index lacks rows no measurement
    with it counts; what somebody waived is known."""
    subjects = (copy.kinds[action.kind].subject(action) for action in plan.actions)
    mended = {str(subject.name) for subject in subjects if isinstance(subject, Existing)}
    found = [fault.finding for fault in damaged if fault.subject not in mended]
    ctx = copy.context
    return tuple(waived(found, ctx.waivers, ctx.target.name, ctx.clock.now().date()))


def _rebuilt(database: Database, name: Name) -> Bytes | None:
    """The size of an index after a rebuild, which is rolled back; None where it fails."""
    database.query("begin")
    try:
        database.execute("reindex index {index}", names={"index": name}, timeout=LONGEST)
        return index_size(database, name)
    except Failed:
        return None
    finally:
        database.query("rollback")


def _of_copy(ctx: Context, name: str) -> Inspection | None:
    """What a copy told, where that is not older than a proof may be."""
    last = ctx.history.last(name)
    if last is None or ctx.clock.now() - last.taken > timedelta(seconds=seconds(ctx.promises.get("evidence.max_age"))):
        return None
    return msgspec.convert(last.value, Inspection)
