"""A matrix of planted faults, and of look-alikes that are none: as superuser, and with pg_monitor alone."""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psycopg2
import pytest

from aiprod_ops.actions.index_readings import index_bloat, index_damage, read_copy
from aiprod_ops.adapters.clock import SystemClock
from aiprod_ops.adapters.files import FolderStore
from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.adapters.local.programs import find, reachable
from aiprod_ops.adapters.postgres.database import PostgresDatabase
from aiprod_ops.config import Settings, Target
from aiprod_ops.domain.catalogue import bloat, damage
from aiprod_ops.domain.catalogue.faults import Drop, Fault, Level, Rebuild
from aiprod_ops.domain.catalogue.indexes import Catalogue, Thresholds
from aiprod_ops.domain.catalogue.inspections import Inspection
from aiprod_ops.domain.catalogue.judgement import faults
from aiprod_ops.domain.catalogue.usage import UsageSnapshot
from aiprod_ops.domain.plans import canonical
from aiprod_ops.domain.schema import Name
from aiprod_ops.engine.history import history_of
from aiprod_ops.engine.runbook import Context
from aiprod_ops.errors import Failed
from aiprod_ops.units import Bytes, Ratio

pytestmark = pytest.mark.lab
SYSTEM = os.environ.get("AIPROD_OPS_TEST_POSTGRES_BIN", "")
SETTINGS: dict[str, str | int] = {
    "listen_addresses": "",
    "fsync": "off",
    "autovacuum": "off",
    "logging_collector": "on",
    "log_destination": "jsonlog",
    "max_wal_size": "4GB",
}
DAY = 86400.0
THRESHOLDS = Thresholds(30 * DAY, Ratio(0.5), Bytes(100_000), Ratio(0.9), Ratio(0.75), Ratio(0.9))


