"""A job's life over HTTP, and what every answer has: problems, versions, parts of lists, limits."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest
from served_api import JOB, Api

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def client(api: Api) -> Iterator[httpx.Client]:
    with api.client(api.key("life@example.org")) as made:
        yield made


def problem(answer: httpx.Response, code: str) -> dict[str, object]:
    """The problem of an answer, which has all that a problem has."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    content: dict[str, object] = answer.json()
    assert (content["code"], content["status"]) == (code, answer.status_code), content
    assert content["type"] == f"/api/v1/docs/errors/{code}"
    assert content["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    assert "File " not in answer.text
    return content


def test_submit_status_download(api: Api, client: httpx.Client) -> None:
    job = {**JOB, "title": "Cup", "priority": "medium", "language": "ja", "duration_seconds": 20, "aspect_ratio": "1:1"}
    made = client.post("/jobs", json=job)
    assert made.status_code == 201
    body = made.json()
    assert {name: body[name] for name in job} == job
    here = made.headers["location"].removeprefix("/api/v1")
    assert client.get(here).json() == body
    assert (
        problem(client.get(f"{here}/download"), "JOB_NOT_COMPLETED")["detail"] == "The job is queued: it has not ended."
    )
    api.stage(body["id"])
    assert [stage["stage"] for stage in client.get(f"{here}/pipelines").json()] == ["storyboard"]
    result = api.complete(body["id"])
    after = client.get(here).json()
    assert (after["status"], after["progress"]) == ("completed", 100)
    assert client.get(f"{here}/result").json()["id"] == result
    download = client.get(after["links"]["download"].removeprefix("/api/v1"))
    assert (download.status_code, download.headers["location"]) == (307, "https://cdn.example.org/v.mp4")
    assert client.get(f"/results/{result}").json()["job_id"] == body["id"]
    problem(client.post(f"{here}/cancel"), "JOB_STATE_CONFLICT")


def test_a_job_is_cancelled_once(client: httpx.Client) -> None:
    here = f"/jobs/{client.post('/jobs', json=JOB).json()['id']}"
    cancelled = client.post(f"{here}/cancel").json()
    assert cancelled["status"] == "cancelled"
    assert cancelled["completed_at"]
    told = problem(client.post(f"{here}/cancel"), "JOB_STATE_CONFLICT")
    assert told["detail"] == "the job is cancelled, which is an end: it cannot become cancelled"
    problem(client.patch(here, json={"priority": "low"}), "JOB_STATE_CONFLICT")


def test_a_failed_job_tells_why(api: Api, client: httpx.Client) -> None:
    name = client.post("/jobs", json=JOB).json()["id"]
    api.sql("UPDATE jobs SET status = 'failed', error = 'the provider' WHERE id = %(id)s", {"id": name})
    assert client.get(f"/jobs/{name}").json()["failure"] == {"code": "PROCESSING_ERROR", "message": "the provider"}
    api.sql("UPDATE jobs SET error_code = 'VOICE_SYNTHESIS_ERROR' WHERE id = %(id)s", {"id": name})
    assert client.get(f"/jobs/{name}").json()["failure"]["code"] == "VOICE_SYNTHESIS_ERROR"


def test_what_has_not_changed_is_not_sent_again(client: httpx.Client) -> None:
    here = f"/jobs/{client.post('/jobs', json=JOB).json()['id']}"
    tag = client.get(here).headers["etag"]
    again = client.get(here, headers={"If-None-Match": f'W/{tag}, "other"'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    changed = client.patch(here, json={"title": "New"}, headers={"If-Match": tag})
    assert changed.json()["title"] == "New"
    assert changed.headers["etag"] == client.get(here).headers["etag"]
    late = client.patch(here, json={"title": "Newer"}, headers={"If-Match": tag})
    problem(late, "PRECONDITION_FAILED")
    now = client.get(here, headers={"If-None-Match": tag})
    assert (now.status_code, now.json()["title"]) == (200, "New")
    assert late.headers["etag"] == now.headers["etag"]


def test_a_list_in_parts_stays_right_while_jobs_are_added(api: Api) -> None:
    with api.client(api.key("lists@example.org")) as client, api.client(api.key("other@example.org")) as other:
        names = [client.post("/jobs", json={**JOB, "title": str(n)}).json()["id"] for n in range(7)]
        part = client.get("/jobs", params={"limit": 3}).json()
        seen = [job["id"] for job in part["items"]]
        while part["next_cursor"]:
            client.post("/jobs", json={**JOB, "title": "added meanwhile"})
            part = client.get("/jobs", params={"limit": 3, "cursor": part["next_cursor"]}).json()
            seen += [job["id"] for job in part["items"]]
        assert seen == names[::-1]
        cursor = client.get("/jobs", params={"limit": 3}).json()["next_cursor"]
        altered = cursor[:-1] + ("A" if cursor[-1] != "A" else "B")
        for params in ({"cursor": altered[:20] + ("A" if altered[20] != "A" else "B") + cursor[21:]},
                       {"cursor": cursor, "status": "queued"}):  # fmt: skip
            problem(client.get("/jobs", params=params), "INVALID_CURSOR")
        problem(other.get("/jobs", params={"cursor": cursor}), "INVALID_CURSOR")
        problem(client.get("/results", params={"cursor": cursor}), "INVALID_CURSOR")


def test_results_in_parts(api: Api) -> None:
    with api.client(api.key("results@example.org")) as client:
        names = [client.post("/jobs", json=JOB).json()["id"] for _ in range(5)]
        wanted = [api.complete(name) for name in names if name != names[2]][::-1]
        newest = api.complete(names[0])  # done once more: the newest counts
        seen, cursor = [], {}
        while cursor is not None:
            part = client.get("/results", params={"limit": 1, **cursor}).json()
            seen += [each["id"] for each in part["items"]]
            cursor = {"cursor": part["next_cursor"]} if part["next_cursor"] else None
        assert seen[:3] == wanted[:3]
        assert len(seen) == 4
        assert seen[3] in (wanted[3], newest)


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b"{", "application/json", "INVALID_JSON"),
        (b"\xff\xfe", "application/json", "INVALID_JSON"),
        (b"[" * 200_000, "application/json", "INVALID_JSON"),
        (b'{"a":' * 40_000 + b"1" + b"}" * 40_000, "application/json", "INVALID_JSON"),
        (b'{"preset": "quick_social", "prompt": ' + b"1" * 5_000 + b"}", "application/json", "INVALID_JSON"),
        (b"[]", "application/json", "VALIDATION_FAILED"),
        (b"null", "application/json", "VALIDATION_FAILED"),
        (b"", "application/json", "VALIDATION_FAILED"),
        (b'{"preset": "quick_social", "prompt": NaN}', "application/json", "VALIDATION_FAILED"),
        (b'{"preset": "quick_social", "prompt": "a\\u0000b"}', "application/json", "INVALID_CONTENT"),
        (b'{"preset": "quick_social", "prompt": "a\\u202eb"}', "application/json", "INVALID_CONTENT"),
        (b'{"preset": "quick_social", "prompt": "\\ud800"}', "application/json", "INVALID_CONTENT"),
        (b'{"preset": "quick_social", "prompt": " \\u3000 "}', "application/json", "INVALID_CONTENT"),
        (b"preset=quick_social", "application/x-www-form-urlencoded", "UNSUPPORTED_MEDIA_TYPE"),
        (json.dumps(JOB).encode(), "text/plain", "UNSUPPORTED_MEDIA_TYPE"),
        (b'"' + b"x" * 300_000 + b'"', "application/json", "PAYLOAD_TOO_LARGE"),
    ],
)
def test_bodies_that_are_refused(client: httpx.Client, body: bytes, kind: str, code: str) -> None:
    problem(client.post("/jobs", content=body, headers={"Content-Type": kind}), code)


