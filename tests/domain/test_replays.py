"""Which deliveries are sent again: each endpoint is tried with one before it gets more, and oldest go first."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from aiprod_ops.actions import webhook_replays
from aiprod_ops.domain.replays import Backlog, Ended, by_age, by_why, chosen, in_waves, planned
from aiprod_ops.service import webhooks
from aiprod_ops.units import Ratio, Seconds

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def ended(number: int, endpoint: str = "a", **more: object) -> Ended:
    values: dict[str, object] = {"host": f"{endpoint}.example", "event": "job.completed", "state": "failed"}
    values |= {"created_at": NOON, "ended_at": NOON}
    return Ended(f"{number:04d}", endpoint, **(values | more))  # type: ignore[arg-type]


def ids(*waves: tuple[Ended, ...]) -> list[list[str]]:
    return [[each.id for each in wave] for wave in waves]


def test_senders_are_woken_where_they_listen() -> None:
    assert webhooks.CHANNEL == webhook_replays.CHANNEL


def test_of_one_endpoint_one_then_a_tenth_then_the_rest() -> None:
    waves = in_waves([ended(n) for n in range(100)])
    assert [len(wave) for wave in waves] == [1, 9, 90]
    assert ids(*waves)[0] == ["0000"]
    assert ids(*waves)[2][-1] == "0099"


def test_each_endpoint_is_tried_with_one_before_it_gets_more() -> None:
    deliveries = [ended(n, "large") for n in range(50)] + [ended(100 + n, f"small-{n}") for n in range(5)]
    first, second, third = in_waves(deliveries)
    assert sorted(each.endpoint for each in first) == ["large", *(f"small-{n}" for n in range(5))]
    assert {each.endpoint for each in second + third} == {"large"}


def test_no_wave_is_empty() -> None:
    assert ids(*in_waves([])) == []
    assert ids(*in_waves([ended(1)])) == [["0001"]]
    assert ids(*in_waves([ended(2), ended(1)])) == [["0001"], ["0002"]]


@given(st.lists(st.tuples(st.integers(0, 9999), st.sampled_from("abc")), unique_by=lambda each: each[0], max_size=80))
def test_every_delivery_is_in_one_wave_and_an_endpoints_go_in_their_order(made: list[tuple[int, str]]) -> None:
    waves = in_waves([ended(number, endpoint) for number, endpoint in made])
    flat = [each for wave in waves for each in wave]
    assert sorted(each.id for each in flat) == sorted(f"{number:04d}" for number, _ in made)
    for endpoint in "abc":
        its = [each.id for each in flat if each.endpoint == endpoint]
        assert its == sorted(its)


def test_a_wave_says_where_it_goes_and_shows_no_payload() -> None:
    (first, second) = planned([ended(n, why="HTTP 503") for n in range(10)], NOON, 5.0, Seconds(60), Ratio(0.9))
    assert (first.number, second.number, second.of, second.lasts) == (1, 2, 2, 9 / 5)
    assert second.hosts == {"a.example": 9}
    assert first.samples == ("job.completed of 2026-11-28 12:00 UTC to a.example, HTTP 503",)
    assert len(second.samples) == 3


def test_failures_are_told_by_reason_and_by_age() -> None:
    ages = {1: timedelta(minutes=5), 2: timedelta(hours=2), 3: timedelta(hours=2), 4: timedelta(days=3)}
    failures = [ended(n, ended_at=NOON - age, why="timeout" if n < 2 else "HTTP 503") for n, age in ages.items()]
    assert by_why(failures) == "HTTP 503: 3, timeout: 1"
    assert by_age(failures, NOON) == "within 60.0 min: 1, within 6.00 h: 2, older: 1"


def test_what_is_sent_again_had_ended_by_then_is_young_enough_and_goes_to_somebody() -> None:
    found = [
        ended(2),
        ended(1),
        ended(3, ended_at=NOON + timedelta(seconds=1)),
        ended(4, created_at=NOON - timedelta(hours=2)),
        ended(5, disabled="failing"),
    ]
    assert [each.id for each in chosen(found, NOON, Seconds(3600))] == ["0001", "0002"]


def test_of_nothing_nothing_failed() -> None:
    nothing = Backlog(0, 0, 0, Seconds(0), "", 0, 0, None)
    assert nothing.failing == 0
    assert replace(nothing, failed=1, delivered=3).failing == 0.25


def test_an_old_delivery_alone_does_not_say_that_nobody_sends() -> None:
    waits = Backlog(9, 9, 0, Seconds(600), "slow.example", 0, 5, Seconds(500))
    assert waits.is_still(Seconds(300))
    assert not waits.is_still(Seconds(600))
    assert not replace(waits, taken=1).is_still(Seconds(300))
    assert not replace(waits, last=Seconds(2)).is_still(Seconds(300))
    assert replace(waits, last=None).is_still(Seconds(300))
