"""What every Database does: the suite runs on the one in memory and, marked `lab`, on a real server."""

import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest
from memory_database import SLEEP, Answer, MemoryDatabase

from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.adapters.local.programs import find, reachable
from aiprod_ops.adapters.postgres.database import PostgresDatabase
from aiprod_ops.domain.catalogue.indexes import Catalogue, IndexState
from aiprod_ops.domain.counters import Counters, Entry, StatementsSnapshot
from aiprod_ops.domain.schema import Column, ColumnStatistics, Index, Key, Name, Schema, Table, TableSize
from aiprod_ops.domain.statements import Statement, Workload
from aiprod_ops.errors import Cancelled, Refused, TimedOut
from aiprod_ops.ports import Database, Sample
from aiprod_ops.units import Bytes, Milliseconds, Seconds

JOBS = Name("public", 'we"ird Jobs')
SETUP = """
CREATE EXTENSION pg_stat_statements;
CREATE TABLE "we""ird Jobs" (id int PRIMARY KEY, status text NOT NULL);
CREATE TABLE empty (id int);
INSERT INTO "we""ird Jobs" SELECT g, CASE WHEN g % 10 = 0 THEN 'failed' ELSE 'done' END FROM generate_series(1, 1000) g;
ANALYZE "we""ird Jobs";
SELECT count(*) FROM "we""ird Jobs" WHERE status = 'failed';
SELECT count(*) FROM "we""ird Jobs" WHERE status = 'done';
SELECT count(*) FROM "we""ird Jobs" WHERE status = 'new'
"""


DAWN = datetime(2026, 11, 21, tzinfo=UTC)
COUNTED = Entry(7, 10, DAWN, True, Counters(3, Milliseconds(9), rows=3, blocks=18))


class World(Protocol):
    """Opens sessions with one and the same server, which holds JOBS with 1000 rows, 10 % of them failed."""

    def open(self, *, writes: bool) -> Database: ...


@dataclass
class Memory:
    locks: dict[str, MemoryDatabase] = field(default_factory=dict)

    def open(self, *, writes: bool) -> Database:
        key = Index(Name("public", "jobs_pkey"), JOBS, (Key("id"),), "CREATE …", is_unique=True, constraint="jobs_pkey")
        columns = (Column("id", "integer", is_not_null=True), Column("status", "text", is_not_null=True, is_text=True))
        statistics = {"status": ColumnStatistics(0.0, 2, (0.9, 0.1))}
        count = Statement(7, "SELECT count(*) … status = $1", 3, Milliseconds(9), Milliseconds(3), 3)
        return MemoryDatabase(
            writes=writes,
            locks=self.locks,
            answers=ANSWERS,
            schema=Schema((Table(Name("public", "empty"), (Column("id", "integer"),)), Table(JOBS, columns, (key,)))),
            sizes={
                "public.empty": TableSize(0, 0, Bytes(0), {}),
                str(JOBS): TableSize(1000, 6, Bytes(90_000), statistics),
            },
            values={(JOBS, "status"): ([("done", 0.9), ("failed", 0.1)], [])},
            workload=Workload((count,), Seconds(60), Milliseconds(10)),
            statements=StatementsSnapshot(DAWN + timedelta(minutes=1), DAWN, DAWN, 0, (COUNTED,)),
            texts={7: count.text},
            catalogue=Catalogue(
                180006,
                "memory",
                "nobody",
                reads_statistics=True,
                is_standby=False,
                indexes=(IndexState(key.name, JOBS, "CREATE …", key.keys, is_unique=True, constraint="jobs_pkey"),),
            ),
            logged=[Sample(7, f"SELECT count(*) … status = '{value}'", 3.0) for value in ("new", "done", "failed")],
        )


ANSWERS: dict[str, Answer] = {
    "SELECT %(x)s AS x, 'a%%' AS y": lambda values, names: [{"x": values["x"], "y": "a%"}],
    "SELECT 'a%' AS x": lambda values, names: [{"x": "a%"}],
    "SELECT %(x)s AS {column}": lambda values, names: [{str(names["column"]): values["x"]}],
    "SELECT count(*) AS n FROM {table}": lambda values, names: [{"n": 1000 if names["table"] == JOBS else 0}],
    "DELETE FROM {table} WHERE id < 0": lambda values, names: [],
}