@contextmanager
def running(postgres_bin: str = "") -> Iterator[PostgresServer]:
    with tempfile.TemporaryDirectory(prefix="aiprod-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        programs = reachable(find(Path(postgres_bin) if postgres_bin else None), folder)
        server = PostgresServer(programs, folder / "data", folder / "s", 5432, folder / "start.log")
        server.initdb()
        server.configure(SETTINGS, "local all all trust\n")
        server.start()
        try:
            sql(
                server,
                "CREATE ROLE watcher LOGIN IN ROLE pg_monitor",
                "CREATE ROLE reader LOGIN IN ROLE pg_monitor, pg_read_all_data",
                "CREATE ROLE stranger LOGIN",
            )
            yield server
        finally:
            server.stop("immediate")


@pytest.fixture(
    scope="module",
    params=["wheel", pytest.param("system", marks=pytest.mark.skipif(not SYSTEM, reason="no system PostgreSQL"))],
)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with running(SYSTEM if request.param == "system" else "") as server:
        yield server


def sql(server: PostgresServer, *statements: str, database: str = "postgres") -> list[tuple[object, ...]]:
    """Each statement by itself, outside a transaction block; the rows of the last one."""
    with session(server, database) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def session(server: PostgresServer, database: str) -> Iterator[psycopg2.extensions.connection]:
    connection = psycopg2.connect(server.dsn("postgres", database))
    connection.autocommit = True
    try:
        yield connection
    finally:
        connection.close()


def fresh(server: PostgresServer, name: str, *statements: str) -> str:
    sql(server, f'DROP DATABASE IF EXISTS "{name}"', f'CREATE DATABASE "{name}"')
    sql(server, "CREATE EXTENSION pgstattuple", "CREATE EXTENSION amcheck", *statements, database=name)
    return name


@contextmanager
def probe(server: PostgresServer, database: str, user: str = "postgres") -> Iterator[PostgresDatabase]:
    with PostgresDatabase(server.dsn(user, database), writes=False, application_name="aiprod-ops") as opened:
        yield opened


def judged(
    server: PostgresServer, database: str, user: str = "postgres", thresholds: Thresholds = THRESHOLDS
) -> list[Fault]:
    with probe(server, database, user) as opened:
        return judge(opened, thresholds)


def judge(opened: PostgresDatabase, thresholds: Thresholds = THRESHOLDS) -> list[Fault]:
    """As the runbook does it, with a stored snapshot that is 31 days old and counted no scan."""
    catalogue = opened.catalogue()
    read = checked = Inspection()
    if not catalogue.pgstattuple.missing:
        read = opened.bloat([index.name for index in bloat.order(catalogue.indexes, thresholds.least)])
    if not catalogue.amcheck.missing:
        checked = opened.damage([index.name for index in damage.order(catalogue.indexes)])
    node = opened.index_usage()
    now = datetime.now(UTC)
    then = UsageSnapshot(
        now - timedelta(days=31), {"one": replace(node, since=None, scans=dict.fromkeys(node.scans, 0))}
    )
    snapshots = (then, UsageSnapshot(now, {"one": replace(node, since=None)}))
    assert msgspec.json.decode(canonical(catalogue), type=Catalogue) == catalogue
    return faults(catalogue, snapshots, read, checked, thresholds)


def ids(found: Sequence[Fault], *kinds: str) -> set[str]:
    return {fault.id for fault in found if not kinds or fault.kind in kinds}


# The matrix. Every index is used once, but those that should be called unused: `use` forces it.

PLANTED = """
CREATE TABLE people (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text NOT NULL, name text, born date,
  boss bigint, note text, deleted_at timestamptz);
INSERT INTO people (email, name, born, boss, note, deleted_at) SELECT 'u' || g || '@example.org', 'n' || g % 100,
  '1990-01-01'::date + g % 9999, g, md5(g::text), CASE WHEN g % 50 = 0 THEN now() END FROM generate_series(1, 20000) g;
CREATE TABLE visits (id int PRIMARY KEY, person bigint REFERENCES people, place int, at timestamptz);
CREATE INDEX people_name ON people (name);
CREATE INDEX people_name_again ON people (name);
CREATE INDEX people_born ON people (born);
CREATE INDEX people_born_name ON people (born, name);
CREATE INDEX people_boss_up ON people (boss, born DESC);
CREATE INDEX people_boss_down ON people (boss DESC, born);
CREATE INDEX people_note ON people (note);
CREATE INDEX people_note_name ON people (note) INCLUDE (name);
CREATE INDEX people_deleted ON people (deleted_at);
CREATE INDEX visits_place ON visits (place);
CREATE UNIQUE INDEX people_email ON people (email);
CREATE INDEX people_email_plain ON people (email);
CREATE SEQUENCE tickets MAXVALUE 100; SELECT setval('tickets', 80);
CREATE TABLE narrow (id smallserial PRIMARY KEY); SELECT setval('narrow_id_seq', 32000);
CREATE SEQUENCE wide AS bigint;
CREATE TABLE borrowed (id int DEFAULT nextval('wide')); SELECT setval('wide', 2000000000);
ALTER TABLE visits ADD CONSTRAINT place_known CHECK (place > 0) NOT VALID;
CREATE DOMAIN share AS int; ALTER DOMAIN share ADD CONSTRAINT share_positive CHECK (VALUE >= 0) NOT VALID;
CREATE TABLE swollen (id int PRIMARY KEY, tag text);
INSERT INTO swollen SELECT g, 'tag ' || g % 500 FROM generate_series(1, 60000) g;
CREATE INDEX swollen_tag ON swollen (tag);
"""
EXPECTED = {
    "duplicate:public.people_name_again",
    "duplicate:public.people_born",
    "duplicate:public.people_boss_up",
    "duplicate:public.people_note",
    "duplicate:public.people_email_plain",
    "foreign-key:public.visits.visits_person_fkey",
    "mostly-null:public.people_deleted",
    "unused:public.visits_place",
    "sequence:public.tickets",
    "sequence:public.narrow_id_seq",
    "sequence:public.wide",
    "not-valid:public.visits.place_known",
    "not-valid:public.share.share_positive",
    "bloat:public.swollen_pkey",
    "bloat:public.swollen_tag",
    "invalid:public.people_unique_name",
    "invalid:public.people_unready",
    "remains:public.people_born_ccnew",
    "remains:public.people_boss_up_ccold1",
    "remains:public.people_dead",
}


@pytest.fixture(scope="module")
def planted(server: PostgresServer) -> str:
    name = fresh(server, "planted", *[text for text in PLANTED.split(";") if text.strip()])
    sql(server, "DELETE FROM swollen WHERE id % 5 <> 0", database=name)
    sql(server, "VACUUM ANALYZE", database=name)  # another session: a session tells what it wrote when it ends
    with pytest.raises(psycopg2.errors.UniqueViolation):
        sql(server, "CREATE UNIQUE INDEX CONCURRENTLY people_unique_name ON people (name)", database=name)
    stop_while_waiting(server, name, "REINDEX INDEX CONCURRENTLY people_born")
    for index, flags in (
        ("people_unready", "indisvalid = false, indisready = false"),
        ("people_boss_up_ccold1", "indisvalid = false"),
        ("people_dead", "indisvalid = false, indisready = false, indislive = false"),
    ):
        sql(
            server,
            f"CREATE INDEX {index} ON people (name, note, {'id' if index == 'people_dead' else 'boss'})",
            f"UPDATE pg_index SET {flags} WHERE indexrelid = '{index}'::regclass",
            database=name,
        )
    use(server, name, "people_deleted", "swollen_tag")
    return name


def stop_while_waiting(server: PostgresServer, database: str, statement: str) -> None:
    """Run it beside an old snapshot until its time is up: it leaves what it had built."""
    with session(server, database) as old, old.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT pg_current_xact_id()")
        with pytest.raises(psycopg2.errors.QueryCanceled):
            sql(server, "SET statement_timeout = '2s'", statement, database=database)


def use(server: PostgresServer, database: str, *indexes: str) -> None:
    """Let a query use these indexes, and nothing else."""
    for index in indexes:
        table, key = sql(
            server,
            f"SELECT indrelid::regclass::text, pg_get_indexdef(indexrelid, 1, true) FROM pg_index "
            f"WHERE indexrelid = '{index}'::regclass",
            database=database,
        )[0]
        sql(
            server,
            "SET enable_seqscan = off",
            "SET enable_bitmapscan = off",
            f"SELECT {key} FROM {table} WHERE {key} IS NOT NULL ORDER BY {key} LIMIT 1",
            "SELECT pg_stat_force_next_flush()",
            "SELECT 1",
            database=database,
        )


def without_usage(found: Sequence[Fault]) -> set[str]:
    return {each for each in ids(found) if not each.startswith("unused:")}


def test_every_planted_fault_is_found_and_nothing_else(server: PostgresServer, planted: str) -> None:
    found = judged(server, planted)
    assert ids(found) == EXPECTED


def test_faults_carry_their_repairs(server: PostgresServer, planted: str) -> None:
    found = {fault.id: fault for fault in judged(server, planted)}
    drops = ("remains:public.people_born_ccnew", "remains:public.people_dead", "duplicate:public.people_name_again")
    assert all(isinstance(found[each].repair, Drop) for each in drops)
    assert isinstance(found["invalid:public.people_unique_name"].repair, Rebuild)
    assert isinstance(found["bloat:public.swollen_tag"].repair, Rebuild)
    assert "VALIDATE CONSTRAINT place_known" in found["not-valid:public.visits.place_known"].note
    assert "ALTER DOMAIN public.share" in found["not-valid:public.share.share_positive"].note


def test_the_log_tells_who_left_an_index(server: PostgresServer, planted: str) -> None:
    found = {fault.id: fault.note for fault in judged(server, planted)}
    assert "left by postgres" in found["invalid:public.people_unique_name"]
    assert "could not create unique index" in found["invalid:public.people_unique_name"]
    assert "canceling statement due to statement timeout" in found["remains:public.people_born_ccnew"]
    with probe(server, planted, "watcher") as opened:
        notes = {fault.id: fault.note for fault in judge(opened)}
    assert "GRANT EXECUTE ON FUNCTION pg_read_binary_file" in notes["invalid:public.people_unique_name"]


BLIND = {"damage:amcheck", "mostly-null:privilege", "sequence:privilege"}


def test_a_role_with_pg_monitor_alone_never_reads_ok(server: PostgresServer, planted: str) -> None:
    """What it cannot see is UNKNOWN with the GRANT that helps; all else is as a superuser sees it."""
    found = judged(server, planted, "watcher")
    unknown = {fault.id for fault in found if fault.level is Level.UNKNOWN}
    assert unknown == BLIND
    assert all("`GRANT" in fault.note for fault in found if fault.level is Level.UNKNOWN)
    hidden = {each for each in EXPECTED if each.startswith(("sequence", "mostly-null"))}
    assert ids(found) - BLIND == EXPECTED - hidden


def test_a_role_without_any_privilege_reads_unknown_everywhere(server: PostgresServer, planted: str) -> None:
    found = judged(server, planted, "stranger")
    unknown = {fault.id for fault in found if fault.level is Level.UNKNOWN}
    assert unknown >= BLIND | {"statistics:privilege", "bloat:pgstattuple"}


# Look-alikes

HEALTHY = """
CREATE SCHEMA "Shop Floor";
CREATE TABLE "Shop Floor"."Users" ("Id" bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, "E-Mail" text NOT NULL,
  name text, active boolean NOT NULL DEFAULT true, tenant int NOT NULL, created_at timestamptz DEFAULT now(),
  UNIQUE (tenant, "E-Mail"));
CREATE TABLE "Shop Floor".groups (tenant int, code text, title text, PRIMARY KEY (tenant, code));
CREATE TABLE "Shop Floor".members (id serial PRIMARY KEY, user_id bigint NOT NULL REFERENCES "Shop Floor"."Users",
  tenant int, code text, invited_by bigint REFERENCES "Shop Floor"."Users",
  FOREIGN KEY (tenant, code) REFERENCES "Shop Floor".groups);
CREATE INDEX members_user ON "Shop Floor".members (user_id);
CREATE INDEX members_group ON "Shop Floor".members (code, tenant, id);
CREATE INDEX members_invited ON "Shop Floor".members (invited_by) WHERE invited_by IS NOT NULL;
CREATE UNIQUE INDEX users_email ON "Shop Floor"."Users" (lower("E-Mail"));
CREATE INDEX users_name ON "Shop Floor"."Users" (name);
CREATE INDEX users_name_pattern ON "Shop Floor"."Users" (name text_pattern_ops);
CREATE INDEX users_name_lower ON "Shop Floor"."Users" (lower(name));
CREATE INDEX users_name_upper ON "Shop Floor"."Users" (upper(name));
CREATE INDEX users_name_active ON "Shop Floor"."Users" (name) WHERE active;
CREATE INDEX users_name_idle ON "Shop Floor"."Users" (name) WHERE NOT active;
CREATE INDEX users_name_hash ON "Shop Floor"."Users" USING hash (name);
CREATE INDEX users_name_collated ON "Shop Floor"."Users" (name COLLATE "POSIX");
CREATE INDEX users_created_name ON "Shop Floor"."Users" (created_at, name);
CREATE INDEX users_created_name_mixed ON "Shop Floor"."Users" (created_at, name DESC);
CREATE INDEX users_active_ccnew ON "Shop Floor"."Users" (active, created_at);
CREATE UNIQUE INDEX users_id_name ON "Shop Floor"."Users" ("Id", name);
CREATE TABLE events (id bigint, at date NOT NULL, user_id bigint REFERENCES "Shop Floor"."Users", kind text,
  PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE events_2025 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE INDEX events_user ON events (user_id);
CREATE INDEX events_kind ON events (kind, at);
CREATE TABLE bookings (room int, during int4range, EXCLUDE USING gist (during WITH &&));
CREATE TABLE tags (id int PRIMARY KEY, words tsvector, spot point, optional text);
CREATE INDEX tags_words ON tags USING gin (words);
CREATE INDEX tags_spot ON tags USING gist (spot);
CREATE INDEX tags_optional ON tags (optional) WHERE optional IS NOT NULL;
CREATE UNIQUE INDEX tags_identity ON tags (id) INCLUDE (spot);
ALTER TABLE tags REPLICA IDENTITY USING INDEX tags_identity;
CREATE SEQUENCE rounds MAXVALUE 10 CYCLE; SELECT setval('rounds', 10);
CREATE SEQUENCE fresh_numbers MAXVALUE 3;
CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int);
CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int REFERENCES pgbench_branches, abalance int);
CREATE INDEX accounts_bid ON pgbench_accounts (bid);
ALTER TABLE pgbench_accounts ADD CONSTRAINT balanced CHECK (abalance > -1000000) NOT VALID;
ALTER TABLE pgbench_accounts VALIDATE CONSTRAINT balanced;
INSERT INTO pgbench_branches SELECT g, 0 FROM generate_series(1, 10) g;
INSERT INTO pgbench_accounts SELECT g, 1 + g % 10, 0 FROM generate_series(1, 20000) g;
INSERT INTO "Shop Floor"."Users" ("E-Mail", name, tenant) SELECT 'u' || g || '@x.org', md5(g::text), g % 7
  FROM generate_series(1, 5000) g;
INSERT INTO tags SELECT g, to_tsvector('word' || g), point(g, g), CASE WHEN g % 100 = 0 THEN 'x' END
  FROM generate_series(1, 20000) g;
INSERT INTO events SELECT g, '2025-01-01'::date + g % 700, 1 + g % 5000, 'k' || g % 9 FROM generate_series(1, 20000) g;
"""


@pytest.fixture(scope="module")
def healthy(server: PostgresServer) -> str:
    name = fresh(server, "healthy", *[text for text in HEALTHY.split(";") if text.strip()])
    if server.programs.major >= 18:
        sql(server, "ALTER TABLE tags ADD CONSTRAINT hoped CHECK (id > 5) NOT ENFORCED", database=name)
    sql(server, "VACUUM ANALYZE", database=name)
    return name


def test_a_healthy_schema_has_no_fault(server: PostgresServer, healthy: str) -> None:
    """No query ran yet: only usage has something to say, and of no index that anything else needs."""
    found = judged(server, healthy)
    assert without_usage(found) == set()
    unused = {fault.subject for fault in found}
    assert "public.events_kind" in unused
    assert unused.isdisjoint({"Shop Floor.members_user", "Shop Floor.members_group", "Shop Floor.members_invited",
                              "public.events_user", "public.accounts_bid", "public.tags_identity"})  # fmt: skip


def test_a_reader_of_data_sees_what_a_superuser_sees_but_damage(server: PostgresServer, healthy: str) -> None:
    assert ids(judged(server, healthy, "reader")) - ids(judged(server, healthy)) == {"damage:amcheck"}


def test_a_role_without_the_schema_sees_what_a_superuser_sees(server: PostgresServer, healthy: str) -> None:
    """`Shop Floor` is closed to it; what it may not read is UNKNOWN, and nothing else is missing."""
    assert ids(judged(server, healthy, "watcher")) == ids(judged(server, healthy)) | BLIND


# Work in progress


@contextmanager
def waiting(server: PostgresServer, database: str, statement: str, is_there: str) -> Iterator[None]:
    """The statement waits for a transaction that has used the table; `is_there` asks whether it has come to wait."""
    ended: list[BaseException | None] = []

    def work() -> None:
        sql(server, statement, database=database)
        ended.append(None)

    thread = threading.Thread(target=work)
    with session(server, database) as old:
        with old.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("INSERT INTO busy VALUES (0)")
        thread.start()
        wait_for(lambda: bool(sql(server, is_there, database=database)[0][0]))
        yield
    thread.join(30)
    assert ended == [None]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


INVALID = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"


@pytest.mark.parametrize("user", ["postgres", "watcher", "stranger"])
@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX CONCURRENTLY busy_second ON busy (n, m)",
        "REINDEX TABLE CONCURRENTLY busy",
        "REINDEX INDEX CONCURRENTLY busy_n",
        "DROP INDEX CONCURRENTLY busy_n",
    ],
)
def test_what_somebody_works_on_is_left_alone(server: PostgresServer, statement: str, user: str) -> None:
    database = fresh(
        server, "working", "CREATE TABLE busy (n int, m int, t text)", "CREATE INDEX busy_n ON busy (n)",
        "CREATE INDEX busy_n_again ON busy (n)", "CREATE INDEX carcass ON busy (m)",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'carcass'::regclass",
    )  # fmt: skip
    with waiting(server, database, statement, INVALID.replace("count(*)", "count(*) > 1")):
        found = judged(server, database, user)
        with probe(server, database, user) as opened:
            working = {str(index.name): index.building for index in opened.catalogue().indexes if index.building}
        touched = {fault.subject for fault in found if fault.repair is not None}
        assert touched <= {"public.carcass", "public.busy_n_again"}
        assert not ids(found, "remains")
        assert working
        assert all("of postgres" in who for who in working.values())
        assert ("invalid:public.carcass" in ids(found)) or user == "stranger"
    assert "invalid:public.carcass" in ids(judged(server, database, user))


