"""An index has to be worth its price to the whole workload: what its readers save, against what writes lose."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from by_hand import proven
from command_line import BOOK, SLOW, Bench, configured, lone_server, short_folder

from aiprod_ops import api
from aiprod_ops.domain.schema import Key
from aiprod_ops.lab import postgres

pytestmark = pytest.mark.lab
QUEUE = """
CREATE TABLE queue (id bigserial PRIMARY KEY, st int, val int, pad text);
INSERT INTO queue (st, val, pad) SELECT g % 20000, g, repeat('q', 60) FROM generate_series(1, 100000) g;
CREATE INDEX queue_val ON queue (val);
"""
READ = [f"SELECT count(*) FROM queue WHERE st = {number}" for number in (77, 78, 79, 80, 81)]
MOVED = ["UPDATE queue SET st = 5 WHERE val BETWEEN 1 AND 30000"] * 3
LOADED = ["INSERT INTO queue (st, val, pad) SELECT g, g, 'x' FROM generate_series(1, 30000) g"] * 2
BY_STATE = api.NewIndex(api.Name("public", "by_state"), api.Name("public", "queue"), (Key("st"),))
BY_PAD = api.NewIndex(api.Name("public", "by_pad"), api.Name("public", "queue"), (Key("pad"),))


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    settings = {"shared_preload_libraries": "pg_stat_statements", "compute_query_id": "on"}
    with short_folder() as folder, lone_server(folder, **settings) as made:
        for role in ("probe LOGIN IN ROLE pg_monitor, pg_read_all_data", "actor LOGIN SUPERUSER"):
            postgres.rows(made.dsn("postgres", "postgres"), f"CREATE ROLE {role}")
        yield made


def queue(server: Any, name: str, statements: list[str]) -> Bench:
    """The queue after these statements, which alone are counted."""
    postgres.rows(server.dsn("postgres", "postgres"), f"CREATE DATABASE {name}")
    folder = server.data.parent / name
    folder.mkdir(mode=0o711)
    bench = configured(folder, server, name)
    bench.sql("CREATE EXTENSION pg_stat_statements")
    bench.sql(QUEUE)
    bench.sql("VACUUM ANALYZE queue")
    bench.sql("SELECT pg_stat_statements_reset()")
    for text in statements:
        bench.sql(text)
    bench.sql("VACUUM ANALYZE queue")
    return bench


def test_few_reads_are_not_worth_many_rows_written(server: Any) -> None:
    """The check declines it; where somebody tries it all the same the copy refuses it, with what it saves and costs."""
    bench = queue(server, "moved", [*READ, *MOVED, *LOADED])
    assert advice(bench, "FROM queue WHERE st")[1].startswith("an index on (st) ")
    refused = proven(server, "moved", {BY_STATE: "count(*)"}).refused["by_state"]
    said = re.match(
        r"costs the workload more than it saves: saves ([\d,]+) buffers a minute for reads \(.*\), "
        r"costs ([\d,]+) for writes",
        refused,
    )
    assert said, refused
    saved, lost = (int(figure.replace(",", "")) for figure in said.groups())
    assert lost > 10 * saved > 0


def test_of_two_indexes_only_the_one_that_does_not_pay_is_refused(server: Any) -> None:
    """The reads of one are many. Both are written together, and each answers for its own part alone."""
    rare = ["SELECT count(*) FROM queue WHERE pad = 'y'"]
    queue(server, "two", [*READ * 60, *rare, *MOVED[:1]])
    proof = proven(server, "two", {BY_STATE: "WHERE st =", BY_PAD: "pad ="})
    assert set(proof.refused) == {"by_pad"}, (proof.refused, proof.notes)
    assert "costs the workload more than it saves" in proof.refused["by_pad"]
    assert any(note.startswith("by_state saves") for note in proof.notes), proof.notes


def test_a_large_write_that_cannot_be_measured_weighs_by_an_estimate(server: Any) -> None:
    """No value of `st + $1` is known: it is said, and most of the time is not taken for nothing."""
    unmeasured = ["UPDATE queue SET st = st + 1 WHERE id <= 60000"] * 3
    queue(server, "unmeasured", [*READ[:1], *unmeasured])
    proof = proven(server, "unmeasured", {BY_STATE: "count(*)"})
    assert "costs the workload more than it saves" in proof.refused["by_state"], proof
    assert any(note.startswith("weighed by an estimate, though it takes ") for note in proof.notes), proof.notes


def test_an_update_that_finds_no_row_costs_nothing(server: Any) -> None:
    bench = queue(server, "nothing", [*READ, *["UPDATE queue SET st = 7 WHERE id = -1"] * 3])
    made = bench.run("plan", BOOK, *SLOW, "-o", "json")
    assert [action["name"] for action in made.json()["plan"]["actions"]] == ["idx_queue_st"], made.said
    assert bench.run("prove", BOOK, *SLOW).exit == 0


def advice(bench: Bench, words: str, *options: str) -> tuple[int, str]:
    """How the check ended, and what it advised for one statement."""
    checked = bench.run("check", BOOK, *SLOW, "--load", "0.00001", "--least", "0s", "-o", "json", *options)
    findings = checked.json()["checks"][0]["findings"]
    (said,) = {f["columns"]["advice"] for f in findings if words in f["columns"].get("statement", "")}
    return checked.exit, said


def test_what_a_copy_refused_is_told_and_not_planned_again(server: Any) -> None:
    """Until somebody asks for it, or the table is another one."""
    bench = queue(server, "refused", READ)
    assert advice(bench, "FROM queue WHERE st") == (2, "index on queue (st)")
    tried = bench.run("prove", BOOK, *SLOW, "--min-gain", "1000000")
    assert (tried.exit, "DISPROVED" in tried.out) == (10, True), tried.said
    exit_code, said = advice(bench, "FROM queue WHERE st")
    assert exit_code == 0, said
    assert re.match(r"index on queue \(st\): tried on a copy on [\d-]+ and refused: helps too little", said), said
    made = bench.run("plan", BOOK, *SLOW)
    assert re.search(r"left out +idx_queue_st: tried on a copy on .*; --again plans it all the same", made.out), (
        made.said
    )
    assert "CREATE INDEX" not in made.out
    assert "left out  idx_queue_st: tried" in bench.run("prove", BOOK, *SLOW).out
    assert bench.run("prove", BOOK, *SLOW, "--again").exit == 0
    assert advice(bench, "FROM queue WHERE st") == (2, "index on queue (st)"), "the copy has taken it back"
    assert bench.run("prove", BOOK, *SLOW, "--min-gain", "1000000").exit == 10
    bench.sql("CREATE INDEX queue_pad ON queue (pad)")
    assert advice(bench, "FROM queue WHERE st") == (2, "index on queue (st)")


MADE_OF_PARTS = """
CREATE TABLE owners (id int PRIMARY KEY, gone timestamptz);
INSERT INTO owners SELECT g, CASE WHEN g % 500 = 0 THEN now() END FROM generate_series(1, 100000) g;
CREATE TABLE bills (id int PRIMARY KEY, owner int, paid timestamptz, z int, pad text);
INSERT INTO bills SELECT g, g % 40000, CASE WHEN g % 500 <> 0 THEN now() END, CASE WHEN g % 30 = 0 THEN g END,
  repeat('x', 60) FROM generate_series(1, 100000) g;
