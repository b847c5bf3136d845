"""The decisions of delivering webhooks, and what a worker has in hand: no server, no database."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from aiprod_ops.domain.exchanges import Exchange, NoAnswer
from aiprod_ops.domain.webhooks import DISABLED, State
from aiprod_ops.errors import ConfigurationError
from aiprod_ops.service.delivering.allowance import Allowance
from aiprod_ops.service.delivering.attempts import attempt, judged
from aiprod_ops.service.delivering.hand import Hand
from aiprod_ops.service.delivering.lanes import Lanes
from aiprod_ops.service.delivering.leases import Due, Head, taken
from aiprod_ops.service.delivering.metrics import DeliveryMetrics
from aiprod_ops.service.delivering.outcomes import Outcome, runs
from aiprod_ops.service.delivering.settings import DeliverySettings
from aiprod_ops.units import Milliseconds, Seconds

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def due(number: int = 1, **changes: Any) -> Due:
    values: dict[str, Any] = {
        "id": f"delivery-{number}", "event_id": f"event-{number}", "endpoint_id": "a", "type": "job.completed",
        "payload": b"{}", "attempts": 0, "url": "https://example.org/", "keys": [b"k" * 32], "long_tail": False,
        "ordered": False, "in_flight": 10, "per_second": None, "is_probe": False, "late": 0.0,
    }  # fmt: skip
    return Due(**values | changes)


def answered(status: int | None, error: NoAnswer | None = None) -> Exchange:
    return Exchange(Milliseconds(3), status, error)


def outcome(number: int, state: State, ended: float, **changes: Any) -> Outcome:
    return Outcome(due(number, **changes), answered(500), state, Seconds(0), ended)


@pytest.mark.parametrize(
    ("attempts", "exchange", "state", "pause"),
    [
        (0, answered(204), State.DELIVERED, 0),
        (0, answered(500), State.PENDING, 1),
        (4, answered(None, NoAnswer.TIMEOUT), State.PENDING, 30),
        (5, answered(None, NoAnswer.TIMEOUT), State.FAILED, 0),
        (0, answered(410), State.FAILED, 0),
        (0, answered(301), State.PENDING, 1),
        (0, Exchange(Milliseconds(1), 429, None, "7"), State.PENDING, 7),
    ],
)
def test_what_follows_from_an_answer(attempts: int, exchange: Exchange, state: State, pause: float) -> None:
    assert judged(due(attempts=attempts), exchange, NOON, 0.0) == (state, pause)


def test_a_probe_goes_on_until_it_is_taken() -> None:
    probe = due(type=DISABLED, is_probe=True, attempts=99)
    assert judged(probe, answered(410), NOON, 0.0) == (State.PENDING, 21_600)
    assert judged(probe, answered(200), NOON, 0.0)[0] is State.DELIVERED


def test_without_a_secret_nothing_is_sent() -> None:
    class Nobody:
        async def send(self, request: object) -> Exchange:
            raise AssertionError("it was sent")

        async def close(self) -> None: ...

    found = asyncio.run(attempt(Nobody(), due(keys=[])))
    assert (found.exchange.error, found.state) == (NoAnswer.UNSIGNED, State.PENDING)


def test_failures_in_a_row_are_counted_in_the_order_in_which_deliveries_ended() -> None:
    found = runs(
        [
            outcome(1, State.FAILED, 3.0),
            outcome(2, State.DELIVERED, 2.0),
            outcome(3, State.FAILED, 1.0),
            outcome(4, State.PENDING, 4.0),
            outcome(5, State.FAILED, 5.0, endpoint_id="b"),
            outcome(6, State.FAILED, 6.0, endpoint_id="c", is_probe=True),
        ]
    )
    assert {name: (run.has_delivered, run.failed_since) for name, run in found.items()} == {
        "a": (True, 1),
        "b": (False, 1),
    }


def test_of_a_lane_nothing_is_taken_behind_what_is_not_due_or_another_has() -> None:
    heads = [Head("1", "a", True, None), Head("2", "a", False, None), Head("3", "a", True, None)]
    assert taken(heads) == ["1"]
    assert taken([*heads, Head("4", "a", True, True), Head("5", "b", True, False)]) == ["5"]


def test_an_ordered_lane_ends_where_one_will_be_sent_again() -> None:
    sent: list[str] = []
    given_back: list[str] = []

    async def send(each: Due) -> Outcome:
        sent.append(each.id)
        state = State.PENDING if each.id == "delivery-2" else State.DELIVERED
        return Outcome(each, answered(200), state, Seconds(1), 0.0)

    lanes = Lanes(send, lambda dues: given_back.extend(each.id for each in dues))
    asyncio.run(lanes.run("a", [due(number, ordered=True) for number in range(1, 5)]))
    assert (sent, given_back) == (["delivery-1", "delivery-2"], ["delivery-3", "delivery-4"])
    assert not lanes.held


def test_what_is_in_hand() -> None:
    hand = Hand(3)
    first, second = due(1), due(2, endpoint_id="b")
    assert hand.take([first, second]) == [first, second]
    assert hand.take([first]) == [], "it was answered, and that is not written yet"
    assert hand.room == 1
    assert hand.keep(["delivery-1", "delivery-2"], {"delivery-1"}) == 1
    assert (hand.holds(first), hand.holds(second)) == (True, False)
    hand.give_back([first, second])
    assert hand.returning == ["delivery-1"], "what is another's is not ours to give back"
    hand.answered("b", is_delivered=False)
    assert hand.allowance.most == {"b": 1}
    hand.answered("b", is_delivered=True)
    assert hand.allowance.most == {}


def test_the_last_slots_are_for_endpoints_that_have_nothing_in_hand() -> None:
    hand = Hand(8)
    assert hand.allowance == Allowance(6, 8, {})
    hand.take([due(number, endpoint_id="greedy") for number in range(6)])
    assert hand.allowance == Allowance(2, 1, {"greedy": 0})
    assert (hand.allowance.of("greedy", 10), hand.allowance.of("other", 10)) == (0, 1)
    hand.release(["delivery-0", "delivery-1"])
    assert hand.allowance == Allowance(2, 8, {})


def test_a_lease_ends_in_time_and_not_before_it_can_be_renewed() -> None:
    assert DeliverySettings().lease + DeliverySettings().look <= 10
    for lease in (3, 9):
        with pytest.raises(ConfigurationError, match="expected a lease"):
            DeliverySettings(lease=Seconds(lease))


def test_every_answer_has_a_series_from_the_start() -> None:
    metrics = DeliveryMetrics()
    metrics.attempted(503, None, 12.0, "pending")
    metrics.attempted(None, NoAnswer.DNS, 12.0, "failed")
    read = metrics.registry.get_sample_value
    assert read("aiprod_webhook_attempts_total", {"answer": "5xx"}) == 1
    assert read("aiprod_webhook_attempts_total", {"answer": "dns"}) == 1
    assert read("aiprod_webhook_attempts_total", {"answer": "tls"}) == 0
    assert read("aiprod_webhook_deliveries_total", {"state": "failed"}) == 1
