"""A job's life: only legal steps, and what holds after each."""

import doctest
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiprod_ops.domain import jobs, texts, urls
from aiprod_ops.domain.jobs import ENDED, FOLLOWS, IllegalTransition, Job, Status, advance

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
STATUSES = st.sampled_from(Status)


def step(job: Job, to: Status, progress: int | None = None) -> Job:
    return advance(job, to, NOON, progress=progress, failure="RENDERING_ERROR" if to is Status.FAILED else "")


@pytest.mark.parametrize("module", [jobs, texts, urls])
def test_examples(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


@given(st.lists(st.tuples(STATUSES, st.none() | st.integers(0, 100)), max_size=30))
def test_whatever_is_asked_for(steps: list[tuple[Status, int | None]]) -> None:
    job = Job(Status.QUEUED)
    for to, progress in steps:
        if to not in FOLLOWS[job.status]:
            with pytest.raises(IllegalTransition, match=f"the job is {job.status}"):
                step(job, to, progress)
            continue
        after = step(job, to, progress)
        assert (after.completed_at is not None) is (after.status in ENDED)
        assert bool(after.failure) is (after.status is Status.FAILED)
        assert after.attempts - job.attempts == (job.status is Status.QUEUED and to is Status.PROCESSING)
        assert after.progress >= job.progress or to is Status.QUEUED
        job = after


def test_an_end_is_an_end() -> None:
    assert {Status.COMPLETED, Status.FAILED, Status.CANCELLED} == ENDED
    for status in ENDED:
        for to in Status:
            with pytest.raises(IllegalTransition, match="which is an end"):
                step(Job(status), to)


def test_a_job_that_fails_says_why() -> None:
    with pytest.raises(ValueError, match="one that fails has a code"):
        advance(Job(Status.PROCESSING), Status.FAILED, NOON)
    with pytest.raises(ValueError, match="does not belong"):
        advance(Job(Status.PROCESSING), Status.COMPLETED, NOON, failure="RENDERING_ERROR")


def test_a_job_that_is_given_back_begins_anew() -> None:
    job = step(step(Job(Status.QUEUED), Status.PROCESSING, 70), Status.QUEUED)
    assert (job.progress, job.attempts) == (0, 1)
    assert step(job, Status.PROCESSING).attempts == 2
