"""Drift between a real database and real migrations, which run in a process of their own on a server of our own."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aiprod_ops import api
from aiprod_ops.adapters.files import FolderStore
from aiprod_ops.adapters.local import processes, scratch
from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.adapters.local.platform import LocalPlatform
from aiprod_ops.adapters.local.programs import find
from aiprod_ops.adapters.postgres.database import PostgresDatabase
from aiprod_ops.config import Promises, Target
from aiprod_ops.domain.catalogue.faults import Fault, Level, Restore
from aiprod_ops.engine.history import History
from aiprod_ops.engine.runbook import Context
from aiprod_ops.lab import postgres
from aiprod_ops.lab.fleet import Fleet
from aiprod_ops.units import Seconds

pytestmark = pytest.mark.lab

EIGHT = [
    "idx_jobs_created_at",
    "idx_jobs_status",
    "idx_jobs_user_id",
    "idx_jobs_user_status",
    "idx_pipeline_jobs_created_at",
    "idx_pipeline_jobs_status",
    "idx_results_created_at",
    "idx_results_job_id",
]
REVISION = """
import os, sys, time
from alembic import op
revision, down_revision, branch_labels, depends_on = {revision!r}, {down!r}, None, None


def upgrade():
    {body}
"""


class Calendar:
    """A clock whose day is chosen."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 21, 12, tzinfo=UTC)

    def now(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, duration: Seconds) -> None:
        time.sleep(duration)


@dataclass
class Bench:
    """A database beside a versions folder. `opened` counts sessions with scratch servers."""

    dsn: str
    versions: Path
    store: FolderStore
    clock: Calendar = field(default_factory=Calendar)
    postgres_bin: Path | None = None
    opened: int = 0
    said: list[str] = field(default_factory=list)

    def do(self, statement: str) -> None:
        postgres.rows(self.dsn, statement)

    def revision(self, revision: str, down: str | tuple[str, ...], body: str) -> None:
        text = REVISION.format(revision=revision, down=down, body=body)
        (self.versions / f"{revision}_test.py").write_text(text)

    def migrated(self, timeout: float = 60) -> api.Migrated:
        with PostgresDatabase(self.dsn, writes=False, application_name="test") as probe:
            platform = LocalPlatform(str, self.versions / "none", self._connect, postgres_bin=self.postgres_bin)
            target = Target("shop", self.dsn, migrations=str(self.versions))
            history = History(self.store, "shop", timedelta(days=400))
            context = Context(probe, target, platform, self.clock, Promises({}, "test"), self.said.append, history)
            return api.migrated(context, Seconds(timeout))

    def drift(self) -> dict[str, Fault]:
        migrated = self.migrated()
        with PostgresDatabase(self.dsn, writes=False, application_name="test") as probe:
            faults = api.drift(migrated, probe.schema(), probe.server().version)
        return {fault.id: fault for fault in faults}

    def why_not(self, timeout: float = 60) -> str:
        return self.migrated(timeout).missing

    def _connect(self, dsn: str) -> PostgresDatabase:
        self.opened += 1
        return PostgresDatabase(dsn, writes=True, application_name="test")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with scratch.scratch(find(None)) as made:
        postgres.rows(made.dsn("postgres", "postgres"), "CREATE ROLE aiprod_owner; CREATE ROLE aiprod_app")
        yield made


