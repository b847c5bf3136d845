"""PostgresDatabase on a real server of its own: each way to fail, each privilege to miss, nasty names, logs."""

import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg2
import pytest

from aiprod_ops.adapters.local import processes
from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.adapters.local.programs import find, reachable
from aiprod_ops.adapters.postgres.database import PostgresDatabase
from aiprod_ops.domain.schema import Column, Key, Name
from aiprod_ops.errors import (
    Cancelled,
    ConfigurationError,
    Failed,
    OpsError,
    PermissionMissing,
    Refused,
    TimedOut,
    Unreachable,
)
from aiprod_ops.units import Seconds

pytestmark = pytest.mark.lab
SECRET = "hunter2"
HBA = "local all postgres trust\nlocal all all scram-sha-256\n"
LOG: dict[str, str | int] = {"logging_collector": "on", "log_destination": "jsonlog", "log_min_duration_statement": 0}


@contextmanager
def running(**settings: str | int) -> Iterator[PostgresServer]:
    with tempfile.TemporaryDirectory(prefix="aiprod-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        server = PostgresServer(reachable(find(), folder), folder / "data", folder / "s", 5432, folder / "start.log")
        server.initdb()
        server.configure({"listen_addresses": "", "fsync": "off"} | settings, HBA)
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running(shared_preload_libraries="pg_stat_statements", **LOG) as server:
        with connect(server, writes=True) as owner:
            for statement in (
                "CREATE EXTENSION pg_stat_statements",
                f"CREATE ROLE reader LOGIN PASSWORD '{SECRET}' IN ROLE pg_monitor, pg_read_all_data",
                f"CREATE ROLE stranger LOGIN PASSWORD '{SECRET}'",
                f"CREATE ROLE crowded LOGIN PASSWORD '{SECRET}' CONNECTION LIMIT 0",
                "CREATE TABLE jobs (id int PRIMARY KEY, status text)",
                "INSERT INTO jobs SELECT g, 'done' FROM generate_series(1, 500) g",
                "ANALYZE jobs",
            ):
                owner.execute(statement)
        yield server


def connect(
    server: PostgresServer,
    user: str = "postgres",
    *,
    writes: bool = False,
    password: str = "",
    database: str = "postgres",
) -> PostgresDatabase:
    dsn = server.dsn(user, database) + (f"&password={password}" if password else "")
    return PostgresDatabase(dsn, writes=writes, application_name="aiprod-ops")


@pytest.fixture
def probe(server: PostgresServer) -> Iterator[PostgresDatabase]:
    with connect(server, "reader", password=SECRET) as database:
        yield database


@pytest.fixture
def owner(server: PostgresServer) -> Iterator[PostgresDatabase]:
    with connect(server, writes=True) as database:
        yield database


# Contact


@pytest.mark.parametrize(
    ("user", "password", "database", "error", "said"),
    [
        ("reader", "wrong-hunter2", "postgres", PermissionMissing, 'password authentication failed for user "reader"'),
        ("nobody_here", SECRET, "postgres", PermissionMissing, 'authentication failed for user "nobody_here"'),
        ("reader", "", "postgres", PermissionMissing, "no password supplied"),
        ("reader", SECRET, "nosuch", ConfigurationError, 'database "nosuch" does not exist'),
        ("crowded", SECRET, "postgres", Unreachable, 'too many connections for role "crowded"'),
    ],
)
def test_no_session(
    server: PostgresServer, user: str, password: str, database: str, error: type[OpsError], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        connect(server, user, password=password, database=database).server()
    assert f"{user}@{server.sockets}:5432" in caught.value.message
    assert caught.value.hint
    assert_silent(caught.value)


def test_no_line_in_pg_hba(server: PostgresServer) -> None:
    hba = server.data / "pg_hba.conf"
    hba.write_text(f"local all stranger reject\n{HBA}")
    with connect(server, writes=True) as owner:
        owner.query("SELECT pg_reload_conf()")
        try:
            wait_for(lambda: refused(server), "the new pg_hba.conf")
        finally:
            hba.write_text(HBA)
            owner.query("SELECT pg_reload_conf()")


def refused(server: PostgresServer) -> bool:
    try:
        with connect(server, "stranger", password=SECRET) as database:
            database.server()
    except PermissionMissing as error:
        return "pg_hba.conf" in error.message
    return False


def test_the_session_is_opened_again_after_it_was_lost(server: PostgresServer, owner: PostgresDatabase) -> None:
    with connect(server, writes=True) as other:
        assert other.hold("resource")
        pid = pid_of(other)
        owner.query("SELECT pg_terminate_backend(%(pid)s, 5000)", {"pid": pid})
        with pytest.raises(Unreachable, match="Contact to postgres@"):
            other.query("SELECT 1")
        assert pid_of(other) != pid
        assert not owner.hold("resource"), "the lock was taken again"
        owner.query("SELECT pg_terminate_backend(%(pid)s, 5000)", {"pid": pid_of(other)})
        assert owner.hold("resource")
        with pytest.raises(Unreachable):
            other.query("SELECT 1")
        with pytest.raises(Unreachable, match="another session has the lock 'resource' now"):
            other.query("SELECT 1")


@pytest.mark.parametrize("writes", [False, True])
def test_terminated_in_the_middle(server: PostgresServer, owner: PostgresDatabase, writes: bool) -> None:
    with connect(server, writes=writes) as victim:
        pid = pid_of(victim)
        with (
            later(lambda: owner.query("SELECT pg_terminate_backend(%(pid)s)", {"pid": pid})),
            pytest.raises(Unreachable, match=r"was lost: terminating connection|was lost: server closed"),
        ):
            victim.query("SELECT pg_sleep(20)")
        assert victim.query("SELECT 1 AS x") == [{"x": 1}]


def test_the_server_is_killed_in_the_middle_and_is_down() -> None:
    with running() as server, connect(server, writes=True) as database:
        database.server()
        postmaster = server.pid
        assert postmaster
        with (
            later(lambda: kill_all(server)),
            pytest.raises(Unreachable, match="was lost: server closed the connection"),
        ):
            database.query("SELECT pg_sleep(20)")
        # What listens while it dies takes a connection, and lets it go.
        refused = "Connection refused|No such file|server closed the connection"
        with pytest.raises(Unreachable, match=f"No contact to postgres@.*: ({refused})"):
            database.query("SELECT 1")
        wait_for(lambda: not exists(postmaster), "the end of the postmaster")
        server.start()
        assert database.query("SELECT 1 AS x") == [{"x": 1}]


def test_a_frozen_server_is_given_up(server: PostgresServer) -> None:
    with connect(server) as database:
        pid = pid_of(database)
        os.kill(pid, signal.SIGSTOP)
        started = time.monotonic()
        try:
            with pytest.raises(TimedOut, match=r"No answer from .* outcome not known"):
                database.query("SELECT 1", timeout=Seconds(0.5))
        finally:
            os.kill(pid, signal.SIGCONT)
        assert time.monotonic() - started < 9
        assert database.query("SELECT 1 AS x") == [{"x": 1}]


# Statements


def test_statement_errors(owner: PostgresDatabase) -> None:
    with pytest.raises(Failed, match=r'column "nope" does not exist \(SQLSTATE 42703\)'):
        owner.query("SELECT nope FROM jobs")
    full = "DO $$ BEGIN RAISE 'could not extend file \"x\": No space left on device' USING ERRCODE = '53100'; END $$"
    with pytest.raises(Failed, match="No space left on device"):
        owner.execute(full)
    with pytest.raises(Failed, match="unique") as caught:
        owner.execute("INSERT INTO jobs VALUES (1, 'a customer''s secret')")
    assert "secret" not in caught.value.message + caught.value.hint


def test_no_hint_asks_to_drop_what_depends_on_it(owner: PostgresDatabase) -> None:
    owner.execute("CREATE TABLE parts (day date) PARTITION BY RANGE (day)")
    owner.execute("CREATE TABLE parts_1 PARTITION OF parts DEFAULT")
    owner.execute("CREATE INDEX parts_day ON parts (day)")
    with pytest.raises(Failed, match=r"because index parts_day requires it \(SQLSTATE 2BP01\)") as caught:
        owner.execute("DROP INDEX parts_1_day_idx")
    assert caught.value.hint == ""
    owner.execute("DROP TABLE parts")


def test_cancelled_by_somebody_else(server: PostgresServer, owner: PostgresDatabase) -> None:
    with connect(server) as victim:
        pid = pid_of(victim)
        with (
            later(lambda: owner.query("SELECT pg_cancel_backend(%(pid)s)", {"pid": pid})),
            pytest.raises(Cancelled, match="by somebody else"),
        ):
            victim.query("SELECT pg_sleep(20)")


@pytest.mark.parametrize("writes", [False, True])
def test_ctrl_c_does_not_wait_for_the_answer(server: PostgresServer, owner: PostgresDatabase, writes: bool) -> None:
    with connect(server, writes=writes) as database:
        pid = pid_of(database)
        started = time.monotonic()
        with later(lambda: os.kill(os.getpid(), signal.SIGINT)), pytest.raises(KeyboardInterrupt):
            database.query("SELECT pg_sleep(20)")
        assert time.monotonic() - started < 3
        activity = "SELECT state FROM pg_stat_activity WHERE pid = %(pid)s"
        assert owner.query(activity, {"pid": pid}) == [{"state": "idle"}]
        assert database.query("SELECT 1 AS x") == [{"x": 1}]


def test_a_missing_privilege(server: PostgresServer) -> None:
    with connect(server, "stranger", password=SECRET) as stranger:
        with pytest.raises(PermissionMissing, match="permission denied for table jobs") as caught:
            stranger.query("SELECT * FROM jobs")
        assert caught.value.hint == "Grant what is missing to stranger."
        assert_silent(caught.value)


def test_who_was_not_let_in_is_called_as_the_configuration_calls_it(server: PostgresServer) -> None:
    dsn = server.dsn("reader", "postgres") + "&password=wrong-hunter2"
    for writes, identity, named in ((True, "backup", "backup"), (True, "", "actor"), (False, "", "probe")):
        with (
            PostgresDatabase(dsn, writes=writes, application_name="aiprod-ops", identity=identity) as database,
            pytest.raises(PermissionMissing) as caught,
            database.another() as again,
        ):
            again.server()
        assert f"of the {named} DSN" in caught.value.hint


def test_server_names_the_grant(server: PostgresServer, owner: PostgresDatabase) -> None:
    owner.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    with connect(server, "stranger", password=SECRET) as stranger:
        with pytest.raises(PermissionMissing) as caught:
            stranger.server()
        owner.execute(caught.value.hint.removeprefix("As a superuser: "))
        assert stranger.server().role == "stranger"
    owner.execute("GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC")


def test_who_can_write(server: PostgresServer, probe: PostgresDatabase, owner: PostgresDatabase) -> None:
    assert not probe.server().can_write
    assert not probe.server().is_superuser
    assert owner.server().can_write
    owner.execute("GRANT UPDATE ON jobs TO reader")
    assert probe.server().can_write
    owner.execute("REVOKE UPDATE ON jobs FROM reader")


# A probe changes nothing and waits for nobody


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE x (a int)",
        "DELETE FROM jobs",
        "INSERT INTO jobs VALUES (1000, 'x')",
        "WITH d AS (DELETE FROM jobs RETURNING id) SELECT * FROM d",
        "SELECT 1; DELETE FROM jobs",
        "SELECT nextval('numbers')",
    ],
)
def test_even_a_superusers_probe_does_not_write(
    server: PostgresServer, owner: PostgresDatabase, statement: str
) -> None:
    owner.execute("CREATE SEQUENCE IF NOT EXISTS numbers")
    with connect(server) as database:
        with pytest.raises(Refused, match="read-only transaction"):
            database.query(statement)
        with pytest.raises(Refused):
            database.execute(statement)
        assert database.query("SELECT count(*) AS n FROM jobs") == [{"n": 500}]
        assert database.query("SHOW transaction_read_only") == [{"transaction_read_only": "on"}]


