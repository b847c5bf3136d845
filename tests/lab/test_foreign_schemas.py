"""Databases that we did not make: what helps is proposed and proven, what does not help is not proposed."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from by_hand import proven
from command_line import BOOK, SLOW, Bench, Done, configured, lab, lone_server, short_folder

from aiprod_ops import api
from aiprod_ops.actions.index_builds import creation
from aiprod_ops.domain.schema import Key
from aiprod_ops.lab import postgres

pytestmark = pytest.mark.lab
EXTENSION = {"shared_preload_libraries": "pg_stat_statements", "log_destination": "jsonlog", "logging_collector": "on",
             "log_min_duration_statement": 0, "compute_query_id": "on"}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with short_folder() as folder, lone_server(folder, **EXTENSION) as made:
        postgres.rows(made.dsn("postgres", "postgres"), "CREATE ROLE probe LOGIN IN ROLE pg_monitor, pg_read_all_data")
        postgres.rows(made.dsn("postgres", "postgres"), "CREATE ROLE actor LOGIN SUPERUSER")
        yield made


def foreign(server: Any, name: str) -> Bench:
    """A new database, with a configuration and a state folder of its own."""
    postgres.rows(server.dsn("postgres", "postgres"), f"CREATE DATABASE {name}")
    folder = server.data.parent / name
    folder.mkdir(mode=0o711)
    bench = configured(folder, server, name, log=str(server.data / "log"))
    bench.sql("CREATE EXTENSION pg_stat_statements")
    return bench


def worked(bench: Bench, statements: list[str], times: int = 3) -> None:
    """Statements as users send them, counted alone."""
    bench.sql("SELECT pg_stat_statements_reset()")
    with postgres.session(bench.admin) as session, session.cursor() as cursor:
        for text in statements * times:
            cursor.execute(text)


def proof(bench: Bench, *, may_refuse: bool = False) -> dict[str, Any]:
    """The sealed proof of what is planned; it holds as a whole, or names what it refused and what holds."""
    done = bench.run("prove", BOOK, *SLOW, "-o", "json")
    assert done.exit in ((0, 10) if may_refuse else (0,)), done.said
    found: dict[str, Any] = done.json()
    assert found["proves"], done.said
    return found


def gains(found: dict[str, Any], words: str) -> list[float]:
    """Gain in buffers of each case of one statement."""
    return [c["gain"] for c in found["comparisons"] if c["unit"] == "buffers" and words in c["columns"]["statement"]]


def planned(bench: Bench) -> set[str]:
    """The SQL of every index that would be built."""
    done = bench.run("plan", BOOK, *SLOW)
    assert done.exit == 0, done.said
    return set(re.findall(r"CREATE INDEX CONCURRENTLY \S+ ON (.*)", done.out))


def applied(bench: Bench, digest: str = "") -> Done:
    done = bench.run("run", BOOK, "--apply", digest or bench.plan())
    assert done.exit == 0, done.said
    bench.sound()
    return done


# pgbench


@pytest.fixture(scope="module")
def accounts(server: Any) -> Bench:
    bench = foreign(server, "accounts")
    server.programs.run("pgbench", "-i", "-s", "10", "-I", "dtGvp", "-q", bench.admin, cwd=Path("/"))
    bench.sql("UPDATE pgbench_accounts SET abalance = aid * 7919::bigint % 99991")
    bench.sql("VACUUM FULL pgbench_accounts")
    bench.sql("ANALYZE")
    return bench


def test_pgbench_gets_the_one_index_it_misses(accounts: Bench) -> None:
    worked(
        accounts,
        [
            "SELECT aid, bid FROM pgbench_accounts WHERE abalance = 4711",
            "SELECT count(*) FROM pgbench_accounts",
            "SELECT sum(abalance) FROM pgbench_accounts",
            "SELECT abalance FROM pgbench_accounts WHERE aid = 77",
            "UPDATE pgbench_tellers SET tbalance = tbalance + 1 WHERE tid = 3",
        ],
    )
    assert planned(accounts) == {"public.pgbench_accounts (abalance)"}
    assert min(gains(proof(accounts), "abalance = $1")) >= 10
    applied(accounts)
    assert accounts.indexes("pgbench_accounts") == {"idx_pgbench_accounts_abalance": True}
    assert planned(accounts) == set()


def test_pgbench_by_branch(accounts: Bench) -> None:
    """A tenth of the rows, and a LIMIT in their order: one index serves it."""
    accounts.sql("DROP INDEX IF EXISTS idx_pgbench_accounts_abalance")
    worked(accounts, ["SELECT aid, abalance FROM pgbench_accounts WHERE bid = 3 ORDER BY abalance DESC LIMIT 10"])
    (keys,) = planned(accounts)
    assert keys.removesuffix(" DESC)").removesuffix(")") == "public.pgbench_accounts (bid, abalance"
    assert min(gains(proof(accounts), "bid = $1")) >= 10


def test_a_write_that_the_reading_role_may_not_even_plan(accounts: Bench) -> None:
    """The proof measures it (and takes it back); the verification says that it was not seen, and nothing is undone."""
    worked(accounts, ["UPDATE pgbench_accounts SET filler = 'x' WHERE abalance = 4711"])
    before = accounts.sql("SELECT sum(hashtext(t::text)) FROM pgbench_accounts t WHERE abalance = 4711")
    assert min(gains(proof(accounts), "abalance = $")) >= 10
    applied(accounts)
    assert accounts.sql("SELECT sum(hashtext(t::text)) FROM pgbench_accounts t WHERE abalance = 4711") == before
    accounts.sql("DROP INDEX idx_pgbench_accounts_abalance")


# A shop, made up

SHOP = """
CREATE SCHEMA "Sales Dept";
CREATE TYPE mood AS ENUM ('new', 'paid', 'sent', 'lost');
CREATE TABLE customers (id uuid PRIMARY KEY, email text COLLATE "C", country text, since timestamptz);
INSERT INTO customers SELECT md5(g::text)::uuid, md5((g * 7)::text) || '@example.org',
  (ARRAY['de','fr','us'])[g % 3 + 1], '2020-01-01'::timestamptz + g * interval '1 h' FROM generate_series(1, 20000) g;
