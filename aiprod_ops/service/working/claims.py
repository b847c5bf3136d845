"""Who works on which job: rows of `jobs` are leased to a worker for as long as it is heard of.

One worker picks at a time, for the few milliseconds of a statement, so that two never choose the same jobs, and a
tier's number of jobs at a time holds on any number of machines. Of waiting jobs the urgent come first; among equals
whoever has the fewest in work, so that nobody waits behind another's batch; of one user single jobs before a batch's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.expression import TextualSelect

from aiprod_ops.domain.tiers import Tier
from aiprod_ops.service.tables import jobs
from aiprod_ops.units import Seconds

#: What tells workers that jobs wait: `NOTIFY aiprod_jobs`.
CHANNEL = "aiprod_jobs"
WAKE = text(f"notify {CHANNEL}")
_NO_LIMIT = 2**31 - 1


def _jobs(statement: str) -> TextualSelect:
    """A statement that answers rows of `jobs`, with the types that the tables say."""
    return text(statement).columns(**{column.name: column.type for column in jobs.columns})


#: A statement of its own: the next one's snapshot is taken after it. The number that names this lock is ours.
_TURN = text("select pg_advisory_xact_lock(7316113) /* aiprod-ops: one worker picks at a time */")
#: `waiting` skips from user to user along idx_jobs_waiting, so that a batch of 100,000 costs no more than a job; it is
#: ordered by all of that index's columns, so that no other is taken, one with all jobs that have ended.
_CLAIM = _jobs("""
with recursive waiting as (
    (select j.user_id from jobs j where j.status = 'queued'
     order by j.user_id, (case j.priority when 'urgent' then 0 when 'high' then 1 when 'normal' then 2 else 3 end),
              j.batch_position, j.id
     limit 1)
    union all
    select (select j.user_id from jobs j where j.status = 'queued' and j.user_id > w.user_id
            order by j.user_id,
                     (case j.priority when 'urgent' then 0 when 'high' then 1 when 'normal' then 2 else 3 end),
                     j.batch_position, j.id
            limit 1)
    from waiting w where w.user_id is not null
), busy as (
    select user_id, count(*) as jobs from jobs where status = 'processing' group by user_id
), picked as (
    select each.id from waiting
    join users on users.id = waiting.user_id
    left join busy on busy.user_id = waiting.user_id
    left join unnest(cast(:tiers as text[]), cast(:most as integer[])) as tier (name, most) on tier.name = users.tier
    cross join lateral (
        select j.id, (case j.priority when 'urgent' then 0 when 'high' then 1 when 'normal' then 2 else 3 end) as rank,
               row_number() over (order by
                   (case j.priority when 'urgent' then 0 when 'high' then 1 when 'normal' then 2 else 3 end),
                   j.batch_position, j.id) as nth
        from jobs j
        where j.user_id = waiting.user_id and j.status = 'queued' and (j.due_at is null or j.due_at <= now())
        order by (case j.priority when 'urgent' then 0 when 'high' then 1 when 'normal' then 2 else 3 end),
                 j.batch_position, j.id
        limit greatest(0, least(:room, coalesce(tier.most, :no_limit) - coalesce(busy.jobs, 0)))
    ) as each
    order by each.rank, coalesce(busy.jobs, 0) + each.nth, each.id limit :room
)
update jobs set status = 'processing', worker = :worker, attempts = attempts + 1, progress = 0, due_at = null,
    started_at = clock_timestamp(), heartbeat_at = clock_timestamp(), updated_at = clock_timestamp()
from picked, users
where jobs.id = picked.id and jobs.status = 'queued' and users.id = jobs.user_id
returning jobs.*, users.tier /* aiprod-ops: jobs for a worker */
""")
#: What is not returned is no longer this worker's: cancelled, or taken over because it was not heard of.
_BEAT = _jobs("""
update jobs set heartbeat_at = clock_timestamp(), progress = greatest(jobs.progress, said.progress),
    updated_at = case when said.progress > jobs.progress then clock_timestamp() else jobs.updated_at end
from unnest(cast(:ids as uuid[]), cast(:attempts as integer[]), cast(:progress as integer[]))
    as said (id, attempts, progress)
where jobs.id = said.id and jobs.worker = :worker and jobs.attempts = said.attempts and jobs.status = 'processing'
returning jobs.* /* aiprod-ops: a worker is alive */
""")
_GIVEN_BACK = text("""
update jobs set status = 'queued', worker = null, progress = 0, attempts = greatest(0, attempts - 1),
    updated_at = clock_timestamp()
where id = any (cast(:ids as uuid[])) and worker = :worker and status = 'processing'
returning id /* aiprod-ops: a worker ends, others go on */
""")
#: While the server was down nobody could be heard of: after its start everybody has a lease to be.
_LOST = _jobs("""
select * from jobs
where status = 'processing' and heartbeat_at < clock_timestamp() - make_interval(secs => :lease)
    and pg_postmaster_start_time() < clock_timestamp() - make_interval(secs => :lease)
order by heartbeat_at limit 1000 for update skip locked /* aiprod-ops: jobs of workers that are not heard of */
""")


@dataclass(frozen=True, slots=True)
class Held:
    """A job that a worker holds, and how far it is, in percent."""

    job_id: str
    attempt: int
    progress: int


async def claim(
    transaction: AsyncConnection, worker: str, room: int, tiers: Mapping[str, Tier]
) -> Sequence[RowMapping]:
    """So many jobs, at most, for a worker: rows of `jobs` as they are now, with the user's `tier`."""
    await transaction.execute(_TURN)
    found = await transaction.execute(
        _CLAIM,
        {
            "worker": worker,
            "room": room,
            "tiers": list(tiers),
            "most": [min(tier.concurrent_jobs, _NO_LIMIT) for tier in tiers.values()],
            "no_limit": _NO_LIMIT,
        },
    )
    return found.mappings().all()


async def beat(transaction: AsyncConnection, worker: str, held: Iterable[Held]) -> Sequence[RowMapping]:
    """Say that a worker is alive, and how far its jobs are. Returns the rows of those that are still its own."""
    sorted_jobs = sorted(held, key=lambda job: job.job_id)
    given = {
        "worker": worker,
        "ids": [job.job_id for job in sorted_jobs],
        "attempts": [job.attempt for job in sorted_jobs],
        "progress": [job.progress for job in sorted_jobs],
    }
    return (await transaction.execute(_BEAT, given)).mappings().all()


async def give_back(transaction: AsyncConnection, worker: str, job_ids: Sequence[str]) -> None:
    """Let others have these jobs at once. That the worker ends is not the job's failure: no attempt is counted."""
    await transaction.execute(_GIVEN_BACK, {"worker": worker, "ids": list(job_ids)})
    await transaction.execute(WAKE)


async def lost(transaction: AsyncConnection, lease: Seconds) -> Sequence[RowMapping]:
    """Jobs whose worker has not been heard of for a lease; locked. One without heart-beats is not ours to judge."""
    return (await transaction.execute(_LOST, {"lease": float(lease)})).mappings().all()
