"""What is looked at in a restored copy, and on its source to compare with: rows, and what stands around them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from queue import SimpleQueue
from typing import Any

import msgspec

from aiprod_ops.domain.findings import Finding
from aiprod_ops.domain.schema import Name
from aiprod_ops.engine.runbook import Context
from aiprod_ops.errors import Failed
from aiprod_ops.ports import Database
from aiprod_ops.units import Bytes, Seconds

_RECORDED = "figures"
_LONGEST = Seconds(3600)  #: of one table

_TABLES = """
select n.nspname::text as schema, c.relname::text as name, pg_relation_size(c.oid) as size,
       (select a.attname::text from pg_attribute a
        where a.attrelid = c.oid and a.atttypid in ('timestamptz'::regtype, 'timestamp'::regtype)
          and a.attname in ('created_at', 'inserted_at', 'updated_at') and not a.attisdropped
        order by array_position(array['updated_at', 'inserted_at', 'created_at']::name[], a.attname) desc limit 1)
         as written,
       array(
         select case when hashed.within then '&t.' || quote_ident(a.attname)
                else case when a.attnotnull and not exists (
                            select from pg_constraint i
                            where i.conrelid = a.attrelid and i.conkey = array[a.attnum] and i.contype = 'n'
                              and not i.convalidated) then '=' else '?' end
                     || coalesce(hashed.by || '(t.' || quote_ident(a.attname),
                                 'pg_catalog.hashtextextended(t.' || quote_ident(a.attname) || '::text collate "C"')
                end
         from pg_attribute a join pg_type t on t.oid = a.atttypid
         join pg_type b on b.oid = coalesce(nullif(t.typbasetype, 0), t.oid)
         left join pg_type e on e.oid = case when b.typsubscript = 'array_subscript_handler'::regproc then b.typelem
                                             else b.oid end
         cross join lateral (
           select case when texts then null
                       when e.oid = b.oid and e.typtype = 'b' then proc
                       when e.oid = b.oid and e.typtype = 'e' then 'pg_catalog.hashenumextended'
                       when e.typtype = 'e' or e.typtype = 'b' and (e.typcategory = 'S' or able)
                       then 'pg_catalog.hash_array_extended' end as by,
                  not texts and able and proc is null and e.oid = b.oid and e.typtype = 'b' as within
           from (select b.oid = 'text'::regtype or exists (
                          select from pg_cast where castsource = b.oid and casttarget = 'text'::regtype
                                                and castmethod = 'b') as texts,
                        count(*) > 0 as able,
                        max(format('%I.%I', s.nspname, f.proname)) filter (
                          where f.proargtypes[0] = e.oid or exists (
                            select from pg_cast where castsource = e.oid and casttarget = f.proargtypes[0]
                                                  and castmethod = 'b' and castcontext = 'i')) as proc
                 from pg_opclass o join pg_am m on m.oid = o.opcmethod
                 join pg_amproc x on x.amprocfamily = o.opcfamily and x.amprocnum = 2
                                     and x.amproclefttype = e.oid and x.amprocrighttype = e.oid
                 join pg_proc f on f.oid = x.amproc join pg_namespace s on s.oid = f.pronamespace
                 where m.amname = 'hash' and o.opcdefault and o.opcintype = e.oid) own) hashed
         where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum) as columns
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and c.relpersistence = 'p'
order by 1, 2 /* aiprod-ops: tables to compare */
"""
#: What a role or a database may have set, and by which a value becomes another text.
_ALIKE = """
select set_config(name, value, false) from (values
  ('TimeZone', 'UTC'), ('DateStyle', 'ISO, MDY'), ('IntervalStyle', 'postgres'), ('bytea_output', 'hex'),
  ('extra_float_digits', '1'), ('lc_monetary', 'C')) alike (name, value)
/* aiprod-ops: values as the same texts on both sides */
"""
_ROWS = (
    "select count(*) as rows, {digest} as digest, {newest} as newest from {table} t /* aiprod-ops: rows of a table */"
)
_AROUND = """
select array(select extname::text from pg_extension order by 1) as extensions,
       array(select rolname::text from pg_roles where rolname !~ '^pg_' order by 1) as roles
/* aiprod-ops: what stands around the tables */
"""


@dataclass(frozen=True, slots=True)
class Rows:
    """One table: how many rows, their sum (None where only counted), and when the newest was written, if it says."""

    rows: int
    digest: str | None
    newest: datetime | None


@dataclass(frozen=True, slots=True)
class Figures:
    """A database as it is: its tables, the Alembic revision, extensions and roles."""

    tables: Mapping[str, Rows]
    revision: str
    extensions: tuple[str, ...]
    roles: tuple[str, ...]

    @property
    def rows(self) -> int:
        return sum(each.rows for each in self.tables.values())

    @property
    def newest(self) -> datetime | None:
        """The newest row of all tables."""
        return max((each.newest for each in self.tables.values() if each.newest is not None), default=None)


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of a server: what its snapshot sees (as pg_current_snapshot prints it), which of the last LATEST
    transactions it sees committed, and its LSN, '' where it is not told (by a standby).
    """

    seen: str
    committed: tuple[int, ...]
    lsn: str

    @property
    def unseen(self) -> tuple[int, list[int]]:
        """The first transaction that had not begun, and those that had not ended."""
        _, first, running = self.seen.split(":")
        return int(first), [int(each) for each in running.split(",") if each]


