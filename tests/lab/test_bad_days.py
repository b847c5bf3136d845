"""Bad input and bad days, through the real command line: one clear message, the right exit code, nothing half-done."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import (
    BOOK,
    INDEX,
    PICK,
    SLOW,
    Bench,
    configured,
    lab,
    lone_server,
    role_setting,
    session_of,
    short_folder,
    snapshot,
    until,
    writer,
)

from aiprod_ops.lab import faults
from aiprod_ops.units import Bytes

pytestmark = pytest.mark.lab
ROWS = 40_000
HASTY = ("--patience", "2s")  #: how long a build waits for others
WRITERS, SNAPSHOTS = "waiting for writers before build", "waiting for old snapshots"
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")


@pytest.fixture(scope="module")
def fleet_bench() -> Iterator[Bench]:
    with lab(ROWS) as bench:
        yield bench


@pytest.fixture
def bench(fleet_bench: Bench) -> Iterator[Bench]:
    """The lab without secondary indexes; afterwards no INVALID index, a sound chain, no run that waits."""
    fleet_bench.clean()
    known = fleet_bench.unfinished()
    yield fleet_bench
    assert all(fleet_bench.indexes().values()), "an INVALID index stays"
    fleet_bench.sound(known)


def another(bench: Bench, name: str, *changes: tuple[str, str]) -> Bench:
    """The same lab through a configuration that differs in some lines."""
    text = bench.config.read_text()
    for pattern, line in changes:
        text, count = re.subn(pattern, lambda _, line=line: line, text, flags=re.MULTILINE)
        assert count, f"{pattern} is not in the configuration"
    config = bench.config.with_name(f"{name}.toml")
    config.write_text(text)
    return Bench(config, bench.admin, bench.fleet)


# No way in


@pytest.mark.parametrize(
    ("dsn", "code", "said"),
    [
        ("postgresql://ops:hunter22@db:notaport/x", 78, "the port is not a number|cannot be read"),
        ("host=db password=hunter22 nonsense", 78, "cannot be read|cannot read"),
        ("postgresql://ops@no-such-host.invalid/x", 10, "no-such-host.invalid"),
        ("postgresql://ops@127.0.0.1:1/x", 10, "Connection refused"),
    ],
)
def test_nobody_answers(bench: Bench, dsn: str, code: int, said: str) -> None:
    for words, expected in ((("check", BOOK), 3), (("plan", BOOK), code), (("run", BOOK), code)):
        done = bench.run(*words, AIPROD_OPS_DSN=dsn)
        assert done.exit == expected, done.said
        assert re.search(said, done.err), done.said
        assert "hunter22" not in done.said
        assert done.err.count("aiprod-ops: ") == 1, done.said
        assert "next: " in done.err, done.said


def test_wrong_password(bench: Bench) -> None:
    dsn = f"postgresql://aiprod_probe:hunter22@127.0.0.1:{bench.fleet.ports[0]}/aiprod"
    for words, code in ((("check", BOOK), 3), (("plan", BOOK), 77)):
        done = bench.run(*words, AIPROD_OPS_DSN=dsn)
        assert (done.exit, "password authentication failed" in done.err) == (code, True), done.said
        assert "hunter22" not in done.said


def test_the_actors_password_is_wrong(bench: Bench) -> None:
    digest = bench.proven(*HASTY)
    wrong = another(bench, "wrong", (r"^actor = .*$", f'actor = "{_tcp(bench, "aiprod_actor")}"'))
    done = wrong.apply(digest)
    assert done.exit == 77, done.said
    assert "password authentication failed" in done.said
    assert bench.indexes() == {}


def test_the_backups_password_is_wrong(bench: Bench) -> None:
    done = bench.run("prove", BOOK, "--plan", bench.plan(*HASTY), "--backup-dsn", _tcp(bench, "aiprod_backup"))
    assert (done.exit, "user and password of the backup DSN" in done.err) == (77, True), done.said


def _tcp(bench: Bench, role: str) -> str:
    return f"postgresql://{role}:hunter22@127.0.0.1:{bench.fleet.ports[0]}/aiprod"


def test_a_standby_can_be_checked_and_is_not_changed(bench: Bench) -> None:
    dsn = bench.fleet.dsn("aiprod_probe", bench.fleet.replicas[0])
    checked = bench.run("check", BOOK, "--dsn", dsn)
    assert checked.exit in (0, 1, 2, 3), checked.said
    assert "aiprod-ops: " not in checked.err
    for words in (("plan", BOOK), ("prove", BOOK), ("run", BOOK)):
        done = bench.run(*words, "--dsn", dsn, *SLOW)
        assert done.exit == 10, done.said
        assert "standby" in done.err, done.said
        assert str(bench.fleet.ports[0]) in done.err or "primary" in done.err, done.said


# What a role may not see, on a database that we did not make


@pytest.fixture(scope="module")
def stranger() -> Iterator[Bench]:
    """A database without the extension, and a role that may log in and nothing else."""
    with short_folder() as folder, lone_server(folder, shared_preload_libraries="") as server:
        admin = Bench(Path("/"), server.dsn("postgres", "postgres"))
        admin.sql("CREATE DATABASE shop")
        bench = configured(folder, server, "shop")
        for line in (
            "CREATE ROLE probe LOGIN", "CREATE ROLE actor LOGIN SUPERUSER",
            "CREATE TABLE orders (id bigint PRIMARY KEY, state text, at timestamptz)",
            "INSERT INTO orders SELECT g, CASE g % 50 WHEN 0 THEN 'open' ELSE 'shipped' END,"
            " '2026-01-01'::timestamptz + g * interval '1 min' FROM generate_series(1, 50000) g",
            "ANALYZE orders",
        ):  # fmt: skip
            bench.sql(line)
        yield bench
        del server


def test_each_missing_privilege_is_named_with_the_sql_that_grants_it(stranger: Bench) -> None:
    """From nothing to a critical finding, only by typing what the messages say."""
    typed: list[str] = []
    for _ in range(6):
        checked = stranger.run("check", BOOK, *SLOW)
        offered = re.findall(r"`([^`]+;)`", checked.out)
        if not offered:
            break
        assert checked.exit == 3, checked.said
        assert (planned := stranger.run("plan", BOOK, *SLOW)).exit == 10, planned.said
        assert offered[0] in planned.err
        for line in (sql for text in offered for sql in text.split(";") if sql.strip()):
            typed.append(line.strip())
            stranger.sql(line)
        if any("shared_preload_libraries" in line for line in offered):
            _restart(stranger)
        _work(stranger)
    assert any("CREATE EXTENSION pg_stat_statements" in line for line in typed), typed
    assert any("GRANT pg_monitor" in line for line in typed), typed
    assert any("GRANT pg_read_all_data" in line for line in typed), typed
    assert checked.exit == 2, checked.said
    assert "orders (state" in checked.out, checked.said


@pytest.mark.parametrize("document", ["README.md", "site/configuration.md"])
def test_the_printed_grants_are_all_that_the_checks_want(document: str) -> None:
    """Typed as they stand there, on a server that was just made."""
    written = (Path(__file__).parents[2] / document).read_text()
    (block,) = re.findall(r"```sql\n(.*?)```", written, re.DOTALL)
    with short_folder() as folder, lone_server(folder) as server:
        bench = configured(folder, server, "postgres", probe=server.dsn("monitor", "postgres"))
        bench.sql("CREATE TABLE orders AS SELECT g AS id FROM generate_series(1, 100000) g")
        bench.sql("CREATE INDEX ON orders (id)")
        script = folder / "grants.sql"
        script.write_text(block)
        printed = server.dsn("postgres", "postgres")
        server.programs.run("psql", "-X", "-v", "ON_ERROR_STOP=1", "-f", str(script), printed, cwd=folder)
        _restart(bench)
        bench.ask("SELECT * FROM orders WHERE id = 7")
        done = bench.run("check", BOOK, "slow-queries", "verify-indexes", "-o", "json")
        found = [each for check in done.json()["checks"] for each in check["findings"] if each["status"] == "UNKNOWN"]
        asked = [each["note"] for each in found if re.search(r"GRANT|CREATE EXTENSION|ALTER SYSTEM", each["note"])]
        assert asked == [], done.said
        assert {check["runbook"] for check in done.json()["checks"]} == {BOOK, "slow-queries", "verify-indexes"}


def _restart(bench: Bench) -> None:
    data = Path(bench.sql("SHOW data_directory")[0][0])
    from aiprod_ops.adapters.local.instance import PostgresServer
    from aiprod_ops.adapters.local.programs import find, reachable

    server = PostgresServer(reachable(find(), data.parent), data, data.parent / "s", 5432, data.parent / "server.log")
    server.stop("fast")
    server.start()


def _work(bench: Bench) -> None:
    for _ in range(5):
        bench.sql("SELECT * FROM orders WHERE state = 'open' ORDER BY at LIMIT 10")


def test_a_check_changes_nothing(stranger: Bench) -> None:
    """Runs after the privileges were granted: schema, rows, statistics and settings are the same before and after."""
    look = [
        "SELECT count(*), max(oid) FROM pg_class",
        "SELECT sum(n_tup_ins), sum(n_tup_upd), sum(n_tup_del), sum(n_live_tup) FROM pg_stat_user_tables",
        "SELECT name, setting FROM pg_settings WHERE name NOT LIKE '%lsn%' ORDER BY name",
        "SELECT setdatabase, setrole, setconfig FROM pg_db_role_setting ORDER BY 1, 2",
        "SELECT xmin, * FROM pg_database ORDER BY oid",
        "SELECT roleid, member FROM pg_auth_members ORDER BY 1, 2",
        "SELECT coalesce(max(age(backend_xid)), 0), pg_snapshot_xmax(pg_current_snapshot()) FROM pg_stat_activity",
    ]
    stranger.sql("ALTER SYSTEM SET autovacuum = off")  # what it analyzes meanwhile is no check's doing
    stranger.sql("SELECT pg_reload_conf(), pg_sleep(1)")
    before = [stranger.sql(text) for text in look]
    for output in ("text", "json", "nagios", "prom"):
        assert stranger.run("check", BOOK, *SLOW, "-o", output).exit in (0, 1, 2)
    assert [stranger.sql(text) for text in look] == before


def test_a_statement_that_our_parser_does_not_know_is_listed(bench: Bench) -> None:
    """What the server makes of it, `prompt = $1 UESCAPE '!'`, is no SQL any more."""
    bench.ask("SELECT count(*) FROM jobs WHERE prompt = U&'!0041' UESCAPE '!'")
    checked = bench.run("check", BOOK, *SLOW)
    assert checked.exit == 3, checked.said
    assert re.search(r"UNKNOWN .*UESCAPE.*cannot be told", checked.out), checked.said
    assert "the parser says: syntax error" in checked.out
    assert (planned := bench.run("plan", BOOK, *SLOW)).exit == 0, planned.said
    bench.ask(PICK)


# Approval


def test_a_plan_that_was_edited(bench: Bench) -> None:
    digest = bench.plan(*HASTY, "--blocked", "7s")
    file = bench.state / "plans" / f"{digest}.json"
    kept = json.loads(file.read_text())
    kept["plan"]["actions"][0]["subject"]["index"]["name"]["name"] = "idx_mine"
    file.write_text(json.dumps(kept))
    done = bench.apply(digest)
    assert (done.exit, "was edited" in done.err) == (10, True), done.said
    file.unlink()


def test_approvals_that_are_none(bench: Bench) -> None:
    for digest, code in (("0123456789ab", 12), ("not-hex", 64)):
        assert (done := bench.apply(digest)).exit == code, done.said
        assert "next: " in done.err


def test_an_approval_expires(bench: Bench) -> None:
    service = bench.config.with_name("service.toml")
    shipped = (Path(sys.modules["aiprod_ops"].__path__[0]) / "service.toml").read_text()
    service.write_text(re.sub(r'valid_for = ".*"', 'valid_for = "1 s"', shipped))
    hasty = another(bench, "hasty", (r"\A", 'service = "service.toml"\n'))
    digest = hasty.plan()
    until(lambda: hasty.apply(digest).exit == 12, "the approval does not expire", timeout_s=10)
    assert "expired" in hasty.apply(digest).err


def test_a_plan_is_for_one_target(bench: Bench) -> None:
    lines = bench.config.read_text().split("[targets.lab]\n")[1].replace("[targets.lab.", "[targets.other.")
    two = another(bench, "two", (r"\Z", f"\n[targets.other]\n{lines}"))
    done = two.run("run", BOOK, "--apply", bench.plan(*HASTY), "--target", "other")
    assert (done.exit, "the plan is for lab/aiprod" in done.err) == (10, True), done.said


@pytest.mark.parametrize("closing", ["</dev/null", "<&-"])
def test_nobody_to_ask(bench: Bench, closing: str) -> None:
    line = f'exec "$0" -m aiprod_ops run {BOOK} {" ".join(SLOW)} {closing}'
    done = subprocess.run(["sh", "-c", line, sys.executable], env=bench.env(), capture_output=True, text=True, cwd="/")
    assert done.returncode == 12, done.stderr
    assert "not approved" in done.stderr
    assert f"run {BOOK} --apply" in done.stderr
    assert bench.indexes() == {}


# What is there already


def test_the_index_is_there(bench: Bench) -> None:
    bench.sql(f"CREATE INDEX {INDEX} ON jobs (status, created_at)")
    for words in (("plan", BOOK), ("run", BOOK)):
        done = bench.run(*words, *SLOW)
        assert (done.exit, "Nothing to do" in done.out) == (0, True), done.said


def leave_invalid(bench: Bench, keys: str = "status, created_at") -> None:
    """What an interrupted build of somebody leaves."""
    with snapshot(bench), session_of(bench) as (_, cursor):
        cursor.execute("SET statement_timeout = '700ms'")
        with pytest.raises(Exception, match="statement timeout"):
            cursor.execute(f"CREATE INDEX CONCURRENTLY {INDEX} ON jobs ({keys})")
    assert bench.indexes() == {INDEX: False}


def test_an_invalid_one_is_dropped_and_built_again(bench: Bench) -> None:
    leave_invalid(bench)
    planned = bench.run("plan", BOOK, *SLOW, *HASTY)
    assert "drop-invalid-index" in planned.out, planned.said
    done = bench.apply(bench.proven(*HASTY))
    assert done.exit == 0, done.said
    assert bench.indexes() == {INDEX: True}


@pytest.mark.parametrize("kind", ["VIEW {} AS SELECT 1 AS one", "SEQUENCE {}", "TYPE {} AS (a int)", "invalid index"])
def test_the_name_is_taken(bench: Bench, kind: str) -> None:
    if kind == "invalid index":
        leave_invalid(bench, "prompt")
    else:
        bench.sql(f"CREATE {kind.format(INDEX)}")
    try:
        done = bench.apply(bench.proven(*HASTY))
        assert done.exit == 0, done.said
        assert bench.indexes()[f"{INDEX}_1"]
    finally:
        bench.sql(f"DROP {'INDEX' if kind == 'invalid index' else kind.split()[0]} {INDEX}")


# Between plan and run


def test_somebody_builds_the_same_index_first(bench: Bench) -> None:
    digest = bench.proven(*HASTY)
    bench.sql(f"CREATE INDEX {INDEX} ON jobs (status, created_at)")
    done = bench.apply(digest)
    assert (done.exit, "there already" in done.out) == (0, True), done.said
    bench.sql(f"ALTER INDEX {INDEX} RENAME TO theirs")
    assert (done := bench.apply(digest)).exit in (0, 10), done.said
    assert bench.indexes() == {"theirs": True}


def test_somebody_drops_the_table_first(bench: Bench) -> None:
    bench.sql("CREATE TABLE orders AS SELECT * FROM jobs")
    bench.sql("ANALYZE orders")
    bench.ask(PICK.replace("jobs", "orders"))
    digest = bench.plan(*HASTY)
    bench.sql("DROP TABLE orders")
    done = bench.apply(digest)
    bench.ask(PICK)
    assert (done.exit, "stale" in done.err) == (10, True), done.said


# The guard


def test_an_old_snapshot_is_not_waited_for(bench: Bench) -> None:
    digest = bench.proven(*HASTY, "--oldest", "1s")
    with snapshot(bench) as pid:
        bench.sql("SELECT pg_sleep(1.1)")
        done = bench.apply(digest)
    assert done.exit == 10, done.said
    assert f"session {pid} of postgres (somebody)" in done.said
    assert bench.indexes() == {}


def test_an_old_writer_is_not_waited_for(bench: Bench) -> None:
    digest = bench.proven(*HASTY, "--oldest", "1s")
    with writer(bench) as pid:
        bench.sql("SELECT pg_sleep(1.1)")
        done = bench.apply(digest)
    assert done.exit == 10, done.said
    assert f"session {pid} of postgres" in done.said


def test_a_locked_table(bench: Bench) -> None:
    digest = bench.proven(*HASTY)
    with faults.locked(bench.fleet) as pid:
        done = bench.apply(digest)
        planned = bench.run("plan", BOOK, *SLOW)
    assert done.exit == 10, done.said
    assert re.search(rf"{pid}\b.*aiprod_actor", done.said), done.said
    assert planned.exit in (0, 10), planned.said
    assert bench.indexes() == {}


@AS_ROOT
def test_no_room_for_the_index(bench: Bench, tmp_path: Path) -> None:
    digest = bench.proven(*HASTY)
    with faults.small_filesystem(tmp_path / "data", Bytes(64_000)) as data:
        full = another(bench, "full", (r"^data_directory = .*$", f'data_directory = "{data}"'))
        done = full.apply(digest)
    assert done.exit == 10, done.said
    assert re.search(r"[\d.]+ MB are needed for the index.*[\d.]+ kB are free", done.said), done.said


@AS_ROOT
def test_no_room_for_the_copy(bench: Bench, tmp_path: Path) -> None:
    with faults.small_filesystem(tmp_path / "copies", Bytes(8_000_000)) as copies:
        full = another(bench, "full", (r"^copies = .*$", f'copies = "{copies}"'))
        done = full.run("prove", BOOK, *SLOW, "--blocked", "6s")
    assert done.exit == 10, done.said
    assert re.search(r"a copy needs \d+ MB in .*, 8.00 MB are free", done.err), done.said
    for run in bench.unfinished():
        assert (again := bench.run("resume", run)).exit == 0, again.said


@AS_ROOT
def test_the_disk_of_the_index_becomes_full(tmp_path: Path) -> None:
    """The actor's indexes go to a tablespace that is too small: the server says so while it builds."""
    with (
        short_folder() as folder,
        faults.small_filesystem(folder / "space", Bytes(400_000)) as space,
        lone_server(folder, shared_preload_libraries="pg_stat_statements") as server,
    ):
        server.programs.hand_over(space)
        bench = configured(folder, server, "postgres")
        shop(bench)
        bench.sql(f"CREATE TABLESPACE small LOCATION '{space}'")
        bench.sql("ALTER ROLE actor SET default_tablespace = small")
        done = bench.apply(bench.proven(*HASTY))
        assert done.exit == 20, done.said
        assert "No space left on device" in done.said
        assert bench.indexes("orders") == {}
        bench.sound()


