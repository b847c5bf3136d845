"""Building and removing an index while reads and writes go on, and never leaving an INVALID one behind.

Source: PostgreSQL manual, CREATE INDEX, "Building Indexes Concurrently".
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from aiprod_ops.domain.advice.coverage import NewIndex, has_predicate, shown
from aiprod_ops.domain.findings import Finding
from aiprod_ops.domain.plans import Action, Estimate
from aiprod_ops.domain.schema import Name, TableSize
from aiprod_ops.engine.runbook import Amount, Context, Kind
from aiprod_ops.errors import Cancelled, Failed, PermissionMissing, TimedOut
from aiprod_ops.ports import Database
from aiprod_ops.units import Bytes, Seconds

LOCK = "SHARE UPDATE EXCLUSIVE: reads and writes go on"
LONGEST = Seconds(6 * 3600)
_NO_LIMIT = Seconds(0)  # the watch bounds a build; a statement_timeout would leave its remains to nobody
_REMOVE = Seconds(30)

_STATE = """
select i.indisvalid and i.indisready and i.indislive as is_valid, c.relkind::text as kind,
       tn.nspname as table_schema, t.relname as table_name, am.amname as method,
       coalesce(pg_get_expr(i.indpred, i.indrelid), '') as predicate,
       i.indisunique as is_unique,
       array(select pg_get_indexdef(c.oid, k, true) from generate_series(1, i.indnkeyatts) k order by k) as keys,
       array(select coalesce(nullif(o.opcname, d.opcname), '')
             from unnest(i.indclass) with ordinality u(oid, k) join pg_opclass o on o.oid = u.oid
             left join pg_opclass d on d.opcmethod = o.opcmethod and d.opcintype = o.opcintype and d.opcdefault
             where k <= i.indnkeyatts order by k) as operator_classes,
       array(select i.indoption[k - 1]::int from generate_series(1, i.indnkeyatts) k order by k) as options,
       exists (select from pg_stat_progress_create_index p where p.index_relid = c.oid) as is_building
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
left join pg_index i on i.indexrelid = c.oid
left join pg_class t on t.oid = i.indrelid
left join pg_namespace tn on tn.oid = t.relnamespace
left join pg_am am on am.oid = c.relam
where n.nspname = %(schema)s and c.relname = %(name)s
/* aiprod-ops: the state of one index */
"""

_MAY = """
select current_user::text as role, pg_get_userbyid(c.relowner) as owner,
       pg_has_role(current_user, c.relowner, 'USAGE') as owns,
       has_schema_privilege(c.relowner, n.oid, 'USAGE') and has_schema_privilege(c.relowner, n.oid, 'CREATE') as creates
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = %(schema)s and c.relname = %(name)s
/* aiprod-ops: whether this role may build an index */
"""

_PROGRESS = """
select p.phase, p.blocks_done, p.blocks_total, p.tuples_done, p.tuples_total, p.lockers_done, p.lockers_total
from pg_stat_progress_create_index p
where p.relid = to_regclass(%(table)s) and p.datname = current_database()
/* aiprod-ops: progress of an index build */
"""

_WAITS = """
select coalesce(max(extract(epoch from clock_timestamp() - coalesce({waitstart}, a.query_start))), 0)::float8
       as seconds,
       coalesce(string_agg(distinct b.pid || ' ' || coalesce(b.usename, '') || ' ' || coalesce(b.application_name, ''),
                           ', '), '') as blockers
from pg_locks l
join pg_stat_activity a on a.pid = l.pid and a.application_name like 'aiprod-ops 2%%'
left join lateral unnest(pg_blocking_pids(l.pid)) as p(pid) on true
left join pg_stat_activity b on b.pid = p.pid
where not l.granted and a.datname = current_database() and a.query ilike '%% index concurrently %%'
/* aiprod-ops: what our build waits for */
"""

_BLOCKED = """
select coalesce(max(extract(epoch from clock_timestamp() - a.query_start)), 0)::float8 as seconds, count(*) as sessions
from pg_stat_activity a
where a.wait_event_type = 'Lock' and a.datname = current_database()
  and exists (select from unnest(pg_blocking_pids(a.pid)) p(pid) join pg_stat_activity b on b.pid = p.pid
              where b.application_name like 'aiprod-ops 2%%')