LATEST = 10_000
_MOMENT = """
select pg_current_snapshot()::text as seen,
       array(select x from generate_series(
                 greatest(3, pg_snapshot_xmax(pg_current_snapshot())::text::bigint - %(latest)s),
                 pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1) as x
             where pg_visible_in_snapshot(x::text::xid8, pg_current_snapshot())
               and pg_xact_status(x::text::xid8) = 'committed') as committed,
       case when pg_is_in_recovery() then '' else pg_current_wal_flush_lsn()::text end as lsn /* aiprod-ops: a moment */
"""


@contextmanager
def one_moment(database: Database, tries: int = 50) -> Iterator[tuple[Moment, Database]]:
    """A session that sees one moment. One in which nobody was writing is best: its LSN is exactly what it sees; of
    `tries` none may be. It is one alone: a server that others use is read while the copy is made and looked at, which
    takes longer."""
    with closing(database.another()) as session:
        moment, held = _quiet_moment(session, tries)
        with held:
            yield moment, session


def _quiet_moment(session: Database, tries: int) -> tuple[Moment, ExitStack]:
    for attempt in range(tries):
        held = ExitStack()
        held.enter_context(session.moment())
        row = session.query(_MOMENT, {"latest": LATEST})[0]
        moment = Moment(row["seen"], tuple(row["committed"]), row["lsn"])
        if not moment.unseen[1] or attempt == tries - 1:
            break
        held.close()
    return moment, held


_COMMITTED = """
with ends as (select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as first)
select (select count(*) from ends, unnest(%(committed)s::bigint[]) x
        where x >= ends.first or pg_xact_status(x::text::xid8) is distinct from 'committed') as missing,
       (select count(*) from ends, (select unnest(%(running)s::bigint[]) union
                                    select generate_series(%(first)s::bigint, ends.first - 1) from ends) as t(x)
        where x < ends.first and pg_xact_status(x::text::xid8) = 'committed') as more
/* aiprod-ops: whether this is the same moment */
"""


def is_same(copy: Database, moment: Moment) -> bool:
    """Whether a copy has just what a moment's snapshot sees: every transaction that it sees, and none that it does not.

    A commit is written a little before others see it, so the LSN alone does not tell. WAL has an order: a copy that has
    the last transactions has those before them.
    """
    first, running = moment.unseen
    row = copy.query(_COMMITTED, {"running": running, "first": first, "committed": list(moment.committed)})[0]
    return not row["missing"] and not row["more"]


_ARCHIVED = """
select last_archived_wal as name
from pg_stat_archiver where last_archived_wal ~ '^[0-9A-F]+$' /* aiprod-ops: what the server has archived last */
"""


def not_kept(ctx: Context) -> str:
    """Which segment the server says it has archived last, in words, where the archive has neither it nor a later one:
    nothing that is restored gets so far, and the archive alone does not tell. '' where it is kept, or nobody knows."""
    for row in ctx.db.query(_ARCHIVED):
        if ctx.platform.backups.reaches(row["name"]) is False:
            return f"the server has archived {row['name']}, and the archive ends before it"
    return ""


def read_source(session: Database, most: Bytes) -> Figures:
    """The figures of a server that others use. Its session ends with that: the locks that one holds who has read a
    table would let whoever wants to change it wait, and all others behind that one."""
    try:
        return figures([session], most)
    finally:
        session.close()


def figures(sessions: Sequence[Database], most: Bytes, report: Callable[[str], None] = lambda _: None) -> Figures:
    """Read every table of a database, in sessions side by side; those beyond `most` bytes are counted, not added up.

    The sum does not depend on the order of the rows.
    """
    first = sessions[0]
    revision, beside = first.revision(), first.query(_AROUND)[0]
    found = first.query(_TABLES)
    report(f"reading the rows of {len(found)} tables")
    for session in sessions:
        session.query(_ALIKE)
    free: SimpleQueue[Database] = SimpleQueue()
    for session in sessions:
        free.put(session)

    def read(table: Mapping[str, Any]) -> tuple[str, Rows]:
        session = free.get()
        try:
            return str(Name(table["schema"], table["name"])), _rows(session, table, most)
        finally:
            free.put(session)

    with ThreadPoolExecutor(len(sessions)) as pool:  # the largest first: the last ones are short
        rows = dict(pool.map(read, sorted(found, key=lambda table: -table["size"])))
    return Figures(dict(sorted(rows.items())), revision, tuple(beside["extensions"]), tuple(beside["roles"]))


