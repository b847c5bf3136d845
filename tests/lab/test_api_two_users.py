"""Every route of the document, walked by somebody to whom nothing belongs: what is another's is not there.

A new route is walked by itself. A new kind of parameter has to be named here, or the walk fails.
"""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from served_api import JOB, Api
from test_api_life import problem

pytestmark = pytest.mark.lab

#: Parameters that name nobody's property.
PUBLIC = {"key": "somebodys", "code": "NOT_FOUND", "name": "get_job", "preset": "quick_social"}
TABLES = ("users", "api_keys", "jobs", "results", "pipeline_jobs", "idempotency_keys", "usage", "usage_months",
          "webhook_endpoints", "webhook_secrets", "webhook_events", "webhook_deliveries")  # fmt: skip
#: Bodies of operations that take one; without an entry an operation is sent the schema's first example or {}.
BODIES: dict[str, dict[str, Any]] = {
    "submit_job": {**JOB},
    "change_job": {"title": "taken over"},
    "change_me": {"name": "Mallory"},
    "create_user": {"email": "eve@example.org", "name": "Eve"},
    "create_key": {"label": "mine"},
    "set_cached": {"value": 1},
    "rotate_key": {"overlap_seconds": 0},
    "create_webhook": {"url": "https://mallory.example.org/"},
    "replace_webhook": {"url": "https://mallory.example.org/"},
    "change_webhook": {"url": "https://mallory.example.org/"},
    "rotate_webhook_secret": {"overlap_seconds": 0},
    "replay_failed": {"since": "2020-01-01T00:00:00Z"},
}


@pytest.fixture(scope="module")
def mallory(api: Api) -> Iterator[httpx.Client]:
    with api.client(api.key("mallory@example.org", "jobs", "webhooks")) as made:
        yield made


@pytest.fixture(scope="module")
def owned(api: Api) -> dict[str, str]:
    """What Ana has, by the name of the parameter."""
    with api.client(api.key("ana-secret@example.org", "jobs", "webhooks", "admin")) as ana:
        hook = ana.post("/webhooks", json={"url": "https://ana-secret.example.org/"}).json()["id"]
        job = ana.post("/jobs", json={**JOB, "title": "ana-secret"}, headers={"Idempotency-Key": "ana-secret"}).json()
        me = ana.get("/users/me").json()["id"]
        api.used(me, job["id"])
        return {
            "job_id": job["id"],
            "result_id": api.complete(job["id"]),
            "pipeline_id": api.stage(job["id"]),
            "key_id": ana.get("/keys").json()["items"][0]["id"],
            "user_id": me,
            "webhook_id": hook,
            "event_id": (sent := ana.get(f"/webhooks/{hook}/deliveries").json()["items"][0])["event_id"],
            "delivery_id": sent["id"],
        }


def operations(api: Api) -> Iterator[tuple[str, str, dict[str, Any]]]:
    with api.client() as client:
        document = client.get("/openapi.json").json()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path.removeprefix("/api/v1"), method, operation


def content(api: Api, owned: dict[str, str]) -> list[str]:
    """Every row that is Ana's."""
    rows = [text for table in TABLES for (text,) in api.sql(f"SELECT row_to_json(t)::text FROM {table} t")]
    return sorted(row for row in rows if any(name in row for name in owned.values()))


def test_what_is_another_s_is_not_there(api: Api, mallory: httpx.Client, owned: dict[str, str]) -> None:
    before, walked = content(api, owned), 0
    for path, method, operation in operations(api):
        names = [each["name"] for each in operation.get("parameters", ()) if each.get("in") == "path"]
        unknown = [name for name in names if name not in owned and name not in PUBLIC]
        assert not unknown, f"{method} {path}: say in this file whose {unknown} is"
        answer = call(mallory, path.format(**owned, **PUBLIC), method, operation)
        if any(name in owned for name in names):
            is_admins = operation["security"] == [{"ApiKey": ["admin"]}]
            problem(answer, "INSUFFICIENT_SCOPE" if is_admins else "NOT_FOUND")
            walked += 1
        told = answer.text.replace(str(answer.request.url.path), "")
        assert not any(name in told for name in owned.values()), f"{method} {path} tells {told}"
        assert "ana-secret" not in told, f"{method} {path} tells {told}"
    assert walked >= 24
    assert content(api, owned) == before


def test_the_same_without_a_key(api: Api, owned: dict[str, str]) -> None:
    before = content(api, owned)
    with api.client() as nobody:
        for path, method, operation in operations(api):
            answer = call(nobody, path.format(**owned, **PUBLIC), method, operation)
            if "security" in operation:
                problem(answer, "UNAUTHENTICATED")
            else:
                assert path.startswith("/docs"), f"{method} {path} is open to everybody"
    assert content(api, owned) == before


def test_another_s_idempotency_key_answers_nothing(mallory: httpx.Client) -> None:
    answer = mallory.post("/jobs", json={**JOB, "title": "ana-secret"}, headers={"Idempotency-Key": "ana-secret"})
    assert "idempotent-replayed" not in answer.headers


def call(client: httpx.Client, path: str, method: str, operation: dict[str, Any]) -> httpx.Response:
    if "requestBody" not in operation:
        return client.request(method, path)
    body = BODIES.get(operation["operationId"])
    assert body is not None, f"{method} {path}: say in this file what {operation['operationId']} is sent"
    return client.request(method, path, content=json.dumps(body), headers={"Content-Type": "application/json"})
