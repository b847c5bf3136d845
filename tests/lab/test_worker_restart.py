"""PostgreSQL restarts under a worker: what is in work stays so, nothing is lost, nothing is done twice."""

import pytest
from served_api import JOB, served
from worker_process import until, workers

pytestmark = pytest.mark.lab


def test_a_restart_of_the_database() -> None:
    with served() as api, api.client(api.key("restart@example.org")) as client:
        # The tests' servers do not wait for their log: what they lose when they are stopped is no worker's fault.
        api.sql("ALTER SYSTEM SET synchronous_commit = on")
        api.sql("SELECT pg_reload_conf()")
        jobs = [{**JOB, "prompt": f"[takes {seconds}]"} for seconds in (0.5, 1, 2, 2, 2, 2, 0, 0, 0, 0)]
        listening = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'aiprod-ops worker: wake-up'"
        with workers(api, 2, "--concurrency", "3", "--sender", "none") as made:
            until(lambda: len(api.sql(listening)) == 2, "they do not start")
            batch = client.post("/batches", json=jobs).json()["id"]
            until(lambda: client.get(f"/batches/{batch}").json()["completed"], "nothing is rendered")
            api.server.stop("immediate")
            api.server.start()

            def ended() -> bool:
                answer = client.get(f"/batches/{batch}")  # 503 while the API's pool finds out
                return answer.status_code == 200 and answer.json()["status"] == "completed"

            until(ended, "the batch does not end")
            said = [worker.stop() for worker in made]
        seen = client.get(f"/batches/{batch}").json()
        assert (seen["completed"], seen["failed"]) == (10, 0)
        # One claim may have been committed without its worker having been told: that one is taken over.
        [(number, attempts)] = api.sql("SELECT count(*), sum(attempts) FROM jobs")
        assert number == 10
        assert attempts <= 11, "\n".join(said)
        assert api.sql("SELECT count(*), count(DISTINCT job_id) FROM results") == [(10, 10)]