def _rows(database: Database, table: Mapping[str, Any], most: Bytes) -> Rows:
    names: dict[str, Name | str] = {"table": Name(table["schema"], table["name"])}
    newest = "null::timestamptz"
    if table["written"]:
        newest, names["written"] = "max(t.{written})::timestamptz", table["written"]
    digest = f"sum({_hashed(table['columns'])})::text" if table["size"] <= most else "null::text"
    text = _ROWS.replace("{digest}", digest).replace("{newest}", newest)
    row = database.query(text, names=names, timeout=_LONGEST)[0]
    return Rows(int(row["rows"]), row["digest"], row["newest"])


def _hashed(columns: Sequence[str]) -> str:
    """A hash of a row, of the calls that hash its columns, without their end: after `=` of one that is never null,
    after `?` of one that may be. After `&` stands a column whose function takes no value of its type: a record has to.

    Each value is hashed with what became of those before it, so that it matters which values stand in one row, and
    where: a sum of hashes that are only added up would not tell. PostgreSQL adds up bigint beyond its range.
    """
    calls = [call.replace("{", "{{").replace("}", "}}") for call in columns]
    loose = [f"coalesce({call[1:]}, {n}), -{n})" for n, call in enumerate(calls, 1) if call.startswith("?")]
    if within := [call[1:] for call in calls if call.startswith("&")]:
        loose.append(f"pg_catalog.hash_record_extended(row({', '.join(within)}), 0)")
    hashed = f"pg_catalog.hashint4extended(0, {' # '.join(loose) or 0})"
    for call in calls:
        if call.startswith("="):
            hashed = f"{call[1:]}, {hashed})"
    return hashed


def record_figures(ctx: Context, source: Figures) -> None:
    """Keep what the source had, for the day when it is lost."""
    ctx.history.keep(_RECORDED, ctx.clock.now(), msgspec.to_builtins(source))


def recorded_figures(ctx: Context) -> tuple[datetime, Figures] | None:
    """What the source had when it was last read, and when that was."""
    kept = ctx.history.last(_RECORDED)
    return (kept.taken, msgspec.convert(kept.value, Figures)) if kept else None


def same_moment(source: Figures, copy: Figures) -> Iterator[Finding]:
    """Both are of the same moment: then every row is the same."""
    different = [name for name, rows in source.tables.items() if not _equal(rows, copy.tables.get(name))]
    more = sorted(copy.tables.keys() - source.tables.keys())
    note = _few([*different, *more]) if different or more else f"{copy.rows:,} rows of {len(copy.tables)} tables"
    counted = [name for name, rows in source.tables.items() if rows.digest is None]
    note += f"; only counted: {_few(counted)}" if counted else ""
    yield Finding("tables that differ at the same moment", float(len(different) + len(more)), "", crit=1, note=note)


def _equal(one: Rows, other: Rows | None) -> bool:
    if other is None or one.rows != other.rows:
        return False
    return None in (one.digest, other.digest) or one.digest == other.digest


#: Rows that a table may have lost or won since the backup before it is strange: half, and at least so many.
_STRANGE, _FEW_ROWS = 0.5, 1000


def plausible(source: Figures, copy: Figures) -> Iterator[Finding]:
    """The source has moved on meanwhile: what must be there, and about how much of it."""
    missing = sorted(source.tables.keys() - copy.tables.keys())
    is_empty = bool(source.rows) and not copy.rows
    lost = [
        name
        for name, then in copy.tables.items()
        if (now := source.tables.get(name)) is not None
        and abs(now.rows - then.rows) > max(_FEW_ROWS, _STRANGE * max(now.rows, then.rows))
    ]
    empty = f"the source has {source.rows:,} rows, the backup none"
    yield Finding("a backup without rows", float(is_empty), "", crit=1, note=empty if is_empty else "")
    yield Finding("tables that the backup lacks", float(len(missing)), "", warn=1, note=_few(missing))
    yield Finding("tables with far other counts of rows", float(len(lost)), "", crit=1, note=_few(lost))


def around(source: Figures, copy: Figures) -> Iterator[Finding]:
    """Schema revision, extensions and roles are those of the source."""
    other = copy.revision != source.revision
    note = f"{copy.revision or 'none'}, the source has {source.revision or 'none'}" if other else copy.revision
    yield Finding("another schema revision", float(other), "", crit=1, note=note)
    for what, ours, theirs in (
        ("extensions", copy.extensions, source.extensions),
        ("roles", copy.roles, source.roles),
    ):
        lacking = sorted(set(theirs) - set(ours))
        yield Finding(f"missing {what}", float(len(lacking)), "", crit=1, note=_few(lacking))


def writable(database: Database) -> Finding:
    """Whether a table can be made, written and dropped there."""
    names = {"table": "aiprod_ops_write_test"}
    try:
        database.execute("create table {table} (n int)", names=names)
        database.execute("insert into {table} values (1)", names=names)
        database.execute("drop table {table}", names=names)
    except Failed as error:
        return Finding("a write fails", 1.0, "", crit=1, note=error.message)
    return Finding("a write fails", 0.0, "", crit=1)


def _few(names: Iterable[str], most: int = 5) -> str:
    found = list(names)
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")