CREATE TABLE "Sales Dept"."Order" (
  "Id" bigint PRIMARY KEY, "customerId" uuid NOT NULL, "user" int, state mood, at timestamptz, half boolean,
  extra jsonb);
INSERT INTO "Sales Dept"."Order" SELECT g, md5((g % 20000 + 1)::text)::uuid, g % 997,
  (CASE WHEN g % 100 = 0 THEN 'lost' WHEN g % 10 = 0 THEN 'new' ELSE 'sent' END)::mood,
  '2026-01-01'::timestamptz + (g * 7919 % 60000) * interval '1 min', g % 2 = 0, jsonb_build_object('n', g)
  FROM generate_series(1, 60000) g;
CREATE TABLE tiny (id int, name text);
INSERT INTO tiny SELECT g, 'n' || g FROM generate_series(1, 40) g;
ANALYZE;
"""
HELPED = {
    'FROM customers c JOIN "Sales Dept"."Order" o': (
        'SELECT c.email, o.at FROM customers c JOIN "Sales Dept"."Order" o ON o."customerId" = c.id'
        " WHERE c.id = 'c4ca4238-a0b9-2382-0dcc-509a6f75849b'"
    ),
    "WHERE at >=": (
        'SELECT "Id" FROM "Sales Dept"."Order" WHERE at >= \'2026-01-10 10:00+00\' AND at < \'2026-01-10 10:20+00\''
    ),
    "email LIKE": "SELECT id FROM customers WHERE email LIKE 'abcd%'",
    "state =": 'SELECT "Id", at FROM "Sales Dept"."Order" WHERE state = \'lost\' ORDER BY at LIMIT 10',
    '"user" =': 'SELECT count(*) FROM "Sales Dept"."Order" WHERE "user" = 42',
}
UNHELPED = [
    'SELECT count(*), max(extra::text) FROM "Sales Dept"."Order"',
    'SELECT count(extra) FROM "Sales Dept"."Order" WHERE half',
    'SELECT count(extra) FROM "Sales Dept"."Order" WHERE half = true',
    "SELECT * FROM tiny WHERE name = 'n7'",
    "SELECT country, count(*) FROM customers GROUP BY country",
    "SELECT count(email) FROM customers WHERE country <> 'de'",
    "SELECT * FROM customers WHERE id = 'c4ca4238-a0b9-2382-0dcc-509a6f75849b'",
]


@pytest.fixture(scope="module")
def shop(server: Any) -> Bench:
    bench = foreign(server, "shop")
    bench.sql(SHOP)
    return bench


def test_nothing_is_proposed_where_nothing_helps(shop: Bench) -> None:
    worked(shop, UNHELPED)
    assert planned(shop) == set()
    checked = shop.run("check", BOOK, *SLOW, "--least", "0")
    assert checked.exit == 0, checked.said


def test_what_helps_is_proven_and_built_with_its_names_quoted(shop: Bench) -> None:
    worked(shop, [*HELPED.values(), *UNHELPED])
    found = proof(shop, may_refuse=True)
    assert set(found["refused"]) <= {"idx_order_at_id"}, "(state, at) may serve its statement, too"
    for words in HELPED:
        assert gains(found, words), f"{words} was not measured: {found['notes']}"
        assert max(gains(found, words)) >= 10, (words, gains(found, words))
    applied(shop, found["proves"])
    built = shop.sql("SELECT indexdef FROM pg_indexes WHERE indexname LIKE 'idx%' ORDER BY indexdef")
    definitions = "\n".join(row[0] for row in built)
    for keys in ('("customerId")', "(state, at)", '("user")', "(email)"):
        assert keys in definitions, definitions
    assert planned(shop) <= {'"Sales Dept"."Order" (at, "Id")'}


def test_the_printed_sql_is_the_sql(shop: Bench) -> None:
    """What a plan and a migration print can be typed, whatever the names are."""
    name = api.Name("Sales Dept", "Order")
    keys = (Key("user"), Key("Id", descending=True, nulls_first=True), Key("extra ->> 'n'", is_expression=True))
    text = creation(api.Build(api.NewIndex(api.Name("Sales Dept", 'my "own"'), name, keys)))
    shop.sql(text.replace("CONCURRENTLY ", ""))
    shop.sql('DROP INDEX "Sales Dept"."my ""own"""')