@pytest.fixture
def bench(server: PostgresServer, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A database at 002, and a copy of this repository's revisions up to it."""
    postgres.rows(server.dsn("postgres", "postgres"), "CREATE DATABASE shop OWNER aiprod_owner")
    dsn = server.dsn("postgres", "shop")
    postgres.migrate(dsn, getattr(request, "param", "002"))
    versions = tmp_path / "app versions"
    versions.mkdir()
    for path in postgres.revisions_up_to("002"):
        (versions / path.name).write_bytes(path.read_bytes())
    yield Bench(dsn, versions, FolderStore(tmp_path / "state"))
    postgres.rows(server.dsn("postgres", "postgres"), "DROP DATABASE shop WITH (FORCE)")


@pytest.fixture
def temporary(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of the test's own, also for the processes that it starts."""
    folder = short_path / "t"
    folder.mkdir(mode=0o711)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    processes.stop(folder)
    folder.rmdir()


def test_no_drift(bench: Bench) -> None:
    assert bench.drift() == {}


def test_every_kind_of_drift_at_once(bench: Bench) -> None:
    bench.do("DROP INDEX idx_jobs_status")
    bench.do("DROP INDEX idx_jobs_created_at")
    bench.do("CREATE INDEX idx_jobs_created_at ON jobs (created_at DESC)")
    bench.do("CREATE INDEX by_hand ON jobs (priority) WHERE status = 'queued'")
    bench.do("ALTER INDEX idx_results_job_id RENAME TO results_job")
    bench.do("ALTER INDEX idx_jobs_user_id SET (fillfactor = 70)")
    bench.do("CREATE TABLE events (id int PRIMARY KEY)")
    found = bench.drift()
    assert sorted(found) == [
        "different:public.idx_jobs_created_at",
        "different:public.idx_jobs_user_id",
        "missing:public.idx_jobs_status",
        "renamed:public.idx_results_job_id",
        "undeclared:public.by_hand",
    ]
    repair = found["missing:public.idx_jobs_status"].repair
    assert isinstance(repair, Restore)
    bench.do(repair.index.definition)
    bench.do(_in_backticks(found["renamed:public.idx_results_job_id"].note))
    by_hand = _in_backticks(found["undeclared:public.by_hand"].note)
    assert by_hand.startswith("CREATE INDEX IF NOT EXISTS by_hand ON public.jobs"), by_hand
    bench.do(by_hand)  # it is there: the migration changes nothing here
    bench.do("DROP INDEX by_hand")
    assert sorted(bench.drift()) == ["different:public.idx_jobs_created_at", "different:public.idx_jobs_user_id"]


def _in_backticks(note: str, which: int = 0) -> str:
    return note.split("`")[1::2][which]


def test_the_statements_of_a_different_one_make_it_right(bench: Bench) -> None:
    bench.do("DROP INDEX idx_jobs_status")
    bench.do("CREATE INDEX idx_jobs_status ON jobs (status, created_at)")
    [fault] = bench.drift().values()
    for number in range(3):
        bench.do(_in_backticks(fault.note, number))
    assert bench.drift() == {}


@pytest.mark.parametrize("bench", ["001"], indirect=True)
def test_a_database_behind_head(bench: Bench) -> None:
    found = bench.drift()
    assert sorted(found) == [f"missing:public.{name}" for name in EIGHT]
    assert {fault.note.partition(":")[0] for fault in found.values()} == {
        "revision 002, which makes it, has not run here"
    }


def test_a_revision_that_the_folder_does_not_know(bench: Bench) -> None:
    bench.do("UPDATE alembic_version SET version_num = '999'")
    [fault] = bench.drift().values()
    assert (fault.level, "at revision 999" in fault.note) == (Level.UNKNOWN, True)


def test_a_database_without_revisions(bench: Bench) -> None:
    bench.do("DROP TABLE alembic_version")
    [fault] = bench.drift().values()
    assert (fault.level, "no revision was found" in fault.note) == (Level.UNKNOWN, True)


def test_several_heads(bench: Bench) -> None:
    bench.revision("003", "002", "pass")
    bench.revision("004", "002", "pass")
    assert "there are 2 heads, 003, 004: join them with `alembic merge heads`" in bench.why_not()


def test_a_folder_without_revisions(bench: Bench) -> None:
    bench.versions = bench.versions / "empty"
    assert "there is no folder" in bench.why_not()
    bench.versions.mkdir()
    assert "there is no revision in it" in bench.why_not()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "op.execute('SELECT 1 FROM nothing')",
            "revision 003 does not run on an empty server: UndefinedTable: relation",
        ),
        ("raise KeyError('x')", "revision 003 does not run on an empty server: KeyError: 'x'"),
        ("sys.exit(0)", "revision 003 does not run on an empty server: it ended the process (exit 0)"),
        ("os.kill(os.getpid(), 9)", "revision 003 does not run on an empty server: it ended the process (exit -9)"),
        ("op.execute('CREATE EXTENSION timescaledb')", "name PostgreSQL programs that have this extension"),
        ("import shop.models", "ModuleNotFoundError: No module named 'shop'; install what the migrations import"),
        ("def", "the migrations folder"),
    ],
)
def test_a_revision_that_fails(bench: Bench, body: str, reason: str) -> None:
    bench.revision("003", "002", body)
    [fault] = bench.drift().values()
    assert (fault.id, fault.level) == ("drift:migrations", Level.UNKNOWN)
    assert reason in fault.note


@pytest.mark.parametrize("body", ["time.sleep(600)", "op.execute('SELECT pg_sleep(600)')"])
def test_a_revision_that_hangs(bench: Bench, temporary: Path, body: str) -> None:
    bench.revision("003", "002", body)
    assert "revision 003 did not end on an empty server within 1 s" in bench.why_not(1)
    assert list(temporary.iterdir()) == []
    assert processes.below(temporary) == []