# Partitions


def test_a_partitioned_index_that_is_not_complete_is_no_carcass(server: PostgresServer) -> None:
    database = fresh(
        server, "parted", "CREATE TABLE p (a int, b int) PARTITION BY RANGE (a)",
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (10)",
        "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20)",
        "CREATE INDEX p_b ON ONLY p (b)", "CREATE INDEX p1_b ON p1 (b)", "ALTER INDEX p_b ATTACH PARTITION p1_b",
        "CREATE INDEX p_a ON p (a)", "CREATE INDEX p_a_b ON p (a, b)",
        "CREATE TABLE r (id int PRIMARY KEY)", "CREATE TABLE q (id int, r int REFERENCES r) PARTITION BY LIST (id)",
        "CREATE TABLE q1 PARTITION OF q FOR VALUES IN (1)", "CREATE TABLE q2 PARTITION OF q FOR VALUES IN (2)",
        "CREATE INDEX q1_r ON q1 (r)",
    )  # fmt: skip
    found = {fault.id: fault for fault in judged(server, database)}
    assert {each for each in found if not each.startswith("unused")} == {
        "invalid:public.p_b", "duplicate:public.p_a", "foreign-key:public.q.q_r_fkey"}  # fmt: skip
    assert all(fault.repair is None for fault in found.values() if not fault.id.startswith("unused"))
    assert "public.p2" in found["invalid:public.p_b"].note
    assert "public.p1" not in found["invalid:public.p_b"].note
    sql(server, "CREATE INDEX q2_r ON q2 (r)", "CREATE INDEX p2_b ON p2 (b)", "ALTER INDEX p_b ATTACH PARTITION p2_b",
        database=database)  # fmt: skip
    assert without_usage(judged(server, database)) == {"duplicate:public.p_a"}