# The trap of the generic plan


@pytest.fixture(scope="module")
def jobs() -> Iterator[Bench]:
    with lab(100_000) as bench:
        yield bench


def test_the_index_for_the_trap_serves_both_plans(jobs: Bench) -> None:
    """93 % share one status; the statement sorts and stops after ten."""
    assert planned(jobs) == {"public.jobs (status, created_at)"}
    found = proof(jobs)
    for plan in ("custom", "generic"):
        cases = [c for c in found["comparisons"] if c["columns"]["plan"] == plan and c["unit"] == "buffers"]
        assert cases, found["notes"]
        assert min(c["gain"] for c in cases) >= 10, cases


TRAP = """
CREATE TABLE events (id bigint PRIMARY KEY, state text, at timestamptz);
INSERT INTO events SELECT g, CASE WHEN place > 59400 THEN 'waiting' ELSE 'done' END,
  '2026-01-01'::timestamptz + place * interval '1 s'
  FROM (SELECT g, g * 7919 % 60000 AS place FROM generate_series(1, 60000) g) AS made;
ANALYZE;
"""


def test_an_index_that_spoils_the_generic_plan_is_refused_with_figures(server: Any) -> None:
    """Only the newest rows wait. The planner expects them everywhere, and reads the order's index to its end."""
    bench = foreign(server, "trap")
    bench.sql(TRAP)
    worked(bench, ["SELECT id FROM events WHERE state = 'waiting' ORDER BY at LIMIT 10"])
    assert planned(bench) == {"public.events (state, at)"}
    index = api.NewIndex(api.Name("public", "trap"), api.Name("public", "events"), (Key("at"),))
    refused = proven(server, "trap", {index: "LIMIT"}).refused.get("trap", "")
    assert re.search(r"makes .* worse \(\w+ values, \w+ plan\): [\d,]+ → [\d,]+ buffers", refused), refused


# The whole job on foreign databases of a fleet: checked, planned, proven, applied

#: Everything is slow: whether an index helps is for the advice and the proof to tell, not for a threshold.
ALL = ("--objective", "0.001ms", "--load", "0", "--wasted", "0")


def beside(jobs: Bench, name: str) -> Bench:
    """A further database on the lab's primary, with the lab's identities and a state of its own."""
    jobs.sql(f"CREATE DATABASE {name} OWNER aiprod_owner")
    jobs.sql(f"ALTER DATABASE {name} SET log_min_duration_statement = 0")
    folder = jobs.config.parent / f"of-{name}"
    folder.mkdir()
    text = jobs.config.read_text().replace("/aiprod?", f"/{name}?")
    config = folder / "aiprod-ops.toml"
    config.write_text(re.sub("^state = .*$", 'state = "state"', text, flags=re.MULTILINE))
    bench = Bench(config, jobs.admin.replace("/aiprod?", f"/{name}?"), jobs.fleet)
    bench.sql("CREATE EXTENSION pg_stat_statements")
    return bench