def test_settings_do_not_outlive_a_query(probe: PostgresDatabase) -> None:
    """Behind a pooler the application gets the connection next."""
    settings = probe.query(
        "SELECT name, setting, reset_val FROM pg_settings WHERE name IN"
        " ('default_transaction_read_only', 'statement_timeout', 'lock_timeout', 'application_name') ORDER BY name",
        timeout=Seconds(7),
    )
    assert [(row["setting"], row["reset_val"]) for row in settings] == [
        ("aiprod-ops", "aiprod-ops"),
        ("off", "off"),
        ("2000", "0"),
        ("7000", "0"),
    ]


def test_an_actor_is_not_limited(owner: PostgresDatabase) -> None:
    rows = owner.query("SELECT name, setting FROM pg_settings WHERE name IN ('lock_timeout', 'statement_timeout')")
    assert {row["name"]: row["setting"] for row in rows} == {"lock_timeout": "0", "statement_timeout": "30000"}
    assert owner.query("SHOW statement_timeout", timeout=Seconds(0)) == [{"statement_timeout": "0"}]
    assert owner.query("SHOW client_connection_check_interval") == [{"client_connection_check_interval": "1s"}]
    owner.execute("CREATE INDEX CONCURRENTLY by_status ON jobs (status)")
    owner.execute("DROP INDEX CONCURRENTLY by_status")


