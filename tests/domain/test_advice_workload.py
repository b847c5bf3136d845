"""Advice on a whole workload: what writes pay, orders that are merged, columns that cover, budgets, hash seeds."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from aiprod_ops.domain.advice.indexes import Advice, Budget, advise
from aiprod_ops.domain.advice.layouts import nearly
from aiprod_ops.domain.advice.needs import needs
from aiprod_ops.domain.advice.selectivity import is_spread
from aiprod_ops.domain.advice.writes import Changed, Cost, Writes, cost, writes
from aiprod_ops.domain.schema import Column, ColumnStatistics, Index, Key, Name, Schema, Table, TableSize
from aiprod_ops.domain.sql.changes import changes
from aiprod_ops.domain.sql.queries import read
from aiprod_ops.domain.statements import Statement
from aiprod_ops.units import Bytes, Milliseconds

ROWS = 1_500_000.0
JOBS = Name("public", "jobs")
PRIMARY = Index(Name("public", "jobs_pkey"), JOBS, (Key("id"),), "", is_unique=True, constraint="jobs_pkey")
TYPES = {
    "id": "uuid", "user_id": "uuid", "status": "text", "priority": "text", "preset": "text", "error": "text",
    "prompt": "text", "created_at": "timestamp with time zone", "updated_at": "timestamp with time zone",
}  # fmt: skip
SCHEMA = Schema(
    (Table(JOBS, tuple(Column(name, kind, is_text=kind == "text") for name, kind in TYPES.items()), (PRIMARY,)),)
)
#: As ANALYZE found them in the lab's 1.5 million jobs.
STATISTICS = {
    "id": ColumnStatistics(0.0, ROWS, (), 16, 1.0),
    "user_id": ColumnStatistics(0.0, 13_000, (0.0078, 0.0077), 16, 0.006),
    "status": ColumnStatistics(0.0, 5, (0.9305, 0.0285, 0.02, 0.0108, 0.0102), 9, 0.93),
    "priority": ColumnStatistics(0.0, 4, (0.65, 0.155, 0.147, 0.048), 6, 0.466),
    "preset": ColumnStatistics(0.0, 3, (0.6, 0.3, 0.1), 13, 0.458),
    "error": ColumnStatistics(0.97, 4, (0.0075, 0.0074, 0.007, 0.0068), 23, 0.29),
    "prompt": ColumnStatistics(0.0, 3200, (), 261, 0.0),
    "created_at": ColumnStatistics(0.0, ROWS, (), 8, 1.0),
    "updated_at": ColumnStatistics(0.0, ROWS, (), 8, 1.0),
}
SIZE = TableSize(ROWS, 74_000, Bytes(600_000_000), STATISTICS)
SIZES = {str(JOBS): SIZE}

PICK = "SELECT id FROM jobs WHERE status = $1 ORDER BY created_at LIMIT 10"
BY_PRIORITY = "SELECT id FROM jobs WHERE status = $1 AND priority = $2 ORDER BY created_at LIMIT 10"
OF_USER = "SELECT * FROM jobs WHERE user_id = $1 ORDER BY created_at DESC LIMIT 20"
BY_STATUS = "SELECT * FROM jobs WHERE user_id = $1 AND status = $2 ORDER BY created_at DESC LIMIT 20"
QUOTA = "SELECT count(*) FROM jobs WHERE user_id = $1 AND status = ANY($2)"
MONTH = "SELECT preset, count(*) FROM jobs WHERE created_at >= $1 AND created_at < $2 GROUP BY preset"
STUCK = "SELECT id FROM jobs WHERE status = $1 AND updated_at < $2 ORDER BY updated_at LIMIT 100"
INSERT = "INSERT INTO jobs (id, user_id, status) VALUES ($1, $2, $3)"
MOVE = "UPDATE jobs SET status = $1, updated_at = now() WHERE id = $2"
TOUCH = "UPDATE jobs SET updated_at = now() WHERE id = $1"


def statement(number: int, text: str, calls: int = 3600, mean: float = 150.0) -> Statement:
    return Statement(number, text, calls, Milliseconds(calls * mean), Milliseconds(mean))


WRITTEN = [statement(number, text, mean=0.1) for number, text in enumerate((INSERT, MOVE, TOUCH), 100)]


def advice(*texts: str, budget: Budget | None = None, schema: Schema = SCHEMA) -> Advice:
    asked = [statement(number, text) for number, text in enumerate(texts, 1)]
    return advise(asked, schema, SIZES, workload=WRITTEN, budget=budget or Budget())


def proposed(*texts: str, schema: Schema = SCHEMA) -> list[str]:
    return [", ".join(each.index.columns) for each in advice(*texts, schema=schema).candidates]


def test_changes() -> None:
    upsert = "INSERT INTO jobs (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET status = $2"
    assert [(each.verb, sorted(each.columns)) for each in changes(upsert)] == [("insert", []), ("update", ["status"])]
    nested = "WITH gone AS (DELETE FROM app.jobs RETURNING id) UPDATE log SET n = n + 1"
    assert {(each.schema, each.table, each.verb) for each in changes(nested)} == {
        ("app", "jobs", "delete"), ("", "log", "update"),
    }  # fmt: skip
    matched = "WHEN MATCHED THEN UPDATE SET a = 1 WHEN NOT MATCHED THEN DO NOTHING"
    merge = f"MERGE INTO jobs USING new ON new.id = jobs.id {matched}"
    assert [(each.verb, sorted(each.columns)) for each in changes(merge)] == [("update", ["a"])]
    assert changes(PICK) == ()


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        (MONTH, ("created_at", "preset")),
        ("SELECT j.preset AS kind FROM jobs j WHERE status = $1 ORDER BY kind", ("preset", "status")),
        ("SELECT * FROM jobs", None),
        ("SELECT j.* FROM jobs j", None),
        ("SELECT row_to_json(jobs) FROM jobs", None),
        ("SELECT id FROM jobs FOR UPDATE", None),
        (MOVE, None),
    ],
)
def test_which_columns_a_statement_reads(text: str, reads: tuple[str, ...] | None) -> None:
    (access,) = read(text, SCHEMA).accesses
    assert access.reads == reads


def test_writes_are_counted_by_what_they_set() -> None:
    found, rows = writes([*WRITTEN, statement(1, PICK), statement(2, "UPDATE nowhere SET a = 1")], SCHEMA)
    once = Changed(3600, 3600)
    assert found == {JOBS: Writes(once, {frozenset({"status", "updated_at"}): once, frozenset({"updated_at"}): once})}
    assert rows == 4 * 3600
    assert found[JOBS].updated == {"status", "updated_at"}


@pytest.mark.parametrize(
    ("text", "rows", "changed"),
    [
        (MOVE, 180_000, Changed(180_000, 3)),
        (MOVE, 0, Changed(0, 3)),
        (MOVE, None, Changed(3, 3)),
        (f"WITH moved AS ({MOVE} RETURNING id) SELECT id FROM moved LIMIT 10", 30, Changed(3, 3)),
    ],
)
def test_writes_are_counted_in_rows_where_these_are_known(text: str, rows: int | None, changed: Changed) -> None:
    """In a CTE they are not: the server counts those of the statement around it."""
    written, total = writes([replace(statement(1, text, calls=3), rows=rows)], SCHEMA)
    assert written[JOBS].updates == {frozenset({"status", "updated_at"}): changed}
    assert total == changed.rows


def test_rows_written_at_once_cost_less_than_so_many_calls() -> None:
    """A page is logged once for all of them."""

    def of(rows: int, calls: int) -> Cost:
        return cost([Key("user_id")], SCHEMA.tables[0], SIZE, Writes(Changed(rows, calls)), [[Key("id")]])

    at_once, one_by_one = of(1_000_000, 10), of(1_000_000, 1_000_000)
    assert at_once.entries == one_by_one.entries == 1_000_000
    assert at_once.ms < one_by_one.ms / 10
    assert at_once.wal > 64 * 1_000_000


def test_an_update_of_many_rows_weighs_by_them_and_one_of_none_does_not() -> None:
    move = replace(statement(100, MOVE, calls=3), rows=180_000)
    pick = statement(1, PICK, calls=5, mean=6.0)
    (declined,) = advise([pick], SCHEMA, SIZES, workload=[move]).declined
    assert "takes HOT" in declined[1] or "that its writes may cost" in declined[1]
    (found,) = advise([pick], SCHEMA, SIZES, workload=[replace(move, rows=0)]).candidates
    assert found.index.columns == ("status", "created_at")


def test_what_an_index_costs() -> None:
    written = writes(WRITTEN, SCHEMA)[0][JOBS]

    def of(*columns: str, others: tuple[str, ...] = ()) -> tuple[float, float]:
        found = cost(
            [Key(each) for each in columns], SCHEMA.tables[0], SIZE, written, [[Key("id")], [Key(o) for o in others]]
        )
        return found.entries, found.cold

    assert of("created_at") == (3600, 0)  # inserts only: updates stay HOT
    assert of("status") == (2 * 3600 + 2 * 3600, 3600)  # what moves a status now writes into the two others, too
    assert of("updated_at") == (3 * 3600 + 2 * 2 * 3600, 2 * 3600)
    assert of("created_at", others=("status",)) == (2 * 3600, 0)
    assert of("updated_at", others=("status",)) == (3 * 3600 + 2 * 3600, 3600)


def test_entries_that_scatter_cost_whole_pages() -> None:
    """Measured on PostgreSQL 15: jobs(created_at) 83 B of WAL a job, jobs(user_id, created_at) 5,777 B."""
    written = writes(WRITTEN, SCHEMA)[0][JOBS]
    table = SCHEMA.tables[0]
    dense = cost([Key("created_at")], table, SIZE, written, [[Key("id")]])
    scattered = cost([Key("user_id"), Key("created_at")], table, SIZE, written, [[Key("id")]])
    assert 50 < dense.wal / 3600 < 150
    assert 5000 < scattered.wal / 3600 < 7000
    moved = cost([Key("user_id"), Key("created_at"), Key("status")], table, SIZE, written, [[Key("id")]])
    assert moved.wal / 3600 < scattered.wal / 3600 + 400  # the new entry lands beside the old one


def test_one_index_for_a_user_instead_of_two() -> None:
    assert proposed(OF_USER, BY_STATUS, QUOTA) == ["user_id, created_at, status"]
    found = advice(OF_USER, BY_STATUS, QUOTA).candidates[0]
    assert found.serves == (1, 2, 3)
    assert found.wal > 0


def test_without_writes_each_need_keeps_its_own_order() -> None:
    asked = [statement(number, text) for number, text in enumerate((OF_USER, BY_STATUS), 1)]
    found = advise(asked, SCHEMA, SIZES).candidates
    assert [each.index.columns for each in found] == [("user_id", "created_at"), ("user_id", "status", "created_at")]


def test_a_spread_filter_goes_behind_the_order_and_a_clustered_one_does_not() -> None:
    assert proposed(PICK, BY_PRIORITY) == ["status, created_at, priority"]
    assert is_spread(STATISTICS["priority"])
    assert not is_spread(STATISTICS["status"])
    newest = "SELECT id FROM jobs ORDER BY created_at LIMIT 10"
    assert sorted(proposed(newest, PICK)) == ["created_at", "status, created_at"]


def test_nearly() -> None:
    ((_, need),) = needs(read(BY_STATUS, SCHEMA), SCHEMA, SIZES)[0]
    user, created, status = Key("user_id"), Key("created_at"), Key("status")
    assert nearly((user, created, status), need, SIZE)
    assert not nearly((user, created), need, SIZE)  # each entry would be looked up in the table
    assert not nearly((user, Key("priority"), created, status), need, SIZE)  # not in order
    assert not nearly((status, created, user), need, SIZE)  # most jobs have one status
    assert not nearly((created, user, status), need, SIZE)


def test_what_exists_and_nearly_serves_is_enough() -> None:
    wide = Index(Name("public", "wide"), JOBS, (Key("user_id"), Key("created_at"), Key("status")), "")
    schema = replace(SCHEMA, tables=(replace(SCHEMA.tables[0], indexes=(PRIMARY, wide)),))
    assert proposed(OF_USER, BY_STATUS, QUOTA, schema=schema) == []


def test_few_narrow_columns_cover() -> None:
    assert proposed(MONTH) == ["created_at, preset"]
    assert proposed(MONTH.replace("preset, count(*)", "prompt, count(*)").replace("BY preset", "BY prompt")) == [
        "created_at"
    ]
    assert proposed(MONTH.replace("count(*)", "max(updated_at)")) == ["created_at, preset"]  # an update sets it
    assert proposed("SELECT preset FROM jobs WHERE user_id = $1 LIMIT 5") == ["user_id"]
    assert proposed("SELECT * FROM jobs WHERE created_at >= $1") == ["created_at"]


def test_ties_of_a_nearly_unique_key_are_sorted_as_they_come() -> None:
    page = "SELECT * FROM jobs WHERE user_id = $1 AND (created_at, id) < ($2, $3)"
    assert proposed(f"{page} ORDER BY created_at DESC, id DESC LIMIT 20") == ["user_id, created_at"]


def test_what_takes_hot_must_save_much() -> None:
    """Nine seconds beside an hour and a half: not for the price of all HOT updates."""
    rare = statement(2, STUCK, calls=60)
    found = advise([statement(1, OF_USER, calls=36_000), rare], SCHEMA, SIZES, workload=WRITTEN)
    assert [each.index.columns for each in found.candidates] == [("user_id", "created_at")]
    reason = "an index on (status, updated_at) takes HOT from 7,200 updates and saves 0.2% of the time"
    assert found.declined == ((2, reason),)
    often = advise([statement(1, OF_USER), statement(2, STUCK)], SCHEMA, SIZES, workload=WRITTEN)
    assert {each.index.columns for each in often.candidates} == {("user_id", "created_at"), ("status", "updated_at")}


def test_what_saves_less_than_writing_may_cost_is_declined() -> None:
    found = advise([statement(2, STUCK, calls=60)], SCHEMA, SIZES, workload=WRITTEN)
    assert found.candidates == ()
    ((query_id, reason),) = found.declined
    assert query_id == 2
    assert "saves 9.00 s, less than 10 × the" in reason


def test_budgets() -> None:
    everything = advice(OF_USER, PICK, MONTH).candidates
    assert len(everything) == 3
    size = sum(each.size for each in everything)
    assert advice(OF_USER, PICK, MONTH, budget=Budget(size=size)).candidates == everything
    less = advice(OF_USER, PICK, MONTH, budget=Budget(size=size - 1))
    assert len(less.candidates) == 2
    assert "takes more than the" in less.declined[0][1]
    dense = advice(OF_USER, PICK, MONTH, budget=Budget(wal=500))
    assert all(each.index.columns[0] != "user_id" for each in dense.candidates)
    assert dense.declined[0][0] == 1
    assert "writes more WAL than the 500 B a row" in dense.declined[0][1]


def test_an_index_that_becomes_needless_is_named() -> None:
    narrow = Index(Name("public", "narrow"), JOBS, (Key("status"),), "")
    unique = Index(Name("public", "only"), JOBS, (Key("status"),), "", is_unique=True)
    partial = Index(Name("public", "part"), JOBS, (Key("status"),), "", predicate="priority = 'high'")
    schema = replace(SCHEMA, tables=(replace(SCHEMA.tables[0], indexes=(PRIMARY, narrow, partial)),))
    (found,) = advice(PICK, schema=schema).candidates
    assert (found.index.columns, found.replaces) == (("status", "created_at"), (narrow.name,))
    schema = replace(SCHEMA, tables=(replace(SCHEMA.tables[0], indexes=(PRIMARY, replace(narrow, include=("id",)))),))
    assert advice(PICK, schema=schema).candidates[0].replaces == ()
    schema = replace(SCHEMA, tables=(replace(SCHEMA.tables[0], indexes=(PRIMARY, unique)),))
    assert advice(PICK, schema=schema) == Advice()  # one row a status


CODE = """
import json
from tests.domain.test_advice_workload import *
found = advice(PICK, BY_PRIORITY, OF_USER, BY_STATUS, QUOTA, MONTH, STUCK)
print(json.dumps([[str(each.index), each.serves, each.wal, each.size, each.reason] for each in found.candidates] +
                 [list(each) for each in found.declined]))
"""


def _answers(seeds: range) -> set[str]:
    path = os.pathsep.join(filter(None, [str(Path.cwd()), *sys.path]))
    found = set()
    for seed in seeds:
        environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": path}
        done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
        found.add(done.stdout)
    return found


def test_the_same_answer_on_four_hash_seeds() -> None:
    (answer,) = _answers(range(4))
    assert len(json.loads(answer)) >= 3


@pytest.mark.soak
def test_the_same_answer_on_a_hundred_hash_seeds() -> None:
    assert len(_answers(range(100))) == 1