@dataclass
class Real:
    server: PostgresServer

    def open(self, *, writes: bool) -> Database:
        return PostgresDatabase(self.server.dsn("postgres", "postgres"), writes=writes, application_name="aiprod-ops")


@pytest.fixture(scope="module")
def real() -> Iterator[Real]:
    with tempfile.TemporaryDirectory(prefix="aiprod-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        server = PostgresServer(reachable(find(), folder), folder / "data", folder / "s", 5432, folder / "start.log")
        server.initdb()
        log: dict[str, str | int] = {
            "logging_collector": "on",
            "log_destination": "jsonlog",
            "log_min_duration_statement": 0,
        }
        loaded: dict[str, str | int] = {
            "shared_preload_libraries": "pg_stat_statements",
            "listen_addresses": "",
            "fsync": "off",
        }
        server.configure(log | loaded, "local all all trust\n")
        server.start()
        try:
            with PostgresDatabase(
                server.dsn("postgres", "postgres"), writes=True, application_name="setup"
            ) as database:
                for statement in SETUP.split(";"):
                    database.execute(statement)
            yield Real(server)
        finally:
            server.stop("immediate")


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.lab)])
def world(request: pytest.FixtureRequest) -> World:
    return Memory() if request.param == "memory" else request.getfixturevalue("real")


@pytest.fixture
def probe(world: World) -> Iterator[Database]:
    database = world.open(writes=False)
    yield database
    database.close()


@pytest.fixture
def actor(world: World) -> Iterator[Database]:
    database = world.open(writes=True)
    yield database
    database.close()


def test_a_query_answers_rows_as_dictionaries(probe: Database) -> None:
    assert probe.query("SELECT %(x)s AS x, 'a%%' AS y", {"x": "it's 5 %"}) == [{"x": "it's 5 %", "y": "a%"}]
    assert probe.query("SELECT 'a%' AS x") == [{"x": "a%"}]


@pytest.mark.parametrize("name", ["plain", 'we"ird', "50 %", "%(x)s", "{column}", "a'b; --"])
def test_identifiers_are_quoted(probe: Database, name: str) -> None:
    assert probe.query("SELECT %(x)s AS {column}", {"x": 1}, names={"column": name}) == [{name: 1}]


def test_qualified_names_are_quoted(probe: Database) -> None:
    assert probe.query("SELECT count(*) AS n FROM {table}", names={"table": JOBS}) == [{"n": 1000}]


def test_a_probe_refuses_to_act(probe: Database) -> None:
    with pytest.raises(Refused):
        probe.execute("DELETE FROM {table} WHERE id < 0", names={"table": JOBS})
    with pytest.raises(Refused):
        probe.hold("resource")


def test_an_actor_acts(actor: Database) -> None:
    actor.execute("DELETE FROM {table} WHERE id < 0", names={"table": JOBS})


def test_a_lock_has_one_holder_and_ends_with_its_session(world: World) -> None:
    first, second = world.open(writes=True), world.open(writes=True)
    assert first.hold("resource")
    assert first.hold("resource")
    assert not second.hold("resource")
    assert second.hold("another")
    first.close()
    deadline = time.monotonic() + 5  # the server notices the end of a session a moment later
    while not second.hold("resource"):
        assert time.monotonic() < deadline
    second.close()


@pytest.mark.parametrize("writes", [False, True])
def test_cancel_comes_from_another_thread(world: World, writes: bool) -> None:
    database = world.open(writes=writes)
    timer = threading.Timer(0.3, database.cancel)
    timer.start()
    with pytest.raises(Cancelled):
        database.query(SLEEP, {"duration": 30.0})
    timer.join()
    assert database.query("SELECT 'a%' AS x") == [{"x": "a%"}]
    database.cancel()  # nothing runs: nothing happens
    assert database.query("SELECT 'a%' AS x") == [{"x": "a%"}]
    database.close()


@pytest.mark.parametrize("writes", [False, True])
def test_a_time_limit_ends_a_statement(world: World, writes: bool) -> None:
    database = world.open(writes=writes)
    with pytest.raises(TimedOut):
        database.query(SLEEP, {"duration": 30.0}, timeout=Seconds(0.2))
    assert len(database.query(SLEEP, {"duration": 0.01}, timeout=Seconds(0))) == 1
    database.close()


