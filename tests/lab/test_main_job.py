"""The main job as an on-call engineer types it, on the shapes of the lab's own workload."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest
from alembic import command
from alembic.config import Config
from command_line import BOOK, Bench, lab
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from aiprod_ops.lab import workload

pytestmark = pytest.mark.lab
ROWS = 60_000
SLOW = ("--objective", "1ms")


@dataclass
class Job:
    """What the tests of this file hand on: each continues where the one before ended."""

    bench: Bench
    digest: str = ""
    run: str = ""
    migrations: Path = Path()


@pytest.fixture(scope="module")
def job() -> Iterator[Job]:
    with lab(ROWS) as bench:
        bench.sql("SELECT pg_stat_statements_reset()")
        workload.run(bench.fleet.dsn("aiprod_app"), bench.fleet.scale, rounds=20)
        yield Job(bench, migrations=bench.fleet.migrations)


def test_check_is_critical_and_names_the_index(job: Job) -> None:
    done = job.bench.run("check", BOOK, *SLOW)
    assert done.exit == 2, done.said
    assert "index on jobs (status, created_at)" in done.out
    assert done.out.splitlines()[-1].startswith(f"next: aiprod-ops plan {BOOK}"), done.said
    assert done.err == ""


@pytest.mark.parametrize("output", ["json", "nagios", "prom"])
def test_check_for_machines(job: Job, output: str) -> None:
    done = job.bench.run("check", BOOK, *SLOW, "-o", output)
    assert done.exit == 2, done.said
    match output:
        case "json":
            assert done.json()["status"] == "CRITICAL"
        case "nagios":
            assert done.out.startswith("CRITICAL - ")
            assert done.out.count("\n") == 1
            assert done.out.count("|") == 1
        case "prom":
            assert f'aiprod_ops_check_status{{environment="lab",runbook="{BOOK}",target="lab"}} 2.0' in done.out


def test_plan_changes_nothing_and_is_the_same_twice(job: Job) -> None:
    plans = [job.bench.run("plan", BOOK, *SLOW, "-o", "json") for _ in range(2)]
    assert [plan.exit for plan in plans] == [0, 0]
    assert plans[0].json()["digest"] == plans[1].json()["digest"]
    job.digest = plans[0].json()["digest"]
    assert job.bench.run("plan", BOOK, *SLOW, "--exit-code").exit == 1
    assert job.bench.indexes() == {}


def test_prove_measures_each_statement_before_and_after(job: Job) -> None:
    done = job.bench.run("prove", BOOK, "--plan", job.digest, "-o", "json")
    assert done.exit in (0, 10), done.said
    proof = done.json()
    gains = [c["gain"] for c in proof["comparisons"] if c["unit"] == "buffers"]
    assert max(gains) >= 10, gains
    assert {c["columns"]["plan"] for c in proof["comparisons"]} == {"custom", "generic"}
    assert all(c["before"]["n"] >= 2 for c in proof["comparisons"])
    assert proof["proves"], done.said
    job.digest = proof["proves"]
    assert job.bench.indexes() == {}
    assert list((job.bench.fleet.folder / "copies").iterdir()) == []


def test_run_applies_what_was_proven(job: Job) -> None:
    done = job.bench.run("run", BOOK, "--apply", job.digest, "--why", "INC-7", "-o", "json")
    assert done.exit == 0, done.said
    job.run = done.json()["run"]
    assert "idx_jobs_status_created_at" in job.bench.indexes()
    assert all(job.bench.indexes().values())


def test_check_is_ok_now(job: Job) -> None:
    job.bench.sql("SELECT pg_stat_statements_reset()")
    workload.run(job.bench.fleet.dsn("aiprod_app"), job.bench.fleet.scale, rounds=5)
    young = job.bench.run("check", BOOK, *SLOW)
    assert (young.exit, "check again in a minute" in young.out) == (3, True), young.said
    done = job.bench.run("check", BOOK, *SLOW, "--least", "0")
    assert done.exit == 0, done.said


def test_applied_twice_is_nothing_to_do(job: Job) -> None:
    done = job.bench.run("run", BOOK, "--apply", job.digest)
    assert (done.exit, "Nothing was changed" in done.out) == (0, True), done.said


def test_evidence_tells_it(job: Job) -> None:
    listed = job.bench.run("evidence", "list", "-o", "json").json()
    assert [(record["body"]["kind"], record["body"]["exit"]) for record in listed][-1] == ("run", 0)
    assert listed[-1]["body"]["why"] == "INC-7"
    assert "prove" in job.bench.run("evidence", "list").out
    verified = job.bench.run("evidence", "verify")
    assert (verified.exit, verified.out.startswith("OK")) == (0, True), verified.said


@pytest.mark.parametrize(
    "words",
    [("list",), ("runs", "list"), ("evidence", "list"), ("evidence", "verify"), ("lab", "status")],
)
def test_json_of_each_list_parses(job: Job, words: tuple[str, ...]) -> None:
    folder = ("--folder", str(job.bench.fleet.folder)) if words[0] == "lab" else ()
    done = job.bench.run(*words, *folder, "-o", "json")
    assert done.exit == 0, done.said
    json.loads(done.out)
    assert done.err == ""


def test_errors_are_json_too(job: Job) -> None:
    done = job.bench.run("run", BOOK, "--apply", "0123456789ab", "-o", "json")
    assert done.exit == 12
    assert done.json()["error"]["exit"] == 12


def test_the_journal_is_shown(job: Job) -> None:
    shown = job.bench.run("runs", "show", job.run, "-o", "json")
    kinds = [record["kind"] for record in shown.json()]
    assert kinds[:2] == ["opened", "leased"]
    assert kinds[-3:] == ["verified", "sealed", "ended"]
    assert "intended" in job.bench.run("runs", "show", job.run).out


def test_the_alembic_revision_upgrades_and_downgrades_another_database(job: Job) -> None:
    """On a copy of the schema as it was before, twice forward (the second does nothing), then back."""
    (written,) = job.migrations.glob("*_add_idx_*.py")
    revision, dsn = written.name[:12], job.bench.fleet.dsn("postgres").replace("/aiprod?", "/other?")
    job.bench.sql("CREATE DATABASE other")
    other = Bench(job.bench.config, dsn)
    _alembic(dsn, None, "001")
    before = other.indexes()
    _alembic(dsn, job.migrations, revision)
    assert other.indexes() == job.bench.indexes()
    other.sql("UPDATE alembic_version SET version_num = '001'")
    _alembic(dsn, job.migrations, revision)
    assert other.indexes() == job.bench.indexes()
    _alembic(dsn, job.migrations, "001")
    assert other.indexes() == before


def _alembic(dsn: str, folder: Path | None, revision: str) -> None:
    import aiprod_ops.migrations

    shipped = Path(aiprod_ops.migrations.__file__ or "").parent
    config = Config()
    config.set_main_option("script_location", str(shipped))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(folder or shipped / "versions"))
    engine = create_engine("postgresql+psycopg2://", creator=lambda: psycopg2.connect(dsn), poolclass=NullPool)
    with engine.connect() as opened:
        config.attributes["connection"] = opened
        direction = command.downgrade if revision == "001" and folder else command.upgrade
        direction(config, revision)


def test_rollback_of_a_finished_run_needs_an_approval_of_its_own(job: Job) -> None:
    asked = job.bench.run("rollback", job.run)
    assert asked.exit == 12, asked.said
    assert ("digest" in asked.out, asked.said.count("next: ")) == (True, 1), asked.said
    assert asked.out.count("  lock      SHARE UPDATE EXCLUSIVE") == asked.out.count("drop-index ") > 0, asked.said
    assert asked.out.count("  takes     about 1.00 s") == asked.out.count("drop-index "), asked.said
    digest = asked.err.split("--apply ")[1].split()[0]
    assert (wrong := job.bench.run("rollback", job.run, "--apply", "0123456789ab")).exit == 12, wrong.said
    done = job.bench.run("rollback", job.run, "--apply", digest)
    assert done.exit == 0, done.said
    assert job.bench.indexes() == {}
    again = job.bench.run("rollback", job.run, "--apply", digest)
    assert again.exit in (0, 10), again.said
    job.bench.sound()