# Bloat: what a rebuild really gives back

SHAPES = {
    "plain": "(id)",
    "deduplicated": "(tag)",
    "expression": "(lower(tag))",
    "partial": "(number) WHERE state = 'done'",
    "loose": "(id) WITH (fillfactor = 70)",
    "repeating": "(tag) WITH (deduplicate_items = off)",
    "including": "(id) INCLUDE (number)",
    "wide": "(words)",
}


def test_bloat_is_what_a_rebuild_gives_back(server: PostgresServer) -> None:
    """Within 3 points, after each of: building, rewriting, deleting at random, deleting a range."""
    database = fresh(
        server, "swelling", "CREATE TABLE t (id bigint, tag text, number int, state text, words text)",
        "INSERT INTO t SELECT g, 'tag ' || g * 31 % 20000, g * 7919 % 99991, "
        "CASE WHEN g % 10 = 0 THEN 'new' ELSE 'done' END, "
        "repeat(md5((g * 13 % 99991)::text), 4) FROM generate_series(1, 150000::bigint) g",
        *(f"CREATE INDEX {name} ON t {text}" for name, text in SHAPES.items()),
    )  # fmt: skip
    for change in ("SELECT 1", "DELETE FROM t WHERE id % 5 <> 0", "DELETE FROM t WHERE id < 70000"):
        sql(server, change, "VACUUM t", database=database)
        with probe(server, database) as opened:
            standing = {index.name: index for index in opened.catalogue().indexes}
            trees = opened.bloat(list(standing)).trees
        sizes = index_sizes(server, database)
        sql(server, "REINDEX TABLE t", database=database)
        rebuilt = index_sizes(server, database)
        for name, index in standing.items():
            truth = 1 - rebuilt[name.name] / sizes[name.name]
            assert bloat.wasted(trees[str(name)], index.fillfactor) == pytest.approx(truth, abs=0.03), (change, name)


