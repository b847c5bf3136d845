"""Which jobs nobody works on: silence decides, not how long it takes; attempts decide who is given up."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from aiprod_ops.actions import job_requeues
from aiprod_ops.domain.problems import OF_JOBS
from aiprod_ops.domain.stuck_jobs import BATCH, CODE, Limits, OpenJob, Trouble, batches, sorted_out, trouble
from aiprod_ops.service.working import claims, wakeup
from aiprod_ops.units import Seconds

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
LIMITS = Limits(silent=Seconds(300), longest=Seconds(3600), waits=Seconds(600), attempts=3)
LONG_AGO = NOON - timedelta(hours=2)
JOB = OpenJob("1", "processing", 1, 40, "w1", LONG_AGO, LONG_AGO, LONG_AGO, None)


def heard(seconds: float, **more: object) -> OpenJob:
    """Heard of so many seconds ago."""
    return replace(JOB, heartbeat_at=NOON - timedelta(seconds=seconds), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (JOB, Trouble.LOST),
        (heard(300), Trouble.LOST),
        (heard(299), Trouble.SLOW),
        (heard(5, started_at=NOON - timedelta(minutes=50)), None),
        (heard(300, attempts=3), Trouble.POISON),
        (heard(299, attempts=3), Trouble.SLOW),
        (replace(JOB, heartbeat_at=None), Trouble.LOST),
        (replace(JOB, heartbeat_at=None, started_at=None, updated_at=NOON), None),
        (heard(400, updated_at=NOON - timedelta(seconds=10), started_at=NOON), None),
        (replace(JOB, status="queued"), None),
        (replace(JOB, status="queued", attempts=3), None),
        (replace(JOB, status="queued", due_at=NOON + timedelta(seconds=600)), None),
        (replace(JOB, status="queued", due_at=NOON + timedelta(seconds=601)), Trouble.POSTPONED),
        (replace(JOB, status="completed"), None),
    ],
)
def test_silence_is_what_tells_lost_from_slow(job: OpenJob, expected: Trouble | None) -> None:
    assert trouble(job, NOON, LIMITS) is expected


def test_the_code_is_one_of_a_job_and_says_that_another_submission_may_succeed() -> None:
    assert CODE in {kind.code for kind in OF_JOBS if kind.again}


def test_workers_are_woken_where_they_listen() -> None:
    assert claims.CHANNEL == job_requeues.CHANNEL
    assert wakeup.NAME == job_requeues.LISTENS


def test_batches_hold_each_job_once_in_the_order_of_their_ids() -> None:
    jobs = [replace(JOB, id=f"{n:04d}") for n in reversed(range(2 * BATCH + 1))]
    made = list(batches(sorted_out(jobs, NOON, LIMITS)[Trouble.LOST]))
    assert [len(each.jobs) for each in made] == [BATCH, BATCH, 1]
    assert [job.id for each in made for job in each.jobs] == [f"{n:04d}" for n in range(2 * BATCH + 1)]
    assert [str(each) for each in made] == ["0000 and 99 more", "0100 and 99 more", "0200"]


def test_all_are_sorted_by_what_is_wrong() -> None:
    far = replace(JOB, status="queued", due_at=NOON + timedelta(days=1))
    found = sorted_out([JOB, heard(1), far, heard(900, attempts=4)], NOON, LIMITS)
    assert {wrong: len(jobs) for wrong, jobs in found.items()} == dict.fromkeys(Trouble, 1)