def test_a_body_without_a_length_is_read_only_up_to_the_limit(client: httpx.Client) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(10_000):
            sent += 10_000
            yield b" " * 10_000

    with suppress(httpx.WriteError):  # the answer came, and the connection was closed, while we were still sending
        answer = client.post("/jobs", content=chunks(), headers={"Content-Type": "application/json"})
        problem(answer, "PAYLOAD_TOO_LARGE")
    assert sent < 50_000_000


def test_slow_senders_hold_nobody_up(api: Api, client: httpx.Client) -> None:
    key = client.headers["authorization"]
    head = f"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: {key}\r\nContent-Type: application/json\r\n"
    with ExitStack() as stack:
        for _ in range(30):  # three times as many as there are connections to the database
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", api.port), timeout=5))
            slow.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert [client.get("/users/me").status_code for _ in range(20)] == [200] * 20


@pytest.mark.parametrize("preset", ["quick_social", "brand_campaign", "premium_spot"])
def test_the_document_s_examples_are_accepted(client: httpx.Client, preset: str) -> None:
    given = client.get(f"/docs/examples/{preset}").json()["submission"]
    made = client.post("/jobs", json=given)
    assert made.status_code == 201
    assert {name: made.json()[name] for name in given} == given


def test_the_pages_for_programs(client: httpx.Client) -> None:
    sections = client.get("/docs").json()
    assert [section["name"] for section in sections] == ["overview", "pipelines", "batches", "errors", "endpoints"]
    for section in sections:
        assert client.get(section["url"].removeprefix("/api/v1")).status_code == 200
    assert client.get("/docs/errors/VOICE_SYNTHESIS_ERROR").json()["may_succeed_later"] is True
    for name in client.get("/docs/endpoints").json():
        assert client.get(f"/docs/endpoints/{name}").json()["operation"]["operationId"] == name
    problem(client.get("/docs/endpoints/nothing"), "NOT_FOUND")