CREATE INDEX bills_z ON bills (z);
"""
NO_INDEX = [
    "SELECT c.id, o.id FROM owners c LEFT JOIN bills o ON o.owner = c.id WHERE o.paid IS NULL AND c.id < 50",
    "SELECT count(*) FROM owners c FULL JOIN bills o ON o.owner = c.id WHERE o.paid IS NULL",
    "SELECT * FROM bills WHERE z IS NOT NULL",
]


def test_null_where_no_index_helps_and_where_one_does(server: Any) -> None:
    bench = queue(server, "parts", [])
    bench.sql(MADE_OF_PARTS)
    bench.sql("VACUUM ANALYZE")
    bench.sql("SELECT pg_stat_statements_reset()")
    for text in [*NO_INDEX, "SELECT count(*) FROM owners WHERE NOT (gone IS NULL)"] * 3:
        bench.sql(text)
    made = bench.run("plan", BOOK, "--objective", "0.001ms", "--load", "0.00001")
    wanted = set(re.findall(r"CREATE INDEX CONCURRENTLY \S+ ON (.*)", made.out))
    assert wanted == {"public.owners (id) WHERE gone IS NOT NULL"}, made.said
    assert advice(bench, "FULL JOIN")[1] == "no index helps: check slow-queries"
    assert advice(bench, "WHERE z IS NOT NULL")[1] == "its index is there"
    tried = bench.run("prove", BOOK, "--objective", "0.001ms", "--load", "0.00001", "-o", "json").json()
    assert "idx_owners_id_where_gone_is_not_null" not in tried["refused"], tried["refused"]


def test_a_truth_is_no_value_of_the_column(server: Any) -> None:
    bench = queue(server, "truths", ["SELECT id FROM queue WHERE (pad IS NULL) = true AND st = 7"] * 3)
    notes = bench.run("prove", BOOK, *SLOW, "-o", "json").json()["notes"]
    assert not any("invalid input syntax" in note for note in notes), notes
