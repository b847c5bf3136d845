"""Sums over the rows of a table: of all types, of all columns, in any order."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import lone_server, short_folder

from aiprod_ops.actions import figures
from aiprod_ops.adapters.postgres.database import PostgresDatabase
from aiprod_ops.domain.figures import Rows
from aiprod_ops.lab import postgres
from aiprod_ops.units import Bytes

pytestmark = pytest.mark.lab

TABLE = '"Odd {b}"'
#: column → its definition, a value, another one. Some types have no hash function, alone or in what they are made of.
COLUMNS = {
    "a": ("text", "'x'", "'y'"),
    '"50% {of} ""it"""': ("int", "1", "null"),
    "t": ("varchar(9)", "'x'", "'y'"),
    "point": ("point", "'(1,2)'", "'(2,1)'"),
    "json": ("json", "'{}'", "'[]'"),
    "jsons": ("json[]", "array['{}'::json]", "array['[]'::json]"),
    "domain": ("over_json", "'{}'", "'[]'"),
    "domains": ("over_domain", "'{}'", "'[]'"),
    "composite": ("pair", "row(1, '{}')", "row(2, '{}')"),
    "composites": ("pair[]", "array[row(1, '{}')::pair]", "array[row(1, '[]')::pair]"),
    "bits": ("bit(3)", "'101'", "'100'"),
    "range": ("int4range", "'[1,5)'", "'[1,4)'"),
    "oids": ("oidvector", "'1 2'", "'2 1'"),
    "numbers": ("int[]", "'{1,2}'", "'{2,1}'"),
    "moment": ("timestamptz", "'2026-03-01 12:00+00'", "'2026-03-01 12:00+01'"),
    "address": ("cidr", "'10.0.0.0/8'", "'10.0.0.0/9'"),
    "enum": ("mood", "'good'", "'bad'"),
    "bytes": ("bytea", "'a'", "'b'"),
    "flag": ("boolean", "true", "false"),
    "day": ("date", "'2026-03-01'", "'2026-03-02'"),
    "number": ("numeric", "1.5", "1.25"),
    "sign": ('"char"', "'a'", "'b'"),
    "padded": ("char(3)", "'a'", "'b'"),
    "named": ("name", "'a'", "'b'"),
    "transaction": ("xid8", "'1'", "'2'"),
    "key": ("uuid", "'00000000-0000-7000-8000-000000000001'", "'00000000-0000-7000-8000-000000000002'"),
    "document": ("jsonb", "'[1]'", "'[2]'"),
    "lasting": ("interval", "'1 day'", "'2 days'"),
}


#: Older versions hash some types by functions that no statement can call with them: bytea, timestamptz, date, boolean.
SYSTEM = os.environ.get("AIPROD_OPS_TEST_POSTGRES_BIN", "")
BINARIES = [None, *(Path(each) for each in filter(None, [SYSTEM]))]


@pytest.fixture(scope="module", params=BINARIES, ids=lambda path: "system" if path else "wheel")
def dsn(request: pytest.FixtureRequest) -> Iterator[str]:
    with short_folder() as folder, lone_server(folder, request.param) as server:
        made = server.dsn("postgres", "postgres")
        postgres.rows(made, "CREATE TYPE pair AS (a int, b json); CREATE TYPE mood AS ENUM ('good', 'bad')")
        postgres.rows(made, "CREATE DOMAIN over_json AS json; CREATE DOMAIN over_domain AS over_json")
        definitions = ", ".join(f"{name} {kind}" for name, (kind, _, _) in COLUMNS.items())
        postgres.rows(made, f"CREATE TABLE {TABLE} ({definitions}); CREATE TABLE nothing ()")
        values = ", ".join(first for _, first, _ in COLUMNS.values())
        postgres.rows(made, f"INSERT INTO {TABLE} VALUES ({values}), ({values}); INSERT INTO nothing DEFAULT VALUES")
        yield made


def summed(dsn: str) -> dict[str, Rows]:
    with PostgresDatabase(dsn, writes=False, application_name="test") as database:
        return dict(figures.figures([database], Bytes(1_000_000_000)).tables)


@pytest.mark.parametrize("column", COLUMNS)
def test_one_value_that_differs(dsn: str, column: str) -> None:
    name = f"public.{TABLE.strip(chr(34))}"
    before = summed(dsn)
    _, first, other = COLUMNS[column]
    last = f"WHERE ctid = (SELECT max(ctid) FROM {TABLE})"
    postgres.rows(dsn, f"UPDATE {TABLE} SET {column} = {other} {last}")
    assert summed(dsn)[name].digest != before[name].digest
    postgres.rows(dsn, f"UPDATE {TABLE} SET {column} = {first} {last}")
    assert summed(dsn) == before  # the rows lie elsewhere now


@pytest.mark.parametrize("columns", ["a int, b int", "a int NOT NULL, b int", "a int NOT NULL, b int NOT NULL"])
def test_values_that_change_places(dsn: str, columns: str) -> None:
    """The same values in each column, in other rows; in other columns."""
    sums = []
    for rows in ("(1, 2), (3, 4)", "(1, 4), (3, 2)", "(2, 1), (4, 3)"):
        postgres.rows(dsn, f"CREATE TABLE swapped ({columns}); INSERT INTO swapped VALUES {rows}")
        sums.append(summed(dsn)["public.swapped"].digest)
        postgres.rows(dsn, "DROP TABLE swapped")
    assert len(set(sums)) == 3


def test_a_row_whose_null_was_not_looked_for_counts(dsn: str) -> None:
    """PostgreSQL 18 calls a column NOT NULL before its rows were looked through; before, there is just a null."""
    has_such = int(postgres.rows(dsn, "SHOW server_version_num")[0][0]) >= 180000
    unseen = "; ALTER TABLE unsure ADD CONSTRAINT a_is_there NOT NULL a NOT VALID" if has_such else ""
    sums = []
    for value in ("1", "2"):
        made = f"CREATE TABLE unsure (a int, b int); INSERT INTO unsure VALUES (null, {value})"
        postgres.rows(dsn, made + unseen)
        sums.append(summed(dsn)["public.unsure"].digest)
        postgres.rows(dsn, "DROP TABLE unsure")
    assert sums[0] != sums[1]
    assert None not in sums
