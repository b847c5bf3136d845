"""Parameters of every kind of type get real values, and no EXPLAIN with them fails."""

from collections.abc import Iterator

import pytest
from command_line import lone_server, short_folder

from aiprod_ops.actions import measurements
from aiprod_ops.adapters.postgres.database import PostgresDatabase
from aiprod_ops.domain.statements import Statement
from aiprod_ops.lab import postgres
from aiprod_ops.units import Milliseconds

pytestmark = pytest.mark.lab

SCHEMA = """
create type mood as enum ('calm', 'bold', 'playful');
create domain code as text check (value ~ '^[A-Z]');
create table kinds (
    id bigint primary key, owner uuid, feeling mood, at timestamptz, moment timestamp, day date, clock time,
    price numeric(12, 2), ratio double precision, small smallint, flag boolean, raw bytea, address inet, net cidr,
    mac macaddr, during int4range, period tstzrange, doc jsonb, plain json, tags text[], numbers integer[],
    owners uuid[], feelings mood[], fixed char(3), named varchar(20), body text, short code, gap interval,
    bits bit varying(8), amount money, place point
);
insert into kinds
select n, md5((n % 400)::text)::uuid, (array['calm', 'bold', 'playful'])[1 + n % 3]::mood,
       '2026-01-01'::timestamptz + n * interval '1 minute', '2026-01-01'::timestamp + n * interval '1 minute',
       '2026-01-01'::date + n % 300, '00:00'::time + (n % 1440) * interval '1 minute', n % 977 + 0.25, n / 7.0,
       (n % 50)::smallint, n % 9 = 0, decode(md5((n % 300)::text), 'hex'), ('10.0.' || n % 200 || '.7')::inet,
       ('10.' || n % 200 || '.0.0/16')::cidr, ('08:00:2b:01:02:' || lpad(to_hex(n % 256), 2, '0'))::macaddr,
       int4range(n, n + 10), tstzrange('2026-01-01'::timestamptz, '2026-01-01'::timestamptz + n * interval '1 s'),
       jsonb_build_object('kind', 'k' || n % 20, 'it''s', n % 5), json_build_object('a', n % 5),
       array['t' || n % 30, 'common, "quoted"'], array[n % 40, n % 3], array[md5((n % 400)::text)::uuid],
       array[(array['calm', 'bold'])[1 + n % 2]::mood], 'c' || n % 10, 'name ' || n % 100, repeat('x', n % 50) || n,
       'A' || n % 60, (n % 90) * interval '1 minute', (n % 200)::bit(8)::bit varying(8), (n % 100)::money,
       point(n, n)
from generate_series(1, 5000) n;
analyze kinds;
"""
SCALARS = (
    "id", "owner", "feeling", "at", "moment", "day", "clock", "price", "ratio", "small", "flag", "raw", "address",
    "net", "mac", "during", "period", "doc", "tags", "numbers", "owners", "feelings", "fixed", "named", "body",
    "short", "gap", "bits", "amount",
)  # fmt: skip
TEXTS = (
    *(f"select id from kinds where {column} = $1" for column in SCALARS),
    *(f"select id from kinds where {column} = any($1)" for column in SCALARS if column not in (
        "tags", "numbers", "owners", "feelings")),
    *(f"select id from kinds where {column} > $1 and {column} <= $2" for column in (
        "id", "owner", "feeling", "at", "moment", "day", "clock", "price", "ratio", "address", "gap", "amount")),
    *(f"select id from kinds where {column} between $1 and $2 limit 5" for column in ("at", "day", "price")),
    *(f"select id from kinds where {column} in ($1, $2)" for column in ("owner", "feeling", "at", "raw", "address")),
    *(f"select id from kinds where $1 = any({column})" for column in ("tags", "numbers", "owners", "feelings")),
    *(f"select id from kinds where {column} @> $1" for column in ("tags", "numbers", "owners", "doc", "during")),
    *(f"select id from kinds where {column} && $1" for column in ("tags", "numbers", "during", "period")),
    *(f"select id from kinds where {column} <@ $1" for column in ("tags", "during")),
    "select id from kinds where during @> $1::integer",
    "select id from kinds where period @> $1::timestamptz",
    "select id from kinds where doc ->> 'kind' = $1",
    "select id from kinds where doc ->> $1 = $2",
    "select id from kinds where doc ? $1",
    "select id from kinds where (doc -> 'it''s')::integer = $1",
    "select id from kinds where address << $1",
    "select id from kinds where address <<= $1::inet",
    "select id from kinds where lower(named) = $1",
    "select id from kinds where lower(named) like $1",
    "select id from kinds where named ilike $1",
    "select id from kinds where body like $1",
    "select id from kinds where date_trunc('day', at) = $1",
    "select id from kinds where (at, id) < ($1, $2) order by at desc, id desc limit 5",
    "select id from kinds where owner = $1::uuid and at >= $2::timestamptz",
    "update kinds set doc = $1, tags = $2, feeling = $3, raw = $4 where id = $5",
    "insert into kinds (id, owner, feeling, price, raw, doc, tags) values ($1, $2, $3, $4, $5, $6, $7) "
    "on conflict (id) do nothing",
    "delete from kinds where owner = any($1) and feeling = $2",
)  # fmt: skip


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresDatabase]:
    with short_folder() as folder, lone_server(folder) as server:
        dsn = server.dsn("postgres", "postgres")
        postgres.rows(dsn, SCHEMA)
        with PostgresDatabase(dsn, writes=True, application_name="aiprod-ops test") as opened:
            yield opened


@pytest.mark.parametrize("text", TEXTS)
def test_every_kind_of_parameter_gets_a_value(database: PostgresDatabase, text: str) -> None:
    statement = Statement(1, text, 10, Milliseconds(10.0), Milliseconds(1.0))
    found, notes = measurements.subjects(database, [statement], database.schema())
    assert (notes, len(found)) == ([], 1)
    wanted = measurements.cases(found)
    measured, troubles = measurements.measure(database, wanted)
    assert troubles == []
    assert sorted(measured) == list(range(len(wanted)))
    assert {case.plan for case in wanted} == {"custom", "generic"}


def test_what_no_column_tells_is_said(database: PostgresDatabase) -> None:
    text = "select id from kinds where at > now() - $1::interval"
    statement = Statement(1, text, 10, Milliseconds(10.0), Milliseconds(1.0))
    assert measurements.subjects(database, [statement], database.schema()) == (
        [],
        [f"not measured: {text} (no value is known for $1 (compared with no column): it needs a call in the JSON log, "
         "log_min_duration_statement)"],
    )  # fmt: skip
