"""Giving jobs that nobody works on back to the queue, or up. Each statement names a job with its status, attempts,
worker and last sign of life as they were planned: one that was touched since is left alone.

The job stays what it is: the same id, the same row of the API's idempotency keys, and its attempts are counted on. A
worker that was only silent finds that the job is not its own any more with its next heart-beat, and stops.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from aiprod_ops.actions.row_rights import require_rights
from aiprod_ops.domain.stuck_jobs import OpenJob, Queue, StuckJobs
from aiprod_ops.engine.runbook import Context, Kind
from aiprod_ops.ports import Database
from aiprod_ops.units import Seconds

CHANNEL = "aiprod_jobs"  #: what wakes workers: as `aiprod_ops.service.working.claims` has it
MOST = 10_000  #: jobs that are read at once

_SIGN = "greatest(j.updated_at, j.heartbeat_at)"
_COLUMNS = """
j.id::text as id, j.status, j.attempts::int as attempts, j.progress::int as progress, j.worker,
j.updated_at, j.started_at, j.heartbeat_at, j.due_at
"""
_OPEN = """
select <columns> from jobs j
where (j.status = 'processing' and (<sign> <= now() - %(silent)s * interval '1 second'
                                    or coalesce(j.started_at, j.updated_at)
                                       <= now() - %(longest)s * interval '1 second')
       or j.status = 'queued' and j.due_at > now())
  and (%(job)s = '' or j.id::text = %(job)s)
order by j.id limit %(most)s
/* aiprod-ops: jobs that may be stuck */
""".replace("<columns>", _COLUMNS).replace("<sign>", _SIGN)
_QUEUE = """
select count(*) filter (where j.status = 'queued') as waiting,
       greatest(0, extract(epoch from now() - min(coalesce(j.due_at, j.updated_at)) filter (where j.status = 'queued')))
         ::float8 as oldest,
       count(*) filter (where h.is_heard) as working,
       greatest(count(distinct j.worker) filter (where h.is_heard),
                (select count(*) from pg_stat_activity
                 where datname = current_database() and application_name = %(listens)s)) as workers
from jobs j, lateral (
  select j.status = 'processing' and j.heartbeat_at > now() - %(silent)s * interval '1 second' as is_heard) h
where j.status in ('queued', 'processing')
/* aiprod-ops: jobs that wait, and who works */
"""
_EXISTS = "select to_regclass('batches') is not null as is_there"  #: with it came who works on a job
_KNOWN = "select from jobs where id::text = %(job)s"
PLANNED = """
unnest(%(ids)s::uuid[], %(statuses)s::text[], %(attempts)s::int[], %(progress)s::int[], %(workers)s::text[],
       %(updated)s::timestamptz[], %(beats)s::timestamptz[], %(due)s::timestamptz[])
  as p (id, status, attempts, progress, worker, updated_at, heartbeat_at, due_at)
"""
AS_PLANNED = """
j.id = p.id and j.status = p.status and j.attempts = p.attempts and j.updated_at = p.updated_at
and j.worker is not distinct from p.worker and j.heartbeat_at is not distinct from p.heartbeat_at
and j.due_at is not distinct from p.due_at
"""
#: As the run left it: nobody has taken it since.
_AS_LEFT = """
j.id = p.id and j.status = 'queued' and j.attempts = p.attempts and j.updated_at > p.updated_at
and j.worker is null and j.heartbeat_at is not distinct from p.heartbeat_at and j.due_at is null
"""
_REQUEUE = """
update jobs j set status = 'queued', worker = null, due_at = null, progress = 0, updated_at = clock_timestamp()
from <planned> where <as planned>
/* aiprod-ops: jobs that nobody worked on wait again */
""".replace("<planned>", PLANNED).replace("<as planned>", AS_PLANNED)
_RETURN = """
update jobs j set status = p.status, worker = p.worker, due_at = p.due_at, progress = p.progress,
                  updated_at = p.updated_at
