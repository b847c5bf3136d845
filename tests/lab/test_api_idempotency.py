"""A POST with a key does its work once: repeated, at the same time, and when the server is killed in between."""

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx
import psycopg2
import pytest
from served_api import JOB, Api, database
from test_api_life import problem

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def key(api: Api) -> str:
    return api.key("once@example.org")


@pytest.fixture
def client(api: Api, key: str) -> Iterator[httpx.Client]:
    with api.client(key) as made:
        yield made


def count(api: Api, title: str) -> int:
    [(found,)] = api.sql("SELECT count(*) FROM jobs WHERE title = %(title)s", {"title": title})
    return int(found)


def test_repeated(api: Api, client: httpx.Client) -> None:
    job, header = {**JOB, "title": "repeated"}, {"Idempotency-Key": "r1"}
    first, second = (client.post("/jobs", json=job, headers=header) for _ in range(2))
    assert (second.status_code, second.content, second.headers["location"]) == (
        201, first.content, first.headers["location"],
    )  # fmt: skip
    assert ("idempotent-replayed" in first.headers, second.headers["idempotent-replayed"]) == (False, "true")
    problem(client.post("/jobs", json={**job, "prompt": "Another."}, headers=header), "IDEMPOTENCY_KEY_REUSED")
    cancel = f"/jobs/{first.json()['id']}/cancel"
    problem(client.post(cancel, headers=header), "IDEMPOTENCY_KEY_REUSED")
    assert [client.post(cancel, headers={"Idempotency-Key": "c1"}).status_code for _ in range(3)] == [200, 200, 200]
    assert count(api, "repeated") == 1


def test_another_user_has_keys_of_their_own(api: Api, client: httpx.Client) -> None:
    with api.client(api.key("twice@example.org")) as other:
        answers = [each.post("/jobs", json=JOB, headers={"Idempotency-Key": "same"}) for each in (client, other)]
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, None]


def test_a_weaker_key_is_not_answered_what_a_stronger_one_was(api: Api) -> None:
    header, user = {"Idempotency-Key": "strong"}, {"email": "made@example.org", "name": "Made"}
    with api.client(api.key("both@example.org", "admin")) as strong, api.client(api.key("both@example.org")) as weak:
        assert strong.post("/users", json=user, headers=header).status_code == 201
        told = weak.post("/users", json=user, headers=header)
        problem(told, "IDEMPOTENCY_KEY_REUSED")
        problem(weak.post("/users", json=user), "INSUFFICIENT_SCOPE")
        assert strong.post("/users", json=user, headers=header).headers["idempotent-replayed"] == "true"


def test_what_fails_is_not_kept(client: httpx.Client) -> None:
    header = {"Idempotency-Key": "f1"}
    problem(client.post("/jobs", json={**JOB, "duration_seconds": 1_000}, headers=header), "VALIDATION_FAILED")
    assert client.post("/jobs", json=JOB, headers=header).status_code == 201


def test_kept_for_24_hours(api: Api, client: httpx.Client) -> None:
    header = {"Idempotency-Key": "old"}
    first = client.post("/jobs", json=JOB, headers=header).json()["id"]
    api.sql("UPDATE idempotency_keys SET created_at = now() - interval '23 hours 59 minutes' WHERE key = 'old'")
    assert client.post("/jobs", json=JOB, headers=header).json()["id"] == first
    api.sql("UPDATE idempotency_keys SET created_at = now() - interval '24 hours 1 minute' WHERE key = 'old'")
    assert client.post("/jobs", json=JOB, headers=header).json()["id"] != first
    api.sql("UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE key = 'old'")
    for number in range(100):  # one in eight takes away what is too old: all of them spare it once in 600,000 runs
        client.post("/jobs", json={**JOB, "title": f"job {number}"}, headers={"Idempotency-Key": f"new-{number}"})
    assert api.sql("SELECT 1 FROM idempotency_keys WHERE key = 'old'") == []