/* aiprod-ops: whom our build blocks */
"""

_LAG = """
select coalesce(max(extract(epoch from replay_lag)), 0)::float8 as seconds from pg_stat_replication
/* aiprod-ops: replication lag */
"""


@dataclass(frozen=True, slots=True)
class Build:
    """An index to be built, the statements it is for (query id, normalised text), and the schema's Alembic revision."""

    index: NewIndex
    serves: tuple[tuple[int, str], ...] = ()
    revision: str = ""

    def __str__(self) -> str:
        return self.index.name.name


create_index = Kind("create-index", Build)
drop_index = Kind("drop-index", Build)
drop_invalid_index = Kind("drop-invalid-index", Build)


@create_index.shows
def creation(build: Build) -> str:
    """The statement, as people write it."""
    keys = ", ".join(plain(key.column, key.is_expression) + shown(key)[len(key.column) :] for key in build.index.keys)
    table = build.index.table
    where = build.index.where
    part = f" WHERE {where.text(plain(where.column))}" if where else ""
    return f"CREATE INDEX CONCURRENTLY {plain(build.index.name.name)} ON {plain(table)} ({keys}){part}"


@drop_index.shows
def removal(build: Build) -> str:
    """The statement, as people write it."""
    return f"DROP INDEX CONCURRENTLY IF EXISTS {plain(build.index.name)}"


drop_invalid_index.shows(removal)


def plain(name: Name | str, is_expression: bool = False) -> str:
    """As `quote_ident` would print it, for people and for migrations: the driver quotes what is executed."""
    if isinstance(name, Name):
        return f"{plain(name.schema)}.{plain(name.name)}"
    if is_expression:
        return f"({name})"
    if re.fullmatch(r"[a-z_][a-z0-9_$]*", name) and name not in _keywords():
        return name
    return quoted(name)


def quoted(*parts: str) -> str:
    """A name as SQL reads it whatever it is made of, with its schema before it."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


@cache
def _keywords() -> frozenset[str]:
    """Words that are no bare identifiers everywhere. Source: PostgreSQL manual, appendix C "SQL Key Words"."""
    from pglast import keywords  # on first use: it takes longer than all of this here

    return frozenset(keywords.RESERVED_KEYWORDS | keywords.TYPE_FUNC_NAME_KEYWORDS | keywords.COL_NAME_KEYWORDS)


@create_index.is_done
def is_built(context: Context, build: Build) -> bool:
    """Valid, ready, and what was planned."""
    state = _state(context.db, build.index.name)
    return state is not None and bool(state["is_valid"]) and matches(state, build.index)


@create_index.needs
def may_create(context: Context, build: Build) -> None:
    """Building takes the table's owner, and CREATE on its schema. Source: PostgreSQL manual, CREATE INDEX, "Notes"."""
    may_build(context, build.index.table)


