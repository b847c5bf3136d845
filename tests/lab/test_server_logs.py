"""A real server writes the same statements as stderr, csvlog and jsonlog at once: three digests, one truth."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg2
import pytest

from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.adapters.local.programs import find, reachable
from aiprod_ops.adapters.log_files import Following, digest_of
from aiprod_ops.logs.digester import Wanted
from aiprod_ops.logs.digests import Digest

pytestmark = pytest.mark.lab

SETTINGS: dict[str, str | int] = {
    "listen_addresses": "",
    "fsync": "off",
    "shared_preload_libraries": "pg_stat_statements,auto_explain",
    "pg_stat_statements.track_planning": "off",
    "compute_query_id": "on",
    "logging_collector": "on",
    "log_destination": "stderr,csvlog,jsonlog",
    "log_line_prefix": "%m [%p]: [%l-1] user=%u,db=%d,app=%a,client=%h,qid=%Q ",
    "log_min_duration_statement": 0,
    "log_temp_files": 0,
    "auto_explain.log_min_duration": 0,
    "auto_explain.log_analyze": "on",
    "work_mem": "64kB",
}
SIMPLE = [
    *["SELECT * FROM jobs WHERE id = 5", "SELECT *\n\tFROM jobs\n\nWHERE status = 'it''s \"é\"'"] * 3,
    "SELECT count(*) FROM (SELECT * FROM jobs ORDER BY status, id DESC OFFSET 3) s",
    "UPDATE jobs SET status = 'x, \\n y' WHERE id = 7",
    "BEGIN",
    "COMMIT",
]
BOUND = (
    "SELECT * FROM jobs WHERE id = $1 AND status = $2 \\bind 5 'a''b' \\g\n"
    "SELECT status FROM jobs WHERE id = $1 \\parse by_id\n" + "\\bind_named by_id 5 \\g\n" * 4
)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with tempfile.TemporaryDirectory(prefix="aiprod-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        made = PostgresServer(reachable(find(), folder), folder / "data", folder / "s", 5432, folder / "start.log")
        made.initdb()
        made.configure(SETTINGS, "local all all trust\n")
        made.start()
        try:
            work(made)
            yield made
        finally:
            made.stop("immediate")


def work(server: PostgresServer) -> None:
    dsn = server.dsn("postgres", "postgres")
    run(server, "setup", ["CREATE EXTENSION pg_stat_statements", "CREATE TABLE jobs (id int PRIMARY KEY, status text)",
                          "INSERT INTO jobs SELECT g, 'done' || g FROM generate_series(1, 5000) g"])  # fmt: skip
    run(server, "setup", ["SELECT pg_stat_statements_reset()"])
    run(server, "api", SIMPLE)
    script = server.data.parent / "bound.sql"
    script.write_text(BOUND)
    server.programs.run("psql", "-X", "-q", "-f", str(script), f"{dsn}&application_name=worker", cwd=server.data.parent)


def run(server: PostgresServer, application: str, statements: list[str]) -> None:
    opened = psycopg2.connect(server.dsn("postgres", "postgres"), application_name=application)
    opened.autocommit = True
    with opened.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    opened.close()


def digest(server: PostgresServer, suffix: str) -> Digest:
    """The digest of what `api` and `worker` did, from one of the three logs."""
    paths = sorted((server.data / "log").glob(f"*{suffix}"))
    found = digest_of(paths, Wanted("postgres"))
    rows = tuple(row for row in found.rows if "jobs" in row.text or row.text in ("BEGIN", "COMMIT"))
    return replace(found, rows=tuple(row for row in rows if "CREATE" not in row.text and "generate" not in row.text))


@pytest.fixture(scope="module")
def digests(server: PostgresServer) -> dict[str, Digest]:
    time.sleep(0.5)  # the collector writes on its own
    return {suffix: digest(server, suffix) for suffix in (".json", ".csv", ".log")}


def test_the_three_logs_tell_the_same(digests: dict[str, Digest]) -> None:
    json, csv, plain = digests.values()
    assert json.rows == csv.rows == plain.rows
    assert {found.unread for found in digests.values()} == {0}
    assert {(found.calls, found.total) for found in digests.values()} == {(json.calls, json.total)}


def test_calls_are_those_that_the_server_counted(server: PostgresServer, digests: dict[str, Digest]) -> None:
    opened = psycopg2.connect(server.dsn("postgres", "postgres"))
    opened.autocommit = True  # a BEGIN of our own would be counted
    with opened.cursor() as cursor:
        cursor.execute("SELECT queryid, calls FROM pg_stat_statements")
        counted = dict(cursor.fetchall())
    opened.close()
    found = {row.query_id: row.calls for row in digests[".json"].rows}
    assert len(found) >= 7
    assert {query_id: counted.get(query_id) for query_id in found} == found
    assert all(row.is_servers for row in digests[".json"].rows)


def test_prepared_statements_values_plans_and_temporary_files(digests: dict[str, Digest]) -> None:
    rows = digests[".json"].rows
    named = next(row for row in rows if row.text.startswith("SELECT status"))
    assert (named.calls, named.prepared) == (4, 4)
    bound = next(row for row in rows if "status = $2" in row.text)
    assert (bound.prepared, bound.examples[0].parameters) == (0, ("'5'", "'a''b'"))
    sorting = next(row for row in rows if "ORDER BY" in row.text)
    assert sorting.temporary_bytes > 50_000
    assert "Sort Method" in sorting.plan
    assert {one.name: one.prepared for one in digests[".json"].applications}["worker"] == 4


def test_a_rotation_of_the_server_is_followed(server: PostgresServer) -> None:
    following = Following(server.data / "log", Wanted("postgres"))
    while following.read():
        pass
    before = calls(following)
    time.sleep(1.1)  # the file's name holds the second
    run(server, "rotation", ["SELECT pg_rotate_logfile()"])
    deadline = time.monotonic() + 20
    while calls(following) < before + 2 and time.monotonic() < deadline:
        run(server, "api", ["SELECT status FROM jobs WHERE id = 4711"])
        while following.read():
            pass
        time.sleep(0.2)
    assert len(list((server.data / "log").glob("*.json"))) >= 2
    assert calls(following) >= before + 2
    following.end()


def calls(following: Following) -> int:
    return following.digest().calls
