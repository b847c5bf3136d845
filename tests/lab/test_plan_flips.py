"""A statement that is quick until it is prepared: it is found, and the index that closes the gap is tried for real."""

from collections.abc import Iterator

import pytest
from command_line import lone_server, short_folder

from aiprod_ops.actions import measurements, plan_flips
from aiprod_ops.adapters.postgres.database import PostgresDatabase
from aiprod_ops.domain.advice.indexes import NewIndex, advise
from aiprod_ops.domain.findings import Status
from aiprod_ops.domain.schema import Key, Name
from aiprod_ops.domain.statements import Statement
from aiprod_ops.lab import postgres
from aiprod_ops.units import Milliseconds

pytestmark = pytest.mark.lab

#: What waits is rare, and at the end of what is old: the generic plan walks there in the order of time.
SCHEMA = """
create table jobs (id bigint primary key, status text not null, created_at timestamptz not null, prompt text);
insert into jobs select n, case when n > 299800 then 'waiting' when n % 3 = 0 then 'failed' else 'done' end,
    '2026-01-01'::timestamptz + n * interval '1 second', repeat('x', 200) from generate_series(1, 300000) n;
create index jobs_status on jobs (status);
create index jobs_created_at on jobs (created_at);
vacuum analyze jobs;
"""
PICK = Statement(
    7,
    "select id from jobs where status = $1 order by created_at limit 10",
    500,
    Milliseconds(5000.0),
    Milliseconds(10.0),
)


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresDatabase]:
    with short_folder() as folder, lone_server(folder, random_page_cost="1.1") as server:
        dsn = server.dsn("postgres", "postgres")
        for statement in SCHEMA.split(";")[:-1]:
            postgres.rows(dsn, statement)
        with PostgresDatabase(dsn, writes=True, application_name="aiprod-ops test") as opened:
            yield opened


def test_a_flip_is_found_and_closed(database: PostgresDatabase) -> None:
    schema = database.schema()
    found, notes = measurements.subjects(database, [PICK], schema)
    assert notes == []
    (flip,) = plan_flips.flips(database, found, {7: ["worker", "api"]})
    assert (flip.values, flip.is_taken, flip.closed_by) == ("rare", True, None)
    assert flip.ratio > 10 * plan_flips.FLIP
    seen = plan_flips.finding(flip)
    assert seen.status is Status.CRITICAL
    assert "prepared by api, worker; no index tried closes it" in seen.note

    useless = NewIndex(Name("public", "idx_jobs_created_at_id"), Name("public", "jobs"), (Key("created_at"), Key("id")))
    candidates = [each.index for each in advise([PICK], schema, database.sizes()).candidates]
    before = [index.name for table in schema.tables for index in table.indexes]
    (closed,) = plan_flips.closed(database, [flip], found, [useless, *candidates])
    assert closed.closed_by == candidates[0]
    assert [key.column for key in candidates[0].keys] == ["status", "created_at"]
    assert "closed by idx_jobs_status_created_at on public.jobs (status, created_at)" in plan_flips.finding(closed).note
    assert [index.name for table in database.schema().tables for index in table.indexes] == before


def test_what_reads_the_same_with_both_plans_is_no_flip(database: PostgresDatabase) -> None:
    lookup = Statement(8, "select * from jobs where id = $1", 10, Milliseconds(1.0), Milliseconds(0.1))
    found, _ = measurements.subjects(database, [lookup], database.schema())
    assert plan_flips.flips(database, found) == []


def test_one_plan_is_run_once(database: PostgresDatabase) -> None:
    """The figures of a generic plan that is the custom one are the same object; of another plan they are its own."""
    lookup = Statement(8, "select * from jobs where id = $1", 10, Milliseconds(1.0), Milliseconds(0.1))
    for statement, is_same in ((lookup, True), (PICK, False)):
        found, _ = measurements.subjects(database, [statement], database.schema())
        wanted = measurements.cases(found)
        measured, _ = measurements.measure(database, wanted)
        rare = [measured[n] for n, case in enumerate(wanted) if case.values.kind == "rare"]
        assert (rare[0] is rare[1]) is is_same