def test_errors_name_field_rule_limit_and_fix(client: httpx.Client) -> None:
    job = {"preset": "premium_spot", "prompt": "x" * 4_001, "duration_seconds": 5, "aspect_ratio": "9:16", "colour": 1}
    job |= {"language": "xx", "reference_urls": ["https://169.254.169.254/latest"]}
    told = problem(client.post("/jobs", json=job), "VALIDATION_FAILED")
    errors = {error["field"]: error for error in told["errors"]}  # type: ignore[attr-defined]
    assert {field: (error["rule"], error["limit"]) for field, error in errors.items() if field != "language"} == {
        "prompt": ("max_length", 4_000),
        "duration_seconds": ("minimum", 15),
        "aspect_ratio": ("choice", ["16:9", "21:9"]),
        "colour": ("unknown_field", None),
        "reference_urls.0": ("host", None),
    }
    assert errors["language"]["limit"][:2] == ["en", "fr"]
    assert all(error["fix"] and error["message"] for error in errors.values())
    wrong = problem(client.get("/jobs", params={"limit": 1_000, "statuss": "queued"}), "VALIDATION_FAILED")
    assert {error["field"] for error in wrong["errors"]} == {"limit", "statuss"}  # type: ignore[attr-defined]
    unknown = problem(client.post("/jobs", json={**JOB, "preset": "nope"}), "VALIDATION_FAILED")["errors"]
    assert unknown[0]["limit"] == ["quick_social", "brand_campaign", "premium_spot"]  # type: ignore[index]


def test_errors_are_few_and_harmless(client: httpx.Client) -> None:
    many = client.post("/jobs", json={**JOB, **{f"field {n}": n for n in range(10_000)}})
    told = problem(many, "VALIDATION_FAILED")
    assert len(told["errors"]) == 50  # type: ignore[arg-type]
    assert str(told["detail"]).endswith("and 9950 more.")
    odd = problem(client.post("/jobs", json={**JOB, "x" * 100_000: 1, "a\u202e\0\n": 2}), "VALIDATION_FAILED")
    names = [error["field"] for error in odd["errors"]]  # type: ignore[attr-defined]
    assert names == ["x" * 64 + "…", "a\\u202e\\x00\\n"]


def test_what_is_not_there(client: httpx.Client) -> None:
    problem(client.get("/nothing"), "NOT_FOUND")
    answer = client.put("/jobs", json=JOB)
    problem(answer, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == "GET, POST"
    problem(client.get("/jobs/00000000-0000-7000-8000-000000000000"), "NOT_FOUND")
    problem(client.get("/jobs/not-an-id"), "VALIDATION_FAILED")


def test_request_ids(client: httpx.Client) -> None:
    assert client.get("/docs", headers={"X-Request-ID": "mine-1"}).headers["x-request-id"] == "mine-1"
    for wrong in ("a b", "x" * 200, "a\u00e9".encode("latin-1")):
        given = client.get("/docs", headers=[("X-Request-ID", wrong)]).headers["x-request-id"]
        assert len(given) == 36


def test_a_broken_request_leaves_the_server_working(api: Api, client: httpx.Client) -> None:
    for sent in (
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"POST /api/v1/jobs",
    ):
        with socket.create_connection(("127.0.0.1", api.port), timeout=5) as raw:
            raw.sendall(sent)
    assert client.get("/users/me").status_code == 200


def test_a_database_that_does_not_answer_is_told_as_unavailable(api: Api, client: httpx.Client) -> None:
    api.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'aiprod_app'")
    answers = [client.get("/users/me") for _ in range(12)]
    for answer in answers:
        if answer.status_code != 200:
            problem(answer, "SERVICE_UNAVAILABLE")
            assert answer.headers["retry-after"] == "1"
    assert answers[-1].status_code == 200