def churned(server: PostgresServer, name: str) -> str:
    """A database with duplicates that updates left and nobody has merged yet."""
    return fresh(
        server, name, "CREATE TABLE t (id bigint, tag text, number int)",
        "INSERT INTO t SELECT g, 'tag ' || g * 31 % 20000, g FROM generate_series(1, 150000::bigint) g",
        "CREATE INDEX by_tag ON t (tag)", "CREATE INDEX by_id ON t (id)",
        "UPDATE t SET number = -number WHERE id % 3 = 0", "VACUUM t",
    )  # fmt: skip


def test_what_is_counted_is_never_too_much(server: PostgresServer) -> None:
    """What is not merged yet looks like content: then the count is a lower bound."""
    database = churned(server, "churning")
    with probe(server, database) as opened:
        trees = opened.bloat([index.name for index in opened.catalogue().indexes]).trees
    sizes = index_sizes(server, database)
    sql(server, "REINDEX TABLE t", database=database)
    rebuilt = index_sizes(server, database)
    back = {name: 1 - rebuilt[name] / sizes[name] for name in ("by_tag", "by_id")}
    short = {name: truth - bloat.wasted(trees[f"public.{name}"]) for name, truth in back.items()}
    assert all(missing > -0.03 for missing in short.values()), short
    assert short["by_id"] < 0.03


