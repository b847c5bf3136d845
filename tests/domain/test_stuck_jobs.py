"""Which jobs nobody works on: silence decides for one in work, the engine's knowledge for one that waits."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from aiprod_ops.domain.problems import OF_JOBS
from aiprod_ops.domain.stuck_jobs import BATCH, CODE, Limits, OpenJob, Trouble, batches, is_poison, of, trouble
from aiprod_ops.units import Seconds

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
LIMITS = Limits(silent=Seconds(300), longest=Seconds(3600), waits=Seconds(600), attempts=3)
JOB = OpenJob("1", "processing", 1, NOON - timedelta(hours=2), None)


def silent_for(seconds: float, **more: object) -> OpenJob:
    return replace(JOB, heartbeat_at=NOON - timedelta(seconds=seconds), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (JOB, Trouble.LOST),
        (silent_for(300), Trouble.LOST),
        (silent_for(299), Trouble.SLOW),
        (silent_for(5, updated_at=NOON - timedelta(minutes=50)), None),
        (replace(JOB, updated_at=NOON), None),
        (replace(JOB, status="queued"), Trouble.FORGOTTEN),
        (replace(JOB, status="queued", is_known=True), None),
        (replace(JOB, status="queued", updated_at=NOON - timedelta(seconds=599)), None),
        (replace(JOB, status="completed"), None),
    ],
)
def test_silence_is_what_tells_lost_from_slow(job: OpenJob, expected: Trouble | None) -> None:
    assert trouble(job, NOON, LIMITS) is expected


def test_a_change_after_the_last_sign_is_a_sign() -> None:
    job = replace(silent_for(400), updated_at=NOON - timedelta(seconds=10))
    assert trouble(job, NOON, LIMITS) is None


def test_poison_is_what_was_lost_as_often_as_it_may_be_tried() -> None:
    assert not is_poison(replace(JOB, attempts=2), LIMITS)
    assert is_poison(replace(JOB, attempts=3), LIMITS)
    assert not is_poison(replace(JOB, attempts=3, status="queued"), LIMITS)
    assert CODE in {kind.code for kind in OF_JOBS if kind.again}


def test_batches_hold_each_job_once_in_the_order_of_their_ids() -> None:
    jobs = [replace(JOB, id=f"{n:04d}") for n in reversed(range(2 * BATCH + 1))]
    made = list(batches(jobs))
    assert [len(each.jobs) for each in made] == [BATCH, BATCH, 1]
    assert [job.id for each in made for job in each.jobs] == [f"{n:04d}" for n in range(2 * BATCH + 1)]
    assert [str(each) for each in made] == ["0000 and 99 more", "0100 and 99 more", "0200"]


def test_all_are_sorted_by_what_is_wrong() -> None:
    found = of([JOB, replace(JOB, status="queued"), silent_for(1)], NOON, LIMITS)
    assert {wrong: len(jobs) for wrong, jobs in found.items()} == dict.fromkeys(Trouble, 1)