def shop(bench: Bench) -> None:
    """One table, one statement that misses an index, and the roles."""
    for line in (
        "CREATE EXTENSION pg_stat_statements",
        "CREATE ROLE probe LOGIN IN ROLE pg_monitor, pg_read_all_data",
        "CREATE ROLE actor LOGIN SUPERUSER",
        "CREATE TABLE orders (id bigint PRIMARY KEY, state text, at timestamptz)",
        "INSERT INTO orders SELECT g, CASE g % 50 WHEN 0 THEN 'open' ELSE 'shipped' END,"
        " '2026-01-01'::timestamptz + g * interval '1 min' FROM generate_series(1, 60000) g",
        "ANALYZE orders",
    ):
        bench.sql(line)
    bench.ask("SELECT * FROM orders WHERE state = 'open' ORDER BY at LIMIT 10")


def test_a_prepared_transaction(tmp_path: Path) -> None:
    """An old one is refused; one that comes after the guard makes the build wait, and is given up."""
    with (
        short_folder() as folder,
        lone_server(folder, shared_preload_libraries="pg_stat_statements", max_prepared_transactions=2) as server,
    ):
        bench = configured(folder, server, "postgres")
        shop(bench)
        old, young = bench.proven(*HASTY, "--oldest", "1s"), bench.proven(*HASTY)
        bench.sql("BEGIN; UPDATE orders SET state = 'open' WHERE id = 1; PREPARE TRANSACTION 'stuck'")
        bench.sql("SELECT pg_sleep(1.1)")
        refused = bench.apply(old)
        assert (refused.exit, "'stuck' of postgres" in refused.said) == (10, True), refused.said
        going = bench.start("run", BOOK, "--apply", young)
        until(lambda: bench.doing("drop index"), "the remains are not removed")
        bench.sql("ROLLBACK PREPARED 'stuck'")
        undone = going.done()
        assert (undone.exit, "the build waits for other sessions" in undone.said) == (20, True), undone.said
        assert bench.indexes("orders") == {}
        assert (done := bench.apply(young)).exit == 0, done.said
        bench.sound()


