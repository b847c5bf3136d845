"""What follows a failed attempt at a job: another one, later, or the job's failure. Pure."""

from dataclasses import dataclass

from aiprod_ops.domain.problems import BY_CODE
from aiprod_ops.units import Seconds

MOST = 3  #: attempts. Source: the seeds, "failed after 3 attempts"
FIRST_WAIT, LONGEST_WAIT = Seconds(2), Seconds(60)


@dataclass(frozen=True, slots=True)
class Again:
    """The job waits for so long, then it is tried again."""

    wait: Seconds


def after_failure(code: str, attempts: int, most: int = MOST) -> Again | None:
    """Another attempt, or None where the job has failed: the code says that the same again is of no use, or
    so many were made. The wait doubles with each attempt.

    >>> after_failure("RENDERING_ERROR", 1), after_failure("RENDERING_ERROR", 3), after_failure("CONTENT_REFUSED", 1)
    (Again(wait=2), None, None)
    """
    if not BY_CODE[code].again or attempts >= most:
        return None
    return Again(Seconds(min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempts - 1))))


def quarters(before: int, after: int) -> int | None:
    """The last quarter (25, 50 or 75 percent) that progress has passed: so often it is told, however often it changes.

    >>> quarters(0, 24), quarters(24, 80), quarters(80, 100)
    (None, 75, None)
    """
    passed = [mark for mark in (25, 50, 75) if before < mark <= after]
    return passed[-1] if passed else None