def test_the_server_says_who_it_is(probe: Database) -> None:
    server = probe.server()
    assert server.system_identifier.isdigit()
    assert server.version >= 150000
    assert not server.is_standby
    assert server == probe.server()


def test_the_workload_is_sorted_by_total_time(probe: Database) -> None:
    workload = probe.workload()
    totals = [statement.total for statement in workload.statements]
    assert totals == sorted(totals, reverse=True)
    assert workload.missing == ()
    assert workload.window > 0
    assert sum(workload.share(statement) for statement in workload.statements) <= 1.0001


def test_counters_tell_the_calls_and_the_texts_of_statements(probe: Database) -> None:
    seen = probe.statements()
    texts = probe.texts([entry.query_id for entry in seen.entries])
    found = next(entry for entry in seen.entries if "status = $1" in texts.get(entry.query_id, ""))
    assert (found.counters.calls, found.counters.rows, found.is_query) == (3, 3, True)
    assert found.counters.blocks > 0
    assert (seen.evictions, seen.cut, seen.missing) == (0, 0, ())
    assert seen.begins < seen.taken
    assert probe.texts([]) == probe.texts([42]) == {}
    assert not [text for text in texts.values() if "aiprod-ops" in text]


def test_the_schema_is_sorted_and_stable(probe: Database) -> None:
    schema = probe.schema()
    assert [table.name for table in schema.tables] == [Name("public", "empty"), JOBS]
    assert schema == probe.schema()
    jobs = schema.table("", JOBS.name)
    assert jobs is not None
    assert [(column.name, column.type) for column in jobs.columns] == [("id", "integer"), ("status", "text")]
    assert [(index.keys, index.is_unique) for index in jobs.indexes] == [((Key("id"),), True)]


def test_sizes_tell_a_table_that_was_never_analysed(probe: Database) -> None:
    sizes = probe.sizes()
    assert sizes["public.empty"].rows == 0
    assert sizes["public.empty"].statistics == {}
    assert sizes[str(JOBS)].rows == 1000
    assert sizes[str(JOBS)].statistics["status"].distinct == 2
    assert sizes[str(JOBS)].statistics["status"].frequencies == pytest.approx((0.9, 0.1))


def test_column_values_are_those_of_the_columns_asked_for(probe: Database) -> None:
    found = probe.column_values([(JOBS, "status"), (JOBS, "nothing"), (Name("public", "empty"), "id")])
    assert list(found) == [(JOBS, "status")]
    values, bounds = found[(JOBS, "status")]
    assert [value for value, _ in values] == ["done", "failed"]
    assert bounds == []
    assert probe.column_values([]) == {}


def test_the_catalogue_tells_what_needs_an_index(probe: Database) -> None:
    catalogue = probe.catalogue()
    assert catalogue == probe.catalogue()
    (index,) = catalogue.indexes
    assert (index.table, index.keys, index.is_needed, index.is_usable) == (JOBS, (Key("id"),), True, True)


def test_usage_counts_what_is_not_unique(probe: Database) -> None:
    assert probe.index_usage().scans == {}
    assert probe.index_usage().standbys == ()


def test_samples_are_the_newest_calls(probe: Database) -> None:
    statement = next(each for each in probe.workload().statements if "status = $1" in each.text)
    found = probe.samples([statement.query_id, 42], most=2)
    assert [sample.text.split()[-1] for sample in found] == ["'new'", "'done'"]
    assert {sample.query_id for sample in found} == {statement.query_id}
    assert probe.samples([42]) == []
    assert probe.samples([]) == []


def test_the_log_tells_the_slow_end_of_the_calls(probe: Database) -> None:
    statement = next(each for each in probe.workload().statements if "status = $1" in each.text)
    found, missing = probe.logged([statement.query_id, 42], DAWN)
    assert missing == ""
    assert list(found) == [statement.query_id]
    assert found[statement.query_id].calls == 3
    assert found[statement.query_id].p95 > 0
    assert probe.logged([], DAWN) == ({}, "")


def test_close_twice(world: World) -> None:
    database = world.open(writes=False)
    database.server()
    database.close()
    database.close()