# While it is built


def test_a_snapshot_that_does_not_end(bench: Bench) -> None:
    digest = bench.proven(*HASTY)
    with snapshot(bench) as pid:
        done = bench.apply(digest)
    assert done.exit == 20, done.said
    assert f"waits for {pid} postgres somebody" in done.said, done.said
    assert bench.indexes() == {}


def test_a_lock_that_is_taken_after_the_guard(bench: Bench) -> None:
    """The guard sees locks that are held, not one that somebody waits for: the build comes to wait behind that."""
    digest = bench.proven(*HASTY)
    with writer(bench), _queued(bench, "LOCK TABLE jobs IN SHARE MODE") as pid:
        done = bench.apply(digest)
    assert done.exit == 20, done.said
    assert f"waits for {pid} postgres somebody" in done.said
    assert bench.indexes() == {}


def test_the_build_gives_way_to_those_it_blocks(bench: Bench) -> None:
    digest = bench.proven("--patience", "30s", "--blocked", "2s")
    with writer(bench):
        going = bench.start("run", BOOK, "--apply", digest)
        bench.building(WRITERS)
        with _queued(bench, "ALTER TABLE jobs ADD COLUMN extra int"):
            until(lambda: not bench.doing("create index"), "the build does not give way")
    done = going.done()
    assert done.exit == 20, done.said
    assert "sessions wait for the build" in done.said
    assert bench.indexes() == {}