def test_the_environment_is_not_theirs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGPASSWORD", "AIPROD_OPS_DSN", "DATABASE_URL"):
        monkeypatch.setenv(name, "secret")
    bench.revision("003", "002", "raise RuntimeError(sorted({**os.environ, 'home': os.path.expanduser('~')}.items()))")
    why = bench.why_not()
    assert "RuntimeError: [('HOME', " in why
    assert scratch.PREFIX in why.rpartition("('home', ")[2]
    assert not any(word in why for word in ("secret", "PG", "AIPROD", "DATABASE"))


def _has_namespaces() -> bool:
    code = "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x50000000) != 0)"
    return sys.platform == "linux" and subprocess.run([sys.executable, "-c", code]).returncode == 0


if _has_namespaces():

    def test_there_is_no_network(bench: Bench) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            bench.revision("003", "002", f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)")
            assert "Network is unreachable" in bench.why_not()

    def test_our_environment_is_closed_in_proc_too(bench: Bench) -> None:
        bench.revision("003", "002", "open(f'/proc/{os.getppid()}/environ').read()")
        assert "PermissionError" in bench.why_not()


def test_what_migrations_take_for_granted_is_there(bench: Bench) -> None:
    bench.do("CREATE SCHEMA tools; CREATE EXTENSION pg_trgm SCHEMA tools; CREATE EXTENSION citext")
    bench.revision("003", "002", "op.execute('GRANT SELECT ON jobs TO aiprod_app')")
    bench.revision("004", "003", "op.execute('CREATE INDEX t ON jobs USING gin (prompt tools.gin_trgm_ops)')")
    bench.revision("005", "004", "op.execute('CREATE EXTENSION citext')")
    bench.do("CREATE INDEX t ON jobs USING gin (prompt tools.gin_trgm_ops)")
    bench.do("UPDATE alembic_version SET version_num = '005'")
    assert bench.drift() == {}


def test_another_search_path(bench: Bench) -> None:
    bench.do("CREATE SCHEMA app; ALTER DATABASE shop SET search_path = app, public")
    bench.revision("003", "002", "op.execute('CREATE SCHEMA app'); op.execute('CREATE TABLE o (id int PRIMARY KEY)')")
    bench.do("CREATE TABLE o (id int PRIMARY KEY)")
    bench.do("UPDATE alembic_version SET version_num = '003'")
    assert bench.drift() == {}


MOVE = """
    CREATE SCHEMA app;
    DO $$ DECLARE name text; BEGIN
        FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
            EXECUTE format('ALTER TABLE %I SET SCHEMA app', name);
        END LOOP;
    END $$;
    ALTER DATABASE shop SET search_path = app, public
"""


def test_a_schema_that_somebody_else_made(bench: Bench) -> None:
    bench.do(MOVE)
    assert bench.drift() == {}
    bench.do("DROP INDEX idx_jobs_status")
    assert list(bench.drift()) == ["missing:app.idx_jobs_status"]


def test_the_tables_of_an_extension_are_its_own_affair(bench: Bench) -> None:
    made = "CREATE EXTENSION citext; CREATE TABLE s (id int PRIMARY KEY); ALTER EXTENSION citext ADD TABLE s"
    bench.revision("003", "002", f"op.execute({made!r})")
    bench.do("UPDATE alembic_version SET version_num = '003'")
    assert bench.drift() == {}


def test_branches_that_were_merged(bench: Bench) -> None:
    bench.revision("003", "002", "pass")
    bench.revision("004", "002", "op.create_index('x', 'jobs', ['prompt'])")
    bench.revision("005", ("003", "004"), "pass")
    for at, note in (("003", "revision 004, which makes it, has not run here"), ("004", "the migrations declare it")):
        bench.do(f"UPDATE alembic_version SET version_num = '{at}'")
        [fault] = bench.drift().values()
        assert (fault.id, fault.note.startswith(note)) == ("missing:public.x", True)


def test_the_second_check_starts_no_server(bench: Bench) -> None:
    first = bench.migrated()
    assert bench.opened == 3
    assert bench.migrated() == first
    bench.drift()
    assert bench.opened == 3


def test_whatever_it_follows_from_makes_it_run_again(bench: Bench) -> None:
    second = bench.versions / "002_add_performance_indexes.py"
    changes: list[Callable[[], object]] = [
        lambda: None,
        lambda: bench.revision("003", "002", "pass"),
        lambda: second.write_text(second.read_text() + "\n"),
        lambda: (bench.versions / "some.sql").write_text("SELECT 1"),
        lambda: setattr(bench.clock, "time", bench.clock.time + timedelta(days=1)),
        lambda: bench.do("CREATE EXTENSION citext"),
        lambda: [bench.store.put(name, b"{}") for name in bench.store.names("history/")],
    ]
    for number, change in enumerate(changes, 1):
        change()
        bench.migrated()
        assert bench.opened == 3 * number