def with_literals(bench: Bench, statements: Sequence[str]) -> None:
    """Each statement four times, with another number in the place of `{n}`."""
    bench.sql("SELECT pg_stat_statements_reset()")
    with postgres.session(bench.admin) as session, session.cursor() as cursor:
        for number in "1234":
            for text in statements:
                cursor.execute(text.replace("{n}", number))


class Job:
    """A check, a plan, its proof, and the run of what was proven; each as JSON."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        checked = bench.run("check", BOOK, "-o", "json", *ALL)
        assert checked.exit == 2, checked.said
        self.findings = checked.json()["checks"][0]["findings"]
        made = bench.run("plan", BOOK, "-o", "json", *ALL)
        assert made.exit == 0, made.said
        proven = bench.run("prove", BOOK, "--plan", made.json()["digest"], "-o", "json")
        assert proven.exit in (0, 10), proven.said
        self.proof: dict[str, Any] = proven.json()
        assert self.proof["proves"], proven.said
        done = bench.run("run", BOOK, "--apply", self.proof["proves"], "-o", "json")
        assert done.exit == 0, done.said
        self.run = str(done.json()["run"])
        self.planned = {
            action["name"]: (
                action["subject"]["index"]["table"]["name"],
                *(key["column"] for key in action["subject"]["index"]["keys"]),
            )
            for action in made.json()["plan"]["actions"]
        }

    @property
    def kept(self) -> set[str]:
        """Names of the indexes that were proven."""
        return set(self.planned) - set(self.proof["refused"])

    def gains(self, words: str, *values: str) -> list[float]:
        """Gain in buffers of each case of one statement, of all values or of these classes."""
        classes = values or ("rare", "median", "common")
        counted = [
            c for c in self.proof["comparisons"] if c["unit"] == "buffers" and words in c["columns"]["statement"]
        ]
        return [c["gain"] for c in counted if c["columns"]["values"] in classes]

    def advice(self, words: str) -> set[str]:
        """What the check advised for one statement."""
        return {f["columns"]["advice"] for f in self.findings if words in f["columns"].get("statement", "")}

    def valid(self) -> dict[str, bool]:
        """Every index of ours in the database: name → valid."""
        rows = self.bench.sql(
            "SELECT c.relname, i.indisvalid AND i.indisready FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
            " WHERE starts_with(c.relname, 'idx_')"
        )
        return {str(name): bool(is_valid) for name, is_valid in rows}


def pgbench(bench: Bench, *arguments: str) -> None:
    """pgbench as a member of the owner."""
    dsn = bench.admin.replace("//postgres@", "//aiprod_actor@")
    env = {**os.environ, "PGOPTIONS": "-c role=aiprod_owner -c synchronous_commit=off"}
    bench.fleet.programs.run("pgbench", *arguments, dsn, cwd=Path("/"), env=env)


@pytest.fixture(scope="module")
def played(jobs: Bench) -> Job:
    """pgbench's own schema after 20,000 of its transactions, which fill its history."""
    bench = beside(jobs, "played")
    pgbench(bench, "-i", "-s", "5", "-q")
    bench.sql("ALTER DATABASE played SET log_min_duration_statement = -1")
    pgbench(bench, "-n", "-N", "-c", "2", "-t", "10000", "-M", "prepared")
    bench.sql("ALTER DATABASE played SET log_min_duration_statement = 0")
    bench.sql("VACUUM ANALYZE")
    with_literals(
        bench,
        [
            "SELECT aid, abalance FROM pgbench_accounts WHERE bid = {n} AND aid BETWEEN {n}0000 AND {n}0400",
            "SELECT aid, filler FROM pgbench_accounts WHERE abalance = 1{n}7",
            "SELECT count(*) FROM pgbench_history WHERE aid = 12{n}45",
            "SELECT count(*) FROM pgbench_accounts",
        ],
    )
    return Job(bench)


