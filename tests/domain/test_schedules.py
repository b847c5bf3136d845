"""Calendars, jobs and results: what they promise, held against a cron parser over years."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest
from croniter import croniter
from hypothesis import given
from hypothesis import strategies as st

from aiprod_ops.domain.calendars import DAY, HOUR, MINUTE, calendar
from aiprod_ops.domain.findings import Finding, Status
from aiprod_ops.domain.results import Result, Subject, exported, families, succeeded
from aiprod_ops.domain.schedules import Interval, Place, Terms, jobs, late_after, name_of, offset_of
from aiprod_ops.errors import UsageError
from aiprod_ops.units import Seconds, seconds

HOURLY = ["1 min", "5 min", "15 min", "30 min", "1 h", "2 h", "6 h", "12 h"]
SAYABLE = [*HOURLY, "1 d", "2 d", "5 d", "7 d", "30 d", "90 d", "365 d"]
UNSAYABLE = ["30 s", "90 s", "7 min", "90 min", "5 h", "36 h", "14 d", "45 d"]
TERMS = Terms(seconds("2 h"), seconds("4 h"))
PLACE = Place("production", "production", ("OPS_DSN",))


@pytest.mark.parametrize("every", SAYABLE)
@given(part=st.floats(0, 0.999))
def test_a_calendar_keeps_its_interval(every: str, part: float) -> None:
    interval = seconds(every)
    when = calendar(interval, Seconds(interval * part // MINUTE * MINUTE))
    assert when is not None
    moments = croniter(when.cron, datetime(2027, 1, 1, tzinfo=UTC))
    times = list(islice(moments.all_next(datetime), 40))
    gaps = [(after - before).total_seconds() for before, after in pairwise(times)]
    assert max(gaps) <= when.longest, "an alert that counts on the longest gap would fire while all is well"
    if not when.note:
        assert set(gaps) == {interval}
    else:
        assert max(gaps) == when.longest or interval > 100 * DAY


@pytest.mark.parametrize("every", UNSAYABLE)
def test_what_no_calendar_can_say_is_said_to_be_so(every: str) -> None:
    assert calendar(seconds(every), Seconds(0)) is None
    (job,) = jobs([Interval("a", "check", seconds(every))], [PLACE], TERMS)
    with pytest.raises(UsageError, match=r"a wants its check every .*, which cron cannot say: it counts minutes"):
        job.counted_by("cron")


def test_a_job_follows_from_what_is_given() -> None:
    wishes = [
        Interval("verify-indexes", "check", seconds("1 d"), "IndexFaults"),
        Interval("a", "drill", seconds("30 d")),
    ]
    made = jobs(wishes, [PLACE], TERMS, ("--config", "/etc/x.toml"))
    assert [job.name for job in made] == ["aiprod-ops-check-verify-indexes-production", "aiprod-ops-drill-a-production"]
    check, drill = made
    assert check.words == ("check", "verify-indexes", "--target", "production", "--config", "/etc/x.toml")
    assert check.late_after == 26 * HOUR
    assert drill.late_after == 31 * DAY + 2 * HOUR, "a month may have 31 days"
    assert check.deadline == 4 * HOUR
    assert made == jobs(reversed(wishes), [PLACE], TERMS, ("--config", "/etc/x.toml"))


@given(st.sampled_from(SAYABLE + UNSAYABLE), st.text(min_size=1))
def test_a_job_ends_before_the_next_begins(every: str, target: str) -> None:
    (job,) = jobs([Interval("a", "check", seconds(every))], [Place(target, "production")], TERMS)
    assert 0 <= job.offset < max(MINUTE, job.wish.every)
    assert job.spread + job.deadline < job.wish.every
    assert len(job.name) <= 52
    assert job.name == name_of(job.name, 52)
    assert job.late_after > job.wish.every


def test_jobs_do_not_start_together() -> None:
    offsets = [offset_of(f"aiprod-ops-check-{number}", Seconds(HOUR)) for number in range(60)]
    assert len(set(offsets)) > 30
    assert late_after(Seconds(HOUR), Seconds(2 * HOUR)) == 2 * HOUR


def test_names_that_differ_only_in_what_a_name_cannot_hold_stay_apart() -> None:
    assert name_of("a_b", 52) != name_of("a-b", 52) != name_of("A-b", 52)
    assert name_of("x" * 60 + "1", 52) != name_of("x" * 60 + "2", 52)


NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)


def result(status: Status, ended: datetime, before: datetime | None) -> Result:
    subject = Subject("test-backup", "production", "production")
    return Result(subject, "check", status, ended, Seconds(3), succeeded(status, ended, before), {status: 1})


def test_a_failure_keeps_the_last_success() -> None:
    good = result(Status.WARNING, NOW, None)
    assert good.succeeded == NOW
    for status in (Status.CRITICAL, Status.UNKNOWN):
        bad = result(status, NOW + timedelta(hours=1), good.succeeded)
        told = {family.name: family.samples[0][1] for family in families([bad])}
        assert told["aiprod_ops_check_last_success_timestamp_seconds"] == NOW.timestamp()
        assert told["aiprod_ops_check_status"] == int(status)


def test_a_success_that_never_was_has_no_sample() -> None:
    names = {family.name for family in families([result(Status.UNKNOWN, NOW, None)])}
    assert "aiprod_ops_check_last_success_timestamp_seconds" not in names
    assert "aiprod_ops_check_last_run_timestamp_seconds" in names


def test_a_hundred_bad_indexes_are_one_series() -> None:
    found = [Finding("bloat", float(number), "ratio", id=f"bloat:{number}") for number in range(100)]
    unread = [Finding("data age", None), Finding("secret", 1.0)]
    assert exported([*found, *unread], ["bloat", "data age"]) == {"aiprod_ops_bloat_ratio": 99.0}


HELPS = {
    "aiprod_ops_check_status": "How the last check ended: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.",
    "aiprod_ops_check_last_run_timestamp_seconds": "When the last check ended.",
    "aiprod_ops_check_last_success_timestamp_seconds": "When a check last ended OK or WARNING.",
    "aiprod_ops_check_duration_seconds": "How long the last check took.",
    "aiprod_ops_check_findings": "Findings of the last check by state.",
}


def test_a_proof_is_told_as_one() -> None:
    told = families([replace(result(Status.OK, NOW, None), work="proof", measured={"aiprod_ops_x_seconds": 3.0})])
    assert {family.name for family in told} == {
        *(name.replace("_check_", "_proof_") for name in HELPS), "aiprod_ops_x_seconds",
    }  # fmt: skip


def test_a_help_text_is_an_interface() -> None:
    """A monthly job's file has the text of the month before: node_exporter drops metrics whose texts differ."""
    assert {family.name: family.help for family in families([result(Status.OK, NOW, None)])} == HELPS
