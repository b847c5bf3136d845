"""Jobs that nobody works on wait again, what no worker finishes fails; what somebody works on is left alone."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from called import called
from command_line import Bench, Done, short_folder
from worker_process import WorkerProcess, until

from aiprod_ops.actions.job_requeues import LISTENS, requeue_jobs, return_jobs
from aiprod_ops.adapters.postgres.database import PostgresDatabase
from aiprod_ops.cli.conform import on_bench
from aiprod_ops.cli.options import NOWHERE
from aiprod_ops.domain.stuck_jobs import OpenJob, StuckJobs
from aiprod_ops.lab import fleet as fleets
from aiprod_ops.lab.conformance import PROMISES
from aiprod_ops.lab.fleet import Fleet
from aiprod_ops.lab.promises import Promise, Verdict, hold
from aiprod_ops.service.ids import uuid7

pytestmark = pytest.mark.lab
BOOK = "requeue-stuck-jobs"
QUICK = ("probe-writes-nothing", "apply-once", "undo", "imports")  #: the others kill and repeat, which takes its time
PROMISED = [pytest.param(p, id=p.id, marks=() if p.id in QUICK else pytest.mark.soak) for p in PROMISES]

_JOB = """
INSERT INTO jobs (id, user_id, status, priority, preset, language, prompt, attempts, worker, started_at, heartbeat_at,
                  due_at, created_at, updated_at)
SELECT %(id)s, (SELECT min(id::text)::uuid FROM users), %(status)s, 'normal', 'quick_social', 'en', 'A cup.',
       %(attempts)s, %(worker)s, now() - %(age)s * interval '1 s', now() - %(silent)s * interval '1 s',
       now() + %(due)s * interval '1 s', now() - %(age)s * interval '1 s',
       now() - coalesce(%(silent)s, %(age)s) * interval '1 s'