def test_pgbench_after_some_play(played: Job) -> None:
    assert played.advice("WHERE abalance = $1") == {"index on pgbench_accounts (abalance)"}
    assert played.advice("pgbench_history WHERE aid") == {"index on pgbench_history (aid)"}
    assert {"idx_pgbench_accounts_abalance", "idx_pgbench_history_aid"} <= set(played.valid())
    assert all(played.valid().values())
    assert min(played.gains("WHERE aid = $1")) >= 10
    assert min(played.gains("WHERE abalance = $1", "rare", "median")) >= 10
    assert min(played.gains("WHERE abalance = $1", "common")) > 0.9  # 97 % of the balances are 0: no index helps


def test_pgbench_where_nothing_helps(played: Job) -> None:
    """The count of everything gets no advice; of a range that the primary key serves the copy decides: never worse."""
    assert played.advice("count(*) FROM pgbench_accounts") == {"no index helps: check slow-queries"}
    assert set(played.proof["refused"]) <= {"idx_pgbench_accounts_bid_aid"}
    assert set(played.valid()) == played.kept
    assert min(played.gains("bid = $1 AND aid BETWEEN")) > 0.9


ORDERS, CLIENTS = '"Shop Floor"."we""ird Orders"', '"Shop Floor"."Clients"'
FLOOR = f"""
CREATE SCHEMA "Shop Floor" AUTHORIZATION aiprod_owner;
SET ROLE aiprod_owner;
CREATE TYPE "Shop Floor"."Order State" AS ENUM ('New', 'held', 'Shipped');
CREATE TABLE {CLIENTS} ("Id" uuid PRIMARY KEY, "E-Mail" text NOT NULL, "Name" text NOT NULL, joined timestamptz);
INSERT INTO {CLIENTS} SELECT md5('c' || g)::uuid, 'user' || g || '@example.org', substr(md5('n' || g), 1, 12),
  '2024-01-01'::timestamptz + g * interval '37 min' FROM generate_series(1, 20000) g;
CREATE TABLE {ORDERS} (
  "Order No" bigint PRIMARY KEY, "Client" uuid NOT NULL REFERENCES {CLIENTS}, state "Shop Floor"."Order State" NOT NULL,
  "Total €" numeric(12, 2) NOT NULL, "placed At" timestamptz NOT NULL, token uuid NOT NULL, "SKU" text NOT NULL,
  is_gift boolean NOT NULL, "Details" jsonb NOT NULL);
INSERT INTO {ORDERS} SELECT g, md5('c' || 1 + g * 7919 % 20000)::uuid,
  (CASE WHEN g % 50 = 0 THEN 'held' WHEN g % 20 = 0 THEN 'New' ELSE 'Shipped' END)::"Shop Floor"."Order State",
  (g * 31 % 9973) / 7.0, '2025-01-01'::timestamptz + (g * 104729 % 80000) * interval '3 min', md5('t' || g)::uuid,
  'sku-' || g * 613 % 4000, g % 2 = 0, jsonb_build_object('colour', g % 700, 'note', repeat('x', 40))
  FROM generate_series(1, 80000::bigint) g;
CREATE TABLE "Shop Floor"."Sizes" (size int PRIMARY KEY, label text NOT NULL);
INSERT INTO "Shop Floor"."Sizes" SELECT g, 'size ' || g FROM generate_series(1, 20) g;
ANALYZE;
"""
#: What a statement's text holds → the statement, and the indexes that it should get.
SERVED: dict[str, tuple[str, set[tuple[str, ...]]]] = {
    'o."Client" = c."Id"': (
        f'SELECT o."Order No", c."Name" FROM {CLIENTS} c JOIN {ORDERS} o ON o."Client" = c."Id"'
        " WHERE c.\"E-Mail\" = 'user{n}@example.org'",
        {("Clients", "E-Mail"), ('we"ird Orders', "Client")},
    ),
    '"placed At" >=': (
        f'SELECT "Order No", "Total €" FROM {ORDERS} WHERE "placed At" >= \'2025-03-0{{n}} 10:00+00\''
        ' AND "placed At" < \'2025-03-0{n} 18:00+00\' ORDER BY "placed At" LIMIT 20',
        {('we"ird Orders', "placed At")},
    ),
    '"Name" LIKE': (f'SELECT "Id" FROM {CLIENTS} WHERE "Name" LIKE \'a{{n}}f%\'', {("Clients", "Name")}),
    "state = ": (
        f'SELECT "Order No" FROM {ORDERS} WHERE state = \'held\' ORDER BY "placed At" LIMIT 10',
        {('we"ird Orders', "state", "placed At")},
    ),
    "token = ": (
        f"SELECT state FROM {ORDERS} WHERE token = 'e0a4d8b2-0000-4000-8000-00000000000{{n}}'",
        {('we"ird Orders', "token")},
    ),
    '"SKU" IN': (
        f"SELECT \"Order No\" FROM {ORDERS} WHERE \"SKU\" IN ('sku-1{{n}}', 'sku-2{{n}}', 'sku-3{{n}}')",
        {('we"ird Orders', "SKU")},
    ),
}
LOOK_ALIKES = {
    "GROUP BY state": f'SELECT state, count(*), sum("Total €") FROM {ORDERS} GROUP BY state',
    "WHERE is_gift": f"SELECT count(*), max(token::text) FROM {ORDERS} WHERE is_gift",
    "WHERE label": 'SELECT size FROM "Shop Floor"."Sizes" WHERE label = \'size {n}\'',
    'ORDER BY "Total €"': f'SELECT "Order No" FROM {ORDERS} ORDER BY "Total €"',
    "->>": f"SELECT count(*) FROM {ORDERS} WHERE \"Details\" ->> 'colour' = '{{n}}'",
}