def test_a_rebuild_on_a_copy_tells_what_the_count_does_not(server: PostgresServer, tmp_path: Path) -> None:
    database = churned(server, "copied")
    sizes = index_sizes(server, database)
    promises = Settings(state=tmp_path, targets={}).promises
    history = history_of(FolderStore(tmp_path), "here", promises)
    unused: Any = None
    with PostgresDatabase(server.dsn("postgres", database), writes=True, application_name="aiprod-ops copy") as opened:
        copy = Context(opened, Target("here", ""), unused, SystemClock(), promises, lambda _: None, history)
        catalogue = opened.catalogue()
        before = index_bloat(copy, catalogue, Bytes(0), Bytes(1 << 40)).trees["public.by_tag"]
        read_copy(copy, Bytes(0), Ratio(bloat.wasted(before) + 0.01))
        assert index_sizes(server, database) == sizes, "it was taken back"
        told = index_bloat(copy, catalogue, Bytes(0), Bytes(1 << 40))
    sql(server, "REINDEX TABLE t", database=database)
    truth = 1 - index_sizes(server, database)["by_tag"] / sizes["by_tag"]
    assert truth - bloat.wasted(before) > 0.03
    assert bloat.wasted(told.trees["public.by_tag"]) == pytest.approx(truth, abs=0.03)
    (fault,) = [each for each in bloat.faults(catalogue, told, Ratio(truth - 0.01), Bytes(0)) if "by_tag" in each.id]
    assert "tried on a copy" in fault.note


