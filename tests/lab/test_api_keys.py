"""API keys: only their hash is kept, rotation overlaps, and no key makes a stronger one."""

import hashlib
from collections.abc import Iterator

import httpx
import pytest
from served_api import JOB, Api
from test_api_life import problem

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def key(api: Api) -> str:
    return api.key("keys@example.org", "jobs", "webhooks")


@pytest.fixture(scope="module")
def client(api: Api, key: str) -> Iterator[httpx.Client]:
    with api.client(key) as made:
        yield made


def status(api: Api, key: str) -> int:
    with api.client(key) as client:
        return client.get("/users/me").status_code


def test_only_the_hash_is_stored(api: Api, client: httpx.Client, key: str) -> None:
    made = client.post("/keys", json={"label": "ci"}, headers={"Idempotency-Key": "k1"}).json()
    again = client.post("/keys", json={"label": "ci"}, headers={"Idempotency-Key": "k1"})
    assert again.headers["idempotent-replayed"] == "true"
    assert {**made, "key": None} == again.json()
    [(digest,)] = api.sql("SELECT key_hash FROM api_keys WHERE id = %(id)s", {"id": made["id"]})
    assert digest == hashlib.sha256(made["key"].encode()).hexdigest()
    for secret in (made["key"], key):
        for table in ("api_keys", "idempotency_keys", "users", "service_secrets"):
            rows = api.sql(f"SELECT row_to_json(t)::text FROM {table} t")
            body = api.sql("SELECT convert_from(body, 'UTF8') FROM idempotency_keys")
            assert not any(secret[-20:] in text for (text,) in (*rows, *body))
        assert secret[-20:] not in api.said()
    assert "key" not in client.get(f"/keys/{made['id']}").json()
    assert made["key"].startswith(f"aiprod_{made['prefix']}_")


def test_rotation_overlaps(api: Api, client: httpx.Client) -> None:
    old = client.post("/keys", json={"label": "old", "scopes": ["jobs", "webhooks"]}).json()
    new = client.post(f"/keys/{old['id']}/rotate", json={"overlap_seconds": 3_600}).json()
    assert (new["scopes"], new["label"]) == (["jobs", "webhooks"], "old")
    assert (status(api, old["key"]), status(api, new["key"])) == (200, 200)
    api.sql("UPDATE api_keys SET expires_at = now() WHERE id = %(id)s", {"id": old["id"]})
    assert (status(api, old["key"]), status(api, new["key"])) == (401, 200)
    problem(client.post(f"/keys/{old['id']}/rotate"), "NOT_FOUND")
    newest = client.post(f"/keys/{new['id']}/rotate", json={"overlap_seconds": 0}).json()
    assert (status(api, new["key"]), status(api, newest["key"])) == (401, 200)


def test_a_revoked_key_ends_with_the_next_request(api: Api, client: httpx.Client) -> None:
    made = client.post("/keys", json={"label": "gone"}).json()
    assert status(api, made["key"]) == 200
    revoked = client.post(f"/keys/{made['id']}/revoke").json()
    assert status(api, made["key"]) == 401
    assert client.post(f"/keys/{made['id']}/revoke").json()["revoked_at"] == revoked["revoked_at"]
    assert made["id"] in [each["id"] for each in client.get("/keys", params={"limit": 100}).json()["items"]]


def test_no_key_makes_or_ends_a_stronger_one(api: Api, client: httpx.Client) -> None:
    strong = api.key("keys@example.org", "admin", "jobs")
    [(name,)] = api.sql("SELECT id::text FROM api_keys WHERE prefix = %(p)s", {"p": strong.split("_")[1]})
    for answer in (
        client.post("/keys", json={"label": "up", "scopes": ["admin"]}),
        client.post(f"/keys/{name}/rotate", json={}),
        client.post(f"/keys/{name}/revoke"),
    ):
        problem(answer, "INSUFFICIENT_SCOPE")
    assert status(api, strong) == 200


def test_scopes(api: Api, client: httpx.Client) -> None:
    hooks = client.post("/keys", json={"label": "hooks", "scopes": ["webhooks"]}).json()["key"]
    with api.client(hooks) as other:
        told = problem(other.post("/jobs", json=JOB), "INSUFFICIENT_SCOPE")
        assert told["detail"] == "The key lacks the scope jobs."
        assert other.get("/users/me").status_code == 200
    problem(client.get("/users"), "INSUFFICIENT_SCOPE")
    with api.client(api.key("admin@example.org", "admin")) as admin:
        made = admin.post("/users", json={"email": "New@example.org", "name": "New", "tier": "pro"})
        assert admin.get(made.headers["location"].removeprefix("/api/v1")).json() == made.json()
        problem(admin.post("/users", json={"email": "nEW@example.org", "name": "New"}), "EMAIL_TAKEN")
        assert made.json()["id"] in [user["id"] for user in admin.get("/users", params={"tier": "pro"}).json()["items"]]


@pytest.mark.parametrize(
    "header",
    [
        "", "Bearer", "Basic YTpi", "Bearer nonsense", "Bearer aiprod_aaaaaaaaaaaa_" + "a" * 43,
        "Bearer " + "x" * 5_000, "bearer \u00e9",
    ],
)  # fmt: skip
def test_keys_that_are_none(api: Api, header: str) -> None:
    with api.client() as client:
        answer = client.get("/users/me", headers=[("Authorization", header.encode("latin-1"))])
        problem(answer, "UNAUTHENTICATED")
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_key_with_one_wrong_character(api: Api, key: str) -> None:
    for wrong in (key[:-1] + ("A" if key[-1] != "A" else "B"), key + "A", key.upper(), key[:8] + "q" + key[9:]):
        assert status(api, wrong) == 401
    with api.client() as client:
        twice = [("Authorization", f"Bearer {key}"), ("Authorization", f"Bearer {key}")]
        problem(client.get("/users/me", headers=twice), "UNAUTHENTICATED")