@pytest.fixture(scope="module")
def floor(jobs: Bench) -> Job:
    """The odd names' database, and one made from it before it had an index."""
    bench = beside(jobs, "floor")
    bench.sql(FLOOR)
    jobs.sql("CREATE DATABASE floor_again TEMPLATE floor")
    with_literals(bench, [*(text for text, _ in SERVED.values()), *LOOK_ALIKES.values()])
    return Job(bench)


@pytest.mark.parametrize("words", SERVED)
def test_an_odd_name_is_helped(floor: Job, words: str) -> None:
    """Ten times fewer buffers, and what was planned is there, valid and so named."""
    wanted = SERVED[words][1]
    names = {name for name, keys in floor.planned.items() if keys in wanted}
    assert len(names) == len(wanted), floor.planned
    assert all(floor.valid().get(name) for name in names), (floor.valid(), floor.proof["refused"])
    assert max(floor.gains(words)) >= 10, floor.proof["notes"]


@pytest.mark.parametrize("words", LOOK_ALIKES)
def test_a_look_alike_gets_no_index(floor: Job, words: str) -> None:
    assert floor.advice(words) == {"no index helps: check slow-queries"}
    assert set(floor.planned.values()) == set().union(*(wanted for _, wanted in SERVED.values()))
    assert set(floor.valid()) == floor.kept