def index_sizes(server: PostgresServer, database: str) -> dict[str, int]:
    rows = sql(server, "SELECT relname, pg_relation_size(oid) FROM pg_class WHERE relkind = 'i'", database=database)
    return {str(name): int(str(size)) for name, size in rows}


# Damage


def test_flipped_bytes_are_damage(server: PostgresServer) -> None:
    database = fresh(
        server, "damaged", "CREATE TABLE t (id int, n int)",
        "INSERT INTO t SELECT g, g FROM generate_series(1, 5000) g",
        "CREATE INDEX t_sound ON t (id)", "CREATE INDEX t_hurt ON t (n)", "CREATE INDEX t_lost ON t (n, id)",
        "CHECKPOINT",
    )  # fmt: skip
    paths = {
        name: server.data / str(sql(server, f"SELECT pg_relation_filepath('{name}')", database=database)[0][0])
        for name in ("t_hurt", "t_lost")
    }
    server.stop()
    with paths["t_hurt"].open("r+b") as file:
        file.seek(2 * 8192 + 4000)
        file.write(bytes(255 - each for each in file.read(200)))
    with paths["t_hurt"].open("r+b") as file:
        file.seek(2 * 8192 + 3000)
        file.write(os.urandom(500))
    paths["t_lost"].unlink()
    server.start()
    found = {fault.id: fault for fault in judged(server, database, thresholds=replace(THRESHOLDS, least=Bytes(0)))}
    hurt = {each for each in found if each.startswith("damage")}
    assert hurt == {"damage:public.t_hurt", "damage:public.t_lost"}
    assert all(found[each].level is Level.CRITICAL and isinstance(found[each].repair, Rebuild) for each in hurt)


def test_an_index_that_lacks_rows(server: PostgresServer, tmp_path: Path) -> None:
    """Its structure is sound. The check sees it where the budget has room for the table, and else after a proof."""
    database = fresh(server, "lacking", "CREATE TABLE t (id int)", "CREATE INDEX t_id ON t (id)", *WITHOUT_ROWS)
    promises = Settings(state=tmp_path, targets={}).promises
    history = history_of(FolderStore(tmp_path), "here", promises)
    unused: Any = None
    with probe(server, database) as opened:
        ctx = Context(opened, Target("here", ""), unused, SystemClock(), promises, lambda _: None, history)
        (index,) = opened.catalogue().indexes
        little = Bytes(index.size)

        def seen(budget: Bytes) -> tuple[list[str], tuple[Name, ...]]:
            catalogue = opened.catalogue()
            checked = index_damage(ctx, catalogue, budget)
            return [fault.id for fault in damage.faults(catalogue, checked, Inspection())], checked.uncompared

        assert seen(Bytes(1 << 40)) == (["damage:public.t_id"], ())
        assert seen(little) == ([], (index.name,))
        (found,) = read_copy(ctx, Bytes(1 << 40), Ratio(0.5))
        assert (found.level, "lacks matching index tuple" in found.note) == (Level.CRITICAL, True)
        assert seen(little) == (["damage:public.t_id"], ())
        sql(server, "REINDEX INDEX t_id", database=database)
        (index,) = opened.catalogue().indexes
        assert seen(Bytes(index.size)) == ([], (index.name,))


WITHOUT_ROWS = (
    "INSERT INTO t SELECT generate_series(1, 5000)",
    "UPDATE pg_index SET indisready = false WHERE indexrelid = 't_id'::regclass",
    "INSERT INTO t SELECT generate_series(5001, 6000)",
    "UPDATE pg_index SET indisready = true WHERE indexrelid = 't_id'::regclass",
)


