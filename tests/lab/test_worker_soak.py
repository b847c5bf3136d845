"""Workers that are killed at random: every job ends, each is paid and told once."""

import random
import time

import pytest
from served_api import JOB, served
from worker_process import WorkerProcess

pytestmark = pytest.mark.soak
JOBS = 200


def test_every_job_ends_while_workers_are_killed() -> None:
    seeded = random.Random(20261128)
    with served() as api, api.client(api.key("killed@example.org")) as client:
        jobs = [{**JOB, "prompt": f"[takes {seeded.uniform(0, 1):.2f}]"} for _ in range(JOBS)]
        batch = client.post("/batches", json=jobs).json()["id"]
        # As long as it takes: a job whose worker was killed three times would fail otherwise.
        running = [WorkerProcess(api, "--sender", "none", "--concurrency", "4", "--attempts", "100") for _ in range(3)]
        kills = 0
        try:
            while client.get(f"/batches/{batch}").json()["status"] == "processing":
                time.sleep(seeded.uniform(0.5, 1.5))
                victim = seeded.randrange(3)
                running[victim].kill()
                running[victim].stop()
                kills += 1
                running[victim] = WorkerProcess(
                    api, "--sender", "none", "--concurrency", "4", "--attempts", "100"
                )  # fmt: skip
                assert kills < 300
        finally:
            for each in running:
                each.stop()
        seen = client.get(f"/batches/{batch}").json()
        assert (seen["completed"], seen["failed"]) == (JOBS, 0)
        for table in ("results", "usage"):
            assert api.sql(f"SELECT count(*), count(DISTINCT job_id) FROM {table}") == [(JOBS, JOBS)]