def test_the_revision_of_odd_names_builds_the_same_on_a_copy(floor: Job, tmp_path: Path) -> None:
    (written,) = (floor.bench.state / "runs" / floor.run / "files").glob("*.py")
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions" / written.name).write_text(written.read_text())
    for name in ("env.py", "script.py.mako"):
        (tmp_path / name).write_text(resources.files("aiprod_ops.migrations").joinpath(name).read_text())
    config = tmp_path / "alembic.ini"
    config.write_text(f"[alembic]\nscript_location = {tmp_path}\n")
    again = Bench(floor.bench.config, floor.bench.admin.replace("/floor?", "/floor_again?"))
    ours = "SELECT indexdef FROM pg_indexes WHERE starts_with(indexname, 'idx_') ORDER BY indexdef"
    for words, expected in ((("upgrade", "head"), floor.bench.sql(ours)), (("downgrade", "base"), [])):
        done = subprocess.run(
            [sys.executable, "-m", "alembic", "-c", str(config), *words], cwd="/", check=False,
            env=again.env(AIPROD_OPS_DSN=again.admin), capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert again.sql(ours) == expected


# An index that is good for one statement and spoils another's generic plan

PICKS = """
CREATE TABLE picks (id bigint PRIMARY KEY, status text, ref int, created_at timestamptz, prompt text);
INSERT INTO picks SELECT g, CASE WHEN g % 100 < 93 THEN 'queued' ELSE 'status ' || g * 31 % 19 END, g * 7919 % 9973,
  '2026-01-01'::timestamptz + g * 104729 % 199999 * interval '1 s', repeat('x', 100)
  FROM generate_series(1, 200000::bigint) g;
ALTER TABLE picks OWNER TO aiprod_owner;
ANALYZE picks;
"""
WORKER = "SELECT id, prompt FROM picks WHERE status = 'queued' ORDER BY created_at LIMIT 10"
REPORT = "SELECT id FROM picks WHERE status = 'status 7' ORDER BY ref LIMIT 10"


def test_what_spoils_the_generic_plan_of_another_statement_is_refused(jobs: Bench) -> None:
    """Only the report is costly, so only (status, ref) is planned. For an unknown status it looks good to the worker's
    pick as well, which then reads 93 % of the table in the index's order: one page for each row."""
    bench = beside(jobs, "picks")
    bench.sql(PICKS)
    with postgres.session(bench.admin) as session, session.cursor() as cursor:
        cursor.execute(WORKER)  # the first one after a load is slow, and would be costly as well
        cursor.execute("SELECT pg_stat_statements_reset()")
        for text in (WORKER, *[REPORT] * 300):
            cursor.execute(text)
    made = bench.run("plan", BOOK, "-o", "json", "--load", "0.2")
    assert [action["name"] for action in made.json()["plan"]["actions"]] == ["idx_picks_status_ref"]
    digest = made.json()["digest"]
    proof = bench.run("prove", BOOK, "--plan", digest, "-o", "json")
    assert (proof.exit, proof.json()["proves"]) == (10, ""), proof.said
    said = re.search(
        r"makes “SELECT id, prompt FROM picks .*” worse \(common values, generic plan\): "
        r"([\d,]+) → ([\d,]+) buffers, [\d.]+ m?s → [\d.]+ m?s",
        proof.json()["refused"]["idx_picks_status_ref"],
    )
    assert said, proof.said
    before, after = (int(figure.replace(",", "")) for figure in said.groups())
    assert after > 10 * before
    applied = bench.run("run", BOOK, "--apply", digest)
    assert (applied.exit, "disproved on the copy" in applied.said) == (10, True), applied.said
    assert bench.indexes("picks") == {}


# An outbox: a queue of which a small part waits

OUTBOX = """
CREATE TABLE outbox (id bigint PRIMARY KEY, topic int, "Sent" timestamptz, done boolean NOT NULL, parent bigint,
  created_at timestamptz NOT NULL, body text);
INSERT INTO outbox SELECT g, g % 50, CASE WHEN g % 500 <> 0 THEN now() END, g % 400 <> 0,
  CASE WHEN g % 50 = 0 THEN g % 3001 END, '2026-01-01'::timestamptz + g * 104729 % 199999 * interval '1 s',
  repeat('x', 100) FROM generate_series(1, 200000::bigint) g;
ANALYZE outbox;
"""
WAITING = (
    'SELECT id, body FROM outbox WHERE "Sent" IS NULL ORDER BY created_at LIMIT 10',
    "SELECT id, body FROM outbox WHERE NOT done AND topic = 0",
    "SELECT id FROM outbox WHERE parent = 150",
)
PARTS = {
    'public.outbox (created_at) WHERE "Sent" IS NULL',
    "public.outbox (topic) WHERE NOT done",
    "public.outbox (parent) WHERE parent IS NOT NULL",
}


def test_the_part_that_is_wanted_is_indexed_alone_for_both_plans(server: Any) -> None:
    bench = foreign(server, "outbox")
    bench.sql(OUTBOX)
    worked(bench, list(WAITING), times=20)
    assert planned(bench) == PARTS
    found = proof(bench)
    for text in ("IS NULL ORDER BY", "NOT done", "parent = $1"):
        assert min(gains(found, text)) >= 10, (text, found["comparisons"])
    plans = {c["columns"]["plan"] for c in found["comparisons"] if "parent = $1" in c["columns"]["statement"]}
    assert plans == {"custom", "generic"}
    applied(bench)
    (written,) = bench.state.glob("runs/*/files/*.py")
    assert all(part.removeprefix("public.outbox ") in written.read_text() for part in PARTS)
    sizes = bench.sql("SELECT pg_relation_size(indexrelid) FROM pg_index WHERE indpred IS NOT NULL")
    assert len(sizes) == 3
    assert max(size for (size,) in sizes) < 200_000, "a fiftieth of what the whole takes"
    assert planned(bench) == set()
    run = next(path.parent.name for path in reversed(bench.journals()) if "intended" in path.read_text())
    drawn = bench.run("rollback", run)
    back = bench.run("rollback", run, "--apply", re.search(r"digest +(\w+)", drawn.out)[1])  # type: ignore[index]
    assert back.exit == 0, back.said
    assert bench.indexes("outbox") == {}