@pytest.mark.parametrize("wrong", ["", "x" * 256, "a b", "\u00e9"])
def test_keys_that_are_none(client: httpx.Client, wrong: str) -> None:
    answer = client.post("/jobs", json=JOB, headers=[("Idempotency-Key", wrong.encode("latin-1"))])
    assert problem(answer, "VALIDATION_FAILED")["errors"][0]["field"] == "Idempotency-Key"  # type: ignore[index]


def test_at_the_same_time(api: Api, key: str) -> None:
    begin = threading.Barrier(8)

    def send(number: int) -> list[httpx.Response]:
        with api.client(key) as client:
            begin.wait()
            return [
                client.post("/jobs", json={**JOB, "title": f"same {n}"}, headers={"Idempotency-Key": f"same-{n}"})
                for n in range(5)
            ]

    with ThreadPoolExecutor(8) as pool:
        answers = [answer for found in pool.map(send, range(8)) for answer in found]
    for answer in answers:
        if answer.status_code != 201:
            problem(answer, "IDEMPOTENCY_KEY_IN_FLIGHT")
            assert answer.headers["retry-after"] == "1"
    assert [count(api, f"same {n}") for n in range(5)] == [1] * 5


def test_killed_in_between() -> None:
    job, header = {**JOB, "title": "killed"}, {"Idempotency-Key": "k9"}
    with database() as api:
        try:
            api.start()
            key = api.key("killed@example.org")
            with closing(psycopg2.connect(api.admin)) as holder, holder.cursor() as cursor:
                cursor.execute("LOCK TABLE jobs IN EXCLUSIVE MODE")  # the insertion waits, inside of its transaction
                with ThreadPoolExecutor(1) as pool, api.client(key) as client:
                    sent = pool.submit(_send, api, key, job, header)
                    _until_waiting(api)
                    told = client.post("/jobs", json=job, headers=header)
                    problem(told, "IDEMPOTENCY_KEY_IN_FLIGHT")
                    api.kill()
                    assert sent.result(30) is None
            api.start()
            with api.client(key) as client:
                answers = [_after_its_end(client, job, header) for _ in range(2)]
                assert [answer.status_code for answer in answers] == [201, 201]
                api.kill()  # after the answer: it stays
            api.start()
            with api.client(key) as client:
                assert client.post("/jobs", json=job, headers=header).json() == answers[0].json()
            assert count(api, "killed") == 1
        finally:
            api.stop()


def _send(api: Api, key: str, job: dict[str, str], header: dict[str, str]) -> httpx.Response | None:
    try:
        with api.client(key) as client:
            return client.post("/jobs", json=job, headers=header)
    except httpx.TransportError:
        return None


def _until_waiting(api: Api) -> None:
    waiting = "SELECT 1 FROM pg_stat_activity WHERE usename = 'aiprod_app' AND wait_event_type = 'Lock'"
    for _ in range(2_000):
        if api.sql(waiting):
            return
    raise AssertionError("the insertion does not wait")


def _after_its_end(client: httpx.Client, job: dict[str, str], header: dict[str, str]) -> httpx.Response:
    """As a client does: until the transaction of the killed server has ended, too."""
    for _ in range(2_000):
        answer = client.post("/jobs", json=job, headers=header)
        if answer.status_code != 409:
            return answer
    return answer


@pytest.mark.soak
def test_killed_at_any_moment() -> None:
    """Whatever was answered is there, whatever was not is there once after it was sent again."""
    with database() as api:
        try:
            api.start()
            key = api.key("any@example.org")
            for number in range(25):
                with ThreadPoolExecutor(4) as pool:
                    names = [f"any-{number}-{n}" for n in range(40)]
                    sent = [
                        pool.submit(_send, api, key, {**JOB, "title": name}, {"Idempotency-Key": name})
                        for name in names
                    ]
                    time.sleep(random.uniform(0.02, 0.3))
                    api.kill()
                    before = [each.result(60) for each in sent]
                api.start()
                with api.client(key) as client:
                    for name, answer in zip(names, before, strict=True):
                        again = _after_its_end(client, {**JOB, "title": name}, {"Idempotency-Key": name})
                        assert again.status_code == 201
                        if answer is not None and answer.status_code == 201:
                            assert again.content == answer.content
                        assert count(api, name) == 1
        finally:
            api.stop()