@contextmanager
def _queued(bench: Bench, statement: str) -> Iterator[int]:
    """A session whose statement waits for its lock; it is ended at the end. Gives its pid."""
    with session_of(bench) as (session, cursor):
        pid = session.info.backend_pid

        def wait() -> None:
            with pytest.raises(Exception, match=r"canceling statement|terminating|closed"):
                cursor.execute(f"BEGIN; {statement}; SELECT pg_sleep(60)")

        thread = threading.Thread(target=wait)
        thread.start()
        waits = "SELECT 1 FROM pg_stat_activity WHERE pid = %(pid)s AND wait_event_type = 'Lock'"
        until(lambda: bench.sql(waits, {"pid": pid}), "nobody waits")
        try:
            yield pid
        finally:
            bench.sql("SELECT pg_terminate_backend(%(pid)s, 5000)", {"pid": pid})
            thread.join()


def test_two_people_at_once(bench: Bench) -> None:
    digest = bench.proven("--patience", "60s")
    elsewhere = another(bench, "elsewhere", (r"^state = .*$", f'state = "{bench.state}-elsewhere"'))
    other = elsewhere.proven("--patience", "60s")
    with snapshot(bench):
        first = bench.start("run", BOOK, "--apply", digest)
        bench.building(SNAPSHOTS)
        second, third = bench.apply(digest), elsewhere.apply(other)
    assert first.done().exit == 0
    assert (second.exit, "held by" in second.said) == (11, True), second.said
    assert third.exit in (10, 11), third.said
    assert bench.indexes() == {INDEX: True}
    elsewhere.sound()


