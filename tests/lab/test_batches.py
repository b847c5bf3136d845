"""Batches over the running API and a real worker: submitted in every form, refused, followed, cancelled, downloaded."""

import hashlib
import io
import json
import uuid
import zipfile
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from served_api import JOB, Api
from test_api_life import problem
from worker_process import until, workers

pytestmark = pytest.mark.lab
LINES = {"Content-Type": "application/x-ndjson"}


@pytest.fixture(scope="module")
def client(api: Api) -> Iterator[httpx.Client]:
    with api.client(api.key("batches@example.org")) as made:
        yield made


def items(number: int, asks: str = "") -> list[dict[str, Any]]:
    return [{**JOB, "title": f"{n}", "prompt": f"{JOB['prompt']} {asks}"} for n in range(number)]


KEYED = {"Idempotency-Key": "one-batch"}


def lines(jobs: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(job).encode() + b"\n" for job in jobs)


def made(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 201, answer.text
    content: dict[str, Any] = answer.json()
    assert answer.headers["location"] == content["links"]["self"]
    return content


def look(client: httpx.Client, batch: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = client.get(f"/batches/{batch['id']}").json()
    return answer


@pytest.fixture(scope="module")
def rendered(api: Api, client: httpx.Client) -> dict[str, Any]:
    """A batch of 300 that two workers have rendered, all but the one that was refused."""
    told = {"id": str(uuid.uuid4())}
    api.sql(
        "INSERT INTO webhook_endpoints (id, user_id, url, events) "
        "SELECT %(id)s, id, 'https://hooks.example.org/', '{}' FROM users WHERE email = 'batches@example.org'",
        told,
    )
    jobs = items(300)
    jobs[7]["prompt"] += " [fails CONTENT_REFUSED]"
    batch = made(client.post("/batches", content=lines(jobs), headers=LINES))
    assert (batch["status"], batch["jobs"], batch["queued"], batch["progress"]) == ("processing", 300, 300, 0)
    with workers(api, 2, "--sender", "none"):
        until(lambda: look(client, batch)["status"] != "processing", "the batch does not end")
    api.sql("DELETE FROM webhook_endpoints WHERE id = %(id)s", told)
    return look(client, batch)


def test_the_three_forms(client: httpx.Client) -> None:
    jobs = items(3)
    whole = json.dumps(jobs, indent=1).encode()
    answers = [
        client.post("/batches", content=whole, headers={"Content-Type": "application/json"}),
        client.post("/batches", content=lines(jobs).rstrip(), headers=LINES),
        client.post("/batches", files={"items": ("jobs.jsonl", lines(jobs))}),
        client.post("/batches", files={"items": ("jobs.json", whole)}, data={"note": "passed over"}),
    ]
    for answer in answers:
        batch = made(answer)
        page = client.get("/jobs", params={"batch_id": batch["id"]}).json()["items"]
        assert [job["title"] for job in page] == ["2", "1", "0"]
        assert client.post(f"/batches/{batch['id']}/cancel").json()["cancelled"] == 3
    listed = [batch["id"] for batch in client.get("/batches", params={"limit": 4}).json()["items"]]
    assert listed == [answer.json()["id"] for answer in reversed(answers)]


def test_the_same_key_makes_one_batch(client: httpx.Client) -> None:
    headers = {**LINES, **KEYED}
    first = client.post("/batches", content=lines(items(5)), headers=headers)
    again = client.post("/batches", content=lines(items(5)), headers=headers)
    assert (again.json(), again.headers["idempotent-replayed"]) == (made(first), "true")
    problem(client.post("/batches", content=lines(items(6)), headers=headers), "IDEMPOTENCY_KEY_REUSED")
    # Each form has another boundary: it is the items that are the same.
    for _ in range(2):
        form = client.post("/batches", files={"items": ("jobs.jsonl", lines(items(5)))}, headers={**KEYED})
        assert (form.json(), form.headers["idempotent-replayed"]) == (first.json(), "true")
    client.post(f"/batches/{first.json()['id']}/cancel")


def test_what_ended_is_told(api: Api, client: httpx.Client, rendered: dict[str, Any]) -> None:
    assert (rendered["status"], rendered["completed"], rendered["failed"], rendered["progress"]) == (
        "completed", 299, 1, 100,
    )  # fmt: skip
    problem(client.post(f"/batches/{rendered['id']}/cancel"), "BATCH_STATE_CONFLICT")
    attempts = "SELECT sum(attempts), max(attempts) FROM jobs WHERE batch_id = %(id)s"
    assert api.sql(attempts, {"id": rendered["id"]}) == [(300, 1)]
    events = """
        SELECT v.type, count(*) FROM webhook_events v JOIN users u ON u.id = v.user_id
        WHERE u.email = 'batches@example.org' AND convert_from(v.payload, 'UTF8') LIKE %(id)s GROUP BY 1 ORDER BY 1
    """
    assert api.sql(events, {"id": f"%{rendered['id']}%"}) == [
        ("batch.completed", 1), ("batch.created", 1), ("job.completed", 299), ("job.failed", 1), ("job.started", 300),
    ]  # fmt: skip


def test_failed_ones_are_tried_again(client: httpx.Client, rendered: dict[str, Any]) -> None:
    again = made(client.post(f"/batches/{rendered['id']}/retry"))
    assert (again["retry_of"], rendered["retry_of"]) == (rendered["id"], None)
    told = problem(client.post(f"/batches/{rendered['id']}/retry"), "BATCH_STATE_CONFLICT")
    assert again["id"] in str(told["detail"])
    [job] = client.get("/jobs", params={"batch_id": again["id"]}).json()["items"]
    assert (job["title"], job["status"]) == ("7", "queued")
    problem(client.post(f"/batches/{again['id']}/retry"), "BATCH_NOT_ENDED")
    problem(client.get(f"/batches/{again['id']}/download"), "BATCH_NOT_ENDED")
    client.post(f"/batches/{again['id']}/cancel")
    problem(client.post(f"/batches/{again['id']}/retry"), "BATCH_STATE_CONFLICT")
    assert look(client, rendered) == rendered


def test_a_store_that_does_not_answer_is_told(rendered: dict[str, Any], api: Api) -> None:
    """The videos' host does not exist, and this API reads over HTTP."""
    other = Api(api.server, {**api.environment, "AIPROD_OPS_VIDEOS": ""})
    other.start()
    try:
        with other.client(api.key("batches@example.org")) as client:
            answer = client.get(f"/batches/{rendered['id']}/download")
            problem(answer, "SERVICE_UNAVAILABLE")
    finally:
        other.stop()
        other.log.close()


def test_a_download_that_breaks_off_goes_on(client: httpx.Client, rendered: dict[str, Any]) -> None:
    path = rendered["links"]["download"].removeprefix("/api/v1")
    got = b""
    with client.stream("GET", path) as answer:
        size, tag = int(answer.headers["content-length"]), answer.headers["etag"]
        for chunk in answer.iter_bytes():
            got += chunk
            if len(got) > size // 2:
                break
    assert len(got) < size
    rest = client.get(path, headers={"Range": f"bytes={len(got)}-", "If-Range": tag})
    assert (rest.status_code, rest.headers["content-range"]) == (206, f"bytes {len(got)}-{size - 1}/{size}")
    got += rest.content
    with zipfile.ZipFile(io.BytesIO(got)) as archive:
        assert archive.testzip() is None
        sums = archive.read("SHA256SUMS").decode().splitlines()
        assert len(sums) == len(archive.namelist()) - 1 == 299
        for line in sums:
            checksum, name = line.split("  ")
            assert hashlib.sha256(archive.read(name)).hexdigest() == checksum
    for begin, end in ((0, 1), (size // 3, size // 3 + 50_000), (size - 20_000, size - 100), (size - 22, size)):
        part = client.get(path, headers={"Range": f"bytes={begin}-{end - 1}"})
        assert part.content == got[begin:end]
    assert client.get(path, headers={"Range": "bytes=0-9", "If-Range": '"old"'}).status_code == 200
    beyond = client.get(path, headers={"Range": f"bytes={size}-"})
    problem(beyond, "RANGE_NOT_SATISFIABLE")
    assert beyond.headers["content-range"] == f"bytes */{size}"
