"""Jobs through real workers: their life, and the bad days: killed, stopped, cancelled, hung, poisoned, restarted."""

from collections.abc import Iterator

import httpx
import pytest
from served_api import JOB, Api
from worker_process import until, workers

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def client(api: Api) -> Iterator[httpx.Client]:
    with api.client(api.key("worked@example.org")) as made:
        yield made


def submit(client: httpx.Client, asks: str = "", **fields: object) -> str:
    answer = client.post("/jobs", json={**JOB, "prompt": f"{JOB['prompt']} {asks}", **fields})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def status(client: httpx.Client, job: str) -> str:
    return str(client.get(f"/jobs/{job}").json()["status"])


def test_a_job_is_rendered_paid_and_shown(api: Api, client: httpx.Client) -> None:
    job = submit(client)
    assert status(client, job) == "queued"
    with workers(api):
        until(lambda: status(client, job) == "completed", "the job is not rendered")
        told = submit(client, duration_seconds=20)
        until(lambda: status(client, told) == "completed", "the job is not rendered")
    result = client.get(f"/jobs/{told}/result").json()
    assert (result["size_bytes"], result["duration_seconds"]) == (20_000, 20)
    used = api.sql("SELECT seconds, cost_units FROM usage WHERE job_id = %(id)s", {"id": told})
    assert used == [(20, 20)]


def test_bad_days_of_jobs(api: Api, client: httpx.Client) -> None:
    refused, flaky = submit(client, "[fails CONTENT_REFUSED]"), submit(client, "[fails RENDERING_ERROR]")
    hung, slow = submit(client, "[hangs]"), submit(client, "[takes 60]")
    with workers(api, 2, "--longest", "5", "--drain", "0"):
        until(lambda: client.get(f"/jobs/{slow}").json()["progress"] > 0, "no progress is told")
        assert client.post(f"/jobs/{slow}/cancel").json()["status"] == "cancelled"
        until(lambda: status(client, refused) == "failed", "it is not refused")
        assert client.get(f"/jobs/{refused}").json()["failure"]["code"] == "CONTENT_REFUSED"
        assert client.get(f"/jobs/{refused}").json()["attempts"] == 1
        until(lambda: status(client, flaky) == "failed", "it does not fail")
        assert client.get(f"/jobs/{flaky}").json()["attempts"] == 3
        until(lambda: client.get(f"/jobs/{hung}").json()["attempts"] == 2, "a hung attempt does not end")
        client.post(f"/jobs/{hung}/cancel")
    assert status(client, slow) == "cancelled"
