"""What stands around the API: stored responses, limits, health and metrics, with a sound Redis and one that hangs."""

import time
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis_servers import Server
from served_api import JOB, Api

pytestmark = pytest.mark.lab


def how(answer: httpx.Response) -> str:
    return answer.headers.get("x-cache", "none")


def test_what_is_polled_is_answered_from_the_cache_until_it_changes(stored: Api) -> None:
    with stored.client(stored.key("polls@example.org")) as client:
        here = f"/jobs/{client.post('/jobs', json=JOB).json()['id']}"
        answers = [client.get(here) for _ in range(6)]
        assert "hit" in [how(each) for each in answers]
        assert len({each.text for each in answers}) == 1
        tag = answers[-1].headers["etag"]
        assert client.get(here, headers={"If-None-Match": tag}).status_code == 304
        client.post(f"{here}/cancel")
        after = client.get(here)
        assert (after.json()["status"], how(after)) == ("cancelled", "miss")


def test_nobody_is_served_what_is_stored_for_another(stored: Api) -> None:
    with stored.client(stored.key("one@example.org")) as one, stored.client(stored.key("two@example.org")) as two:
        here = f"/jobs/{one.post('/jobs', json=JOB).json()['id']}"
        for _ in range(4):
            assert one.get(here).status_code == 200
            assert two.get(here).status_code == 404
        assert httpx.get(f"{stored.url}/api/v1{here}").status_code == 401
        assert two.get("/jobs").json()["items"] == []


@pytest.fixture(scope="module")
def strict(stored: Api) -> Iterator[Api]:
    """The same database, served with the tiers as they are shipped."""
    plain = {name: value for name, value in stored.environment.items() if name != "AIPROD_OPS_SERVICE"}
    made = replace(stored, environment=plain, port=0, process=None)
    made.port = stored.port + 1
    made.start()
    yield made
    made.stop()


def test_a_tier_is_told_and_kept(strict: Api) -> None:
    with strict.client(strict.key("free@example.org", tier="free")) as client:
        answers = [client.get("/users/me") for _ in range(14)]
    assert [each.status_code for each in answers[:10]] == [200] * 10
    refused = answers[-1]
    assert refused.status_code == 429
    assert refused.json()["code"] == "RATE_LIMITED"
    assert refused.headers["content-type"] == "application/problem+json"
    assert int(refused.headers["retry-after"]) > 0
    for each in answers:
        assert "ratelimit" in each.headers
        assert "ratelimit-policy" in each.headers


def test_hits_count_as_well(strict: Api) -> None:
    with strict.client(strict.key("hits@example.org", tier="free")) as client:
        here = f"/jobs/{client.post('/jobs', json=JOB).json()['id']}"
        answers = [client.get(here) for _ in range(14)]
    assert "hit" in [how(each) for each in answers]
    assert answers[-1].status_code == 429


def test_more_jobs_than_a_tier_allows_at_a_time(strict: Api) -> None:
    with strict.client(strict.key("jobs@example.org", tier="free")) as client:
        codes = [client.post("/jobs", json=JOB).status_code for _ in range(2)]
        refused = client.post("/jobs", json=JOB)
    assert codes == [201, 201]
    assert (refused.status_code, refused.json()["code"]) == (429, "CONCURRENT_JOBS_EXCEEDED")


def health(api: Api, path: str) -> httpx.Response:
    return httpx.get(f"{api.url}/health/{path}", timeout=10)


def test_health_tells_each_part(stored: Api) -> None:
    assert health(stored, "live").json() == {"status": "alive"}
    assert health(stored, "ready").status_code == 200
    found = health(stored, "detailed").json()["checks"]
    assert {"database", "cache", "queue", "webhooks", "disk", "backups"} <= set(found)
    assert found["database"]["status"] == "OK"
    assert found["cache"]["status"] == "OK"
    assert found["backups"]["status"] == "UNKNOWN", "none was ever verified here"


