"""Webhooks over HTTP: endpoints, secrets told once, deliveries with their attempts, replays; events with changes."""

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest
from served_api import JOB, Api
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from test_api_life import problem

from aiprod_ops.domain.webhooks import WhyDisabled, shown
from aiprod_ops.service import database, webhooks
from aiprod_ops.service.settings import Settings

pytestmark = pytest.mark.lab
HOOK = {"url": "https://hooks.example.org/aiprod"}


@pytest.fixture
def client(api: Api) -> Iterator[httpx.Client]:
    with api.client(api.key(f"hooks-{time.monotonic_ns()}@example.org", "jobs", "webhooks")) as made:
        yield made


def made(client: httpx.Client, **more: Any) -> dict[str, Any]:
    answer = client.post("/webhooks", json={**HOOK, **more})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def deliveries(client: httpx.Client, hook: dict[str, Any], **filters: str) -> list[dict[str, Any]]:
    answer = client.get(f"/webhooks/{hook['id']}/deliveries", params=filters)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def fail(api: Api, delivery: str, status: int | None = 503, answer: bytes = b"busy") -> None:
    """What who sends does with an attempt that is the last."""
    values = {"id": delivery, "status": status, "answer": answer}
    api.sql(
        "INSERT INTO webhook_attempts SELECT %(id)s, coalesce(max(number), 0) + 1, now(), 12, %(status)s, NULL, "
        "%(answer)s FROM webhook_attempts WHERE delivery_id = %(id)s",
        values,
    )
    api.sql("UPDATE webhook_deliveries SET state = 'failed', attempts = 6, ended_at = now() WHERE id = %(id)s", values)


def test_an_endpoint_from_its_making_to_its_end(client: httpx.Client) -> None:
    hook = made(client, events=["job.failed", "job.created", "job.failed"], description="Ours")
    assert hook["events"] == ["job.created", "job.failed"]
    assert hook["secret"].startswith("whsec_")
    here = f"/webhooks/{hook['id']}"
    seen = client.get(here)
    assert "secret" not in seen.json()
    assert seen.json() == {name: value for name, value in hook.items() if name != "secret"}
    assert [each["id"] for each in client.get("/webhooks").json()["items"]] == [hook["id"]]
    tag = seen.headers["etag"]
    changed = client.patch(here, json={"per_second": 5, "ordered": True}, headers={"If-Match": tag})
    assert (changed.json()["per_second"], changed.json()["ordered"], changed.json()["description"]) == (5, True, "Ours")
    problem(client.patch(here, json={"per_second": 7}, headers={"If-Match": tag}), "PRECONDITION_FAILED")
    assert client.patch(here, json={"per_second": None}).json()["per_second"] is None
    problem(client.put(here, json=HOOK, headers={"If-Match": tag}), "PRECONDITION_FAILED")
    replaced = client.put(here, json={"url": "https://hooks.example.org/other"})
    assert (replaced.json()["events"], replaced.json()["description"], replaced.json()["ordered"]) == ([], "", False)
    assert replaced.headers["etag"] == client.get(here).headers["etag"]
    problem(client.delete(here, headers={"If-Match": tag}), "PRECONDITION_FAILED")
    gone = client.delete(here)
    assert (gone.status_code, gone.content) == (204, b"")
    for answer in (
        client.get(here),
        client.delete(here),
        client.post(f"{here}/test"),
        client.get(f"{here}/deliveries"),
    ):
        problem(answer, "NOT_FOUND")


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://hooks.example.org/", "https"),
        ("https://127.0.0.1/", "host"),
        ("https://user:word@hooks.example.org/", "userinfo"),
        ("https://metadata.google.internal/", "private_name"),
        ("https://hooks.example.org:8443/", "host"),
        ("https://hooks.example.org/{here}", "pattern"),
    ],
)
def test_where_nothing_is_sent_to_is_told_at_once(client: httpx.Client, url: str, rule: str) -> None:
    hook = made(client)
    for answer in (
        client.post("/webhooks", json={"url": url}),
        client.put(f"/webhooks/{hook['id']}", json={"url": url}),
        client.patch(f"/webhooks/{hook['id']}", json={"url": url}),
    ):
        [error] = problem(answer, "VALIDATION_FAILED")["errors"]  # type: ignore[misc]
        assert (error["field"], error["rule"]) == ("url", rule)
        assert url not in answer.text


