"""Bring the lab's fleet up, look at it, take it down."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from psycopg2.extensions import parse_dsn

from aiprod_ops.adapters.local import processes
from aiprod_ops.adapters.local.folder_repository import FolderRepository
from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.adapters.local.programs import Programs, complaint, find, reachable
from aiprod_ops.adapters.local.unprivileged import Way
from aiprod_ops.errors import ConfigurationError, Failed, Refused
from aiprod_ops.lab import folder as folders
from aiprod_ops.lab import ports, postgres, redis
from aiprod_ops.lab.cloudsql import background as emulator
from aiprod_ops.lab.data import Scale
from aiprod_ops.units import Seconds

ROWS = 1_000_000
REVISION = "001"


@dataclass(frozen=True, slots=True)
class Fleet:
    """A lab that is up, or was: everything follows from what its marker says."""

    folder: Path
    programs: Programs
    ports: tuple[int, int, int, int]  #: primary, two replicas, Redis
    rows: int
    revision: str
    until: datetime
    phases: dict[str, float] = field(default_factory=dict)  #: seconds that `up` took, by phase

    @property
    def passfile(self) -> Path:
        return self.folder / "pgpass"

    @property
    def primary(self) -> PostgresServer:
        return self._server("primary", self.ports[0])

    @property
    def replicas(self) -> tuple[PostgresServer, ...]:
        return tuple(self._server(name, port) for name, port in zip(postgres.REPLICAS, self.ports[1:3], strict=True))

    @property
    def redis(self) -> redis.RedisServer:
        return redis.RedisServer(self.folder / "redis", self.ports[3])

    @property
    def config(self) -> Path:
        """The tool's configuration for this lab."""
        return self.folder / "aiprod-ops.toml"

    @property
    def cloudsql_config(self) -> Path:
        """The same for the fleet as Cloud SQL instances, through the emulator."""
        return self.folder / "cloudsql.toml"

    @property
    def migrations(self) -> Path:
        """The service's Alembic revisions, up to the lab's; new ones are written there."""
        return self.folder / "migrations"

    @property
    def repository(self) -> FolderRepository:
        """The lab's stored backups, and its WAL archive."""
        env = {"PGPASSFILE": str(self.passfile)}
        place, archive = self.folder / "backups", self.folder / "archive"
        return FolderRepository(self.programs, place, archive, self.dsn("aiprod_backup"), env)

    @property
    def scale(self) -> Scale:
        return Scale(self.rows, self.until)

    def dsn(self, role: str, server: PostgresServer | None = None) -> str:
        """A DSN without a password: it names the password file."""
        return (server or self.primary).dsn(role, postgres.DATABASE, passfile=self.passfile)

    def following(self, role: str) -> str:
        """A DSN that leads to whichever server takes writes."""
        dsns = [parse_dsn(self.dsn(role, server)) for server in (self.primary, *self.replicas)]
        query = {name: ",".join(each[name] for each in dsns) for name in ("host", "port")}
        query |= {"passfile": dsns[0]["passfile"], "target_session_attrs": "read-write"}
        return f"postgresql://{role}@/{postgres.DATABASE}?{urlencode(query, safe='/,')}"

    def _server(self, name: str, port: int) -> PostgresServer:
        return PostgresServer(self.programs, self.folder / name, self.folder / "s", port, self.folder / f"{name}.log")


def up(
    folder: Path,
    rows: int = ROWS,
    postgres_bin: Path | None = None,
    revision: str = REVISION,
    report: Callable[[str], None] = lambda _: None,
    *,
    workload: bool = True,
    cloudsql: bool = False,
    way: Way | None = None,
) -> Fleet:
    """Make a fleet below a folder. Where one runs there already, answer that one.

    What was begun is stopped and removed when this fails; when it is killed, `down` does that. With `cloudsql` an
    emulator of Cloud SQL's API serves the fleet's servers as instances. `way` forces how PostgreSQL is run when we are
    root. Raises Held, Refused, ConfigurationError or Failed.
    """
    programs = find(postgres_bin, how=way)
    redis.check()
    revision = postgres.check_revision(revision)
    folder = folder.absolute()
    folders.refuse_foreign(folder)
    _make(folder)
    folder = folder.resolve()
    with folders.locked(folder):
        folders.create(folder)
        marker = folders.read(folder)
        if marker.get("state") == "ready":
            return _running(folder, report, cloudsql=cloudsql)
        if marker or folders.is_lab(folder):
            raise Refused(f"{folder} holds a lab that was not finished", hint=_down(folder))
        folders.mark(folder, {"state": "building", "pid": os.getpid()})
        try:
            return _build(folder, programs, rows, revision, report, workload=workload, cloudsql=cloudsql)
        except OSError as error:
            folders.clear(folder)
            raise Failed(f"the lab could not be made: {error}") from error
        except BaseException:
            folders.clear(folder)
            raise


