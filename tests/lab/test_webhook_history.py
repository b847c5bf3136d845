"""What of the webhooks' history is deleted when it is old, and what is not: it waits, or is being replayed."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from served_api import Api
from sqlalchemy import text

from aiprod_ops.service import database, webhook_history
from aiprod_ops.service.ids import least
from aiprod_ops.service.settings import Settings
from aiprod_ops.units import Seconds

pytestmark = pytest.mark.lab
KEPT = Seconds(90 * 86_400)


@pytest.fixture
def endpoint(api: Api) -> Iterator[str]:
    api.key(email := f"history-{time.monotonic_ns()}@example.org")
    [(made,)] = api.sql(
        "INSERT INTO webhook_endpoints (id, user_id, url, events) "
        "SELECT gen_random_uuid(), id, 'https://hooks.example.org/', '{}' FROM users WHERE email = %(email)s "
        "RETURNING id::text",
        {"email": email},
    )
    yield made
    api.sql("DELETE FROM webhook_events WHERE user_id = (SELECT user_id FROM webhook_endpoints WHERE id = %(id)s)",
            {"id": made})  # fmt: skip


def event(api: Api, endpoint: str, days: float, state: str) -> str:
    """An event so old, with its delivery and one attempt."""
    made = str(least(datetime.now(UTC) - timedelta(days=days)))[:14] + str(uuid4())[14:]
    api.sql(
        "WITH event AS (INSERT INTO webhook_events (id, user_id, type, payload) "
        "  SELECT %(id)s, user_id, 'job.created', '' FROM webhook_endpoints WHERE id = %(endpoint)s RETURNING id),"
        "delivery AS (INSERT INTO webhook_deliveries (id, event_id, endpoint_id, state) "
        "  SELECT id, id, %(endpoint)s, %(state)s FROM event RETURNING id) "
        "INSERT INTO webhook_attempts (delivery_id, number, began_at, milliseconds) "
        "  SELECT id, 1, now(), 1 FROM delivery",
        {"id": made, "endpoint": endpoint, "state": state},
    )
    return made


def left(api: Api, endpoint: str) -> set[str]:
    rows = api.sql(
        "SELECT v.id::text FROM webhook_events v JOIN webhook_deliveries d ON d.event_id = v.id "
        "JOIN webhook_attempts a ON a.delivery_id = d.id WHERE d.endpoint_id = %(id)s",
        {"id": endpoint},
    )
    return {each for (each,) in rows}


def swept(api: Api) -> int:
    async def sweep() -> int:
        engine = database.engine(Settings(dsn=api.dsn))
        async with engine.begin() as connection:
            count = await webhook_history.sweep(connection, KEPT)
        await engine.dispose()
        return count

    return asyncio.run(sweep())


def test_what_is_too_old_goes_with_all_that_belongs_to_it(api: Api, endpoint: str) -> None:
    for state in ("delivered", "failed", "cancelled"):
        event(api, endpoint, 91, state)
    young = event(api, endpoint, 89, "delivered")
    waiting = event(api, endpoint, 400, "pending")
    assert swept(api) == 3
    assert left(api, endpoint) == {young, waiting}
    api.sql("UPDATE webhook_endpoints SET state = 'disabled' WHERE id = %(id)s", {"id": endpoint})
    assert swept(api) == 1
    assert left(api, endpoint) == {young}


def test_what_is_being_replayed_stays(api: Api, endpoint: str) -> None:
    old = event(api, endpoint, 91, "failed")

    async def sweep_meanwhile() -> int:
        engine = database.engine(Settings(dsn=api.dsn))
        async with engine.begin() as replaying, engine.begin() as sweeping:
            await replaying.execute(text(f"select from webhook_events where id = '{old}' for key share"))
            count = await webhook_history.sweep(sweeping, KEPT)
        await engine.dispose()
        return count

    assert asyncio.run(sweep_meanwhile()) == 0
    assert left(api, endpoint) == {old}
    assert swept(api) == 1


def test_a_thousand_at_a_time(api: Api, endpoint: str) -> None:
    event(api, endpoint, 91, "failed")
    api.sql(
        "INSERT INTO webhook_events (id, user_id, type, payload) "
        "SELECT overlay(gen_random_uuid()::text placing left(id::text, 14) from 1)::uuid, user_id, type, payload "
        "FROM webhook_events, generate_series(1, 1499) WHERE id IN (SELECT event_id FROM webhook_deliveries "
        "WHERE endpoint_id = %(id)s)",
        {"id": endpoint},
    )
    assert [swept(api), swept(api), swept(api)] == [webhook_history.MOST_SWEPT, 500, 0]
