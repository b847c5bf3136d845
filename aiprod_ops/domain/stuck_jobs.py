"""Which jobs nobody works on any more, which are only slow, and what becomes of each. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from aiprod_ops.domain.jobs import Status
from aiprod_ops.units import Seconds, show

#: The code of the catalogue (`aiprod_ops.domain.problems`) that a job fails with which no worker finishes.
CODE = "PROCESSING_ERROR"
BATCH = 100  #: jobs in one action: one statement, and a lock on each row for as long as that takes


class Trouble(StrEnum):
    """What is wrong with a job."""

    LOST = "lost"  #: it is processing, and nobody gives a sign of life for it
    POISON = "poison"  #: it is lost, and was tried as often as it may be: it may be what kills the workers
    SLOW = "slow"  #: it is processing for long, and somebody works on it
    POSTPONED = "postponed"  #: it is queued for a time that is too far away


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job that has not ended, as it was seen."""

    id: str
    status: str
    attempts: int
    progress: int
    worker: str | None
    updated_at: datetime
    started_at: datetime | None
    heartbeat_at: datetime | None
    due_at: datetime | None

    @property
    def sign(self) -> datetime:
        """The last sign of life: a heart-beat, or a change where none came later."""
        return max(self.heartbeat_at, self.updated_at) if self.heartbeat_at else self.updated_at

    def __str__(self) -> str:
        by = f" by {self.worker}" if self.worker else ""
        return f"{self.id}, {self.status}{by}, attempt {self.attempts}, last sign {self.sign:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True, slots=True)
class Limits:
    """From when on a job is in trouble, and how often it is tried."""

    silent: Seconds  #: without a sign of life while it is processing
    longest: Seconds  #: of one attempt; longer is slow
    waits: Seconds  #: until its turn comes; longer is postponed
    attempts: int  #: that may begin; a job that is lost in the last one has failed


@dataclass(frozen=True, slots=True)
class Queue:
    """What else is to be seen: jobs that wait, the oldest whose turn it is for `oldest`; workers that were heard of."""

    waiting: int
    oldest: Seconds
    working: int
    workers: int


@dataclass(frozen=True, slots=True)
class StuckJobs:
    """Some of them, as they were seen: one that was touched since is not meant."""

    jobs: tuple[OpenJob, ...]

    def __str__(self) -> str:
        first = self.jobs[0].id
        return first if len(self.jobs) == 1 else f"{first} and {len(self.jobs) - 1} more"


def trouble(job: OpenJob, now: datetime, limits: Limits) -> Trouble | None:
    """What is wrong with a job, if anything: its silence tells lost from slow."""
    if job.status == Status.QUEUED:
        is_far = job.due_at is not None and job.due_at - now > timedelta(seconds=limits.waits)
        return Trouble.POSTPONED if is_far else None
    if job.status != Status.PROCESSING:
        return None
    if now - job.sign >= timedelta(seconds=limits.silent):
        return Trouble.POISON if job.attempts >= limits.attempts else Trouble.LOST
    lasts = now - (job.started_at or job.updated_at)
    return Trouble.SLOW if lasts >= timedelta(seconds=limits.longest) else None


def sorted_out(jobs: Iterable[OpenJob], now: datetime, limits: Limits) -> dict[Trouble, list[OpenJob]]:
    """Those in trouble, by what it is, in the order of their ids: that in which they were submitted."""
    found: dict[Trouble, list[OpenJob]] = {each: [] for each in Trouble}
    for job in sorted(jobs, key=lambda job: job.id):
        if (wrong := trouble(job, now, limits)) is not None:
            found[wrong].append(job)
    return found


def batches(jobs: Sequence[OpenJob]) -> Iterator[StuckJobs]:
    """So many in one action; each job is in one of them."""
    for first in range(0, len(jobs), BATCH):
        yield StuckJobs(tuple(jobs[first : first + BATCH]))


def reason(job: OpenJob) -> str:
    """What the owner of a job reads that is given up.

    >>> from datetime import UTC
    >>> noon = datetime(2026, 11, 28, 12, tzinfo=UTC)
    >>> reason(OpenJob("1", "processing", 3, 0, "w", noon, noon, noon, None))
    'no worker finished it in 3 attempts; the last one was not heard of after 2026-11-28 12:00:00 UTC'
    """
    return (
        f"no worker finished it in {job.attempts} attempts; "
        f"the last one was not heard of after {job.sign:%Y-%m-%d %H:%M:%S} UTC"
    )


def silence(job: OpenJob, now: datetime) -> str:
    """For how long nothing was heard of it."""
    return show((now - job.sign).total_seconds(), "s")