def _down(folder: Path) -> str:
    return f"aiprod-ops lab down --folder {folder}"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"{folder} cannot be made: {error.strerror}", hint="name another folder with --folder DIR"
        ) from error


def _running(folder: Path, report: Callable[[str], None], *, cloudsql: bool) -> Fleet:
    fleet = load(folder)
    if not fleet.primary.is_running():
        raise Refused(f"the lab in {folder} is there, but its primary is stopped", hint=_down(folder))
    found = emulator.find(folder)
    if cloudsql and (found is None or found.pid is None):
        _serve_cloudsql(fleet)
    report(f"the lab in {folder} is up already")
    return fleet


def _build(
    folder: Path,
    programs: Programs,
    rows: int,
    revision: str,
    report: Callable[[str], None],
    *,
    workload: bool,
    cloudsql: bool,
) -> Fleet:
    steps = _Stopwatch(report)
    programs = reachable(programs, folder)
    primary_port, first, second, redis_port = ports.free(folder, 4)
    four = (primary_port, first, second, redis_port)
    fleet = Fleet(folder, programs, four, rows, revision, datetime.now(UTC), steps.phases)
    primary = fleet.primary
    with steps("initdb"):
        passwords = postgres.write_passwords(fleet.passfile, folder / "replication.pgpass")
        programs.hand_over(folder / "replication.pgpass")
        primary.initdb()
        primary.configure(postgres.LOADING, postgres.TRUST)
        primary.start()
    with steps("schema"):
        postgres.create_roles(primary, passwords)
        postgres.migrate(primary.dsn("postgres", postgres.DATABASE), "001")
    postgres.load(primary, fleet.scale, steps)
    with steps("indexes"):
        postgres.migrate(primary.dsn("postgres", postgres.DATABASE), revision)
    with steps("replicas"):
        postgres.become_primary(primary, folder / "archive")
        clones = [
            lambda replica=replica, slot=slot: postgres.clone(
                primary, replica, slot, folder / "replication.pgpass", folder / "archive"
            )
            for replica, slot in zip(fleet.replicas, postgres.REPLICAS, strict=True)
        ]
        processes.in_parallel(*clones)
    with steps("start"):
        processes.in_parallel(fleet.redis.start, *(server.start for server in (primary, *fleet.replicas)))
        postgres.create_slots(fleet.dsn("postgres"))
        _await_streaming(fleet)
    fleet.migrations.mkdir(mode=0o755)
    for file in postgres.revisions_up_to(revision):
        shutil.copy(file, fleet.migrations)
    folders.write(fleet.config, configuration(fleet))
    (folder / "copies").mkdir(mode=0o711)
    folders.mark(folder, _marker(fleet))
    if workload:
        start_workload(fleet)
    if cloudsql:
        with steps("cloudsql"):
            _serve_cloudsql(fleet)
    return fleet


def _serve_cloudsql(fleet: Fleet) -> None:
    """Start the emulator, and write the configuration that leads through it."""
    emulator.start(fleet.folder)
    found = emulator.find(fleet.folder)
    if found is not None:
        folders.write(fleet.cloudsql_config, configuration(fleet, endpoint=found.url))


