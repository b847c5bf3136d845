"""Nobody waits for somebody else: endpoints that hang, with a rate, in order, or plainly, beside one that answers."""

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
