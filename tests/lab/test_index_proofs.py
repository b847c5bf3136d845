"""Proofs of index repairs on schemas that the fleet does not have."""

from collections.abc import Iterator
from typing import Any

import pytest
from command_line import Bench, configured, lone_server, short_folder

from aiprod_ops.lab import postgres

pytestmark = pytest.mark.lab
BOOK = "verify-indexes"
COUNTED: dict[str, str | int] = {"shared_preload_libraries": "pg_stat_statements", "autovacuum": "off"}


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with short_folder() as folder, lone_server(folder, **COUNTED) as made:
        postgres.rows(made.dsn("postgres", "postgres"), "CREATE ROLE probe LOGIN SUPERUSER")
        postgres.rows(made.dsn("postgres", "postgres"), "CREATE ROLE actor LOGIN SUPERUSER")
        yield made


def made(server: Any, name: str, schema: str) -> Bench:
    """A new database, with a configuration and a state folder of its own."""
    postgres.rows(server.dsn("postgres", "postgres"), f"CREATE DATABASE {name}")
    folder = server.data.parent / name
    folder.mkdir(mode=0o711)
    bench = configured(folder, server, name)
    bench.sql("CREATE EXTENSION pg_stat_statements; CREATE EXTENSION amcheck; CREATE EXTENSION pgstattuple")
    for part in schema.split(";\n"):
        bench.sql(part)
    return bench


LACKING = """
CREATE TABLE t (id int PRIMARY KEY, v int);
INSERT INTO t SELECT g, g FROM generate_series(1, 5000) g;
CREATE INDEX t_v ON t (v);
UPDATE pg_index SET indisready = false WHERE indexrelid = 't_v'::regclass;
INSERT INTO t SELECT g, g FROM generate_series(5001, 6000) g;
UPDATE pg_index SET indisready = true WHERE indexrelid = 't_v'::regclass
"""


def test_what_the_proof_finds_damaged_disproves_it_and_is_planned_next(server: Any) -> None:
    bench = made(server, "lacking", LACKING)
    little = ("--only", "damage", "--read", "400kB")  # enough for both indexes, not for their table
    check = bench.run("check", BOOK, *little)
    assert (check.exit, "2 of them not for rows that they lack" in check.out) == (0, True), check.said
    proof = bench.run("prove", BOOK, *little)
    assert proof.exit == 10, proof.said
    assert "REFUSED damage: public.t_v: heap tuple" in proof.out
    check = bench.run("check", BOOK, *little)
    assert (check.exit, "damage: public.t_v" in check.out) == (2, True), check.said
    plan = bench.run("plan", BOOK, *little, "-o", "json").json()
    assert [(action["kind"], action["name"]) for action in plan["plan"]["actions"]] == [("rebuild-index", "t_v")]
    assert bench.run("prove", BOOK, "--plan", plan["digest"]).exit == 0
    assert bench.run("run", BOOK, "--apply", plan["digest"]).exit == 0
    assert bench.run("check", BOOK, *little).exit == 0
    assert bench.run("check", BOOK, "--only", "damage").exit == 0


PARTITIONED = """
CREATE TABLE events (id bigint, day date NOT NULL, kind int) PARTITION BY RANGE (day);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
CREATE INDEX events_kind ON events (kind);
INSERT INTO events SELECT g, date '2026-01-01' + g % 360, g % 1000 FROM generate_series(1, 40000) g;
CREATE INDEX twin ON events_1 (kind);
DELETE FROM events_1 WHERE id % 20 <> 0;
ANALYZE
"""


def test_a_part_of_a_partitioned_index_is_not_left_out(server: Any) -> None:
    """It cannot go alone, and what the server says of that is no reason to drop the whole."""
    bench = made(server, "partitioned", PARTITIONED)
    bench.sql("VACUUM events_1")
    bench.ask("SELECT count(*) FROM events_1 WHERE kind = 20")
    plans = {"duplicate": {"twin": "remove-index"}, "bloat": {"twin": "rebuild-index", PART: "rebuild-index"}}
    for kind, wanted in plans.items():
        plan = bench.run("plan", BOOK, "--only", kind, "--least", "0", "-o", "json").json()
        assert {action["name"]: action["kind"] for action in plan["plan"]["actions"]} == wanted
        proof = bench.run("prove", BOOK, "--plan", plan["digest"], "-o", "json")
        assert proof.exit == 0, proof.said
        worth = {row["index"]: row for row in proof.json()["worth"]}[f"public.{PART}"]
        assert (worth["used by"], worth["WAL"]) == ("part of events_kind", "-")


PART = "events_1_kind_idx"