def test_a_secret_is_told_once_and_rotated_with_overlap(api: Api, client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "hook-1"}
    first = client.post("/webhooks", json=HOOK, headers=headers).json()
    again = client.post("/webhooks", json=HOOK, headers=headers)
    assert (again.headers["idempotent-replayed"], again.json()["secret"]) == ("true", None)
    given = "whsec_" + base64.b64encode(b"what the old receiver has").decode()
    second = client.post(f"/webhooks/{first['id']}/rotate", json={"secret": given, "overlap_seconds": 600}).json()
    assert second["secret"] == given
    assert counting(api, first) == [given, first["secret"]]
    problem(client.post("/webhooks", json={**HOOK, "secret": "whsec_c2hvcnQ="}), "VALIDATION_FAILED")


def counting(api: Api, hook: dict[str, Any]) -> list[str]:
    """The secrets that an endpoint's requests are signed with, the newest first."""
    rows = api.sql(
        "SELECT secret FROM webhook_secrets WHERE endpoint_id = %(id)s AND (expires_at IS NULL OR expires_at > now()) "
        "ORDER BY created_at DESC",
        {"id": hook["id"]},
    )
    return [shown(bytes(secret)) for (secret,) in rows]


def test_a_rotation_ends_none_that_another_has_promised_to_keep(api: Api, client: httpx.Client) -> None:
    hook = made(client)
    here, told = f"/webhooks/{hook['id']}/rotate", [hook["secret"]]
    for overlap in (3_600, 86_400, 600, 60):
        told.insert(0, client.post(here, json={"overlap_seconds": overlap}).json()["secret"])
        assert counting(api, hook) == told
    answer = client.post(here)
    detail = str(problem(answer, "TOO_MANY_SECRETS")["detail"])
    [(first_end,)] = api.sql(
        "SELECT to_char(min(expires_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') FROM webhook_secrets "
        "WHERE endpoint_id = %(id)s",
        {"id": hook["id"]},
    )
    assert f"ends at {first_end} UTC" in detail
    assert counting(api, hook) == told
    api.sql("UPDATE webhook_secrets SET expires_at = now() WHERE expires_at < now() + interval '2 minutes'")
    newer = client.post(here).json()["secret"]
    assert counting(api, hook) == [newer, told[0], *told[2:]]
    leaked = client.post(here, json={"overlap_seconds": 0}).json()["secret"]
    assert counting(api, hook) == [leaked]


def test_a_key_without_the_scope_may_not(api: Api) -> None:
    with api.client(api.key("jobs-only@example.org")) as other:
        problem(other.get("/webhooks"), "INSUFFICIENT_SCOPE")


def test_a_job_and_its_event_are_there_together(api: Api, client: httpx.Client) -> None:
    hook, other = made(client, events=["job.created"]), made(client, events=["job.failed"])
    job = client.post("/jobs", json=JOB).json()
    [delivery] = deliveries(client, hook)
    assert (delivery["event"], delivery["state"], delivery["attempts"]) == ("job.created", "pending", [])
    assert deliveries(client, other) == []
    sent = client.get(f"/webhooks/{hook['id']}/deliveries/{delivery['id']}").json()
    told = json.loads(sent["payload"])
    assert (told["type"], told["data"]) == ("job.created", job)
    assert datetime.fromisoformat(told["timestamp"]) - datetime.now(UTC) < timedelta(minutes=1)
    assert delivery["id"][:18] == delivery["event_id"][:18]  # grows with time
    [(stored,)] = api.sql("SELECT payload FROM webhook_events WHERE id = %(id)s", {"id": delivery["event_id"]})
    assert bytes(stored) == sent["payload"].encode()


def test_where_nobody_asks_nothing_is_written(api: Api, client: httpx.Client) -> None:
    made(client, events=["job.failed"])
    before = api.sql("SELECT count(*) FROM webhook_events")
    client.post("/jobs", json=JOB)
    assert api.sql("SELECT count(*) FROM webhook_events") == before


