"""Which stored backups stay and which may go, over years of them; whether a list keeps what is promised."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiprod_ops.domain.audits import Promise, audit
from aiprod_ops.domain.backups import Arrangement, Backup, State, successful, whole, with_bases
from aiprod_ops.domain.findings import Finding, Status
from aiprod_ops.domain.retention import Retention, kept, prunable, staying
from aiprod_ops.units import Bytes, Seconds

DAY = 86400
NOW = datetime(2027, 1, 10, 12, tzinfo=UTC)
PROMISED = Retention(Seconds(30 * DAY), Seconds(90 * DAY), Seconds(365 * DAY), least=3)
NOTHING = Retention(Seconds(0), Seconds(0), Seconds(0))


def stored(name: str, age_days: float, state: State = State.SUCCESSFUL, **more: object) -> Backup:
    """A backup that took ten minutes, so many days before NOW."""
    ended = NOW - timedelta(days=age_days)
    began = ended - timedelta(minutes=10)
    return Backup(name, state, began, ended if state is State.SUCCESSFUL else None, **more)  # type: ignore[arg-type]


def on(*moments: str) -> list[Backup]:
    """Backups by when they ended, as `2026-12-31T23:30`; that is their id, too."""
    times = [datetime.fromisoformat(each).replace(tzinfo=UTC) for each in moments]
    return [Backup(name, State.SUCCESSFUL, at, at) for name, at in zip(moments, times, strict=True)]


def ids(backups: Sequence[Backup]) -> list[str]:
    return [each.id for each in backups]


def pruned(backups: Sequence[Backup], now: datetime = NOW, retention: Retention = PROMISED) -> list[Backup]:
    gone = set(ids(prunable(backups, retention, now, ids(backups))))
    return [each for each in backups if each.id not in gone]


# Tiers


def test_two_years_of_daily_backups_leave_thirty_days_thirteen_weeks_a_year_of_months() -> None:
    every = [stored(f"{n:03}", n) for n in range(730)]
    stays = [NOW - each.taken for each in pruned(every)]
    assert len([age for age in stays if age <= timedelta(days=30)]) == 31, "both ends of the window"
    weeks = [NOW - age for age in stays if timedelta(days=30) < age <= timedelta(days=90)]
    assert all(at.isoweekday() == 7 or (at + timedelta(days=1)).day == 1 for at in weeks)
    assert len([at for at in weeks if at.isoweekday() == 7]) in (8, 9)
    months = [NOW - age for age in stays if age > timedelta(days=90)]
    assert all((at + timedelta(days=1)).day == 1 for at in months)
    assert len(months) == 9
    assert max(stays) <= timedelta(days=365)


def test_in_a_hole_the_last_before_it_stands_for_its_week_and_its_month() -> None:
    every = [stored(f"{n:03}", n) for n in range(730) if n % 7 < 5 and not 100 <= n < 160]
    stays = pruned(every)
    for period in ("%G-%V", "%Y-%m"):
        length = 90 if period == "%G-%V" else 365
        there = {f"{each.taken:{period}}" for each in every if NOW - each.taken <= timedelta(days=length)}
        assert there <= {f"{each.taken:{period}}" for each in stays}, f"a {period} is gone"


def test_each_night_the_same_rule_never_needs_what_it_threw_away() -> None:
    """Pruned day by day, what is left in the end is what pruning once leaves: no tier starves."""
    left: list[Backup] = []
    every = [stored(f"{n:03}", n) for n in reversed(range(500))]
    for each in every:
        left = pruned([*left, each], each.taken)
    assert ids(left) == ids(pruned(every))


@pytest.mark.parametrize(
    ("moments", "retention", "stays"),
    [
        (("2027-01-09T01:00", "2027-01-09T23:00"), replace(NOTHING, daily=Seconds(30 * DAY)), 1),
        (("2027-01-08T23:59", "2027-01-09T00:01"), replace(NOTHING, daily=Seconds(30 * DAY)), 2),
        # 2026-12-28 to 2027-01-03 is one week, ISO week 53 of 2026
        (("2026-12-31T12:00", "2027-01-03T12:00"), replace(NOTHING, weekly=Seconds(90 * DAY)), 1),
        (("2027-01-03T23:59", "2027-01-04T00:01"), replace(NOTHING, weekly=Seconds(90 * DAY)), 2),
        (("2026-12-31T23:59", "2027-01-01T00:01"), replace(NOTHING, monthly=Seconds(365 * DAY)), 2),
        (("2026-01-31T12:00", "2027-01-01T00:01"), replace(NOTHING, monthly=Seconds(365 * DAY)), 2),
        (("2026-01-09T12:00", "2027-01-01T00:01"), replace(NOTHING, monthly=Seconds(365 * DAY)), 1),
    ],
)  # fmt: skip
def test_where_a_day_a_week_and_a_month_end(moments: tuple[str, ...], retention: Retention, stays: int) -> None:
    assert len(kept(on(*moments), retention, NOW)) == stays


def test_the_zone_and_its_summer_time_change_nothing() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    now = datetime(2026, 11, 20, 1, tzinfo=UTC)
    utc = [
        Backup(f"{n:03}", State.SUCCESSFUL, at, at)
        for n in range(800)
        for at in [now - timedelta(hours=7 * n)]  # across both changes of the clock, and around midnight there
    ]
    there = [replace(e, started=e.started.astimezone(berlin), ended=e.started.astimezone(berlin)) for e in utc]
    assert kept(utc, PROMISED, now) == kept(there, PROMISED, now.astimezone(berlin))
    assert ids(prunable(utc, PROMISED, now, ())) == ids(prunable(there, PROMISED, now, ()))


def test_the_day_it_ended_counts_not_the_one_it_began() -> None:
    began, ended = (each.started for each in on("2027-01-08T23:50", "2027-01-09T00:10"))
    over_midnight, *rest = Backup("night", State.SUCCESSFUL, began, ended), *on("2027-01-08T12:00", "2027-01-10T11:00")
    assert len(kept([over_midnight, *rest], replace(NOTHING, daily=Seconds(30 * DAY)), NOW)) == 3


# What stays whatever its age


@pytest.mark.parametrize("least", [0, 1, 2, 5, 9])
def test_however_old_so_many_of_the_newest_stay(least: int) -> None:
    old = [stored(str(n), 1000 + n) for n in range(6)]
    going = prunable(old, replace(NOTHING, least=least), NOW, ())
    assert ids(going) == ["5", "4", "3", "2", "1", "0"][: 6 - min(max(least, 1), 6)]


def test_the_last_one_that_was_restored_stays_and_only_that() -> None:
    old = [stored(str(n), 1000 + n) for n in range(6)]
    assert ids(prunable(old, NOTHING, NOW, ["3", "5", "gone"])) == ["5", "4", "2", "1"]
    assert ids(prunable(old, NOTHING, NOW, [])) == ["5", "4", "3", "2", "1"]


def test_why_each_stays() -> None:
    old = [stored(str(n), n) for n in (1, 2, 3, 40)]
    why = staying(old, replace(NOTHING, daily=Seconds(2.5 * DAY), least=1), NOW, ["40"])
    assert why == {
        "the newest that a test has restored": ["40"],
        "the last of its day": ["2"],
        "among the newest, which stay": ["1"],
    }  # fmt: skip


def test_without_one_that_could_be_restored_nothing_goes() -> None:
    failed = [stored(str(n), 1000 + n, State.FAILED) for n in range(3)]
    baseless = stored("increment", 1, rests_on=("lost",))
    assert prunable([*failed, baseless], NOTHING, NOW, ()) == []


@pytest.mark.parametrize(
    ("state", "age_days", "is_going"),
    [
        (State.FAILED, 3.0, True),
        (State.FAILED, 1.0, False),  # no success has followed yet: it tells why
        (State.RUNNING, 3.0, False),
        (State.RUNNING, 1000.0, False),
    ],
)
def test_failures_and_what_runs(state: State, age_days: float, is_going: bool) -> None:
    backups = [stored("old", 5), stored("odd", age_days, state), stored("good", 2)]
    assert ("odd" in ids(prunable(backups, PROMISED, NOW, ()))) == is_going


def test_one_that_was_restored_and_now_is_called_failed_stays() -> None:
    """Its manifest cannot be read today, say: that is no reason to throw it away."""
    backups = [stored("odd", 3, State.FAILED), stored("good", 2)]
    assert prunable(backups, PROMISED, NOW, ["odd"]) == []


# Increments


def chain() -> list[Backup]:
    """A full one, two increments on it, and one on the second; then a new full one."""
    return [
        stored("full", 400),
        stored("one", 399, kind="incremental", rests_on=("full",)),
        stored("two", 398, kind="incremental", rests_on=("one",)),
        stored("new", 1),
    ]


def test_dependents_go_before_what_they_rest_on() -> None:
    assert ids(prunable(chain(), NOTHING, NOW, ())) == ["two", "one", "full"]


def test_what_a_kept_one_rests_on_stays() -> None:
    assert prunable(chain(), NOTHING, NOW, ["two"]) == []
    assert ids(prunable(chain(), NOTHING, NOW, ["one"])) == ["two"]


def test_what_a_running_one_rests_on_stays() -> None:
    running = stored("three", 0, State.RUNNING, rests_on=("one",))
    assert ids(prunable([*chain(), running], NOTHING, NOW, ())) == ["two"]


def test_an_increment_without_its_base_is_not_the_last_backup() -> None:
    """The newest that could be restored stays beside it: what is missing may only be hidden today."""
    backups = [stored("good", 400), stored("baseless", 300, rests_on=("lost",)), stored("older", 500)]
    assert ids(whole(backups)) == ["older", "good"]
    assert ids(prunable(backups, NOTHING, NOW, ())) == ["older"]


# Properties


@st.composite
def lists(draw: st.DrawFn) -> list[Backup]:
    """Up to 40 backups of the last two years, of every state, some of them increments of those before."""
    ages = draw(st.lists(st.floats(0, 730).map(lambda days: round(days, 3)), max_size=40, unique=True))
    made: list[Backup] = []
    for n, age in enumerate(sorted(ages, reverse=True)):
        state = draw(st.sampled_from([State.SUCCESSFUL] * 6 + [State.FAILED, State.RUNNING]))
        base = draw(st.sampled_from([(), (), *((each.id,) for each in made[-3:]), ("lost",)]))
        made.append(stored(str(n), age, state, rests_on=base))
    return made


retentions = st.builds(
    Retention, *(st.integers(0, days).map(lambda n: Seconds(n * DAY)) for days in (40, 120, 800)), st.integers(0, 5)
)


@given(lists(), retentions, st.sets(st.integers(0, 40).map(str)))
def test_what_stays_still_meets_the_retention(backups: list[Backup], retention: Retention, verified: set[str]) -> None:
    going = ids(prunable(backups, retention, NOW, verified))
    left = [each for each in backups if each.id not in going]
    assert kept(left, retention, NOW) == kept(backups, retention, NOW)
    assert prunable(left, retention, NOW, verified) == [], "what may go goes at once"
    told = [name for names in staying(backups, retention, NOW, verified).values() for name in names]
    assert sorted(told) == sorted(each.id for each in left), "each that stays has a reason, and none that goes"
    assert ids(whole(left))[-max(retention.least, 1) :] == ids(whole(backups))[-max(retention.least, 1) :]
    assert [each for each in ids(whole(left)) if each in verified][-1:] == [
        each for each in ids(whole(backups)) if each in verified
    ][-1:]
    assert all(each.state is not State.RUNNING for each in backups if each.id in going)


@given(lists(), retentions)
def test_stopped_anywhere_nothing_that_is_left_misses_its_base(backups: list[Backup], retention: Retention) -> None:
    going = prunable(backups, retention, NOW, ())
    good = set(ids(whole(backups)))
    for done in range(len(going) + 1):
        gone = set(ids(going[:done]))
        left = [each for each in backups if each.id not in gone]
        assert set(ids(whole(left))) == good - gone
        assert [each for each in ids(prunable(left, retention, NOW, ())) if each not in ids(going)] == []
        by_id = {each.id: each for each in left}
        assert all(not with_bases([each.id], by_id) & gone for each in left)


@given(lists(), retentions, st.randoms(use_true_random=False))
def test_the_order_of_the_list_does_not_matter(backups: list[Backup], retention: Retention, random: object) -> None:
    shuffled = list(backups)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert prunable(shuffled, retention, NOW, ()) == prunable(backups, retention, NOW, ())


@given(lists(), retentions, st.integers(0, 400))
def test_a_new_backup_saves_none_that_could_go_and_time_lets_more_go(
    backups: list[Backup], retention: Retention, days: int
) -> None:
    """What an approved plan removes may still go when it is applied, whatever was taken meanwhile."""
    going = set(ids(prunable(backups, retention, NOW, ())))
    later = NOW + timedelta(days=days)
    newer = Backup("newer", State.SUCCESSFUL, NOW + timedelta(seconds=1), NOW + timedelta(seconds=2))
    assert going <= set(ids(prunable([*backups, newer], retention, later, ())))


# The audit

PROMISE = Promise(Seconds(DAY), Seconds(3600), PROMISED, protected=False, elsewhere=False, encrypted=False)
WAL = Arrangement(recovers_from=NOW - timedelta(days=30), recovers_to=NOW - timedelta(minutes=5))
DAILY = [stored(f"{n:03}", n + 0.5, size=Bytes(10**9)) for n in reversed(range(30))]


def audited(
    backups: Sequence[Backup] = DAILY, arrangement: Arrangement = WAL, promise: Promise = PROMISE, instance: str = ""
) -> dict[str, Finding]:
    """Findings by id: each is there once, for a waiver names it."""
    found = list(audit(backups, arrangement, promise, instance, NOW))
    assert len({each.id for each in found}) == len(found)
    return {each.id: each for each in found}


def statuses(found: dict[str, Finding]) -> dict[str, str]:
    return {name: finding.status.name for name, finding in found.items() if finding.status is not Status.OK}


def test_a_list_in_order_has_nothing_against_it() -> None:
    found = audited()
    assert statuses(found) == {}
    assert set(found) == {"newest", "recoverable", "window"}
    assert found["window"].value == 30 * DAY - 300


@pytest.mark.parametrize(
    ("backups", "against"),
    [
        ([], {"newest": "CRITICAL"}),
        ([stored("a", 0.1, State.RUNNING)], {"newest": "CRITICAL"}),
        ([stored("a", 0.1, State.FAILED)], {"newest": "CRITICAL", "failed": "WARNING"}),
        ([stored("a", 0.1, rests_on=("lost",))], {"newest": "CRITICAL", "baseless": "CRITICAL"}),
        ([stored("a", 1.49)], {}),
        ([stored("a", 1.51)], {"newest": "WARNING"}),
        ([stored("a", 2.01)], {"newest": "CRITICAL"}),
        ([stored("a", 2.01), stored("b", 0.1, State.RUNNING)], {"newest": "CRITICAL"}),
        ([stored("a", 2.0), stored("b", 0.6)], {}),
        ([stored("a", 2.5), stored("b", 0.6)], {"gap": "WARNING"}),
        ([stored("a", 40), stored("b", 31), stored("c", 0.6)], {}),  # thinned: gaps are judged within the daily ones
        ([stored("a", 1), stored("b", 0.9, State.FAILED)], {"failed": "WARNING"}),
        ([stored("a", 1), *(stored(str(n), 0.9 - n / 10, State.FAILED) for n in range(3))], {"failed": "CRITICAL"}),
        ([stored("b", 1.2, State.FAILED), stored("a", 1)], {}),
    ],
)
def test_the_list(backups: list[Backup], against: dict[str, str]) -> None:
    assert statuses(audited(backups)) == against


def test_pruning_makes_no_gap() -> None:
    hourly = [stored(f"{n:03}", n / 24) for n in range(24 * 40)]
    often = replace(PROMISE, every=Seconds(3600))
    assert statuses(audited(hourly, promise=often)) == {}
    assert statuses(audited(pruned(hourly), promise=often)) == {}


def test_a_failure_tells_why() -> None:
    (finding,) = [f for f in audited([*DAILY, stored("x", 0.1, State.FAILED, said="no space")]).values() if f.crit == 3]
    assert finding.note == "x: no space"


@pytest.mark.parametrize(
    ("backups", "against"),
    [
        ([stored("a", 1.0), stored("b", -1 / 1440)], {}),  # within a minute: no two clocks are the same
        ([stored("a", 1.0), stored("b", -1.1 / 1440)], {"ahead": "CRITICAL"}),
        ([stored("a", 1.6), stored("b", -1.0)], {"ahead": "CRITICAL", "newest": "WARNING"}),
        ([stored("a", 1.6), stored("b", -1.0, State.RUNNING)], {"ahead": "CRITICAL", "newest": "WARNING"}),
        ([stored("b", -1.0)], {"ahead": "CRITICAL", "newest": "CRITICAL"}),
        # named for tomorrow, and its files are of today
        ([stored("a", 1.6), replace(stored("b", 0.1), started=NOW + timedelta(days=1))],
         {"ahead": "CRITICAL", "newest": "WARNING"}),
    ],
)  # fmt: skip
def test_what_is_from_the_future_is_no_fresh_backup(backups: list[Backup], against: dict[str, str]) -> None:
    found = audited(backups)
    assert statuses(found) == against
    assert "ahead" not in found or found["ahead"].note.startswith("b (2027-01-1")


@pytest.mark.parametrize(("seconds", "against"), [(59, {}), (61, {"ahead": "CRITICAL", "recoverable": "CRITICAL"})])
def test_wal_from_the_future_is_not_what_one_could_recover_to(seconds: int, against: dict[str, str]) -> None:
    found = audited(arrangement=replace(WAL, recovers_to=NOW + timedelta(seconds=seconds), last="0000000A"))
    assert statuses(found) == against
    assert "ahead" not in found or "the WAL that is kept, 0000000A (2027-01-10 12:01:01 UTC)" in found["ahead"].note


@pytest.mark.parametrize(
    ("reaches_h", "unkept", "expected"),
    [
        (8, None, (8 * 3600, "CRITICAL")),
        (8, Seconds(60), (60, "OK")),
        (8, Seconds(3600), (3600, "WARNING")),  # archive_timeout is longer than what may be lost
        (0.01, Seconds(60), (36, "OK")),
        (None, Seconds(60), (12 * 3600, "CRITICAL")),  # nothing follows the backup: what is kept of it does not help
    ],
)
def test_a_quiet_night_lets_no_archive_grow_old(
    reaches_h: float | None, unkept: Seconds | None, expected: tuple[float, str]
) -> None:
    reaches = None if reaches_h is None else NOW - timedelta(hours=reaches_h)
    arrangement = replace(WAL, recovers_to=reaches)
    found = {each.id: each for each in audit(DAILY, arrangement, PROMISE, "", NOW, unkept)}["recoverable"]
    assert (found.value, found.status.name) == expected


def test_backups_of_another_instance_count_for_nothing() -> None:
    """A restored server that archives into the same place would otherwise hide that ours has none any more."""
    mixed = [stored("ours", 3, instance="7"), stored("theirs", 0.1, instance="8"), stored("?", 5)]
    found = audited(mixed, instance="7")
    assert statuses(found) == {"newest": "CRITICAL", "gap": "WARNING", "stranger": "CRITICAL"}
    assert found["stranger"].note == "theirs is of 8, this is 7"
    assert found["newest"].note.startswith("ours")
    assert "stranger" not in audited(mixed, instance="")


@pytest.mark.parametrize(
    ("arrangement", "against"),
    [
        (Arrangement(), {"recoverable": "CRITICAL"}),
        (Arrangement(recovers_to=NOW - timedelta(minutes=61)), {"recoverable": "WARNING"}),
        (Arrangement(recovers_to=NOW - timedelta(hours=5)), {"recoverable": "CRITICAL"}),
        (Arrangement(recovers_to=NOW + timedelta(seconds=3)), {}),  # two clocks
        (replace(WAL, lacks="nothing is archived"), {"archive": "CRITICAL"}),
        (replace(WAL, keeps=7), {"retention": "WARNING"}),
        (replace(WAL, keeps=15), {"retention": "WARNING"}),
        (replace(WAL, keeps=30), {}),
        (replace(WAL, keeps_for=Seconds(7 * DAY)), {"retention-time": "WARNING"}),
        (replace(WAL, keeps_for=Seconds(30 * DAY)), {}),
        (replace(WAL, automatic=True), {"retention": "UNKNOWN"}),
        (replace(WAL, automatic=True, keeps=31), {}),
        (replace(WAL, automatic=False), {}),
    ],
)
def test_the_arrangement(arrangement: Arrangement, against: dict[str, str]) -> None:
    assert statuses(audited(arrangement=arrangement)) == against


def test_cloud_sql_keeps_seven_and_says_so() -> None:
    finding = audited(arrangement=replace(WAL, keeps=7))["retention"]
    assert (finding.value, finding.note) == (23, "the platform keeps 7, then throws the oldest away; 30 are promised")


BERLIN = replace(WAL, region="europe-west1")


@pytest.mark.parametrize(
    ("promised", "arrangement", "expected"),
    [
        ("protected", replace(WAL, is_protected=True), None),
        ("protected", replace(WAL, is_protected=False), "WARNING"),
        ("protected", WAL, "UNKNOWN"),
        ("encrypted", replace(WAL, key="projects/p/keys/k"), None),
        ("encrypted", replace(WAL, key=""), "WARNING"),
        ("encrypted", WAL, "UNKNOWN"),
        ("elsewhere", WAL, "UNKNOWN"),
        ("elsewhere", BERLIN, "UNKNOWN"),
        ("elsewhere", replace(BERLIN, locations=("europe-west1",)), "WARNING"),
        ("elsewhere", replace(BERLIN, locations=("europe-west1-b",)), "WARNING"),
        ("elsewhere", replace(BERLIN, locations=("europe-west10",)), None),
        ("elsewhere", replace(BERLIN, locations=("eu",)), None),
        ("elsewhere", replace(BERLIN, locations=("europe-west1", "us-east4")), None),
    ],
)
def test_what_is_promised_of_the_place(promised: str, arrangement: Arrangement, expected: str | None) -> None:
    assert statuses(audited(arrangement=arrangement)) == {}, "nothing is asked that is not promised"
    found = audited(arrangement=arrangement, promise=replace(PROMISE, **{promised: True}))
    assert list(statuses(found).values()) == ([expected] if expected else [])


def test_the_newest_backup_tells_its_key_and_its_place() -> None:
    promise = replace(PROMISE, encrypted=True, elsewhere=True)
    ours = [stored("a", 0.5, key="k", location="europe-west3")]
    assert statuses(audited(ours, BERLIN, promise)) == {}
    assert statuses(audited([stored("a", 0.5, location="europe-west1")], replace(BERLIN, key=""), promise)) == {
        "encryption": "WARNING", "elsewhere": "WARNING",
    }  # fmt: skip


@given(lists())
def test_the_audit_has_an_answer_to_every_list(backups: list[Backup]) -> None:
    found = audited(backups)
    assert bool(whole(backups)) == (found["newest"].metric == "age of the newest backup")
    assert bool(set(ids(successful(backups))) - set(ids(whole(backups)))) == ("baseless" in found)