def test_a_locked_table_is_not_waited_for(server: PostgresServer, probe: PostgresDatabase) -> None:
    with raw(server) as other:
        other.execute("BEGIN; LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Failed, match=r"after 2\.00 s \(lock timeout\)"):
            probe.query("SELECT count(*) FROM jobs")
        with pytest.raises(Failed, match=r"locked jobs by process \d+ \(postgres, idle in transaction\)"):
            probe.schema()
        assert probe.sizes()["public.jobs"].rows == 500
        assert probe.workload().missing == ()
        other.execute("ROLLBACK")
    assert probe.schema().table("", "jobs")


# Names, tables, indexes


def test_tables_columns_and_indexes(server: PostgresServer) -> None:
    with connect(server, writes=True) as owner:
        owner.execute("CREATE DATABASE shapes")
    with connect(server, writes=True, database="shapes") as database:
        for statement in SHAPES.split(";"):
            database.execute(statement)
        schema = database.schema()
        assert [str(table.name) for table in schema.tables] == SHAPE_NAMES
        assert (schema.search_path, schema.revision) == (("public",), "abc,def")
        table = schema.table("", 'we"ird Table')
        assert table is not None
        assert {column.name: column for column in table.columns} == {column.name: column for column in COLUMNS}
        found = {index.name.name: index for index in table.indexes}
        assert list(found) == sorted(found)
        assert found["expression"].keys == (
            Key('lower("a b%")', True, False, "text_pattern_ops", True),
            Key("number", True, True),
        )
        assert (found["expression"].include, found["expression"].predicate) == (("id",), "number > 0::numeric")
        assert found["collated"].keys[0] == Key('"a b%" COLLATE "C"', is_expression=True)
        assert (found["document"].method, found["document"].keys) == ("gin", (Key("document"),))
        assert found['we"ird Table_pkey'].constraint == 'we"ird Table_pkey'
        assert found["expression"].definition.startswith('CREATE INDEX expression ON public."we""ird Table"')
        assert schema == database.schema()


SHAPES = """
CREATE DOMAIN code AS varchar(9);
CREATE DOMAIN inner_code AS code;
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TYPE pair AS (a int, b int);
CREATE TABLE "we""ird Table" (id bigint PRIMARY KEY, "a b%" text, byte_order varchar(20) COLLATE "C",
  document jsonb, raw json, numbers int[], place point, places point[], number numeric NOT NULL, network cidr,
  mood mood, moods mood[], span int4range, code inner_code, letter char(1), moment timestamptz(3), dropped int);
ALTER TABLE "we""ird Table" DROP COLUMN dropped;
CREATE INDEX expression ON "we""ird Table" (lower("a b%") text_pattern_ops DESC NULLS LAST, number DESC) INCLUDE (id)
  WHERE number > 0;
CREATE INDEX document ON "we""ird Table" USING gin (document);
CREATE INDEX collated ON "we""ird Table" ("a b%" COLLATE "C", id);
CREATE TABLE parent (a int, b text) PARTITION BY RANGE (a);
CREATE TABLE leaf PARTITION OF parent FOR VALUES FROM (0) TO (10);
CREATE SCHEMA other;
CREATE TABLE other.nothing ();
CREATE MATERIALIZED VIEW summary AS SELECT 1 AS one;
CREATE VIEW seen AS SELECT 1 AS one;
CREATE TABLE alembic_version (version_num varchar(32));
INSERT INTO alembic_version VALUES ('def'), ('abc')
"""
SHAPE_NAMES = [
    "other.nothing",
    "public.alembic_version",
    "public.leaf",
    "public.summary",
    'public.we"ird Table',
]
COLUMNS = (
    Column("id", "bigint", is_not_null=True),
    Column("a b%", "text", is_text=True, is_c_collated=True),  # the database's own collation is C
    Column("byte_order", "character varying(20)", is_text=True, is_c_collated=True),
    Column("document", "jsonb"),
    Column("raw", "json", btree=False),
    Column("numbers", "integer[]"),
    Column("place", "point", btree=False),
    Column("places", "point[]", btree=False),
    Column("number", "numeric", is_not_null=True),
    Column("network", "cidr"),
    Column("mood", "mood"),
    Column("moods", "mood[]"),
    Column("span", "int4range"),
    Column("code", "inner_code", is_text=True, is_c_collated=True),
    Column("letter", "character(1)", is_text=True, is_c_collated=True),
    Column("moment", "timestamp(3) with time zone"),
)


def test_a_locale_of_its_own_is_not_byte_order(server: PostgresServer) -> None:
    with connect(server, writes=True) as owner:
        owner.execute("CREATE DATABASE located TEMPLATE template0 LOCALE 'C.UTF-8'")
    with connect(server, writes=True, database="located") as database:
        database.execute('CREATE TABLE t (a text, b text COLLATE "C", c text COLLATE ucs_basic, d int)')
        table = database.schema().table("", "t")
        assert table is not None
        assert [column.is_c_collated for column in table.columns] == [False, True, True, False]


def test_an_index_whose_build_failed_is_seen(owner: PostgresDatabase) -> None:
    owner.execute("CREATE TABLE doubled AS SELECT 1 AS a FROM generate_series(1, 2)")
    with pytest.raises(Failed, match="could not create unique index"):
        owner.execute("CREATE UNIQUE INDEX CONCURRENTLY broken ON doubled (a)")
    table = owner.schema().table("", "doubled")
    assert table is not None
    assert [(index.name.name, index.is_valid) for index in table.indexes] == [("broken", False)]
    owner.execute("DROP TABLE doubled")


def test_statistics_need_the_right_to_read_the_table(server: PostgresServer, probe: PostgresDatabase) -> None:
    assert probe.sizes()["public.jobs"].statistics["id"].distinct == 500
    assert probe.column_values([(Name("public", "jobs"), "status")]) == {
        (Name("public", "jobs"), "status"): ([("done", 1.0)], [])
    }
    with connect(server, "stranger", password=SECRET) as stranger:
        assert stranger.sizes()["public.jobs"].rows == 500
        assert stranger.sizes()["public.jobs"].statistics == {}
        assert stranger.column_values([(Name("public", "jobs"), "status")]) == {}


# Workload and samples


def test_a_role_without_rights_learns_what_to_grant() -> None:
    """Each round runs the SQL that the sentences name, restarts, and looks again until nothing is missing."""
    with running(shared_preload_libraries="auto_explain", **LOG) as server:
        with connect(server, writes=True) as owner:
            owner.execute(f'CREATE ROLE "we""ird role" LOGIN PASSWORD \'{SECRET}\'')
            owner.execute("CREATE TABLE jobs AS SELECT 1 AS id")
            owner.query("SELECT id FROM jobs WHERE id = 1")
        rounds = []
        while missing := look(server):
            rounds.append(missing)
            assert len(rounds) < 5, rounds
            grant(server, missing)
        everything = " ".join(sum(rounds, ()))
        for part in (
            'GRANT pg_monitor TO "we""ird role";',
            'GRANT pg_read_all_data TO "we""ird role";',
            "CREATE EXTENSION pg_stat_statements;",
            "ALTER SYSTEM SET shared_preload_libraries = 'auto_explain', 'pg_stat_statements';",
        ):
            assert part in everything


def look(server: PostgresServer) -> tuple[str, ...]:
    before = catalogue(server)
    with connect(server, 'we"ird role', password=SECRET) as database:
        missing = database.workload().missing
        database.samples([1])
    assert catalogue(server) == before, "the look changed something"
    return missing


def grant(server: PostgresServer, missing: tuple[str, ...]) -> None:
    with connect(server, writes=True) as owner:
        for statement in re.findall(r"`([^`]*)`", " ".join(missing)):
            for each in filter(None, statement.split(";")):
                owner.execute(each)
        owner.query("SELECT count(*) FROM jobs")
    server.stop()
    server.start()
    with connect(server, writes=True) as owner:
        owner.query("SELECT id FROM jobs WHERE id = 2")


def catalogue(server: PostgresServer) -> list[dict[str, object]]:
    with connect(server) as database:
        return database.query(
            "SELECT (SELECT json_agg(c.oid) FROM pg_class c) AS classes,"
            " (SELECT json_agg(r) FROM pg_authid r) AS roles,"
            " (SELECT json_agg(m) FROM pg_auth_members m) AS members,"
            " (SELECT json_agg(s) FROM pg_db_role_setting s) AS settings"
        )


def test_without_the_extension_the_log_tells(tmp_path: Path) -> None:
    with running(**LOG) as server:
        with connect(server, writes=True) as owner:
            owner.execute("CREATE TABLE jobs AS SELECT 1 AS id, 'x' AS status")
        with raw(server) as other:
            for number in range(3):
                other.execute("SELECT id FROM jobs WHERE status = %s AND id = %s", ("it's secret", number))
        with connect(server) as probe:
            workload = probe.workload()
            found = next(each for each in workload.statements if "jobs" in each.text)
            assert (found.text, found.calls) == ("SELECT id FROM jobs WHERE status = $1 AND id = $2", 3)
            assert found.source == "log"
            assert len(workload.missing) == 2
            samples = probe.samples([found.query_id], most=2)
            assert [sample.text for sample in samples] == [
                f"SELECT id FROM jobs WHERE status = 'it''s secret' AND id = {number}" for number in (2, 1)
            ]
        files = PostgresDatabase(
            server.dsn("postgres", "postgres"),
            writes=False,
            application_name="aiprod-ops",
            log=str(server.data / "log"),
        )
        assert files.samples([found.query_id], most=2) == samples
        files.close()


def test_samples_with_parameters(server: PostgresServer, probe: PostgresDatabase, owner: PostgresDatabase) -> None:
    pgbench = server.programs.command("pgbench")
    script = server.data.parent / "script.sql"
    script.write_text("\\set n 7\nSELECT status FROM jobs WHERE id = :n AND status <> 'é''x'\n")
    server.programs.run(
        Path(pgbench[-1]).name,
        "-n",
        "-M",
        "prepared",
        "-t",
        "3",
        "-f",
        str(script),
        owner_dsn(server),
        cwd=server.data.parent,
    )
    found = next(each for each in probe.workload().statements if "status <> $2" in each.text)
    assert found.calls == 3
    assert probe.samples([found.query_id]) == [], "reading the log is not granted"
    samples = owner.samples([found.query_id], most=2)
    assert [(sample.text, sample.parameters) for sample in samples] == [
        ("SELECT status FROM jobs WHERE id = $1 AND status <> 'é''x'", ("'7'",))
    ] * 2
    grants = "GRANT EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint, boolean) TO reader"
    owner.execute(grants)
    assert probe.samples([found.query_id], most=2) == samples


def test_our_own_queries_are_not_in_the_workload(probe: PostgresDatabase) -> None:
    for _ in range(2):
        workload = probe.workload()
        probe.schema()
        probe.sizes()
    assert not [each.text for each in workload.statements if "pg_class" in each.text]
    assert not [
        each.text
        for each in workload.statements
        if not re.match(r"(?i)\s*(select|insert|update|delete|with)", each.text)
    ]


def test_ten_thousand_tables(server: PostgresServer) -> None:
    with connect(server, writes=True) as owner:
        owner.execute("CREATE DATABASE wide")
    with connect(server, writes=True, database="wide") as database:
        for part in range(20):
            database.execute(
                f"DO $$ BEGIN FOR n IN {part * 500}..{part * 500 + 499} LOOP"
                " EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, a text, b int)', n); END LOOP; END $$",
                timeout=Seconds(120),
            )
        started = time.monotonic()
        schema, sizes = database.schema(), database.sizes()
        elapsed = time.monotonic() - started
    assert len(schema.tables) == len(sizes) == 10_000
    assert len(schema.tables[0].indexes) == 1
    assert elapsed < 30


# What the tests above use


def owner_dsn(server: PostgresServer) -> str:
    return server.dsn("postgres", "postgres")


def pid_of(database: PostgresDatabase) -> int:
    return int(database.query("SELECT pg_backend_pid() AS pid")[0]["pid"])


def kill_all(server: PostgresServer) -> None:
    for process in processes.below(server.data):
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def later(act: Callable[[], object]) -> Iterator[None]:
    timer = threading.Timer(0.3, act)
    timer.start()
    try:
        yield
    finally:
        timer.join()


@contextmanager
def raw(server: PostgresServer) -> Iterator["psycopg2.extensions.cursor"]:
    connection = psycopg2.connect(owner_dsn(server))
    connection.autocommit = True
    try:
        yield connection.cursor()
    finally:
        connection.close()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, f"waited 10 s for {what}"
        time.sleep(0.05)


def assert_silent(error: BaseException) -> None:
    """The password stands nowhere in the error or its causes."""
    each: BaseException | None = error
    while each is not None:
        assert SECRET not in f"{each} {each!r} {each.args} {getattr(each, 'hint', '')}"
        each = each.__cause__ or each.__context__