def test_what_was_sent_and_answered_can_be_read(api: Api, client: httpx.Client) -> None:
    hook = made(client)
    for _ in range(3):
        client.post("/jobs", json=JOB)
    newest, *_ = items = deliveries(client, hook)
    assert [each["id"] for each in items] == sorted((each["id"] for each in items), reverse=True)
    fail(api, newest["id"], 503, b"\xffbusy")
    fail(api, newest["id"], None)
    [failed] = deliveries(client, hook, state="failed")
    assert [(each["number"], each["status"], each["milliseconds"]) for each in failed["attempts"]] == [
        (1, 503, 12), (2, None, 12),
    ]  # fmt: skip
    assert failed["due_at"] is None
    assert failed["ended_at"]
    one = client.get(f"/webhooks/{hook['id']}/deliveries/{newest['id']}").json()
    assert one["attempts"][0]["response_body"] == "\ufffdbusy"
    part = client.get(f"/webhooks/{hook['id']}/deliveries", params={"limit": 2, "event": "job.created"}).json()
    rest = client.get(
        f"/webhooks/{hook['id']}/deliveries",
        params={"limit": 2, "event": "job.created", "cursor": part["next_cursor"]},
    ).json()
    assert [each["id"] for each in part["items"] + rest["items"]] == [each["id"] for each in items]
    assert deliveries(client, hook, event_id=items[1]["event_id"]) == [items[1]]
    assert deliveries(client, hook, since="2999-01-01T00:00:00Z") == []
    assert len(deliveries(client, hook, since="2020-01-01T00:00:00+02:00")) == 3
    earlier = client.get(f"/webhooks/{hook['id']}/deliveries", params={"since": "2026-11-28"})
    assert problem(earlier, "VALIDATION_FAILED")["errors"][0]["field"] == "since"  # type: ignore[index]
    other = made(client)
    params = {"event": "job.created", "cursor": part["next_cursor"]}
    problem(client.get(f"/webhooks/{other['id']}/deliveries", params=params), "INVALID_CURSOR")


def test_a_replay_is_another_round_of_the_same_delivery(api: Api, client: httpx.Client) -> None:
    hook = made(client)
    client.post("/jobs", json=JOB)
    [delivery] = deliveries(client, hook)
    fail(api, delivery["id"])
    answer = client.post(f"/webhooks/{hook['id']}/replay/{delivery['event_id']}")
    assert answer.status_code == 202
    assert (answer.json()["id"], answer.json()["state"]) == (delivery["id"], "pending")
    assert len(answer.json()["attempts"]) == 1
    assert api.sql("SELECT attempts FROM webhook_deliveries WHERE id = %(id)s", {"id": delivery["id"]}) == [(0,)]
    younger = made(client)
    assert client.post(f"/webhooks/{younger['id']}/replay/{delivery['event_id']}").json()["state"] == "pending"
    problem(client.post(f"/webhooks/{hook['id']}/replay/{hook['id']}"), "NOT_FOUND")


def test_one_that_is_being_sent_is_left_to_its_sender(api: Api, client: httpx.Client) -> None:
    hook = made(client)
    client.post("/jobs", json=JOB)
    [delivery] = deliveries(client, hook)
    lease = "UPDATE webhook_deliveries SET lease_until = now() + interval '1 hour', leased_by = 'w' WHERE id = %(id)s"
    api.sql(lease, {"id": delivery["id"]})
    assert client.post(f"/webhooks/{hook['id']}/replay/{delivery['event_id']}").status_code == 202
    leased = "SELECT leased_by FROM webhook_deliveries WHERE id = %(id)s AND lease_until > now()"
    assert api.sql(leased, {"id": delivery["id"]}) == [("w",)]


def test_all_that_failed_since_a_time_is_due_again(api: Api, client: httpx.Client) -> None:
    hook = made(client)
    for _ in range(4):
        client.post("/jobs", json=JOB)
    items = deliveries(client, hook)
    for each in items[:3]:
        fail(api, each["id"])
    here, since = f"/webhooks/{hook['id']}/replay", {"since": "2020-01-01T00:00:00Z"}
    assert client.post(here, json={**since, "event": "job.failed"}).json() == {"replayed": 0, "more": False}
    assert client.post(here, json={"since": items[1]["created_at"]}).json()["replayed"] <= 2
    assert client.post(here, json=since).json()["replayed"] >= 1
    assert client.post(here, json={"since": "0001-01-01T00:00:00+14:00"}).json()["replayed"] == 0
    assert {each["state"] for each in deliveries(client, hook)} == {"pending"}
    for wrong in ("2026-11-28", "1764331200", 1764331200, "2026-11-28T12:00:00", "2026-02-30T12:00:00Z"):
        [error] = problem(client.post(here, json={"since": wrong}), "VALIDATION_FAILED")["errors"]  # type: ignore[misc]
        assert error["field"] == "since"


