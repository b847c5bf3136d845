"""A delete on the other side of a foreign key costs less once the key has its index: counted on a real server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import lone_server, short_folder

from aiprod_ops.actions.index_builds import Build
from aiprod_ops.actions.key_trials import Deletions
from aiprod_ops.adapters.postgres.database import PostgresDatabase
from aiprod_ops.domain.advice.coverage import NewIndex
from aiprod_ops.domain.plans import Action
from aiprod_ops.domain.schema import Key, Name
from aiprod_ops.lab import postgres

pytestmark = pytest.mark.lab

ODD = 'Odd %(x)s {y} "z"'
#: Each has 20,000 rows that refer to another table: table → how.
TABLES = {
    "free": "REFERENCES lonely",
    "daily": "REFERENCES days (n)",
    "taken": "REFERENCES parents",
    "cascading": "REFERENCES parents ON DELETE CASCADE",
    "late": "REFERENCES parents DEFERRABLE INITIALLY DEFERRED",
    ODD: "REFERENCES parents ON DELETE SET NULL",
}
SETUP = """
CREATE TABLE parents (id int PRIMARY KEY);
CREATE TABLE lonely (id int PRIMARY KEY);
INSERT INTO parents SELECT generate_series(0, 99);
INSERT INTO lonely SELECT generate_series(0, 100);
CREATE TABLE days (n int UNIQUE, day date PRIMARY KEY, other uuid UNIQUE DEFAULT gen_random_uuid());
INSERT INTO days SELECT g, date '2026-01-01' + g FROM generate_series(0, 99) g;
CREATE TABLE plans (day date REFERENCES days);
CREATE TABLE others (day uuid REFERENCES days (other));
CREATE TABLE pairs (a int GENERATED ALWAYS AS IDENTITY (MINVALUE 0), b varchar(4), PRIMARY KEY (a, b));
INSERT INTO pairs (b) SELECT g FROM generate_series(0, 99) g;
CREATE TABLE paired (x int, y varchar(4), note text, CONSTRAINT key FOREIGN KEY (x, y) REFERENCES pairs (a, b));
INSERT INTO paired SELECT g % 100, g % 100, repeat('x', 100) FROM generate_series(1, 20000) g;
CREATE TABLE tree (id int PRIMARY KEY, up int CONSTRAINT key REFERENCES tree, note text);
INSERT INTO tree SELECT g, CASE WHEN g > 1 THEN g / 2 END, repeat('x', 100) FROM generate_series(1, 20000) g;
CREATE TABLE spots (at point, way bit(8) PRIMARY KEY);
INSERT INTO spots VALUES ('(1, 2)', B'10101010');
CREATE TABLE visits (way bit(8) CONSTRAINT key REFERENCES spots);
CREATE TABLE nobody (id int PRIMARY KEY);
CREATE TABLE idle (up int CONSTRAINT key REFERENCES nobody);
CREATE TABLE holy (id int PRIMARY KEY);
INSERT INTO holy VALUES (1);
CREATE TABLE believers (up int CONSTRAINT key REFERENCES holy);
CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'holy rows stay'; END $$;
CREATE TRIGGER never BEFORE DELETE ON holy FOR EACH ROW EXECUTE FUNCTION never();
"""
BINARIES = [None, *(Path(each) for each in filter(None, [os.environ.get("AIPROD_OPS_TEST_POSTGRES_BIN")]))]


@pytest.fixture(scope="module", params=BINARIES, ids=lambda path: "system" if path else "wheel")
def database(request: pytest.FixtureRequest) -> Iterator[PostgresDatabase]:
    with short_folder() as folder, lone_server(folder, request.param) as server:
        dsn = server.dsn("postgres", "postgres")
        postgres.rows(dsn, SETUP)
        for table, refers in TABLES.items():
            quoted = '"' + table.replace('"', '""') + '"'
            postgres.rows(dsn, f"CREATE TABLE {quoted} (up int CONSTRAINT key {refers}, note text)")
            fill = f"INSERT INTO {quoted} SELECT g % 100, repeat('x', 100) FROM generate_series(1, 20000) g"
            postgres.rows(dsn, fill)
        postgres.rows(dsn, "ANALYZE")
        with PostgresDatabase(dsn, writes=True, application_name="aiprod-ops test") as made:
            yield made


def build(table: str, *columns: str) -> Action:
    name = Name("public", table)
    index = NewIndex(Name("public", f"by {table}"[:60]), name, tuple(Key(column) for column in columns))
    return Action("create-index", Build(index), answers=f"foreign-key:{name}.key", irreversible="a test")


@pytest.mark.parametrize("table", [*TABLES, "paired", "tree"])
def test_a_delete_costs_less_with_the_index(database: PostgresDatabase, table: str) -> None:
    action = build(table, *(("x", "y") if table == "paired" else ("up",)))
    rows = "select count(*) as n from {table}"
    names = {"table": Name("public", table)}
    deletions = Deletions.of(database, [action])
    before = deletions.measured(database)
    keys = "x, y" if table == "paired" else "up"
    database.execute(f"create index by_key on {{table}} ({keys})", names=names)
    try:
        found = {each.unit: each for each in deletions.compared(before, deletions.measured(database))}
    finally:
        database.execute("drop index by_key")
    assert deletions.notes == []
    assert found["buffers"].before.median > 300, "the whole table was read"
    assert found["buffers"].after.median < 10
    assert found["buffers"].what.startswith("DELETE FROM ")
    assert set(found) == {"buffers", "ms"}
    assert database.query(rows, names=names)[0]["n"] == 20_000, "each delete was rolled back"


def test_what_cannot_be_tried_is_said(database: PostgresDatabase) -> None:
    unknown = Action("create-index", build("idle", "up").subject, answers="foreign-key:public.idle.other")
    other = Action("create-index", build("idle", "up").subject, answers="duplicate:public.idle")
    deletions = Deletions.of(
        database, [build("idle", "up"), build("believers", "up"), build("visits", "way"), unknown, other]
    )
    assert deletions.measured(database) == {}
    assert sorted(deletions.notes) == [
        "no delete was tried for the foreign key key: holy rows stay (SQLSTATE P0001)",
        "no delete was tried for the foreign key key: no fresh value is known for public.spots.way (bit(8))",
        "no delete was tried for the foreign key key: public.nobody has no row",
        "no delete was tried for the foreign key other: it is not there on the copy",
    ]
