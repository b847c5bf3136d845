"""Nobody waits for somebody else: endpoints that hang, with a rate, in order, or plainly, beside one that answers."""

import time
from collections.abc import Iterator

import pytest
from delivered import Webhooks, pumping, wait_until
from receivers import Receiver, receiving
from served_api import database

pytestmark = pytest.mark.lab
SLOTS = 16


@pytest.fixture(scope="module")
def hooks() -> Iterator[Webhooks]:
    with database() as made:
        yield Webhooks(made)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.mark.parametrize(
    ("hanging", "columns"),
    [
        (1, {"per_second": 1000}),
        (4, {"ordered": True}),
        (4, {"in_flight": 100}),
        (3, {"per_second": 1000, "in_flight": 100}),
    ],
)
def test_who_hangs_takes_nobody_elses_slots(
    hooks: Webhooks, receiver: Receiver, hanging: int, columns: dict[str, object]
) -> None:
    hooks.clear()
    for number in range(hanging):
        hooks.deliver(hooks.endpoint(receiver.url(f"/hang?{number}"), **columns), 200)
    with pumping(hooks.api, slots=SLOTS) as pump:
        wait_until(lambda: sum(each.path.startswith("/hang") for each in list(receiver.taken)) >= hanging)
        seen = len(receiver.taken)
        other = hooks.endpoint(receiver.url("/other"))
        for number in range(1, 6):
            hooks.deliver(other)
            wait_until(lambda number=number: hooks.states(other) == {"delivered": number})  # type: ignore[misc]
            assert len(pump.hand) <= SLOTS
        # None of those that hang had to time out for it: they are asked again when they have.
        assert sum(each.path.startswith("/hang") for each in receiver.taken) <= seen + SLOTS
        receiver.open.set()


@pytest.mark.parametrize("columns", [{}, {"per_second": 1000}, {"ordered": True}])
def test_an_endpoint_that_asks_for_a_pause_is_sent_nothing_else(
    hooks: Webhooks, receiver: Receiver, columns: dict[str, object]
) -> None:
    hooks.clear()
    paused = hooks.endpoint(receiver.url("/paused"), in_flight=5, **columns)
    hooks.deliver(paused, 100)
    with pumping(hooks.api):
        wait_until(lambda: receiver.taken)
        for number in range(1, 4):
            hooks.deliver(hooks.endpoint(receiver.url(f"/other/{number}")))
            wait_until(lambda number=number: receiver.ids(f"/other/{number}"))  # type: ignore[misc]
            time.sleep(0.7)  # longer than it takes to look
    assert len(receiver.ids("/paused")) <= 5
    assert hooks.states(paused) == {"pending": 100}


def test_a_lane_looks_again_where_it_is_to_be_sent_to(hooks: Webhooks, receiver: Receiver) -> None:
    """Whoever changes the URL of an ordered endpoint with a backlog does so for a reason."""
    hooks.clear()
    moved = hooks.endpoint(receiver.url("/old?ms=500"), ordered=True)
    disabled = hooks.endpoint(receiver.url("/disabled?ms=500"), ordered=True)
    for each in (moved, disabled):
        hooks.deliver(each, 20)
    with pumping(hooks.api):
        wait_until(lambda: {"/old?ms=500", "/disabled?ms=500"} <= {each.path for each in list(receiver.taken)})
        hooks.api.sql(
            "UPDATE webhook_endpoints SET url = %(url)s WHERE id = %(id)s", {"url": receiver.url("/new"), "id": moved}
        )
        hooks.api.sql(
            "UPDATE webhook_endpoints SET state = 'disabled', why_disabled = 'owner', disabled_at = now() "
            "WHERE id = %(id)s",
            {"id": disabled},
        )
        wait_until(lambda: hooks.states(moved) == {"delivered": 20})
    assert len(receiver.ids("/old?ms=500")) <= 6, "2 s of 0.5 s each, and one in flight"
    assert len(receiver.ids("/disabled?ms=500")) <= 6
