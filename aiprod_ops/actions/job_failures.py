"""Giving jobs up that no worker finishes: they fail with a code of the catalogue, and their owners are told, in one
transaction."""

from collections.abc import Iterator
from contextlib import contextmanager

from aiprod_ops.actions.job_requeues import AS_PLANNED, PLANNED, listed, planned_values, still
from aiprod_ops.domain.stuck_jobs import CODE, StuckJobs, reason
from aiprod_ops.engine.runbook import Context, Kind
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


@fail_jobs.does
def _fail(ctx: Context, stuck: StuckJobs) -> None:
    values = {**planned_values(stuck), "code": CODE, "reasons": [reason(job) for job in stuck.jobs]}
    with _transaction(ctx.db):
        ctx.db.query(_FAIL, values, timeout=Seconds(60))


@fail_jobs.is_done
def _has_failed(ctx: Context, stuck: StuckJobs) -> bool:
    return not still(ctx.db, stuck)


@contextmanager
def _transaction(database: Database) -> Iterator[None]:
    database.execute("begin")
    try:
        yield
    except BaseException:
        database.execute("rollback")
        raise
    database.execute("commit")
