"""Webhooks while workers are killed and PostgreSQL goes away: nothing is lost, and what comes twice has one id."""

import random
import time

import pytest
from delivered import Webhooks, process, pumping, wait_until
from receivers import Receiver

pytestmark = pytest.mark.lab


def test_killed_in_the_middle(hooks: Webhooks, receiver: Receiver) -> None:
    """Two workers with default settings, one is killed: what it had is taken over within ten seconds."""
    for number in range(10):
        hooks.deliver(hooks.endpoint(receiver.url(f"/{number}?ms=100")), 50)
    first, second = process(hooks.api), process(hooks.api)
    try:
        wait_until(lambda: len(receiver.taken) > 100)
        first.kill()
        killed = time.monotonic()
        wait_until(lambda: hooks.states() == {"delivered": 500}, 60)
        took = time.monotonic() - killed
    finally:
        first.kill()
        second.terminate()
        assert second.wait(30) == 0
        first.wait()
    came = receiver.ids()
    assert len(came) == 500
    assert sum(count - 1 for count in came.values()) <= 100, "in flight: ten of each endpoint"
    assert took < 10 + 20, "a lease, a look, and what was left to send"
    assert hooks.leased() == 0


@pytest.mark.parametrize("mode", [pytest.param("fast", marks=pytest.mark.soak), "immediate"])
def test_postgresql_restarts_while_delivering(hooks: Webhooks, receiver: Receiver, mode: str) -> None:
    for number in range(10):
        hooks.deliver(hooks.endpoint(receiver.url(f"/{number}?ms=20")), 100)
    with pumping(hooks.api):
        wait_until(lambda: len(receiver.taken) > 100)
        hooks.api.server.stop(mode)
        time.sleep(0.5)
        hooks.api.server.start()
        wait_until(lambda: hooks.states() == {"delivered": 1000}, 60)
    came = receiver.ids()
    assert len(came) == 1000
    assert sum(count - 1 for count in came.values()) <= 100, "in flight: ten of each endpoint"


def test_told_to_end_it_ends_what_it_has_begun(hooks: Webhooks, receiver: Receiver) -> None:
    ordered = hooks.endpoint(receiver.url("/ordered?ms=50"), ordered=True)
    hooks.deliver(ordered, 30)
    for number in range(5):
        hooks.deliver(hooks.endpoint(receiver.url(f"/{number}?ms=300")), 30)
    with pumping(hooks.api):
        wait_until(lambda: len(receiver.taken) > 30)
    assert hooks.leased() == 0, "others may have the rest at once"
    assert hooks.states()["delivered"] == len(receiver.taken) == len(receiver.ids())
    with pumping(hooks.api):
        wait_until(lambda: hooks.states() == {"delivered": 180})
    assert set(receiver.ids().values()) == {1}


@pytest.mark.soak
def test_ten_thousand_events_while_workers_are_killed_every_second(hooks: Webhooks, receiver: Receiver) -> None:
    drawn = random.Random(7)
    endpoints = [hooks.endpoint(receiver.url(f"/{number}?ms=20")) for number in range(20)]
    workers = [process(hooks.api) for _ in range(3)]
    kills, began, sent = 0, time.monotonic(), 0
    try:
        while hooks.states().get("delivered", 0) < 10_000:
            assert time.monotonic() - began < 600
            if sent < 10_000:
                for endpoint in endpoints:
                    hooks.deliver(endpoint, 25)
                sent += 25 * len(endpoints)
            time.sleep(1)
            at = drawn.randrange(len(workers))
            if sent < 10_000 or kills < 30:
                workers[at].kill()
                workers[at].wait()
                workers[at] = process(hooks.api)
                kills += 1
    finally:
        for each in workers:
            each.kill()
            each.wait()
    came = receiver.ids()
    twice = sum(count - 1 for count in came.values())
    print(f"10,000 events, {kills} kills: 0 lost, {twice} duplicates")  # noqa: T201
    assert len(came) == 10_000
    assert twice <= kills * 200, "in flight when it was killed: ten of each of twenty endpoints"
