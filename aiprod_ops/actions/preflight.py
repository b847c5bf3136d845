"""What has to be true right before a concurrent index build. Read again at the gate.

Source: PostgreSQL manual, "Building Indexes Concurrently": the build waits for every transaction that could use the
old state, and an interrupted one leaves an INVALID index.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aiprod_ops.actions.index_builds import quoted
from aiprod_ops.domain.findings import Finding
from aiprod_ops.domain.schema import Name
from aiprod_ops.engine.runbook import Context
from aiprod_ops.units import Bytes, Seconds, show

_OLD = """
select a.pid, coalesce(a.usename, '?') as role, coalesce(nullif(a.application_name, ''), '-') as application, a.state,
       extract(epoch from clock_timestamp() - a.xact_start)::float8 as seconds
from pg_stat_activity a
where a.backend_xmin is not null and a.datname = current_database() and a.pid <> pg_backend_pid()
  and a.xact_start is not null and a.backend_type = 'client backend'
order by a.xact_start limit 1
/* aiprod-ops: the oldest snapshot */
"""
_WRITERS = """
select a.pid, coalesce(a.usename, '?') as role, coalesce(nullif(a.application_name, ''), '-') as application, a.state,
       extract(epoch from clock_timestamp() - a.xact_start)::float8 as seconds
from pg_locks l join pg_stat_activity a on a.pid = l.pid
where l.locktype = 'relation' and l.granted and l.relation = to_regclass(%(table)s)
  and l.database = (select oid from pg_database where datname = current_database())
  and l.mode = 'RowExclusiveLock' and a.backend_type = 'client backend'
order by a.xact_start limit 1
/* aiprod-ops: the oldest transaction that wrote to a table */
"""
_PREPARED = """
select gid, owner, extract(epoch from clock_timestamp() - prepared)::float8 as seconds
from pg_prepared_xacts where database = current_database() order by prepared limit 1
/* aiprod-ops: the oldest prepared transaction */
"""
_LOCKS = """
select a.pid, coalesce(a.usename, '?') as role, l.mode, a.backend_type,
       a.query like '%%to prevent wraparound%%' as is_forced,
       extract(epoch from clock_timestamp() - coalesce(a.xact_start, a.query_start))::float8 as seconds
from pg_locks l join pg_stat_activity a on a.pid = l.pid
where l.locktype = 'relation' and l.granted and l.relation = to_regclass(%(table)s)
  and l.database = (select oid from pg_database where datname = current_database())
  and l.mode in ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                 'AccessExclusiveLock')
order by seconds desc nulls last limit 1
/* aiprod-ops: who holds a lock that a concurrent build waits for */
"""
_LAG = """
select coalesce(max(extract(epoch from replay_lag)), 0)::float8 as seconds from pg_stat_replication
/* aiprod-ops: replication lag */
"""


def ready_to_build(
    context: Context, tables: Sequence[Name], needed: Bytes, *, oldest: Seconds, lag: Seconds
) -> Iterator[Finding]:
    """Findings that refuse a build: a standby, old snapshots, prepared transactions, locks, too little disk, lag.

    `needed` is the estimated size of what will be built; twice that has to be free, for sorting and WAL.
    """
    server = context.db.server()
    yield Finding("the server is a standby", float(server.is_standby), "", crit=1,
                  note="an index is built on the primary" if server.is_standby else "")  # fmt: skip
    yield _oldest(context, oldest)
    yield _prepared(context, oldest)
    for table in tables:
        yield _lock(context, table)
        yield _writer(context, table, oldest)
    yield Finding("replication lag", context.db.query(_LAG)[0]["seconds"], "s", crit=lag)
    yield _disk(context, needed)


def _oldest(context: Context, oldest: Seconds) -> Finding:
    return _aged("oldest open transaction", context.db.query(_OLD), oldest)


def _writer(context: Context, table: Name, oldest: Seconds) -> Finding:
    """A build waits for those who may have written to its table, also when they have no snapshot any more."""
    rows = context.db.query(_WRITERS, {"table": quoted(table.schema, table.name)})
    return _aged(f"oldest writer of {table}", rows, oldest)


def _aged(metric: str, rows: Sequence[Mapping[str, Any]], oldest: Seconds) -> Finding:
    """How old a transaction is. A limit of 0 allows none at all, and no transaction is none."""
    if not rows:
        return Finding(metric, 0.0, "s", note="none")
    row = rows[0]
    who = f"session {row['pid']} of {row['role']} ({row['application']})"
    note = f"{who}, {row['state']}, open for {show(row['seconds'], 's')}: end it, or wait for its end"
    return Finding(metric, row["seconds"], "s", crit=oldest, note=note)


def _prepared(context: Context, oldest: Seconds) -> Finding:
    rows = context.db.query(_PREPARED)
    if not rows:
        return Finding("oldest prepared transaction", 0.0, "s", note="none")
    row = rows[0]
    note = f"{row['gid']!r} of {row['owner']}, prepared {show(row['seconds'], 's')} ago: commit or roll it back"
    return Finding("oldest prepared transaction", row["seconds"], "s", crit=oldest, note=note)


def _lock(context: Context, table: Name) -> Finding:
    """Autovacuum gives way to a build, unless it prevents wraparound; everybody else does not."""
    rows = context.db.query(_LOCKS, {"table": quoted(table.schema, table.name)})
    metric = f"lock on {table}"
    if not rows:
        return Finding(metric, 0.0, "", crit=1)
    row = rows[0]
    yields = row["backend_type"] == "autovacuum worker" and not row["is_forced"]
    note = f"{row['mode']} held by session {row['pid']} of {row['role']} for {show(row['seconds'] or 0, 's')}"
    return Finding(metric, 0.5 if yields else 1.0, "", warn=0.5, crit=1, note=note)


def _disk(context: Context, needed: Bytes) -> Finding:
    free = context.platform.free()
    if free is None:
        return Finding("disk", 0.0, "", crit=1, note="free space cannot be read from here")
    note = f"{show(2 * needed, 'B')} are needed for the index, its sort and its WAL, {show(free, 'B')} are free"
    return Finding("disk", 2 * needed / free if free else float("inf"), "ratio", crit=1.0, note=note)