def test_a_file_that_a_migration_reads_elsewhere_counts(bench: Bench, tmp_path: Path) -> None:
    elsewhere = tmp_path / "more.sql"
    elsewhere.write_text("CREATE INDEX more ON jobs (prompt)")
    bench.revision("003", "002", f"op.execute(open({str(elsewhere)!r}).read())")
    time.sleep(0.2)  # a file that is as young as the run is not trusted
    assert "missing:public.more" in bench.drift()
    opened = bench.opened
    assert "missing:public.more" in bench.drift()
    assert bench.opened == opened
    elsewhere.write_text("CREATE INDEX less ON jobs (prompt)")
    assert "missing:public.less" in bench.drift()


def test_a_file_that_changes_meanwhile_is_not_trusted(bench: Bench, tmp_path: Path) -> None:
    elsewhere = tmp_path / "touched"
    bench.revision("003", "002", f"open({str(elsewhere)!r}, 'w').close(); open({str(elsewhere)!r}).read()")
    bench.migrated()
    bench.migrated()
    assert bench.opened == 6


def test_nothing_is_written_into_the_folder(bench: Bench) -> None:
    (bench.versions / "beside.py").write_text("COLUMN = 'prompt'")
    before = sorted(path.name for path in bench.versions.rglob("*"))
    bench.migrated()
    assert sorted(path.name for path in bench.versions.rglob("*")) == before


def test_a_full_store_is_said(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "history/shop").mkdir(parents=True)
    (tmp_path / "history/shop/migrated").symlink_to("nowhere")  # it reads as empty, and takes nothing
    bench.store = FolderStore(tmp_path)
    assert bench.drift() == {}
    assert "they run again next time" in bench.said[0]


def test_no_migrations_are_configured(bench: Bench) -> None:
    bench.versions = Path()
    with PostgresDatabase(bench.dsn, writes=False, application_name="test") as probe:
        platform = LocalPlatform(str, bench.versions, bench._connect)
        history = History(bench.store, "shop", timedelta(days=400))
        context = Context(
            probe, Target("shop", bench.dsn), platform, bench.clock, Promises({}, "test"), bench.said.append, history
        )
        assert "the configuration names no migrations" in api.migrated(context).missing


def test_there_are_no_programs(bench: Bench, tmp_path: Path) -> None:
    bench.postgres_bin = tmp_path
    assert "there is no program `postgres`" in bench.why_not()


def test_a_standby_is_compared_as_a_primary_is(fleet: Fleet, bench: Bench) -> None:
    there = replace(bench, dsn=fleet.dsn("aiprod_probe", fleet.replicas[0]))
    assert sorted(there.drift()) == [f"missing:public.{name}" for name in EIGHT]


def test_a_check_that_was_killed_leaves_nothing_after_the_next(bench: Bench, temporary: Path) -> None:
    bench.revision("003", "002", "os.chdir('/'); time.sleep(600)")
    script = (
        "import sys; from datetime import date; from pathlib import Path\n"
        "from aiprod_ops.adapters.local import migrations\n"
        "from aiprod_ops.adapters.postgres.database import PostgresDatabase\n"
        "from aiprod_ops.ports import Migrations\n"
        "connect = lambda dsn: PostgresDatabase(dsn, writes=True, application_name='test')\n"
        "wanted = Migrations(sys.argv[1], 'shop', (), (), {}, date(2026, 1, 1), 18)\n"
        "migrations.run(wanted, None, connect, 600)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(bench.versions)])
    _wait(lambda: any('"begin": "003"' in path.read_text() for path in temporary.glob("*/report.jsonl")))
    assert scratch.sweep() == []
    [folder] = temporary.iterdir()
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert processes.below(folder)
    bench.revision("003", "002", "pass")
    assert bench.why_not() == ""
    assert list(temporary.iterdir()) == []
    _wait(lambda: not _migrating(folder))


def _migrating(folder: Path) -> list[str]:
    import psutil

    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if "aiprod_ops.adapters.local.migrating" in line and str(folder) in line]


def _wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


if Path("/usr/lib/postgresql/15/bin/postgres").exists():

    def test_programs_of_another_major_version(bench: Bench) -> None:
        bench.postgres_bin = Path("/usr/lib/postgresql/15/bin")
        assert bench.drift() == {}
        bench.do("DROP INDEX idx_jobs_status; CREATE INDEX idx_jobs_status ON jobs (status DESC)")
        [fault] = bench.drift().values()
        assert fault.level is Level.UNKNOWN
        assert "the migrations ran on PostgreSQL 15, this server is 18" in fault.note
