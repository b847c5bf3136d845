"""A job's life: which states there are, and which follows which. Pure: whoever stores it hands in the time."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from aiprod_ops.errors import Refused


class Status(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Priority(StrEnum):
    """Which of the waiting jobs is taken first."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    URGENT = "urgent"


#: What follows what. A worker that is lost gives its job back: processing → queued. What has ended stays as it is.
FOLLOWS: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.PROCESSING, Status.CANCELLED, Status.FAILED}),
    Status.PROCESSING: frozenset({Status.PROCESSING, Status.QUEUED, Status.COMPLETED, Status.FAILED, Status.CANCELLED}),
    Status.COMPLETED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}
ENDED = frozenset(status for status, following in FOLLOWS.items() if not following)


class IllegalTransition(Refused):
    """A job cannot go from its state to the one that was asked for."""


@dataclass(frozen=True, slots=True)
class Job:
    """What decides about a job's next state. `progress` is in percent of the current attempt; `failure` is a code of
    the catalogue (`aiprod_ops.domain.problems`), and is there where the job failed, and only there.
    """

    status: Status
    progress: int = 0
    attempts: int = 0
    failure: str = ""
    completed_at: datetime | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.progress <= 100:
            raise ValueError(f"progress is {self.progress}, expected a percentage from 0 to 100")


def advance(job: Job, to: Status, at: datetime, *, progress: int | None = None, failure: str = "") -> Job:
    """The job in its next state; raises IllegalTransition where that does not follow.

    An attempt begins when processing does, and its progress never goes back; a job that is given back begins anew.

    >>> from datetime import UTC
    >>> noon = datetime(2026, 11, 28, 12, tzinfo=UTC)
    >>> taken = advance(Job(Status.QUEUED), Status.PROCESSING, noon)
    >>> taken.attempts, advance(taken, Status.PROCESSING, noon, progress=40).progress
    (1, 40)
    >>> advance(taken, Status.COMPLETED, noon).progress
    100
    >>> advance(Job(Status.COMPLETED, 100), Status.CANCELLED, noon)
    Traceback (most recent call last):
    aiprod_ops.domain.jobs.IllegalTransition: the job is completed, which is an end: it cannot become cancelled
    """
    if to not in FOLLOWS[job.status]:
        raise IllegalTransition(_why_not(job.status, to))
    if (to is Status.FAILED) is not bool(failure):
        raise ValueError(f"a failure {failure!r} does not belong to a job that becomes {to}: one that fails has a code")
    if to is Status.QUEUED:
        return replace(job, status=to, progress=0)
    if to in ENDED:
        done = 100 if to is Status.COMPLETED else job.progress
        return replace(job, status=to, progress=done, failure=failure, completed_at=at)
    reached = max(job.progress, progress or 0)
    begun = 1 if job.status is Status.QUEUED else 0
    return replace(job, status=to, progress=reached, attempts=job.attempts + begun)


def _why_not(now: Status, to: Status) -> str:
    if now in ENDED:
        return f"the job is {now}, which is an end: it cannot become {to}"
    following = ", ".join(sorted(FOLLOWS[now]))
    return f"the job is {now}: it cannot become {to}; from there it can become {following}"