def test_health_tells_what_webhooks_wait(stored: Api) -> None:
    def webhooks() -> tuple[str, list[float]]:
        time.sleep(1.1)  # what was found counts for a second
        found = health(stored, "detailed").json()["checks"]["webhooks"]
        return found["status"], [each["value"] for each in found["findings"]]

    with stored.client(stored.key("backlog@example.org", "jobs", "webhooks")) as client:
        hook, other = (client.post("/webhooks", json={"url": "https://e.example.org/"}).json()["id"] for _ in range(2))
        client.post(f"/webhooks/{hook}/test")
        assert webhooks()[0] == "OK"
        stored.sql("UPDATE webhook_deliveries SET due_at = now() - interval '10 min'")
        status, (waiting, age, disabled, _) = webhooks()
        assert (status, waiting, disabled) == ("CRITICAL", 1, 0)
        assert 600 <= age < 700
        stored.sql(
            "UPDATE webhook_endpoints SET state = 'disabled', why_disabled = 'gone' WHERE id = %(id)s", {"id": hook}
        )
        client.post("/jobs", json=JOB)  # told to the other one, which is disabled before it is sent
        client.post(f"/webhooks/{other}/disable")
        assert webhooks() == ("OK", [0, 0, 1, 1])


def test_metrics_have_every_route_from_the_start(stored: Api) -> None:
    text = httpx.get(f"{stored.url}/metrics").text
    counted = [
        each
        for family in text_string_to_metric_families(text)
        for each in family.samples
        if each.name == "aiprod_requests_total"
    ]
    routes = {each.labels["route"] for each in counted}
    assert {"/api/v1/jobs", "/api/v1/jobs/{job_id}", "unmatched"} <= routes
    assert sum(each.value for each in counted if each.labels["outcome"] == "server_error") == 0
    jobs = [each for each in counted if each.labels["route"] == "/api/v1/jobs/{job_id}" and each.value]
    assert jobs, "hits have a route, too"


def test_an_administrator_sees_our_part_of_redis_and_nothing_else(stored: Api, redis: Server) -> None:
    redis.ask("SET", "secret-of-another", "7")
    with stored.client(stored.key("root@example.org", "admin")) as admin:
        assert admin.get("/cache/secret-of-another").status_code == 404
        made = admin.post("/cache/colours:1", json={"value": {"a": [1, None]}, "ttl_seconds": 60})
        assert made.json()["is_stored"]
        assert admin.get("/cache/colours:1").json()["value"] == {"a": [1, None]}
        assert admin.delete("/cache/colours:1").status_code == 204
        assert admin.get("/cache/colours:1").status_code == 404
        assert admin.get("/cache/health").json()["status"] == "healthy"
        assert admin.post("/cache/x", json={"value": 1, "ttl_seconds": 0}).status_code == 422
    with stored.client(stored.key("plain@example.org")) as plain:
        assert plain.get("/cache/health").json()["code"] == "INSUFFICIENT_SCOPE"
        assert plain.post("/cache/colours:1", json={"value": 1}).json()["code"] == "INSUFFICIENT_SCOPE"


def test_a_redis_that_hangs_costs_little_and_is_told(stored: Api, redis: Server) -> None:
    with stored.client(stored.key("hung@example.org")) as client:
        here = f"/jobs/{client.post('/jobs', json=JOB).json()['id']}"
        assert client.get(here).status_code == 200
        redis.hang()
        try:
            for _ in range(20):
                assert client.get(here).status_code == 200
            time.sleep(1.1)
            found = health(stored, "detailed")
            assert found.status_code == 200
            assert found.json()["status"] == "degraded"
            assert found.json()["checks"]["cache"]["status"] != "OK"
            assert client.post(f"{here}/cancel").json()["status"] == "cancelled"
            assert client.get(here).json()["status"] == "cancelled"
        finally:
            redis.go_on()
        deadline = time.monotonic() + 20
        while health(stored, "detailed").json()["checks"]["cache"]["status"] != "OK":
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert client.get(here).json()["status"] == "cancelled"


def test_health_answers_without_the_database(stored: Api) -> None:
    """Last: the database is stopped."""
    stored.server.stop("immediate")
    try:
        time.sleep(1.1)
        assert health(stored, "live").status_code == 200
        assert health(stored, "ready").status_code == 503
        detailed = health(stored, "detailed")
        assert (detailed.status_code, detailed.json()["status"]) == (503, "unhealthy")
    finally:
        stored.server.start()
