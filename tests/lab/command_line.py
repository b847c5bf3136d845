"""The real command line against real servers: what the tests of bad days share."""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg2

from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.adapters.local.programs import find, reachable
from aiprod_ops.lab import fleet as fleets
from aiprod_ops.lab import postgres
from aiprod_ops.lab.fleet import Fleet

BOOK = "add-missing-index"
INDEX = "idx_jobs_status_created_at"
PICK = "SELECT id, prompt FROM jobs WHERE status = 'queued' ORDER BY created_at LIMIT 10"
SLOW = ("--objective", "0.2ms")  #: on small data statements are fast: what is slow is a matter of the promise


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    exit: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return f"{self.out}\n{self.err}\n(exit {self.exit})"

    def json(self) -> Any:
        return json.loads(self.out)


class Going:
    """A command that runs beside the test. Its output goes to files: a pipe that nobody reads would stop it."""

    def __init__(self, words: tuple[str, ...], env: Mapping[str, str]) -> None:
        self._out, self._err = (tempfile.TemporaryFile("w+") for _ in range(2))  # noqa: SIM115
        self.process = subprocess.Popen(
            _line(words), env=dict(env), stdin=subprocess.DEVNULL, stdout=self._out, stderr=self._err, cwd="/"
        )

    def done(self, timeout_s: float = 90) -> Done:
        """Wait for its end."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the command does not end: {self._read()}") from None
        return Done(code, *self._read())

    def kill(self) -> None:
        """`kill -9`: no handler runs."""
        self.process.kill()
        self.process.wait()
        self._read()

    def _read(self) -> tuple[str, str]:
        texts = []
        for file in (self._out, self._err):
            file.seek(0)
            texts.append(file.read())
            file.close()
        return texts[0], texts[1]


def _line(words: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "aiprod_ops", *words]


class Bench:
    """A database, the configuration that leads to it, and commands on it. `admin` is a superuser's DSN."""

    def __init__(self, config: Path, admin: str, fleet: Fleet | None = None) -> None:
        self.config, self.admin, self._fleet = config, admin, fleet

    @property
    def fleet(self) -> Fleet:
        assert self._fleet is not None
        return self._fleet

    @property
    def state(self) -> Path:
        return self.config.parent / "state"

    def env(self, **more: str) -> dict[str, str]:
        ours = {"AIPROD_OPS_CONFIG": str(self.config), "NO_COLOR": "1", "HOME": str(self.config.parent)}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIPROD_OPS", "PG"))}
        return kept | ours | more

    def run(self, *words: str, timeout_s: float = 120, **more: str) -> Done:
        """Run a command to its end; `more` is its environment."""
        return self.start(*words, **more).done(timeout_s)

    def start(self, *words: str, **more: str) -> Going:
        return Going(words, self.env(**more))

    def sql(self, text: str, values: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return postgres.rows(self.admin, text, dict(values) if values else None)

    def ask(self, text: str, times: int = 5) -> None:
        """Let a statement be counted as users' work, with no other beside it."""
        self.sql("SELECT pg_stat_statements_reset()")
        with postgres.session(self.admin) as session, session.cursor() as cursor:
            for _ in range(times):
                cursor.execute(text)

    def plan(self, *options: str) -> str:
        """The digest of a plan that has something to do."""
        made = self.run("plan", BOOK, "-o", "json", *SLOW, *options)
        assert made.exit == 0, made.said
        assert made.json()["plan"]["actions"], made.said
        return str(made.json()["digest"])

    def proven(self, *options: str) -> str:
        """The digest of a plan that holds on a copy. The same plan is proven once."""
        digest = self.plan(*options)
        if not any(digest in file.read_text() for file in self.state.glob("evidence/*.json")):
            proof = self.run("prove", BOOK, "--plan", digest)
            assert proof.exit == 0, proof.said
        return digest

    def apply(self, digest: str, *options: str) -> Done:
        return self.run("run", BOOK, "--apply", digest, *options)

    def indexes(self, table: str = "jobs") -> dict[str, bool]:
        """Indexes of a table beside its primary key: name → valid."""
        found = self.sql(
            "SELECT c.relname, i.indisvalid AND i.indisready FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
            " WHERE i.indrelid = to_regclass(%(table)s) AND NOT i.indisprimary",
            {"table": table},
        )
        return {str(name): bool(is_valid) for name, is_valid in found}

    def journals(self) -> list[Path]:
        return sorted(self.state.glob("runs/*/journal.jsonl"))

    def unfinished(self) -> list[str]:
        """Runs that wait for `resume`, oldest first."""
        listed = self.run("runs", "list", "-o", "json")
        return [row["run"] for row in listed.json() if row["state"].startswith("unfinished")]

    def sound(self, known: Sequence[str] = ()) -> None:
        """The chain of evidence holds, and no run is unfinished that was not before."""
        verified = self.run("evidence", "verify")
        assert verified.exit == 0, verified.said
        assert self.unfinished() == list(known)

    def clean(self) -> None:
        """No secondary index on jobs any more, by hand."""
        for name in self.indexes():
            self.sql(f'DROP INDEX "{name}"')

    def doing(self, words: str) -> bool:
        """Whether a session executes a statement that begins like this."""
        active = "SELECT 1 FROM pg_stat_activity WHERE starts_with(query, %(words)s) AND state = 'active'"
        return bool(self.sql(active, {"words": words}))

    def building(self, phase: str, timeout_s: float = 30) -> int:
        """Wait until a build is in a phase (its first words); the pid of its backend."""
        with postgres.session(self.admin) as session, session.cursor() as cursor:
            deadline = time.monotonic() + timeout_s
            while time.monotonic() < deadline:
                cursor.execute("SELECT pid FROM pg_stat_progress_create_index WHERE starts_with(phase, %s)", (phase,))
                if row := cursor.fetchone():
                    return int(row[0])
                time.sleep(0.001)
        raise AssertionError(f"no build came to the phase {phase!r}")


@contextmanager
def writer(bench: Bench, table: str = "jobs") -> Iterator[int]:
    """Somebody in a transaction that may have written to a table; a build waits for them before its scan."""
    with session_of(bench) as (session, cursor):
        cursor.execute("BEGIN")
        cursor.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE")
        yield session.info.backend_pid


@contextmanager
def snapshot(bench: Bench, table: str = "users") -> Iterator[int]:
    """Somebody who reads another table and stays in the transaction; a build waits for them at its end."""
    with session_of(bench) as (session, cursor):
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute(f"SELECT 1 FROM {table} LIMIT 1")
        yield session.info.backend_pid


@contextmanager
def session_of(bench: Bench) -> Iterator[tuple[Any, Any]]:
    """A session of a superuser; it may be ended by the test, or with its server."""
    session = psycopg2.connect(bench.admin, application_name="somebody")
    session.autocommit = True
    try:
        yield session, session.cursor()
    finally:
        session.close()


@contextmanager
def role_setting(bench: Bench, role: str, name: str, value: str) -> Iterator[None]:
    """A setting that a role's next sessions begin with."""
    bench.sql(f"ALTER ROLE {role} SET {name} = '{value}'")
    try:
        yield
    finally:
        bench.sql(f"ALTER ROLE {role} RESET {name}")


def until(condition: Callable[[], Any], what: str, timeout_s: float = 30) -> Any:
    """Wait until a condition holds; what it answered."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what}: not within {timeout_s:.0f} s")


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets, open to the user that a server may have to run as."""
    with tempfile.TemporaryDirectory(prefix="ops-", dir="/tmp") as name:
        folder = Path(name).resolve()
        folder.chmod(0o711)
        yield folder


@contextmanager
def lab(rows: int) -> Iterator[Bench]:
    """A fleet of its own without a workload; the one statement it counted misses an index."""
    with short_folder() as folder:
        fleet = fleets.up(folder / "lab", rows, workload=False)
        try:
            bench = Bench(fleet.config, fleet.dsn("postgres"), fleet)
            bench.ask(PICK)
            yield bench
        finally:
            fleets.down(folder / "lab")


def backdated(backup: Path, at: datetime) -> None:
    """A stored backup in a folder, of which all that tells the time says then. Its manifest still holds."""
    manifest = backup / "backup_manifest"
    written = re.sub(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d GMT", f"{at:%Y-%m-%d %H:%M:%S} GMT", manifest.read_text())
    begin, seal, _ = written.partition('"Manifest-Checksum": "')
    manifest.write_text(f'{begin}{seal}{hashlib.sha256(begin.encode()).hexdigest()}"}}\n')
    for path in (manifest, backup / "backup_label"):
        os.utime(path, (at.timestamp(), at.timestamp()))


@contextmanager
def lone_server(folder: Path, postgres_bin: Path | None = None, **settings: str | int) -> Iterator[PostgresServer]:
    """One server without replicas and without passwords, in a folder that is closed to everybody else."""
    programs = reachable(find(postgres_bin), folder)
    server = PostgresServer(programs, folder / "data", folder / "s", 5432, folder / "server.log")
    server.initdb()
    usual = {"listen_addresses": "", "fsync": "off", "max_wal_size": "256MB", "shared_buffers": "64MB",
             "dynamic_shared_memory_type": "mmap"}  # fmt: skip
    server.configure(usual | settings, "local all all trust\nlocal replication all trust\n")
    server.start()
    try:
        yield server
    finally:
        server.stop("immediate")


def configured(folder: Path, server: PostgresServer, database: str, **more: str) -> Bench:
    """A configuration with one target, `here`, that has the identities probe, actor and backup."""
    values = {
        "environment": "test",
        "probe": server.dsn("probe", database),
        "actor": server.dsn("actor", database),
        "backup": server.dsn("postgres", database),
        "data_directory": str(server.data),
        "copies": str(folder / "copies"),
        **more,
    }
    config = folder / "aiprod-ops.toml"
    lines = ['state = "state"', "[targets.here]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
    config.write_text("\n".join(lines) + "\n")
    return Bench(config, server.dsn("postgres", database))