def may_build(context: Context, table: Name) -> None:
    """Raises PermissionMissing, with the GRANT that helps, where this role may not build or drop a table's indexes."""
    row = context.db.query(_MAY, {"schema": table.schema, "name": table.name})
    if not row:
        return  # it is not there any more: the build itself says so
    role, owner, schema = (plain(str(text)) for text in (row[0]["role"], row[0]["owner"], table.schema))
    missing = [] if row[0]["owns"] else [f"GRANT {owner} TO {role};"]
    missing += [] if row[0]["creates"] else [f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {owner};"]
    if missing:
        raise PermissionMissing(
            f"{row[0]['role']} may not build or drop an index of {table}: it takes the table's owner",
            hint=" ".join(missing),
        )


@create_index.does
def create(context: Context, build: Build) -> None:
    """Build it without blocking writers. Whatever fails, an INVALID index of this name does not stay.

    There is no lock_timeout: in the wait phase of a concurrent build it would leave an INVALID index that every write
    has to maintain. The watch cancels instead, and the remains are removed here. Raises Failed.
    """
    index = build.index
    state = _state(context.db, index.name)
    if state is not None:
        _refuse_what_is_not_ours(state, index)
        if state["is_valid"]:
            return
        context.report(f"{index.name} is INVALID: removing what an interrupted build left")
        remove(context, index.name)
    columns, names = _keys(index)
    try:
        context.db.execute(
            f"create index concurrently {{index}} on {{table}} {columns}",
            names={"index": index.name.name, "table": index.table, **names},
            timeout=_NO_LIMIT,
        )
    except (Failed, TimedOut):
        _remove_remains(context, index)
        raise


def _keys(index: NewIndex) -> tuple[str, dict[str, str]]:
    """The key list and the condition with a placeholder for each identifier, and the identifiers. An expression is SQL
    already."""
    parts: list[str] = []
    names: dict[str, str] = {}
    for number, key in enumerate(index.keys):
        tail = shown(key)[len(key.column) :]
        if key.is_expression:
            parts.append("(" + key.column.replace("{", "{{").replace("}", "}}") + ")" + tail)
        else:
            names[f"key{number}"] = key.column
            parts.append(f"{{key{number}}}{tail}")
    columns = f"({', '.join(parts)})"
    if index.where:
        names["where"] = index.where.column
        columns += " where " + index.where.text("{where}")
    return columns, names


def _remove_remains(context: Context, index: NewIndex) -> None:
    """After a failed build: what is left is INVALID, and ours. What cannot be removed now, the undo tries again."""
    state = _state(context.db, index.name)
    if state is not None and not state["is_valid"] and not state["is_building"] and matches(state, index):
        context.report(f"removing the INVALID remains of {index.name}")
        remove(context, index.name)


def _refuse_what_is_not_ours(state: dict[str, Any], index: NewIndex) -> None:
    if state["is_building"]:
        raise Failed(f"another session is building {index.name} now", hint="wait until it is done, then plan again")
    if not matches(state, index):
        raise Failed(f"the name {index.name} is taken by something else", hint="plan again: another name is chosen")


def matches(state: dict[str, Any], index: NewIndex) -> bool:
    """Whether the index that is there is the one that is meant: table, rows, method, keys, order, operator classes."""
    if state["table_name"] is None or Name(state["table_schema"], state["table_name"]) != index.table:
        return False
    if state["method"] != "btree" or not has_predicate(state["predicate"], index.where) or state["is_unique"]:
        return False
    options = [int(key.descending) + 2 * int(key.nulls_first) for key in index.keys]
    classes = [key.operator_class for key in index.keys]
    wanted = [_bare(key.column) for key in index.keys]
    have = [_bare(str(text)) for text in state["keys"]]
    return (have, list(state["options"]), list(state["operator_classes"])) == (wanted, options, classes)


def _bare(text: str) -> str:
    """A key's text without what the server adds for looks: quotes, spaces, outer brackets and casts of constants."""
    bare = "".join(text.replace("::text", "").split()).lower()
    bare = bare[1:-1].replace('""', '"') if bare.startswith('"') and bare.endswith('"') else bare
    return bare[1:-1] if bare.startswith("(") and bare.endswith(")") else bare


@drop_index.is_done
def is_gone(context: Context, build: Build) -> bool:
    return _state(context.db, build.index.name) is None


@drop_index.does
def drop(context: Context, build: Build) -> None:
    """Remove it without blocking writers; raises Failed when the name belongs to something else."""
    state = _state(context.db, build.index.name)
    if state is None:
        return
    if not matches(state, build.index):
        raise Failed(f"{build.index.name} is not the index that was built: it is left alone")
    remove(context, build.index.name)


@drop_invalid_index.is_done
def has_no_remains(context: Context, build: Build) -> bool:
    state = _state(context.db, build.index.name)
    return state is None or bool(state["is_valid"])


@drop_invalid_index.does
def drop_remains(context: Context, build: Build) -> None:
    """Remove an INVALID index that somebody's interrupted build left; a build in progress is left alone (Failed)."""
    state = _state(context.db, build.index.name)
    if state is None or state["is_valid"]:
        return
    _refuse_what_is_not_ours(state, build.index)
    remove(context, build.index.name)


def remove(context: Context, name: Name) -> None:
    """DROP INDEX CONCURRENTLY: it waits for those who use the table. A cancel may have been meant for the build before
    it, and is tried again."""
    for attempt in range(3):
        try:
            return context.db.execute(
                "drop index concurrently if exists {index}", names={"index": name}, timeout=_REMOVE
            )
        except (Cancelled, TimedOut) as error:
            if attempt == 2 or isinstance(error, TimedOut):
                raise Failed(
                    f"{name} is INVALID and cannot be removed: sessions that use its table do not end",
                    hint=f"end them, then: DROP INDEX CONCURRENTLY {name};",
                ) from error
            context.report(f"waiting to remove {name}")
    return None


@create_index.progress
def amount(context: Context, build: Build) -> Amount | None:
    """From pg_stat_progress_create_index."""
    return amount_of(context, build.index.table, str(build))


def amount_of(context: Context, table: Name, name: str) -> Amount | None:
    """How far the build on a table has come; `name` is the index as people know it."""
    rows = context.db.query(_PROGRESS, {"table": quoted(table.schema, table.name)})
    if not rows:
        return None
    row = rows[0]
    for done, total in (
        ("tuples_done", "tuples_total"),
        ("blocks_done", "blocks_total"),
        ("lockers_done", "lockers_total"),
    ):
        if row[total]:
            return Amount(f"{name}, {row['phase']}", float(row[done]), float(row[total]))
    return Amount(f"{name}, {row['phase']}", 0, 0)


def invariants(context: Context, *, patience: Seconds, blocked: Seconds, lag: Seconds) -> Iterator[Finding]:
    """While a build runs: how long it waits, whom it blocks, how far replicas are behind.

    `patience` bounds the wait for older transactions, `blocked` how long a session may wait for us, `lag` the slowest
    replica's replay. Thresholds come from the runbook's parameters.
    """
    version = context.db.server().version
    waitstart = "l.waitstart" if version >= 140000 else "null::timestamptz"
    waits = context.db.query(_WAITS.replace("{waitstart}", waitstart))[0]
    note = f"waits for {waits['blockers']}" if waits["blockers"] else ""
    yield Finding("the build waits for other sessions", waits["seconds"], "s", crit=patience, note=note)
    held_up = context.db.query(_BLOCKED)[0]
    note = f"{held_up['sessions']} sessions" if held_up["sessions"] else ""
    yield Finding("sessions wait for the build", held_up["seconds"], "s", crit=blocked, note=note)
    yield Finding("replication lag", context.db.query(_LAG)[0]["seconds"], "s", crit=lag)


def build_estimate(table: TableSize, size: Bytes) -> Estimate:
    """Two passes over the table at 400 MB/s, and a sort of 1.5 million rows a second.

    Source: measured with `make bench` on 2 cores; a loaded server takes several times as long.
    """
    return Estimate(Seconds(2 * table.pages * 8192 / 400e6 + table.rows / 1.5e6), size)


def build_of(action: Action) -> Build:
    """What an action of this module builds or removes."""
    return create_index.subject(action)


def index_size(database: Database, name: Name) -> Bytes:
    """What an index takes on disk; 0 when there is none."""
    rows = database.query(
        "select pg_relation_size(c.oid) as bytes from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname = %(schema)s and c.relname = %(name)s /* aiprod-ops: the size of one index */",
        {"schema": name.schema, "name": name.name},
    )
    return Bytes(int(rows[0]["bytes"])) if rows else Bytes(0)


def _state(database: Database, name: Name) -> dict[str, Any] | None:
    rows = database.query(_STATE, {"schema": name.schema, "name": name.name})
    return rows[0] if rows else None
