"""Giving jobs up that no worker finishes: they fail with a code of the catalogue, and their owners are told, in one
transaction."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from sqlalchemy import TextClause
from sqlalchemy.dialects import postgresql

from aiprod_ops.actions.job_requeues import AS_PLANNED, PLANNED, listed, planned_values, still
from aiprod_ops.actions.row_rights import require_rights
from aiprod_ops.domain.stuck_jobs import CODE, StuckJobs, reason
from aiprod_ops.engine.runbook import Context, Kind
from aiprod_ops.errors import ConfigurationError
from aiprod_ops.ports import Database
from aiprod_ops.units import Seconds

_FAIL = """
update jobs j set status = 'failed', worker = null, due_at = null, error_code = %(code)s, error = r.reason,
                  completed_at = clock_timestamp(), updated_at = clock_timestamp()
from <planned> join unnest(%(ids)s::uuid[], %(reasons)s::text[]) as r (id, reason) on r.id = p.id
where <as planned>
returning j.*, j.id::text as id, j.user_id::text as user_id
/* aiprod-ops: jobs that no worker finishes have failed */
""".replace("<planned>", PLANNED).replace("<as planned>", AS_PLANNED)

fail_jobs = Kind("fail-jobs", StuckJobs)


@fail_jobs.shows
def _show(stuck: StuckJobs) -> str:
    return listed(f"fail with {CODE}, if it is still as it was seen, and tell its owner", stuck.jobs)


@fail_jobs.needs
def _can_tell(ctx: Context, _stuck: StuckJobs) -> None:
    """An event is made by the service's own code, so that it is what a worker would have told."""
    rows = dict.fromkeys(("webhook_events", "webhook_deliveries"), "SELECT, INSERT")
    require_rights(ctx.db, {"jobs": "SELECT, UPDATE", "webhook_endpoints": "SELECT, UPDATE", **rows})
    try:
        import aiprod_ops.service.working.telling  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            f"the owner of a job cannot be told that it failed: {error.name} is not installed",
            hint='pip install "aiprod-ops[service]"',
        ) from error


@fail_jobs.does
def _fail(ctx: Context, stuck: StuckJobs) -> None:
    from aiprod_ops.service.working.telling import tell_job

    values = {**planned_values(stuck), "code": CODE, "reasons": [reason(job) for job in stuck.jobs]}
    with _transaction(ctx.db):
        for row in ctx.db.query(_FAIL, values, timeout=Seconds(60)):
            asyncio.run(tell_job(_Statements(ctx.db), "job.failed", row))  # type: ignore[arg-type]


@fail_jobs.is_done
def _has_failed(ctx: Context, stuck: StuckJobs) -> bool:
    return not still(ctx.db, stuck)


@dataclass(frozen=True, slots=True)
class _Statements:
    """Of SQLAlchemy's connection what the service's outbox asks of it, on a session of ours."""

    database: Database

    async def execute(self, statement: TextClause, values: Mapping[str, Any]) -> "_Rows":
        compiled = statement.compile(dialect=postgresql.psycopg2.dialect())  # type: ignore[no-untyped-call]
        # What is a literal brace to the server is the beginning of an identifier's name to a session of ours.
        text = str(compiled).replace("{", "{{").replace("}", "}}")
        return _Rows(self.database.query(text, {**compiled.params, **values}))


@dataclass(frozen=True, slots=True)
class _Rows:
    rows: list[dict[str, Any]]

    def one_or_none(self) -> SimpleNamespace | None:
        return SimpleNamespace(**self.rows[0]) if self.rows else None


@contextmanager
def _transaction(database: Database) -> Iterator[None]:
    """All of it, or nothing: an actor's session is in autocommit otherwise."""
    database.execute("begin")
    try:
        yield
    except BaseException:
        database.execute("rollback")
        raise
    database.execute("commit")
