"""The figures of a database, read from it: what is compared of a restored copy and its source."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from queue import SimpleQueue
from typing import Any

import msgspec

from aiprod_ops.domain.figures import Figures, Rows
from aiprod_ops.domain.findings import Finding
from aiprod_ops.domain.schema import Name
from aiprod_ops.engine.runbook import Context
from aiprod_ops.errors import Failed, PermissionMissing
from aiprod_ops.ports import Database
from aiprod_ops.units import Bytes, Seconds

_RECORDED = "figures"  #: in the history
_LONGEST = Seconds(3600)  #: of one table

_TABLES = """
select n.nspname::text as schema, c.relname::text as name, coalesce(pg_relation_size(c.oid), 0) as size,
       row_security_active(c.oid) as hidden, c.oid::bigint as oid,
       written.name as written, written.is_zoned as is_zoned,
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
left join lateral (
  select a.attname::text as name, a.atttypid = 'timestamptz'::regtype as is_zoned from pg_attribute a
  where a.attrelid = c.oid and a.atttypid in ('timestamptz'::regtype, 'timestamp'::regtype)
    and a.attname in ('created_at', 'inserted_at', 'updated_at') and not a.attisdropped
  order by array_position(array['updated_at', 'inserted_at', 'created_at']::name[], a.attname) desc limit 1) written
  on true
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
#: The file of the table as its snapshot sees it, and as it is: who waits for the lock that this statement has cannot
#: replace it any more. Source: PostgreSQL manual, "Caveats" of concurrency control: TRUNCATE and what rewrites a table
#: show a snapshot from before them an empty one.
_ROWS = """
select count(*) as rows, {digest} as digest, {newest} as newest, {oldest} as oldest,
       (select c.relfilenode <> pg_relation_filenode(c.oid) from pg_class c where c.oid = {oid}) as rewritten
from {table} t /* aiprod-ops: rows of a table */
"""
#: Looked up as it is now, not as the snapshot sees it: what was dropped or renamed since cannot be read any more.
_GONE = """
select to_regclass(format('%%I.%%I', %(schema)s, %(name)s))::oid is distinct from %(oid)s::oid as gone
/* aiprod-ops: whether a table is still there */
"""
_AROUND = """
select array(select extname::text from pg_extension order by 1) as extensions,
       array(select rolname::text from pg_roles where rolname !~ '^pg_' order by 1) as roles
/* aiprod-ops: what stands around the tables */
"""


def read_source(session: Database, most: Bytes) -> Figures:
    """The figures of a server that others use. Its session ends with that: the locks that one holds who has read a
    table would let whoever wants to change it wait, and all others behind that one."""
    try:
        return figures([session], most)
    finally:
        session.close()


def figures(
    sessions: Sequence[Database], most: Bytes, report: Callable[[str], None] = lambda _: None, only: Name | None = None
) -> Figures:
    """Read every table of a database, or `only` one, in sessions side by side; those beyond `most` bytes are counted,
    not added up.

    The sum does not depend on the order of the rows.
    """
    first = sessions[0]
    revision, beside = first.revision(), first.query(_AROUND)[0]
    found = [each for each in first.query(_TABLES) if only in (None, Name(each["schema"], each["name"]))]
    report(f"reading the rows of {len(found)} tables")
    for session in sessions:
        session.query(_ALIKE)
    free: SimpleQueue[Database] = SimpleQueue()
    for session in sessions:
        free.put(session)

    def read(table: Mapping[str, Any]) -> tuple[Rows, bool]:
        session = free.get()
        try:
            return _rows(session, table, most)
        finally:
            free.put(session)

    found.sort(key=lambda table: -table["size"])  # the largest first: the last ones are short
    names = [str(Name(table["schema"], table["name"])) for table in found]
    with ThreadPoolExecutor(len(sessions)) as pool:
        said = dict(zip(names, pool.map(read, found), strict=True))
    return Figures(
        {name: rows for name, (rows, _) in sorted(said.items())},
        revision,
        tuple(beside["extensions"]),
        tuple(beside["roles"]),
        hidden=tuple(sorted(name for name, table in zip(names, found, strict=True) if table["hidden"])),
        rewritten=tuple(sorted(name for name, (_, is_rewritten) in said.items() if is_rewritten)),
    )


def _rows(database: Database, table: Mapping[str, Any], most: Bytes) -> tuple[Rows, bool]:
    """Answers, too, whether the table was rewritten, or dropped, after the moment that is read."""
    if database.query(_GONE, {name: table[name] for name in ("schema", "name", "oid")})[0]["gone"]:
        return Rows(0, None, None), True
    names: dict[str, Name | str] = {"table": Name(table["schema"], table["name"])}
    newest = oldest = "null::timestamptz"
    if table["written"]:
        newest, names["written"] = "max(t.{written})::timestamptz", table["written"]
    if table["is_zoned"]:
        oldest = "min(t.{written})"
    digest = f"coalesce(sum({_hashed(table['columns'])}), 0)::text" if table["size"] <= most else "null::text"
    text = _ROWS.replace("{digest}", digest).replace("{newest}", newest).replace("{oldest}", oldest)
    text = text.replace("{oid}", str(table["oid"]))
    row = database.query(text, names=names, timeout=_LONGEST)[0]
    return Rows(int(row["rows"]), row["digest"], row["newest"], row["oldest"]), bool(row["rewritten"])


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


def record_figures(ctx: Context, source: Figures, at: datetime) -> None:
    """Keep what the source had at a moment: for the day when it is lost, and for the backups of other moments."""
    ctx.history.keep(_RECORDED, at, msgspec.to_builtins(source))


def recorded_figures(ctx: Context, before: datetime | None = None) -> tuple[datetime, Figures] | None:
    """What the source had when it was last read, or last read before a moment, and when that was."""
    kept = ctx.history.last(_RECORDED, before=before)
    return (kept.taken, msgspec.convert(kept.value, Figures)) if kept else None


_WRITTEN = Name("aiprod_ops_write_test", "written")


def writable(copy: Database) -> Finding:
    """Whether a table can be made and written there. In a schema of our own: a search path may be empty.

    P0001 (raise_exception) is what code of the users' raises, such as an event trigger: no fault of the backup.
    """
    names: dict[str, Name | str] = {"schema": _WRITTEN.schema, "table": _WRITTEN}
    try:
        copy.execute("create schema {schema}", names=names)
        copy.execute("create table {table} (n int)", names=names)
        copy.execute("insert into {table} values (1)", names=names)
        copy.execute("drop schema {schema} cascade", names=names)
    except Failed as error:
        if "(SQLSTATE P0001)" in error.message:
            note = f"an event trigger of the database forbids it: {error.message}"
            return Finding("a write fails", 1.0, "", warn=1, note=note)
        return Finding("a write fails", 1.0, "", crit=1, note=error.message)
    except PermissionMissing as error:  # of the role that looks, not of the copy
        note = f"{error.message}; GRANT CREATE ON DATABASE … to the role in the DSN"
        return Finding("a write fails", None, note=note)
    return Finding("a write fails", 0.0, "", crit=1)