from <planned> where <as left>
/* aiprod-ops: jobs that nobody has taken are as they were */
""".replace("<planned>", PLANNED).replace("<as left>", _AS_LEFT)
_STILL = "select count(*) as jobs from jobs j, <planned> where <as planned>".replace("<planned>", PLANNED).replace(
    "<as planned>", AS_PLANNED
)
_LEFT = _STILL.replace(AS_PLANNED, _AS_LEFT)
_BECAME = """
select status, count(*) as jobs from jobs where id = any(%(ids)s::uuid[]) group by 1 order by 1
/* aiprod-ops: what became of jobs */
"""
LISTENS = "aiprod-ops worker: wake-up"  #: the session of a worker: as `aiprod_ops.service.working.wakeup` has it
_WAKE = "select pg_notify(%(channel)s, '')"

requeue_jobs = Kind("requeue-jobs", StuckJobs)
return_jobs = Kind("return-jobs", StuckJobs)


@requeue_jobs.shows
def _show(stuck: StuckJobs) -> str:
    return listed("queue again, if it is still as it was seen", stuck.jobs)


@requeue_jobs.needs
@return_jobs.needs
def _may_change(ctx: Context, _stuck: StuckJobs) -> None:
    require_rights(ctx.db, {"jobs": "SELECT, UPDATE"})


@requeue_jobs.does
def _requeue(ctx: Context, stuck: StuckJobs) -> None:
    ctx.db.execute(_REQUEUE, planned_values(stuck), timeout=Seconds(60))
    ctx.db.query(_WAKE, {"channel": CHANNEL})


@requeue_jobs.is_done
def _is_requeued(ctx: Context, stuck: StuckJobs) -> bool:
    return not still(ctx.db, stuck)


@return_jobs.shows
def _show_return(stuck: StuckJobs) -> str:
    return f"put {len(stuck.jobs)} jobs back as they were, where nobody has taken them"


@return_jobs.does
def _return(ctx: Context, stuck: StuckJobs) -> None:
    ctx.db.execute(_RETURN, planned_values(stuck), timeout=Seconds(60))


@return_jobs.is_done
def _is_returned(ctx: Context, stuck: StuckJobs) -> bool:
    return not ctx.db.query(_LEFT, planned_values(stuck))[0]["jobs"]


def still(database: Database, stuck: StuckJobs) -> int:
    """How many of them are as they were seen."""
    return int(database.query(_STILL, planned_values(stuck))[0]["jobs"])


def became(database: Database, stuck: Iterable[StuckJobs]) -> str:
    """What became of them, in words."""
    ids = [job.id for each in stuck for job in each.jobs]
    return ", ".join(f"{row['jobs']:,} {row['status']}" for row in database.query(_BECAME, {"ids": ids}))


def has_workers(database: Database) -> bool:
    """Whether the schema tells who works on a job: migration 006."""
    return bool(database.query(_EXISTS)[0]["is_there"])


def open_jobs(database: Database, silent: Seconds, longest: Seconds, job: str = "") -> list[OpenJob]:
    """Jobs that may be in trouble, in the order of their ids; of more than are read at once the first."""
    values = {"silent": silent, "longest": longest, "job": job, "most": MOST}
    return [OpenJob(**_utc(row)) for row in database.query(_OPEN, values)]


def job_queue(database: Database, silent: Seconds) -> Queue:
    """What waits, and who works: workers that were heard of, or that listen for work and have none."""
    return Queue(**database.query(_QUEUE, {"silent": silent, "listens": LISTENS})[0])


def knows_job(database: Database, job: str) -> bool:
    return bool(database.query(_KNOWN, {"job": job}))


def _utc(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: each.astimezone(UTC) if isinstance(each, datetime) else each for name, each in row.items()}


def listed(verb: str, jobs: Sequence[OpenJob]) -> str:
    rest = [f"  and {len(jobs) - 5} more"] if len(jobs) > 5 else []
    return "\n".join((f"{verb}:", *(f"  {job}" for job in jobs[:5]), *rest))


def planned_values(stuck: StuckJobs) -> dict[str, Any]:
    jobs = stuck.jobs
    return {
        "ids": [job.id for job in jobs],
        "statuses": [job.status for job in jobs],
        "attempts": [job.attempts for job in jobs],
        "progress": [job.progress for job in jobs],
        "workers": [job.worker for job in jobs],
        "updated": [job.updated_at for job in jobs],
        "beats": [job.heartbeat_at for job in jobs],
        "due": [job.due_at for job in jobs],
    }
