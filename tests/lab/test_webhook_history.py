"""What of the webhooks' history is deleted, and what is not: it waits, or is being replayed."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from served_api import JOB, Api
from sqlalchemy import text

from aiprod_ops.service import database, webhook_history, webhooks
from aiprod_ops.service.ids import first_id
from aiprod_ops.service.settings import Settings
from aiprod_ops.units import Seconds

pytestmark = pytest.mark.lab
KEPT = Seconds(30 * 86_400)


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
    made = str(first_id(datetime.now(UTC) - timedelta(days=days)))[:14] + str(uuid4())[14:]
    api.sql(
        "WITH event AS (INSERT INTO webhook_events (id, user_id, type, payload) "
        "  SELECT %(id)s, user_id, 'job.created', '' FROM webhook_endpoints WHERE id = %(endpoint)s RETURNING id),"
        "delivery AS (INSERT INTO webhook_deliveries (id, event_id, endpoint_id, state, ended_at) "
        "  SELECT id, id, %(endpoint)s, %(state)s, CASE WHEN %(state)s <> 'pending' THEN now() END FROM event "
        "  RETURNING id) "
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
        event(api, endpoint, 31, state)
    young = event(api, endpoint, 29, "delivered")
    waiting = event(api, endpoint, 400, "pending")
    assert swept(api) == 3
    assert left(api, endpoint) == {young, waiting}
    api.sql("UPDATE webhook_endpoints SET state = 'disabled' WHERE id = %(id)s", {"id": endpoint})
    assert swept(api) == 1
    assert left(api, endpoint) == {young}


def test_what_is_being_replayed_stays(api: Api, endpoint: str) -> None:
    old = event(api, endpoint, 31, "failed")

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
    event(api, endpoint, 31, "failed")
    api.sql(
        "INSERT INTO webhook_events (id, user_id, type, payload) "
        "SELECT overlay(gen_random_uuid()::text placing left(id::text, 14) from 1)::uuid, user_id, type, payload "
        "FROM webhook_events, generate_series(1, 1499) WHERE id IN (SELECT event_id FROM webhook_deliveries "
        "WHERE endpoint_id = %(id)s)",
        {"id": endpoint},
    )
    assert [swept(api), swept(api), swept(api)] == [webhook_history.MOST_SWEPT, 500, 0]


def test_a_deleted_endpoint_is_not_there_at_once_and_gone_when_its_history_is(api: Api) -> None:
    with api.client(api.key(f"deleted-{time.monotonic_ns()}@example.org", "jobs", "webhooks")) as client:
        hook = client.post("/webhooks", json={"url": "https://hooks.example.org/"}).json()["id"]
        api.sql(
            "UPDATE webhook_endpoints SET why_disabled = 'failing', state = 'disabled' WHERE id = %(id)s", {"id": hook}
        )
        for days in range(3):
            event(api, hook, days, "pending")
        here = f"/webhooks/{hook}"
        assert client.delete(here).status_code == 204
        for answer in (
            client.get(here),
            client.delete(here),
            client.post(f"{here}/enable"),
            client.post(f"{here}/test"),
        ):
            assert answer.status_code == 404
        assert client.get("/webhooks").json()["items"] == []
        client.post("/jobs", json=JOB)
        assert len(left(api, hook)) == 3  # nothing new
    rows = """
        SELECT (SELECT count(*) FROM webhook_secrets WHERE endpoint_id = e.id) FROM webhook_endpoints e
        WHERE id = %(id)s
    """
    assert api.sql(rows, {"id": hook}) == [(0,)]
    assert not asyncio.run(enabled(api, hook))  # a probe that was under way was taken
    assert swept(api) == 3
    assert api.sql(rows, {"id": hook}) == []


async def enabled(api: Api, endpoint_id: str) -> bool:
    engine = database.engine(Settings(dsn=api.dsn))
    async with engine.begin() as connection:
        found = await webhooks.enable(connection, endpoint_id)
    await engine.dispose()
    return found


def test_what_a_worker_answers_meanwhile_is_not_waited_for(api: Api, endpoint: str) -> None:
    """Neither waits for the other: whoever writes outcomes locks deliveries, then their endpoint."""
    delivery = event(api, endpoint, 1, "pending")

    async def delete_meanwhile() -> int:
        engine = database.engine(Settings(dsn=api.dsn))
        async with engine.begin() as writing:
            await writing.execute(text(f"select from webhook_deliveries where id = '{delivery}' for update"))
            async with engine.begin() as deleting:
                await webhooks.delete(deleting, endpoint)
                count = await webhook_history.sweep(deleting, KEPT)
            await writing.execute(text(f"update webhook_endpoints set failures_in_a_row = 1 where id = '{endpoint}'"))
        await engine.dispose()
        return count

    assert asyncio.run(delete_meanwhile()) == 0
    assert swept(api) == 1