def test_a_test_event_is_sent_whatever_is_asked_for(client: httpx.Client) -> None:
    hook, other = made(client, events=["job.failed"]), made(client)
    sent = client.post(f"/webhooks/{hook['id']}/test")
    assert (sent.status_code, sent.json()["event"], sent.json()["state"]) == (202, "endpoint.test", "pending")
    assert deliveries(client, other) == []


def test_who_disables_an_endpoint_is_sent_nothing(client: httpx.Client) -> None:
    hook = made(client)
    here = f"/webhooks/{hook['id']}"
    disabled = client.post(f"{here}/disable").json()
    assert (disabled["state"], disabled["why_disabled"]) == ("disabled", "owner")
    client.post("/jobs", json=JOB)
    assert deliveries(client, hook) == []
    for answer in (
        client.post(f"{here}/replay", json={"since": "2020-01-01T00:00:00Z"}),
        client.post(f"{here}/replay/{hook['id']}"),
    ):
        problem(answer, "WEBHOOK_DISABLED")
    assert client.post(f"{here}/test").json()["state"] == "pending"
    enabled = client.post(f"{here}/enable").json()
    assert (enabled["state"], enabled["why_disabled"], enabled["disabled_at"]) == ("enabled", None, None)


def test_one_that_fails_is_probed_and_its_owner_is_told(api: Api, client: httpx.Client) -> None:
    hook, other, deaf = made(client), made(client), made(client, events=["job.failed"])
    asyncio.run(disabled(api, hook["id"], WhyDisabled.FAILING))
    client.post("/jobs", json=JOB)
    missed, probe = deliveries(client, hook)
    assert (missed["event"], missed["state"], missed["attempts"]) == ("job.created", "failed", [])
    assert (missed["ended_at"], missed["due_at"]) == (missed["created_at"], None)
    assert (probe["event"], probe["state"]) == ("endpoint.disabled", "pending")
    assert datetime.fromisoformat(probe["due_at"]) - datetime.now(UTC) > timedelta(seconds=30)
    assert [each["event"] for each in deliveries(client, other)] == ["job.created", "endpoint.disabled"]
    assert deliveries(client, deaf) == []
    told = client.get(f"/webhooks/{other['id']}/deliveries/{deliveries(client, other)[1]['id']}").json()
    data = json.loads(told["payload"])["data"]
    assert (data["endpoint_id"], data["why"], data["url"]) == (hook["id"], "failing", HOOK["url"])
    client.post(f"/webhooks/{hook['id']}/enable")
    assert [each["state"] for each in deliveries(client, hook)] == ["failed", "cancelled"]
    replayed = client.post(f"/webhooks/{hook['id']}/replay", json={"since": "2020-01-01T00:00:00Z"}).json()
    assert replayed["replayed"] == 1


def test_one_that_is_gone_gets_nothing_any_more(api: Api, client: httpx.Client) -> None:
    """What waited for it has failed: its owner can have it sent again when it is enabled."""
    hook, other = made(client), made(client)
    client.post("/jobs", json=JOB)
    client.post("/jobs", json=JOB)
    client.post(f"/webhooks/{hook['id']}/test")
    in_hand = deliveries(client, hook, event="job.created")[0]["id"]
    api.sql("UPDATE webhook_deliveries SET lease_until = now() + interval '1 h' WHERE id = %(id)s", {"id": in_hand})
    asyncio.run(disabled(api, hook["id"], WhyDisabled.GONE))
    client.post("/jobs", json=JOB)
    seen = [(each["event"], each["state"], each["ended_at"] is None) for each in deliveries(client, hook)]
    assert seen == [
        ("endpoint.test", "pending", True), ("job.created", "pending", True), ("job.created", "failed", False),
    ]  # fmt: skip
    told = [each["event"] for each in deliveries(client, other)]
    assert told == ["job.created", "endpoint.disabled", "job.created", "job.created"]
    client.post(f"/webhooks/{hook['id']}/enable")
    again = client.post(f"/webhooks/{hook['id']}/replay", json={"since": "2020-01-01T00:00:00Z"}).json()
    assert again["replayed"] == 1


async def disabled(api: Api, endpoint_id: str, why: WhyDisabled) -> None:
    """What who sends does."""
    engine = database.engine(Settings(dsn=api.dsn))
    async with engine.begin() as connection:
        assert await webhooks.disable(connection, endpoint_id, why)
        assert not await webhooks.disable(connection, endpoint_id, why)
    await engine.dispose()


