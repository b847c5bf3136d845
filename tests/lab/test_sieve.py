"""Hypothetical indexes sift what is built on the copy: on a server with HypoPG, and on one without."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import lone_server, short_folder

from aiprod_ops.actions import measurements
from aiprod_ops.actions.index_builds import Build
from aiprod_ops.actions.sieve import unwanted
from aiprod_ops.adapters.postgres.database import PostgresDatabase
from aiprod_ops.domain.advice.coverage import NewIndex
from aiprod_ops.domain.schema import Condition, Key, Name
from aiprod_ops.domain.statements import Statement
from aiprod_ops.lab import postgres
from aiprod_ops.units import Milliseconds

pytestmark = pytest.mark.lab
SYSTEM = os.environ.get("AIPROD_OPS_TEST_POSTGRES_BIN", "")
JOBS = Name("public", "jobs")
SCHEMA = """
create table jobs (id bigint primary key, status text, preset text, sent_at timestamptz, body text);
insert into jobs select g, case when g % 500 = 0 then 'queued' else 'done' end, 'preset ' || g % 2,
    case when g % 700 <> 0 then now() end, repeat('x', 200) from generate_series(1, 60000) g;
vacuum analyze jobs
"""


def build(name: str, column: str, query_id: int, where: Condition | None = None) -> Build:
    return Build(NewIndex(Name("public", name), JOBS, (Key(column),), where), ((query_id, ""),))


BUILDS = {
    "good": build("good", "status", 1),
    "bad": build("bad", "preset", 1),
    "part": build("part", "id", 2, Condition("sent_at", "{} IS NULL")),
    "unseen": build("unseen", "body", 3),  # serves a statement that nobody measures: nothing is known of it
}
TEXTS = {1: "select count(*) from jobs where status = $1", 2: "select * from jobs where sent_at is null"}


def statement(number: int) -> Statement:
    return Statement(number, TEXTS[number], 1, Milliseconds(1.0), Milliseconds(1.0))


@pytest.fixture(scope="module", params=["with HypoPG", "without"])
def database(request: pytest.FixtureRequest) -> Iterator[PostgresDatabase]:
    has = request.param == "with HypoPG"
    if has and not SYSTEM:
        pytest.skip("no system PostgreSQL with HypoPG here: the package postgresql-15-hypopg")
    with short_folder() as folder, lone_server(folder, Path(SYSTEM) if has else None) as server:
        dsn = server.dsn("postgres", "postgres")
        for text in SCHEMA.split(";"):
            postgres.rows(dsn, text)
        with PostgresDatabase(dsn, writes=True, application_name="aiprod-ops test") as opened:
            yield opened


def test_what_no_plan_takes_is_unwanted(database: PostgresDatabase) -> None:
    has = bool(database.query("select from pg_available_extensions where name = 'hypopg'"))
    schema = database.schema()
    subjects, notes = measurements.subjects(database, [statement(1), statement(2)], schema)
    assert (len(subjects), notes) == (2, [])
    assert unwanted(database, BUILDS, subjects) == ({"bad"} if has else set())
    if has:
        assert database.query("select * from hypopg()") == [], "nothing is imagined any more"
    assert [index.name.name for table in database.schema().tables for index in table.indexes] == ["jobs_pkey"]
