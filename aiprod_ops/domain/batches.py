"""A batch of jobs: how far it is, and when it will be done. Pure; the counts are those of its jobs."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Counts:
    """Jobs of a batch by status."""

    queued: int = 0
    processing: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def ended(self) -> int:
        """Jobs of which nothing more comes."""
        return self.completed + self.failed + self.cancelled

    @property
    def jobs(self) -> int:
        """All of them."""
        return self.ended + self.queued + self.processing

    @property
    def progress(self) -> int:
        """Percent of the jobs that have ended, rounded down: 100 is said of none that goes on.

        >>> Counts(queued=1, completed=999).progress, Counts(completed=1).progress
        (99, 100)
        """
        return 100 * self.ended // self.jobs if self.jobs else 100


def eta(counts: Counts, began: datetime, now: datetime) -> datetime | None:
    """When the rest will have ended, if it goes on as it did since it began; None while nothing has ended, or all has.

    >>> from datetime import UTC
    >>> noon = datetime(2026, 11, 28, 12, tzinfo=UTC)
    >>> eta(Counts(queued=30, completed=10), noon, noon + timedelta(minutes=1)).isoformat()
    '2026-11-28T12:04:00+00:00'
    """
    done = counts.completed + counts.failed  # what was cancelled took no time
    rest = counts.queued + counts.processing
    if not done or not rest:
        return None
    return now + (now - began) * rest / done