def test_an_expression_that_fails_does_not_hide_the_index(server: PostgresServer, tmp_path: Path) -> None:
    """Comparing it with the table computes its keys again; where that fails it is still looked at by itself."""
    database = fresh(
        server, "failing", "CREATE TABLE t (id int)",
        "CREATE FUNCTION key(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'",
        "CREATE INDEX t_key ON t (key(id))",
        "INSERT INTO t SELECT generate_series(1, 100)",
        "CREATE OR REPLACE FUNCTION key(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1 / ($1 - $1)'",
    )  # fmt: skip
    unused: Any = None
    with probe(server, database) as opened:
        promises = Settings(state=tmp_path, targets={}).promises
        history = history_of(FolderStore(tmp_path), "here", promises)
        ctx = Context(opened, Target("here", ""), unused, SystemClock(), promises, lambda _: None, history)
        checked = index_damage(ctx, opened.catalogue(), Bytes(1 << 40))
    assert (checked.checked, checked.troubles, checked.uncompared) == (1, (), (Name("public", "t_key"),))


def test_an_index_that_is_locked_is_unknown(server: PostgresServer) -> None:
    database = fresh(server, "locked", "CREATE TABLE t (id int)", "CREATE INDEX t_id ON t (id)")
    with probe(server, database) as opened, session(server, database) as other, other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("LOCK TABLE t")
        checked = opened.damage([Name("public", "t_id")])
        with pytest.raises(Failed, match=r"locked t by process .*postgres, idle in transaction"):
            opened.catalogue()
    assert [trouble.is_damage for trouble in checked.troubles] == [False]
    assert "lock" in checked.troubles[0].said


# Collations


def test_a_collation_that_changed(server: PostgresServer) -> None:
    (known,) = sql(server, "SELECT collname FROM pg_collation WHERE pg_collation_actual_version(oid) IS NOT NULL "
                           "ORDER BY collprovider DESC LIMIT 1") or [(None,)]  # fmt: skip
    if known[0] is None:
        pytest.skip("this server has no collation with a version")
    database = fresh(
        server, "sorted", f"CREATE TABLE t (id int PRIMARY KEY, a text COLLATE \"{known[0]}\", b text)",
        "CREATE INDEX t_a ON t (a)", "CREATE INDEX t_b ON t (b)", "CREATE INDEX t_hash ON t USING hash (a)",
        "CREATE INDEX t_pattern ON t (a text_pattern_ops)", "CREATE INDEX t_part ON t (id) WHERE a > 'm'",
        "CREATE INDEX t_key ON t ((a > 'm'))", f"CREATE INDEX t_cast ON t (id) WHERE b > 'm' COLLATE \"{known[0]}\"",
        "CREATE INDEX t_same ON t (id) WHERE a IN ('m', 'n')", "CREATE INDEX t_like ON t (id) WHERE a LIKE 'm%'",
        "CREATE INDEX t_own ON t (id) WHERE b > 'm'",
    )  # fmt: skip
    assert without_usage(judged(server, database)) == set()
    sql(server, f"UPDATE pg_collation SET collversion = '0.1' WHERE collname = '{known[0]}'", database=database)
    found = {fault.id: fault for fault in judged(server, database)}
    assert {each for each in found if each.startswith("collation")} == {
        f"collation:public.{name}" for name in ("t_a", "t_part", "t_key", "t_cast")
    }
    assert "REFRESH VERSION" in found["collation:public.t_a"].note


def test_extensions_that_are_missing(server: PostgresServer) -> None:
    database = fresh(server, "bare", "CREATE TABLE t (id int PRIMARY KEY)", "DROP EXTENSION amcheck",
                     "DROP EXTENSION pgstattuple")  # fmt: skip
    found = judged(server, database, thresholds=replace(THRESHOLDS, least=Bytes(0)))
    assert ids(found) == {"damage:amcheck", "bloat:pgstattuple"}
    assert all("`CREATE EXTENSION" in fault.note for fault in found)


def test_a_toast_index_that_a_rebuild_left(server: PostgresServer) -> None:
    database = fresh(server, "toasted", "CREATE TABLE t (id int, body text)", "CREATE INDEX t_id ON t (id)")
    stop_while_waiting(server, database, "REINDEX TABLE CONCURRENTLY t")
    found = [fault for fault in judged(server, database) if fault.kind == "remains"]
    assert {fault.subject.partition(".")[0] for fault in found} == {"public", "pg_toast"}
