"""How each part of the service is looked at. A figure that nobody could read is UNKNOWN, never OK."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec
import psutil
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from aiprod_ops.domain.findings import Finding
from aiprod_ops.service.freshness import Progress, Replayed, staleness
from aiprod_ops.service.health import Check
from aiprod_ops.units import Seconds

_DATABASE = text("""
select pg_is_in_recovery() or current_setting('transaction_read_only')::bool as is_read_only,
       (select count(*) from pg_stat_activity where backend_type = 'client backend')::float8
         / current_setting('max_connections')::int as used /* aiprod-ops: health */
""")
_PRIMARY = text("""
select case when pg_is_in_recovery() then 0 else pg_current_wal_flush_lsn() - '0/0'::pg_lsn end::bigint as flushed,
       extract(epoch from clock_timestamp())::float8 as clock /* aiprod-ops: health */
""")
_REPLICA = text("""
select pg_is_in_recovery() as is_standby, coalesce(pg_last_wal_replay_lsn() - '0/0'::pg_lsn, 0)::bigint as replayed,
       extract(epoch from pg_last_xact_replay_timestamp())::float8 as committed /* aiprod-ops: health */
""")
# Jobs of batches are meant to wait, however long; what is counted is in the index idx_jobs_under_way.
_QUEUE = text("""
select count(*)::int as depth, coalesce(extract(epoch from clock_timestamp() - min(created_at)), 0)::float8 as age
from jobs where status = 'queued' and batch_id is null /* aiprod-ops: health */
""")
# It reads what is pending, whatever has been delivered: the indexes of what is due are partial.
_WEBHOOKS = text("""
select count(*)::int as pending, count(*) filter (where is_due)::int as due,
       coalesce(extract(epoch from clock_timestamp() - min(due_at) filter (where is_due)), 0)::float8 as age,
       (select count(*) from webhook_endpoints where why_disabled in ('failing', 'gone'))::int as disabled,
       (select count(*) from webhook_deliveries d join webhook_endpoints e on e.id = d.endpoint_id
        join webhook_events v on v.id = d.event_id and not starts_with(v.type, 'endpoint.')
        where d.state = 'pending' and e.state = 'disabled' and e.why_disabled <> 'deleted')::int as held
from (
  select due_at, due_at <= now() and coalesce(lease_until <= now(), true) as is_due
  from webhook_deliveries d join webhook_endpoints e on e.id = d.endpoint_id
  where d.state = 'pending' and e.state = 'enabled'
) as waiting /* aiprod-ops: health */
""")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From when on a part is ill: `warn`, and `crit` where that is another. Those of AIPROD stand in `service.toml`."""

    lag: Seconds
    queue_age: Seconds
    disk: float  #: share of the disk that is used
    webhook_age: Seconds  #: since a delivery was due
    verified: Seconds  #: since a backup was last restored, and its rows looked at
    connections: float = 0.9  #: share of max_connections; three of them are kept for superusers


class Answers(Protocol):
    """A Redis client, as far as this needs one."""

    def ping(self) -> Awaitable[Any]:
        """Raises where it does not answer."""


def database(engine: AsyncEngine, limits: Thresholds) -> Check:
    """The primary: it answers, takes writes, and has sessions left."""

    async def look() -> list[Finding]:
        async with engine.connect() as connection:
            row = (await connection.execute(_DATABASE)).one()
        note = "it only reads: a standby, or default_transaction_read_only" if row.is_read_only else ""
        return [
            Finding("refuses writes", float(row.is_read_only), crit=1, note=note),
            Finding("sessions used", row.used, warn=limits.connections),
        ]

    return Check("database", look, Seconds(1), is_vital=True)


def replicas(primary: AsyncEngine, each: Mapping[str, AsyncEngine], limits: Thresholds) -> Iterator[Check]:
    """One check for each replica, by the name that it is shown under."""
    for name, engine in each.items():
        yield Check(f"replica {name}", _lag(primary, engine, limits), Seconds(1))


def _lag(primary: AsyncEngine, engine: AsyncEngine, limits: Thresholds) -> Callable[[], Awaitable[list[Finding]]]:
    async def look() -> list[Finding]:
        async with primary.connect() as connection:  # first: so no replica seems behind for nothing
            now = (await connection.execute(_PRIMARY)).one()
        async with engine.connect() as connection:
            seen = (await connection.execute(_REPLICA)).one()
        if not seen.is_standby:
            return [Finding("lag", None, "s", note="it is no standby any more")]
        stale = staleness(Progress(now.flushed, now.clock), Replayed(seen.replayed, seen.committed))
        return [Finding("lag", stale, "s", limits.lag, 10 * limits.lag)]

    return look


def cache(client: Answers) -> Check:
    """Redis. Without it every answer comes from the database, and limits are kept by each process alone."""

    async def look() -> list[Finding]:
        await client.ping()
        return [Finding("does not answer", 0.0, warn=1)]

    return Check("cache", look, Seconds(0.2))


def queue(engine: AsyncEngine, limits: Thresholds) -> Check:
    """Single jobs that wait, and since when the oldest does."""

    async def look() -> list[Finding]:
        async with engine.connect() as connection:
            row = (await connection.execute(_QUEUE)).one()
        return [
            Finding("jobs that wait", float(row.depth)),
            Finding("the oldest has waited", row.age, "s", limits.queue_age, 4 * limits.queue_age),
        ]

    return Check("queue", look, Seconds(1))


def webhooks(engine: AsyncEngine, limits: Thresholds) -> Check:
    """Deliveries that wait, and since when the oldest one is due; endpoints that failed and are sent nothing."""

    async def look() -> list[Finding]:
        async with engine.connect() as connection:
            row = (await connection.execute(_WEBHOOKS)).one()
        return [
            Finding("deliveries that wait", float(row.pending), note=f"{row.due:,} of them are due"),
            Finding("the oldest is due since", row.age, "s", limits.webhook_age, 5 * limits.webhook_age),
            Finding("disabled endpoints", float(row.disabled)),
            Finding("deliveries that wait for disabled endpoints", float(row.held)),
        ]

    return Check("webhooks", look, Seconds(1))


def disk(folder: Path, limits: Thresholds) -> Check:
    """The disk that results, journals or logs of this machine are on."""

    async def look() -> list[Finding]:
        usage = await asyncio.to_thread(psutil.disk_usage, str(folder))  # a share that is gone hangs
        return [Finding("used", usage.percent / 100, "", limits.disk, (1 + limits.disk) / 2)]

    return Check("disk", look)


def backups(verified: Callable[[], datetime | None], limits: Thresholds) -> Check:
    """When a backup was last restored and looked at. `verified` reads the evidence, in a thread."""

    async def look() -> list[Finding]:
        last = await asyncio.to_thread(verified)
        if last is None:
            return [
                Finding("since one was verified", None, "s", note="no backup was ever restored: `prove test-backup`")
            ]
        age = (datetime.now(UTC) - last).total_seconds()
        return [Finding("since one was verified", age, "s", limits.verified, 2 * limits.verified)]

    return Check("backups", look, Seconds(1))


def verified_backup(evidence: Path | None) -> datetime | None:
    """When a test of a backup last held, as the sealed evidence in a folder says; None where none did."""
    if evidence is None:
        return None
    for path in sorted(evidence.glob("*-test-backup-*.json"), reverse=True):
        body = msgspec.json.decode(path.read_bytes()).get("body", {})
        if (body.get("kind"), body.get("exit")) == ("prove", 0):
            return datetime.fromisoformat(body["ended"])
    return None
