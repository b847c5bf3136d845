"""Jobs through real workers: their life, and the bad days: killed, stopped, cancelled, hung, poisoned, restarted."""

import json
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import httpx
import pytest
from served_api import JOB, Api
from worker_process import until, workers

pytestmark = pytest.mark.lab
LISTENING = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'aiprod-ops worker: wake-up'"


@pytest.fixture(scope="module")
def client(api: Api) -> Iterator[httpx.Client]:
    with api.client(api.key("worked@example.org")) as made:
        yield made


class Receiver(BaseHTTPRequestHandler):
    """Keeps the type of each event that it is sent."""

    types: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["webhook-id"]
        self.types.append(json.loads(body)["type"])
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Not to the terminal."""


@pytest.fixture
def hook(api: Api) -> Iterator[str]:
    """An endpoint of the client's, on this machine."""
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    given = {"id": str(uuid.uuid4()), "url": f"http://127.0.0.1:{server.server_port}/"}
    api.sql(
        "INSERT INTO webhook_endpoints (id, user_id, url, events) "
        "SELECT %(id)s, id, %(url)s, '{}' FROM users WHERE email = 'worked@example.org'",
        given,
    )
    api.sql(
        "INSERT INTO webhook_secrets (id, endpoint_id, secret) VALUES (gen_random_uuid(), %(id)s, %(key)s)",
        {**given, "key": b"x" * 32},
    )
    yield given["id"]
    api.sql("DELETE FROM webhook_endpoints WHERE id = %(id)s", given)
    server.shutdown()
    server.server_close()
    thread.join()


def submit(client: httpx.Client, asks: str = "", **fields: object) -> str:
    answer = client.post("/jobs", json={**JOB, "prompt": f"{JOB['prompt']} {asks}", **fields})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def status(client: httpx.Client, job: str) -> str:
    return str(client.get(f"/jobs/{job}").json()["status"])


def test_a_job_is_rendered_paid_and_told(api: Api, client: httpx.Client, hook: str) -> None:
    pending = "SELECT 1 FROM webhook_deliveries WHERE endpoint_id = %(hook)s AND state = 'pending'"
    job = submit(client)
    assert status(client, job) == "queued"
    with workers(api):
        until(lambda: status(client, job) == "completed", "the job is not rendered")
        told = submit(client, duration_seconds=20)
        until(lambda: status(client, told) == "completed", "the job is not rendered")
        until(lambda: not api.sql(pending, {"hook": hook}), "not all events are delivered")
    result = client.get(f"/jobs/{told}/result").json()
    assert (result["size_bytes"], result["duration_seconds"]) == (20_000, 20)
    used = api.sql("SELECT seconds, cost_units FROM usage WHERE job_id = %(id)s", {"id": told})
    assert used == [(20, 20)]
    assert Counter(Receiver.types) == {"job.created": 2, "job.started": 2, "job.completed": 2}


def test_bad_days_of_jobs(api: Api, client: httpx.Client) -> None:
    refused, flaky = submit(client, "[fails CONTENT_REFUSED]"), submit(client, "[fails RENDERING_ERROR]")
    hung, slow = submit(client, "[hangs]"), submit(client, "[takes 20]")
    api.sql("UPDATE jobs SET attempts = 1 WHERE id = any (%(ids)s::uuid[])", {"ids": [flaky, hung]})
    with workers(api, 2, "--longest", "3", "--drain", "0"):
        until(lambda: client.get(f"/jobs/{slow}").json()["progress"] > 0, "no progress is told")
        assert client.post(f"/jobs/{slow}/cancel").json()["status"] == "cancelled"
        until(lambda: status(client, refused) == "failed", "it is not refused")
        assert client.get(f"/jobs/{refused}").json()["failure"]["code"] == "CONTENT_REFUSED"
        assert client.get(f"/jobs/{refused}").json()["attempts"] == 1
        until(lambda: status(client, flaky) == "failed", "it does not fail")
        assert client.get(f"/jobs/{flaky}").json()["attempts"] == 3
        until(lambda: client.get(f"/jobs/{hung}").json()["attempts"] == 3, "a hung attempt does not end")
        client.post(f"/jobs/{hung}/cancel")
    assert status(client, slow) == "cancelled"


def test_a_worker_that_is_killed_is_taken_over_from(api: Api, client: httpx.Client) -> None:
    """Its jobs go on elsewhere within 10 s, and the one that had its last attempt has failed; those of the other worker
    are not disturbed."""
    where = "SELECT worker FROM jobs WHERE id = %(id)s AND status = 'processing'"
    with workers(api, 2, "--concurrency", "2", "--sender", "none") as both:
        until(lambda: len(api.sql(LISTENING)) == 2, "they do not start")
        jobs = [submit(client, "[takes 4]") for _ in range(4)]
        until(lambda: all(api.sql(where, {"id": job}) for job in jobs), "they are not taken")
        by = {job: api.sql(where, {"id": job})[0][0] for job in jobs}
        killed = next(each for each in both if f"-{each.process.pid}-" in by[jobs[0]])
        last, again = (job for job in jobs if by[job] == by[jobs[0]])
        api.sql("UPDATE jobs SET attempts = 3 WHERE id = %(id)s", {"id": last})
        killed.kill()
        taken = "SELECT 1 FROM jobs WHERE id = %(id)s AND status = 'processing' AND attempts = 2"
        assert until(lambda: api.sql(taken, {"id": again}), "nobody takes over", 30) < 10
        kept = [job for job in jobs if job not in (last, again)]
        until(lambda: all(status(client, job) == "completed" for job in kept), "they do not end")
        client.post(f"/jobs/{again}/cancel")
    assert {client.get(f"/jobs/{job}").json()["attempts"] for job in kept} == {1}
    job = client.get(f"/jobs/{last}").json()
    assert (job["status"], job["attempts"], job["failure"]["code"]) == ("failed", 3, "RENDERING_ERROR")
    assert "was lost in attempt 3" in job["failure"]["message"]


def test_sigterm_gives_back_what_does_not_end(api: Api, client: httpx.Client) -> None:
    short, long = submit(client, "[takes 1]"), submit(client, "[takes 60]")
    with workers(api, 1, "--drain", "2") as [worker]:
        until(lambda: status(client, short) == status(client, long) == "processing", "they are not taken")
        assert api.dsn not in worker.seen()
        said = worker.stop()
    assert "2 jobs may go on" in said
    assert status(client, short) == "completed"
    job = client.get(f"/jobs/{long}").json()
    assert (job["status"], job["attempts"]) == ("queued", 0)
    client.post(f"/jobs/{long}/cancel")