@pytest.mark.parametrize("function", ["pg_cancel_backend", "pg_terminate_backend"])
def test_somebody_ends_our_session(bench: Bench, function: str) -> None:
    digest = bench.proven("--patience", "60s")
    with snapshot(bench):
        going = bench.start("run", BOOK, "--apply", digest)
        bench.sql(f"SELECT {function}({bench.building(SNAPSHOTS)})")
        done = going.done()
    assert done.exit == 20, done.said
    assert bench.indexes() == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop(bench: Bench, number: signal.Signals) -> None:
    digest = bench.proven("--patience", "60s")
    with snapshot(bench):
        going = bench.start("run", BOOK, "--apply", digest)
        bench.building(SNAPSHOTS)
        going.process.send_signal(number)
        done = going.done()
    assert done.exit == 20, done.said
    assert "asked to stop" in done.said
    assert bench.indexes() == {}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("verb", ["prove", "run"])
def test_stopped_before_the_first_action(bench: Bench, verb: str, number: signal.Signals, code: int) -> None:
    """While the copy is made and measured; it is destroyed, too."""
    digest = bench.plan("--patience", f"{70 + code}s", "--lag", "50s" if verb == "run" else "51s")
    going = bench.start(verb, BOOK, "--plan" if verb == "prove" else "--apply", digest)
    copies = bench.fleet.folder / "copies"
    until(lambda: list(copies.glob("*/data/postmaster.pid")), "no copy is started")
    going.process.send_signal(number)
    done = going.done()
    assert done.exit == code, done.said
    assert list(copies.iterdir()) == []
    assert bench.indexes() == {}
    for run in bench.unfinished():
        assert bench.run("resume", run).exit == 0


