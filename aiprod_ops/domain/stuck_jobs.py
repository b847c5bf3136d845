"""Which jobs nobody works on any more, which are only slow, and what becomes of each. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from aiprod_ops.domain.jobs import Status
from aiprod_ops.units import Seconds

#: The code of the catalogue (`aiprod_ops.domain.problems`) that a job fails with which no worker finishes.
CODE = "PROCESSING_ERROR"
BATCH = 100  #: jobs in one action: one statement, and a lock on each row for as long as that takes


class Trouble(StrEnum):
    """What is wrong with a job."""

    LOST = "lost"  #: it is processing, and nobody gives a sign of life for it
    SLOW = "slow"  #: it is processing for long, and somebody works on it
    FORGOTTEN = "forgotten"  #: it is queued, and no worker will ever find it


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job that has not ended, as it was seen. `is_known` tells whether the workers' engine has it: what the engine
    has will be taken, or is being worked on."""

    id: str
    status: str
    attempts: int
    updated_at: datetime
    heartbeat_at: datetime | None
    preset: str = ""
    is_known: bool = False

    @property
    def sign(self) -> datetime:
        """The last sign of life: a worker's, or the last change where none gave one."""
        return max(self.heartbeat_at, self.updated_at) if self.heartbeat_at else self.updated_at

    def __str__(self) -> str:
        return f"{self.id} ({self.status}, {self.attempts} attempts, last sign {self.sign:%Y-%m-%d %H:%M:%S} UTC)"


@dataclass(frozen=True, slots=True)
class Limits:
    """From when on a job is in trouble, and how often it is tried."""

    silent: Seconds  #: without a sign of life while it is processing
    longest: Seconds  #: of one attempt; longer is slow
    waits: Seconds  #: in the queue, unknown to the engine
    attempts: int  #: that begin; after the last one it fails


@dataclass(frozen=True, slots=True)
class Jobs:
    """Some of them, as they were seen: one that was touched since is not meant."""

    jobs: tuple[OpenJob, ...]
    attempts: int = 0  #: the limit that they have reached, where they are given up

    def __str__(self) -> str:
        first = self.jobs[0].id
        return first if len(self.jobs) == 1 else f"{first} and {len(self.jobs) - 1} more"


def trouble(job: OpenJob, now: datetime, limits: Limits, began: datetime | None = None) -> Trouble | None:
    """What is wrong with a job, if anything. `began` is when its attempt did, where that is known."""
    silent = (now - job.sign).total_seconds()
    if job.status == Status.PROCESSING:
        if silent >= limits.silent:
            return Trouble.LOST
        lasts = (now - (began or job.updated_at)).total_seconds()
        return Trouble.SLOW if lasts >= limits.longest else None
    if job.status == Status.QUEUED and not job.is_known and silent >= limits.waits:
        return Trouble.FORGOTTEN
    return None


def is_poison(job: OpenJob, limits: Limits) -> bool:
    """Whether it was tried as often as it may be, and lost each time: it may be what kills the workers."""
    return job.status == Status.PROCESSING and job.attempts >= limits.attempts


def batches(jobs: Sequence[OpenJob], *, attempts: int = 0) -> Iterator[Jobs]:
    """In the order of their ids, which is that in which they were submitted."""
    ordered = sorted(jobs, key=lambda job: job.id)
    for first in range(0, len(ordered), BATCH):
        yield Jobs(tuple(ordered[first : first + BATCH]), attempts)


def of(jobs: Iterable[OpenJob], now: datetime, limits: Limits) -> dict[Trouble, list[OpenJob]]:
    """Those in trouble, by what it is."""
    found: dict[Trouble, list[OpenJob]] = {each: [] for each in Trouble}
    for job in jobs:
        if (wrong := trouble(job, now, limits)) is not None:
            found[wrong].append(job)
    return found