def test_what_is_rolled_back_told_nothing_and_what_is_committed_wakes_up(api: Api, client: httpx.Client) -> None:
    hook = made(client)
    [(user,)] = api.sql("SELECT user_id::text FROM webhook_endpoints WHERE id = %(id)s", {"id": hook["id"]})

    async def emit() -> tuple[str | None, ...]:
        engine = database.engine(Settings(dsn=api.dsn))
        async with AsyncSession(engine) as session:
            lost = await webhooks.emit_webhook_event(session, user, "batch.created", {"n": 1})
            await session.rollback()
            kept = await webhooks.emit_webhook_event(session, user, "batch.created", {"n": 2})
            await session.commit()
            with pytest.raises(ValueError, match="is not an event, expected one of"):
                await webhooks.emit_webhook_event(session, user, "batch.creatde", {})
            with pytest.raises(ValueError, match="expected 65536 at the most: tell less"):
                await webhooks.emit_webhook_event(session, user, "batch.created", {"n": "x" * 65536})
        await engine.dispose()
        return lost, kept

    with psycopg.connect(api.admin, autocommit=True) as listener:
        listener.execute(f"LISTEN {webhooks.CHANNEL}")
        _, kept = asyncio.run(emit())
        assert len(list(listener.notifies(timeout=10, stop_after=1))) == 1
        assert list(listener.notifies(timeout=0.2)) == []
    assert [each["event_id"] for each in deliveries(client, hook, event="batch.created")] == [kept]


def test_an_endpoint_can_be_changed_while_a_change_that_it_is_told_is_open(api: Api, client: httpx.Client) -> None:
    hook = made(client)
    [(user,)] = api.sql("SELECT user_id::text FROM webhook_endpoints WHERE id = %(id)s", {"id": hook["id"]})

    async def change() -> int:
        engine = database.engine(Settings(dsn=api.dsn))
        async with engine.begin() as telling:
            await webhooks.emit_webhook_event(telling, user, "job.created", {})
            here = f"/webhooks/{hook['id']}"
            answer = await asyncio.to_thread(client.patch, here, json={"in_flight": 3}, timeout=5)
        await engine.dispose()
        return answer.status_code

    assert asyncio.run(change()) == 200


def test_events_of_one_transaction_are_in_their_order(api: Api, client: httpx.Client) -> None:
    hook = made(client)
    [(user,)] = api.sql("SELECT user_id::text FROM webhook_endpoints WHERE id = %(id)s", {"id": hook["id"]})

    async def tell() -> list[str | None]:
        engine = database.engine(Settings(dsn=api.dsn))
        async with engine.begin() as telling:
            told = [await webhooks.emit_webhook_event(telling, user, "job.progress", {"n": n}) for n in range(50)]
        await engine.dispose()
        return told

    told = asyncio.run(tell())
    rows = api.sql("SELECT event_id::text FROM webhook_deliveries WHERE endpoint_id = %(id)s ORDER BY id", hook)
    assert [event for (event,) in rows] == told


def test_an_endpoint_that_is_removed_meanwhile_breaks_no_change(api: Api, client: httpx.Client) -> None:
    hook = made(client)
    [(user,)] = api.sql("SELECT user_id::text FROM webhook_endpoints WHERE id = %(id)s", {"id": hook["id"]})

    async def race() -> str | None:
        engine = database.engine(Settings(dsn=api.dsn))
        async with engine.connect() as removing, engine.begin() as changing:
            await removing.execute(text(f"DELETE FROM webhook_endpoints WHERE id = '{hook['id']}'"))
            emitting = asyncio.create_task(webhooks.emit_webhook_event(changing, user, "job.created", {}))
            done, _ = await asyncio.wait([emitting], timeout=0.3)
            assert not done  # it waits for the removal
            await removing.commit()
            told = await emitting
        await engine.dispose()
        return told

    assert asyncio.run(race()) is None


def test_there_are_so_many_endpoints_at_the_most(api: Api, client: httpx.Client) -> None:
    hook = made(client)
    api.sql(
        "INSERT INTO webhook_endpoints (id, user_id, url, events) SELECT gen_random_uuid(), user_id, url, '{}' "
        "FROM webhook_endpoints, generate_series(1, 49) WHERE id = %(id)s",
        {"id": hook["id"]},
    )
    problem(client.post("/webhooks", json=HOOK), "TOO_MANY_WEBHOOKS")