def test_the_primary_is_killed(bench: Bench) -> None:
    digest = bench.proven("--patience", "60s")
    with writer(bench):
        going = bench.start("run", BOOK, "--apply", digest)
        bench.building(WRITERS)
        faults.kill_postmaster(bench.fleet.primary)
    done = going.done()
    bench.fleet.primary.start()
    bench.ask(PICK)  # what was counted is lost with the server
    assert done.exit == 22, done.said
    assert "aiprod-ops resume" in done.err, done.said
    (run,) = bench.unfinished()
    assert (resumed := bench.run("resume", run)).exit == 0, resumed.said
    assert bench.indexes() == {INDEX: True}
    assert bench.run("resume", run).exit == 0, "resumed twice"


def test_the_primary_freezes_for_some_seconds(bench: Bench) -> None:
    digest = bench.proven("--patience", "60s")
    with writer(bench):
        going = bench.start("run", BOOK, "--apply", digest)
        bench.building(WRITERS)
        with faults.frozen(bench.fleet.primary):
            threading.Event().wait(4)
    assert (done := going.done()).exit == 0, done.said
    assert bench.indexes() == {INDEX: True}


@AS_ROOT
def test_the_journals_disk_becomes_full(bench: Bench, tmp_path: Path) -> None:
    with faults.small_filesystem(tmp_path / "state", Bytes(1_000_000)) as state:
        full = another(bench, "full", (r"^state = .*$", f'state = "{state}"'))
        digest = full.proven("--patience", "60s")
        filler = state / "filler"
        _fill(filler)
        refused = full.apply(digest)
        assert refused.exit == 10, refused.said
        assert "No space left on device" in refused.err
        assert bench.indexes() == {}
        filler.unlink()
        with writer(bench):
            going = full.start("run", BOOK, "--apply", digest)
            bench.building(WRITERS)
            _fill(filler)
        done = going.done()
        assert done.exit == 22, done.said
        assert "make room" in done.err
        filler.unlink()
        run = _unfinished(state)
        assert (resumed := full.run("resume", run)).exit == 0, resumed.said
        assert bench.indexes() == {INDEX: True}
        assert full.run("evidence", "verify").exit == 0


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as handle, contextlib.suppress(OSError):
        while handle.write(bytes(4096)):
            pass


