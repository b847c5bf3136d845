"""`check verify-indexes` on the fleet: its replicas count, its snapshots are kept, a stranger is seen."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from command_line import Bench

from aiprod_ops.adapters.postgres.database import PostgresDatabase
from aiprod_ops.domain.catalogue import remains
from aiprod_ops.domain.catalogue.faults import Level
from aiprod_ops.lab import postgres
from aiprod_ops.lab.fleet import Fleet

pytestmark = pytest.mark.lab
BOOK = "verify-indexes"


@pytest.fixture(scope="module")
def bench(fleet: Fleet) -> Iterator[Bench]:
    made = Bench(fleet.config, fleet.dsn("postgres"), fleet)
    for extension in ("pgstattuple", "amcheck"):
        made.sql(f"CREATE EXTENSION IF NOT EXISTS {extension}")
    made.sql("GRANT EXECUTE ON FUNCTION bt_index_check(regclass, boolean) TO aiprod_probe")
    yield made
    for extension in ("pgstattuple", "amcheck"):
        made.sql(f"DROP EXTENSION {extension}")


def findings(bench: Bench, *options: str) -> dict[str, dict[str, Any]]:
    done = bench.run("check", BOOK, "-o", "json", *options)
    assert done.exit in (0, 1, 2, 3), done.said
    return {each["id"]: each for each in done.json()["checks"][0]["findings"]}


@pytest.fixture
def idle(bench: Bench) -> Iterator[str]:
    """An index that no query uses, on every node."""
    bench.sql("CREATE INDEX jobs_idle ON jobs (updated_at, prompt)")
    yield "public.jobs_idle"
    bench.sql("DROP INDEX jobs_idle")


def faulty(found: dict[str, dict[str, Any]]) -> set[str]:
    return {name for name, each in found.items() if each["status"] != "OK"}


def test_before_the_documents_indexes_only_foreign_keys_miss_theirs(bench: Bench) -> None:
    found = findings(bench)
    assert found["indexes"]["status"] == "OK"
    assert "usage on 3 nodes" in found["indexes"]["note"]
    assert faulty(found) == {
        "foreign-key:public.jobs.jobs_user_id_fkey",
        "foreign-key:public.results.results_job_id_fkey",
        "foreign-key:public.pipeline_jobs.pipeline_jobs_job_id_fkey",
        "foreign-key:public.api_keys.api_keys_user_id_fkey",
    }


def test_unused_is_judged_over_stored_snapshots_of_all_nodes(bench: Bench, idle: str) -> None:
    early = findings(bench)
    assert (early["unused:window"]["status"], idle in early["unused:window"]["note"]) == ("UNKNOWN", True)
    time.sleep(1.5)
    late = findings(bench, "--window", "1s")
    assert late[f"unused:{idle}"]["status"] == "WARNING"
    assert "unused:window" not in late


def test_a_scan_on_a_replica_is_use(bench: Bench, idle: str) -> None:
    findings(bench)
    with postgres.session(bench.fleet.dsn("postgres", bench.fleet.replicas[1])) as session, session.cursor() as cursor:
        for text in ("SET enable_seqscan = off", "SET enable_bitmapscan = off"):
            cursor.execute(text)
        cursor.execute("SELECT updated_at FROM jobs WHERE updated_at > now() ORDER BY updated_at LIMIT 1")
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("SELECT 1")
    time.sleep(1.5)
    assert not {name for name in findings(bench, "--window", "1s") if name.startswith("unused")}


def test_a_standby_that_nobody_configured(bench: Bench, idle: str) -> None:
    findings(bench)
    time.sleep(1.5)
    whole = bench.config.read_text()
    (line,) = [line for line in whole.splitlines() if line.startswith("replicas = ")]
    one = bench.config.with_name("one-replica.toml")
    one.write_text(whole.replace(line, f"replicas = {json.dumps(json.loads(line.partition(' = ')[2])[:1])}"))
    found = findings(Bench(one, bench.admin, bench.fleet), "--window", "1s")
    assert found["unused:window"]["status"] == "UNKNOWN"
    assert "standbys stream that no target names" in found["unused:window"]["note"]


def test_a_standby_does_not_know_what_is_being_built(bench: Bench, idle: str) -> None:
    bench.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'jobs_idle'::regclass")
    replica = bench.fleet.replicas[0]
    with PostgresDatabase(bench.fleet.dsn("aiprod_probe", replica), writes=False, application_name="test") as database:
        deadline = time.monotonic() + 20
        while all(index.is_usable for index in database.catalogue().indexes):
            assert time.monotonic() < deadline
        (found,) = remains.faults(database.catalogue())
    assert (found.id, found.level) == ("invalid:standby", Level.UNKNOWN)
    assert findings(bench)[f"invalid:{idle}"]["status"] == "WARNING"