class _Stopwatch:
    """Tells what is being done and keeps how long it took."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.phases: dict[str, float] = {}
        self._report = report

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.phases[name] = round(time.monotonic() - started, 2)
        self._report(f"{name}: {self.phases[name]:.1f} s")


def _await_streaming(fleet: Fleet, timeout: Seconds = Seconds(20)) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        states = postgres.rows(fleet.dsn("aiprod_probe"), "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'")
        if len(states) == len(postgres.REPLICAS):
            return
        time.sleep(0.05)
    raise Failed(f"the replicas do not stream after {timeout:.0f} s; see {fleet.folder}/replica1/log")


def start_workload(fleet: Fleet) -> None:
    """Start the workload in the background."""
    arguments = [str(fleet.folder), fleet.following("aiprod_app"), str(fleet.rows), fleet.until.isoformat()]
    command = [sys.executable, "-P", "-m", "aiprod_ops.lab.workload", *arguments]
    done = processes.run(command, cwd=fleet.folder, timeout=Seconds(30))
    if done.returncode != 0:
        raise Failed(f"the workload does not start: {complaint(done.stderr)}")


def configuration(fleet: Fleet, *, endpoint: str = "") -> str:
    """The tool's configuration, as TOML; a JSON string is a TOML string. With an endpoint it is that of an emulator."""
    values: dict[str, Any] = {
        "environment": "lab",
        "platform": "local",
        "probe": fleet.following("aiprod_probe"),
        "actor": fleet.following("aiprod_actor"),
        "backup": fleet.dsn("aiprod_backup"),
        "app": fleet.following("aiprod_app"),
        "redis": f"file:{fleet.redis.application}",
        "replicas": [fleet.dsn("aiprod_probe", replica) for replica in fleet.replicas],
        "postgres_bin": str(fleet.programs.bin),
        "data_directory": str(fleet.primary.data),
        "copies": str(fleet.folder / "copies"),
        "log": str(fleet.primary.data / "log"),
        "migrations": str(fleet.migrations),
        "backups": str(fleet.folder / "backups"),
        "archive": str(fleet.folder / "archive"),
    }
    if endpoint:
        del values["backups"], values["archive"], values["copies"], values["data_directory"]
        values |= {"platform": "cloudsql", "project": "aiprod-lab", "instance": "aiprod", "endpoint": endpoint}
        values |= {name: fleet.dsn(f"aiprod_{name}") for name in ("probe", "actor", "app")}
        values["backup"] = fleet.dsn("postgres")  # a clone has the roles of its source
    members = zip(("primary", *postgres.REPLICAS), (fleet.primary, *fleet.replicas), strict=True)
    upstream = f"user=aiprod_backup passfile='{fleet.folder / 'replication.pgpass'}'"
    servers = [
        line
        for name, server in members
        for line in (
            f"[targets.lab.servers.{name}]",
            f"data_directory = {json.dumps(str(server.data))}",
            f"admin = {json.dumps(fleet.dsn('postgres', server))}",
            f"upstream = {json.dumps(upstream)}",
        )
    ]
    head = [f"state = {json.dumps(str(fleet.folder / 'state'))}", "", "[targets.lab]"]
    lines = [*head, *(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items())]
    return "\n".join([*lines, *([] if endpoint else servers)]) + "\n"


def _marker(fleet: Fleet) -> dict[str, Any]:
    return {
        "state": "ready",
        "bin": str(fleet.programs.bin),
        "major": fleet.programs.major,
        "way": fleet.programs.way.value,
        "ports": fleet.ports,
        "rows": fleet.rows,
        "revision": fleet.revision,
        "until": fleet.until.isoformat(),
        "phases": fleet.phases,
    }


def load(folder: Path) -> Fleet:
    """The fleet of a folder, running or not. Raises Refused where none was finished."""
    marker = folders.read(folder.resolve())
    if marker.get("state") != "ready":
        raise Refused(f"there is no lab in {folder}", hint=f"aiprod-ops lab up --folder {folder}")
    return Fleet(
        folder.resolve(),
        Programs(Path(marker["bin"]), marker["major"], Way(marker["way"])),
        tuple(marker["ports"]),
        marker["rows"],
        marker["revision"],
        datetime.fromisoformat(marker["until"]),
        marker["phases"],
    )


def down(folder: Path) -> list[str]:
    """Stop everything below a lab's folder and remove it; answers what was done, in words. Idempotent."""
    return folders.remove(folder)