"""
_IDEMPOTENCY = """
INSERT INTO idempotency_keys (user_id, key, fingerprint, status, headers, body)
SELECT user_id, 'once', '\\x00', 201, '{}', convert_to(id::text, 'UTF8') FROM jobs WHERE id = %(id)s
"""


@dataclass
class Jobs:
    """The jobs of a lab."""

    bench: Bench

    def made(self, status: str = "processing", attempts: int = 1, silent: float | None = 7200, **more: Any) -> str:
        values = {"worker": "w-gone", "age": 7200, "due": None, **more}
        made = str(uuid7())
        self.bench.sql(_JOB, {"id": made, "status": status, "attempts": attempts, "silent": silent, **values})
        return made

    def row(self, job: str) -> dict[str, Any]:
        [(found,)] = self.bench.sql("SELECT to_jsonb(j) FROM jobs j WHERE id = %(id)s", {"id": job})
        return dict(found)

    def status(self, job: str) -> str:
        return str(self.row(job)["status"])

    def planned(self, *options: str) -> dict[str, Any]:
        made = called(self.bench.config, "plan", BOOK, "-o", "json", *options)
        assert made.exit == 0, made.said
        return dict(made.json())

    def applied(self, digest: str) -> Done:
        return called(self.bench.config, "run", BOOK, "--apply", digest)


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with short_folder() as folder:
        yield fleets.up(folder / "lab", 1_000, revision="head", workload=False)
        fleets.down(folder / "lab")


@pytest.fixture
def jobs(fleet: Fleet) -> Iterator[Jobs]:
    """Without those that the lab was loaded with."""
    bench = Bench(fleet.config, fleet.dsn("postgres"), fleet)
    clear = "DELETE FROM jobs WHERE status IN ('queued', 'processing')"
    bench.sql(f"DELETE FROM idempotency_keys; DELETE FROM pipeline_jobs; {clear}")
    yield Jobs(bench)
    bench.sql(f"DELETE FROM idempotency_keys; {clear}")


def test_the_lost_wait_again_the_slow_are_left_and_poison_fails(jobs: Jobs) -> None:
    lost, never_heard, poison = jobs.made(), jobs.made(silent=None), jobs.made(attempts=3)
    slow, waits = jobs.made(silent=2), jobs.made("queued", 0, None, worker=None, age=30)
    postponed = jobs.made("queued", 1, 100, worker=None, due=86_400)
    jobs.bench.sql(_IDEMPOTENCY, {"id": lost})
    kept, others = jobs.bench.sql("SELECT * FROM idempotency_keys"), [jobs.row(slow), jobs.row(waits)]
    seen = called(jobs.bench.config, "check", BOOK)
    assert seen.exit == 1, seen.said
    assert "jobs that nobody works on: 4 (2 lost, 1 poison, 1 postponed)" in seen.out
    assert "jobs that are slow: 1" in seen.out
    told = {lost: "lost", never_heard: "lost", poison: "poison", slow: "slow", postponed: "postponed"}
    rows = [line.split()[:3] for line in seen.out.splitlines() if re.search(r"\b[0-9a-f]{8}-", line)]
    assert sorted(rows) == sorted(["WARNING", job, what] for job, what in told.items())
    made = jobs.planned()
    done = jobs.applied(made["digest"])
    assert done.exit == 0, done.said
    for each in (lost, never_heard, postponed):
        row = jobs.row(each)
        assert (row["status"], row["worker"], row["due_at"], row["progress"]) == ("queued", None, None, 0)
        assert row["attempts"] == 1, "attempts are counted on"
    failed = jobs.row(poison)
    assert (failed["status"], failed["error_code"], failed["worker"]) == ("failed", "PROCESSING_ERROR", None)
    assert failed["error"].startswith("no worker finished it in 3 attempts; the last one was not heard of after 20")
    assert failed["completed_at"] is not None
    assert [jobs.row(slow), jobs.row(waits)] == others
    assert jobs.bench.sql("SELECT * FROM idempotency_keys") == kept
    assert called(jobs.bench.config, "check", BOOK).out.count("jobs that nobody works on: 0") == 1


def test_the_owner_of_a_job_that_is_given_up_is_told(jobs: Jobs) -> None:
    """With the job as it is then, in the transaction that ends it."""
    poison = jobs.made(attempts=3)
    endpoint = "SELECT gen_random_uuid(), user_id, 'https://one.example/', '{job.failed}' FROM jobs WHERE id = %(id)s"
    jobs.bench.sql(f"INSERT INTO webhook_endpoints (id, user_id, url, events) {endpoint}", {"id": poison})
    done = jobs.applied(jobs.planned()["digest"])
    assert done.exit == 0, done.said
    told = "SELECT v.type, convert_from(payload, 'UTF8')::jsonb -> 'data', d.state"
    [(event, data, state)] = jobs.bench.sql(
        f"{told} FROM webhook_events v JOIN webhook_deliveries d ON d.event_id = v.id"
    )
    jobs.bench.sql("DELETE FROM webhook_events; DELETE FROM webhook_endpoints")
    assert (event, state, data["id"], data["status"]) == ("job.failed", "pending", poison, "failed")
    assert data["failure"]["code"] == "PROCESSING_ERROR"


def test_rolled_back_they_are_as_they_were_but_for_those_that_were_taken(jobs: Jobs) -> None:
    lost, taken = jobs.made(), jobs.made()
    before = jobs.row(lost)
    done = jobs.bench.run("run", BOOK, "--apply", jobs.planned()["digest"], "-o", "json")
    claim = "UPDATE jobs SET status = 'processing', worker = 'w2', attempts = 2, heartbeat_at = now() WHERE id = %(id)s"
    jobs.bench.sql(claim, {"id": taken})
    asked = called(jobs.bench.config, "rollback", done.json()["run"])
    digest = re.findall(r"[0-9a-f]{64}", asked.said)[0]
    rolled = called(jobs.bench.config, "rollback", done.json()["run"], "--apply", digest)
    assert rolled.exit == 0, rolled.said
    assert jobs.row(lost) == before
    assert (jobs.row(taken)["worker"], jobs.row(taken)["attempts"]) == ("w2", 2)


def test_what_has_moved_since_the_plan_is_not_touched(jobs: Jobs) -> None:
    """The others are; where none is left as it was the plan is stale, and where it was applied that is told."""
    lost, beating = jobs.made(), jobs.made()
    made, both = jobs.planned(), [jobs.planned()["digest"]]
    jobs.bench.sql("UPDATE jobs SET heartbeat_at = now() WHERE id = %(id)s", {"id": beating})
    digest = jobs.planned()["digest"]
    assert jobs.applied(both[0]).exit == 0
    assert (jobs.status(lost), jobs.status(beating)) == ("queued", "processing")
    stale = jobs.applied(digest)
    assert (stale.exit, "stale" in stale.said) in ((0, False), (10, True)), stale.said
    jobs.bench.sql(
        "UPDATE jobs SET status = 'processing', worker = 'w-gone', updated_at = now() - interval '2 h', "
        "heartbeat_at = now() - interval '2 h' WHERE id = %(id)s",
        {"id": lost},
    )
    again = jobs.applied(made["digest"])
    assert (again.exit, "was applied already" in again.said) == (10, True), again.said
    made = jobs.planned()
    seen = [OpenJob(**job) for job in made["plan"]["actions"][0]["subject"]["jobs"]]
    with PostgresDatabase(jobs.bench.fleet.dsn("aiprod_actor"), writes=True, application_name="a test") as database:
        context: Any = SimpleNamespace(db=database, run="a run")
        requeue_jobs.do(context, StuckJobs(tuple(seen)))
        assert requeue_jobs.done(context, StuckJobs(tuple(seen))) is True
        assert (jobs.status(lost), jobs.status(beating)) == ("queued", "processing")
        return_jobs.do(context, StuckJobs(tuple(seen)))
        assert jobs.status(lost) == "processing"


def test_workers_find_what_was_requeued(jobs: Jobs) -> None:
    """One without heart-beats, which no worker takes over by itself."""
    lost = jobs.made(silent=None)
    lab: Any = SimpleNamespace(dsn=jobs.bench.fleet.dsn("aiprod_app"), environment={})
    worker = WorkerProcess(lab)
    try:
        done = jobs.applied(jobs.planned()["digest"])
        assert done.exit == 0, done.said
        until(lambda: jobs.status(lost) == "completed", "nobody takes it")
    finally:
        worker.stop()
    assert jobs.row(lost)["attempts"] == 2


def test_a_queue_that_nobody_works_on_is_told_and_not_requeued(jobs: Jobs) -> None:
    jobs.made("queued", 0, None, worker=None)
    seen = called(jobs.bench.config, "check", BOOK)
    assert (seen.exit, "0 workers run: does one? aiprod-ops worker" in seen.out) == (2, True), seen.said
    assert jobs.planned()["plan"]["actions"] == []


def test_places_that_lost_jobs_take_are_told_beside_workers_that_have_nothing_to_do(jobs: Jobs) -> None:
    jobs.made("queued", 0, None, worker=None)
    jobs.made()
    with psycopg.connect(jobs.bench.fleet.dsn("aiprod_app"), application_name=LISTENS):
        seen = called(jobs.bench.config, "check", BOOK)
    assert "1 wait, 0 are in work; 1 workers run: what nobody works on takes places" in seen.out, seen.said


def test_what_has_failed_is_left_out_of_a_rollback(jobs: Jobs) -> None:
    lost, poison = jobs.made(), jobs.made(attempts=3)
    done = jobs.bench.run("run", BOOK, "--apply", jobs.planned()["digest"], "-o", "json")
    asked = called(jobs.bench.config, "rollback", done.json()["run"])
    assert "cannot be taken back: a job that failed has ended" in asked.said
    digest = re.findall(r"[0-9a-f]{64}", asked.said)[0]
    rolled = called(jobs.bench.config, "rollback", done.json()["run"], "--apply", digest)
    assert rolled.exit == 0, rolled.said
    assert (jobs.status(lost), jobs.status(poison)) == ("processing", "failed")


def test_one_job_and_so_many(jobs: Jobs) -> None:
    ids = sorted(jobs.made() for _ in range(3))
    (action,) = jobs.planned("--job", ids[1])["plan"]["actions"]
    assert [job["id"] for job in action["subject"]["jobs"]] == [ids[1]]
    (action,) = jobs.planned("--most", "2")["plan"]["actions"]
    assert [job["id"] for job in action["subject"]["jobs"]] == ids[:2]
    told = called(jobs.bench.config, "plan", BOOK, "--most", "2").out
    assert "left out  1 more jobs: one run takes 2 (--most)" in told


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--job", "0199"), "there is no job 0199"),
        (("--attempts", "0"), "--attempts"),
        (("--silent", "0s"), "--silent"),
        (("--longest", "soon"), "--longest"),
    ],
)
def test_what_makes_no_sense_is_refused(jobs: Jobs, options: tuple[str, ...], said: str) -> None:
    done = called(jobs.bench.config, "plan", BOOK, *options)
    assert (done.exit, said in done.err) == (64, True), done.said


@pytest.mark.parametrize("promise", PROMISED)
def test_promise(fleet: Fleet, promise: Promise) -> None:
    with on_bench(fleet, (BOOK,), NOWHERE) as bench:
        result = hold(bench, promise)
    meant = Verdict.NOT_APPLICABLE if promise.id == "killed-while-proving" else Verdict.HOLDS  # it proves nothing
    assert result.verdict is meant, result.seen
