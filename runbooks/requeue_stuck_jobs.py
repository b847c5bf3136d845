"""Give jobs back to the queue that nobody works on any more; give those up that no worker finishes.

A worker tells with a heart-beat that it works on a job, and a worker that is lost is noticed by the others: they take
its jobs over within seconds. This is for what stays: where no other worker runs, where a job was taken before there
were heart-beats, where it was postponed for hours. A job is *lost* when nothing was heard of it for `--silent`; it is
only *slow*, and left alone, as long as somebody is heard of, however long it takes. A job that waits for its turn is
not stuck: that there are too few workers, or none, is told.

A lost job is queued again, with its id and its attempts: the submission's Idempotency-Key answers as before, and no
second job is made. One that was lost in each of `--attempts` attempts may be what kills the workers: it fails with the
code `PROCESSING_ERROR` and the reason, and its owner is told as of any other failure.

The plan names each job with status, attempts, worker and last sign of life. A statement touches a job only as it was
seen: one that was taken, cancelled or ended meanwhile is left alone. Rolled back, those that nobody has taken since are
as they were; a failure is final.

The API's cache is not told: for up to a minute after a run, answers that it has stored may still show the old state.

Source: PostgreSQL manual, "Explicit Locking"; Google, "Site Reliability Engineering", "Addressing Cascading Failures"
(queries of death).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from aiprod_ops import api
from aiprod_ops.api import Context, Finding, Lab, Moving, OpenJob, Plan, Seconds, Trouble

_TOLD = 20  #: jobs that stand in a table
_CRITICAL = 4  #: times the age that a queue may have
_MISSING = "this schema does not tell who works on a job: its migration is missing (alembic upgrade head)"


@dataclass(frozen=True)
class Params:
    """What may be set on the command line."""

    job: str = ""  #: this job alone
    silent: Seconds = api.promise("jobs.silent", least=1)  #: without a sign of life for so long it is lost
    longest: Seconds = api.promise("jobs.longest", least=1)  #: an attempt that takes longer is slow
    waits: Seconds = api.promise("health.queue_age")  #: so long a job may wait for its turn, or be postponed
    attempts: int = api.promise("jobs.attempts", least=1)  #: a job that is lost in so many fails
    most: int = api.limited(1_000, least=1, most=10_000)  #: jobs in one run, oldest first

    @property
    def limits(self) -> api.JobLimits:
        return api.JobLimits(self.silent, self.longest, self.waits, self.attempts)


@dataclass(frozen=True)
class Facts:
    """A job that nobody works on stays as it is; the queue moves."""

    is_there: bool
    is_known: bool
    jobs: tuple[OpenJob, ...]
    moment: Moving[datetime]
    queue: Moving[api.JobQueue]


book = api.Runbook(
    params=Params,
    symptom="Jobs stay in work for ever, and nobody works on them",
    risk="moderate",
    owner="api",
    check_every="5 min",
    alerts=("StuckJobs",),
    actions=(api.requeue_jobs, api.return_jobs, api.fail_jobs),
    exports=("jobs that nobody works on",),
)


@book.facts
def facts(ctx: Context, params: Params) -> Facts:
    """Needs to read the jobs."""
    if not api.has_workers(ctx.db):
        return Facts(False, True, (), api.moment_of(ctx.db), api.JobQueue(0, Seconds(0), 0, 0))
    return Facts(
        is_there=True,
        is_known=not params.job or api.knows_job(ctx.db, params.job),
        jobs=tuple(api.open_jobs(ctx.db, params.silent, params.longest, params.job)),
        moment=api.moment_of(ctx.db),
        queue=api.job_queue(ctx.db, params.silent),
    )


@book.judge
def judge(facts: Facts, params: Params) -> Iterator[Finding]:
    """What nobody works on, what is slow, what waits; then a row for each job in trouble, oldest first."""
    if not facts.is_there:
        yield Finding("jobs", None, note=_MISSING)
        return
    if not facts.is_known:
        yield Finding(f"no job {params.job}", 1.0, "", crit=1, note="there is none of this id", id="job")
    found = api.sorted_out(facts.jobs, facts.moment, params.limits)
    lost = found[Trouble.LOST] + found[Trouble.POISON] + found[Trouble.POSTPONED]
    note = ", ".join(f"{len(jobs)} {wrong}" for wrong, jobs in found.items() if jobs and wrong is not Trouble.SLOW)
    yield Finding("jobs that nobody works on", float(len(lost)), "", warn=1, crit=10, note=note, id="stuck")
    slow = found[Trouble.SLOW]
    note = f"in work for more than {api.show(params.longest, 's')}, and heard of" if slow else ""
    yield Finding("jobs that are slow", float(len(slow)), "", warn=1, note=note, id="slow")
    queue = facts.queue
    note = f"{queue.waiting:,} wait, {queue.working:,} are in work; {queue.workers} workers run"
    if queue.waiting and queue.oldest >= params.waits:
        if not queue.workers:
            note += ": does one? aiprod-ops worker"
        elif lost:
            note += ": what nobody works on takes places that its user's tier has; queue it again first"
    yield Finding(
        "oldest job that waits", float(queue.oldest), "s", params.waits, _CRITICAL * params.waits, note, id="queue"
    )
    told = [(wrong, job) for wrong in Trouble for job in found[wrong]][:_TOLD]
    for wrong, job in told:
        cells = {
            "job": job.id,
            "what": wrong.value,
            "silent for": api.silence(job, facts.moment),
            "attempts": str(job.attempts),
            "worker": job.worker or "-",
        }
        yield Finding("in trouble", 1.0, "", warn=1, columns=cells, id=f"{wrong}:{job.id}")


@book.plan
def plan(facts: Facts, params: Params) -> Iterator[api.Action]:
    """Those that are lost or postponed are queued again, then those that are poison fail. Raises UsageError for a job
    that is not there."""
    if not facts.is_there:
        raise api.Refused(_MISSING)
    if not facts.is_known:
        raise api.UsageError(f"there is no job {params.job}", hint="--job takes the id of a job")
    again, poison = _stuck(facts, params)
    for stuck in api.job_batches(again[: params.most]):
        undo = api.return_jobs(stuck)
        yield api.requeue_jobs(stuck, undo=undo, lock="ROW EXCLUSIVE", estimate=api.Estimate(Seconds(1)))
    for stuck in api.job_batches(poison[: max(0, params.most - len(again))]):
        final = "a job that failed has ended, and its owner was told"
        yield api.fail_jobs(stuck, irreversible=final, lock="ROW EXCLUSIVE", estimate=api.Estimate(Seconds(1)))


@book.bears
def bears(plan: Plan, now: Plan, params: Params) -> bool:  # noqa: ARG001
    """While one of them is still as it was seen: each statement leaves alone what has moved."""
    planned, left = ({job for stuck in _planned(one) for job in stuck.jobs} for one in (plan, now))
    return bool(planned & left)


@book.omits
def omits(facts: Facts, params: Params) -> dict[str, str]:
    """What is more than one run takes, and what is only slow."""
    again, poison = _stuck(facts, params)
    more = len(again) + len(poison) - params.most
    slow = api.sorted_out(facts.jobs, facts.moment, params.limits)[Trouble.SLOW]
    return ({f"{more:,} more jobs": f"one run takes {params.most:,} (--most)"} if more > 0 else {}) | {
        job.id: f"it is slow: {job.worker or 'a worker'} was heard of {api.silence(job, facts.moment)} before"
        for job in slow[:_TOLD]
    }


@book.verify
def verify(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:  # noqa: ARG001
    """None is as it was seen, and what became of them."""
    stuck = _planned(plan)
    left = sum(api.jobs_still(ctx.db, each) for each in stuck)
    note = api.became_words(ctx.db, stuck)
    yield Finding("planned jobs that are as they were", float(left), "", crit=1, note=note, id="left")


@book.inject
@contextmanager
def inject(lab: Lab, params: Params) -> Iterator[None]:  # noqa: ARG001
    """Jobs whose worker was last heard of yesterday. Needs a lab with heart-beats: `lab up --revision head`."""
    with api.lost_jobs(lab):
        yield


def _planned(plan: Plan) -> list[api.StuckJobs]:
    kinds = {kind.name: kind for kind in (api.requeue_jobs, api.fail_jobs)}
    return [kinds[action.kind].subject(action) for action in plan.actions if action.kind in kinds]


def _stuck(facts: Facts, params: Params) -> tuple[list[OpenJob], list[OpenJob]]:
    """Those to be queued again, and those to be given up, oldest first."""
    found = api.sorted_out(facts.jobs, facts.moment, params.limits)
    again = sorted(found[Trouble.LOST] + found[Trouble.POSTPONED], key=lambda job: job.id)
    return again, found[Trouble.POISON]