def _unfinished(state: Path) -> str:
    """The run that was acting: its journal has an intent and no end."""
    (run,) = (
        journal.parent.name
        for journal in state.glob("runs/*/journal.jsonl")
        if '"kind":"intended"' in (text := journal.read_text()) and '"kind":"ended"' not in text
    )
    return run


@pytest.mark.parametrize(
    ("name", "value"),
    [("statement_timeout", "1s"), ("lock_timeout", "500ms"), ("transaction_timeout", "1s"),
     ("idle_session_timeout", "1s")],
)  # fmt: skip
def test_limits_of_the_actors_role_do_not_cut_a_build(bench: Bench, name: str, value: str) -> None:
    """The build waits longer than the role's own limit allows; the watch bounds it, and nothing else."""
    if name == "transaction_timeout" and bench.sql("SHOW server_version_num")[0][0] < "170000":
        pytest.skip("transaction_timeout came with PostgreSQL 17")
    digest = bench.proven("--patience", "60s")
    with role_setting(bench, "aiprod_actor", name, value):
        with writer(bench):
            going = bench.start("run", BOOK, "--apply", digest)
            bench.building(WRITERS)
            threading.Event().wait(1.5)
        done = going.done()
    assert done.exit == 0, done.said
    assert bench.indexes() == {INDEX: True}
