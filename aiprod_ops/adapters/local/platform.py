"""The platform `local`: PostgreSQL on machines of our own. A copy is a base backup, verified and started here."""

import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg2.extensions import make_dsn

from aiprod_ops.adapters.local import migrations as scripts
from aiprod_ops.adapters.local import processes
from aiprod_ops.adapters.local.amcheck import amcheck
from aiprod_ops.adapters.local.copies import claim, delete, has_maker, is_copy
from aiprod_ops.adapters.local.instance import LONGEST, PostgresServer, socket_folder
from aiprod_ops.adapters.local.programs import Programs, find, fitting, reachable
from aiprod_ops.adapters.local.repository import Fetched, Repository
from aiprod_ops.adapters.local.source import Source, last_source, read_source
from aiprod_ops.adapters.postgres.dsn import without_password
from aiprod_ops.domain.backups import Origin
from aiprod_ops.domain.schema import Name
from aiprod_ops.errors import ConfigurationError, Failed, PermissionMissing, Refused, TimedOut, Untried
from aiprod_ops.ports import Cluster, Database, Kept, Migrations, Restored
from aiprod_ops.units import Bytes, Seconds, show

PORT = 5432  #: only the name of a socket in a folder of the copy's own

#: Libraries whose background workers would act on the world from a copy (run jobs, apply changes).
ACTS_BY_ITSELF = frozenset({"pg_cron", "pg_partman_bgw", "pglogical", "bdr", "pg_squeeze"})

#: What makes a copy standalone, silent and quick to throw away.
STANDALONE: dict[str, str | int] = {
    "listen_addresses": "",
    "archive_mode": "off",
    "primary_conninfo": "",
    "primary_slot_name": "",
    "synchronous_standby_names": "",
    "max_logical_replication_workers": 0,
    "autovacuum": "off",
    "fsync": "off",
    "logging_collector": "off",
    "lc_messages": "C",
    "dynamic_shared_memory_type": "mmap",  # below the data directory, so that nothing outlives a kill
}

#: And since which version, of a copy that is read from end to end, not measured: each core reads and adds up, and
#: none hands pages over to another.
#: What its event triggers forbid is no fault of the backup.
READ_THROUGH: dict[str, tuple[str | int, int]] = {
    "max_parallel_workers_per_gather": (1, 15),
    "event_triggers": ("off", 17),
    "io_method": ("sync", 18),
}

#: Of the sessions with such a copy, for the same reason: what a role or a database forbids, and before PostgreSQL 17 an
#: event trigger that is not ENABLE ALWAYS. Source: PostgreSQL manual, "ALTER EVENT TRIGGER", session_replication_role.
UNHINDERED = "-c default_transaction_read_only=off -c session_replication_role=replica"

LARGEST = """
    SELECT pg_relation_filepath(oid) AS file FROM pg_class WHERE relkind = 'r' AND pg_relation_size(oid) > 0
    ORDER BY relnamespace = 'pg_catalog'::regnamespace, pg_relation_size(oid) DESC LIMIT 1
"""
SPECIAL = 17  #: where a page tells the end of its rows: a server without checksums notices no byte between them
PREPARED = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"


@dataclass(frozen=True, slots=True)
class _Standing:
    """A copy that answers, with a superuser's DSN, and the stored backup that it is of, '' for the target itself."""

    server: PostgresServer
    dsn: str
    backup: str


class LocalPlatform:
    """Makes disposable copies below a folder, on the machine where this runs.

    `backup` is a DSN that may replicate and connect, or what reads it when it is needed; `connect` opens a session with
    a DSN; `data_directory` is the target's, where it is on this machine. `database` is opened on the copy (a backup DSN
    often names none). `longest` bounds the recovery of a copy from the `repository` of stored backups; `known` is the
    file in which is kept what the source last said of itself, for the day when it is lost.
    """

    def __init__(
        self,
        backup: str | Callable[[], str],
        copies: Path,
        connect: Callable[[str], Database],
        *,
        database: str = "",
        postgres_bin: Path | None = None,
        data_directory: Path | None = None,
        repository: Repository | None = None,
        known: Path | None = None,
        cluster: Cluster | None = None,
        longest: Seconds = LONGEST,
    ) -> None:
        self._read_backup = backup
        self._database = database
        self._copies = copies
        self._connect = connect
        self._postgres_bin = postgres_bin
        self._data_directory = data_directory
        self._repository, self._known, self._cluster = repository, known, cluster
        self._longest = longest
        self._standing: dict[str, _Standing] = {}

    @property
    def cluster(self) -> Cluster:
        if self._cluster is None:
            raise ConfigurationError(
                "the target names no servers that could be switched over",
                hint="name each in its configuration: [targets.NAME.servers.primary] data_directory, admin",
            )
        return self._cluster

    @property
    def zones(self) -> None:
        """A server on this machine has no standby but its replicas."""

    @property
    def database(self) -> str:
        return self._database

    @property
    def _backup(self) -> str:
        return self._read_backup if isinstance(self._read_backup, str) else self._read_backup()

    @property
    def backups(self) -> Repository:
        if self._repository is None:
            raise ConfigurationError(
                "the target has no stored backups",
                hint='name them in its configuration: backups = "/a/folder" or backups = "pgbackrest:STANZA"',
            )
        return self._repository

    @contextmanager
    def copy(
        self, name: str, report: Callable[[str], None] = lambda _: None, origin: Origin | None = None
    ) -> Iterator[tuple[Database, Restored]]:
        """Restore the target, or a stored backup of it, into a disposable instance; it is destroyed when the context
        ends, however that ends. Until then nobody removes the backup."""
        with ExitStack() as held:
            chosen = held.enter_context(self.backups.holding(origin)) if origin is not None else None
            yield held.enter_context(self._copied(name, report, chosen))

    @contextmanager
    def _copied(
        self, name: str, report: Callable[[str], None], origin: Origin | None
    ) -> Iterator[tuple[Database, Restored]]:
        self._copies.mkdir(mode=0o711, parents=True, exist_ok=True)
        if origin is None or self._known is None:
            source = read_source(self._connect, self._backup)
        else:
            source = last_source(self._connect, self._backup, self._known, report) or self._unknown()
        programs = fitting(source.version // 10000, self._postgres_bin)
        self._refuse_without_room(source.needed if origin is None else self._needed(origin))
        sockets = socket_folder(self._copies / name / "s", PORT)
        folder = claim(self._copies, name, sockets)
        try:
            started = time.monotonic()
            server = PostgresServer(reachable(programs, folder), folder / "data", sockets, PORT, folder / "server.log")
            with self._running(server, source, report, origin) as (database, fetched, fetching):
                checks = [*fetched.checks, *_after_start(database)]
                checks += self.backups.check_recovered(fetched, database) if origin is not None else []
                seconds = Seconds(time.monotonic() - started)
                phases = {"restore": fetching, "start and recovery": Seconds(seconds - fetching)}
                self._standing[name] = _Standing(server, self._within(server, source, fetched), fetched.backup)
                size = _size(folder)
                yield database, Restored(name, seconds, size, tuple(checks), fetched.backup, phases, fetched.lacks)
        finally:
            self._standing.pop(name, None)
            delete(folder)

    @contextmanager
    def _running(
        self, server: PostgresServer, source: Source, report: Callable[[str], None], origin: Origin | None
    ) -> Iterator[tuple[Database, Fetched, Seconds]]:
        """The restored copy, started, with the seconds that fetching it took; it is stopped in every case, also when
        the start itself was interrupted."""
        try:
            started = time.monotonic()
            fetched = self._restore(server, source, report) if origin is None else self.backups.fetch(
                origin, server, report
            )  # fmt: skip
            fetching = Seconds(time.monotonic() - started)
            self._start(server, source, fetched, report)
            database = self._connect(self._within(server, source, fetched))
            try:
                yield database, fetched, fetching
            finally:
                database.close()
        finally:
            server.stop("immediate")

    def _within(self, server: PostgresServer, source: Source, fetched: Fetched) -> str:
        """A DSN of the copy's superuser."""
        dsn = server.dsn(source.superuser, self._database or source.database)
        return str(make_dsn(dsn, options=UNHINDERED)) if fetched.backup else dsn

    def migrated(self, migrations: Migrations, known: Kept | None, timeout: Seconds) -> Kept:
        """What the migrations declare, by running them on a scratch server; `known` again where nothing has changed."""
        return scripts.current(migrations, known, self._postgres_bin, self._connect, timeout)

    def sweep(self, is_alive: Callable[[str], bool | None]) -> list[str]:
        """Destroy copies whose run is not alive any more; answers their names."""
        if not self._copies.is_dir():
            return []

        def is_dead(folder: Path) -> bool:
            alive = is_alive(folder.name)
            return not has_maker(folder) if alive is None else not alive

        dead = [folder for folder in sorted(self._copies.iterdir()) if is_copy(folder) and is_dead(folder)]
        for folder in dead:
            processes.stop(folder)
            delete(folder)
        return [folder.name for folder in dead]

    def attach(self, operation: str, report: Callable[[str], None]) -> None:
        """Nothing here goes on without its process."""

    def setups(self) -> None:
        """Nobody tells how an instance was meant to be here but its own settings."""

    def free(self) -> Bytes | None:
        """Free space on the target's data volume; None where it is not on this machine."""
        if self._data_directory is None or not self._data_directory.is_dir():
            return None
        return Bytes(shutil.disk_usage(self._data_directory).free)

    def damage(self, name: str, beside: Sequence[Name] = ()) -> list[str]:
        copy = self._standing[name]
        return amcheck(copy.server.programs, copy.dsn, beside)

    def control(self, name: str) -> dict[str, str]:
        """A byte is flipped in the copy's largest table, and one in a spare of the backup it was restored from."""
        copy = self._standing[name]
        with closing(self._connect(copy.dsn)) as database:
            table = str(database.query(LARGEST)[0]["file"])
        copy.server.stop()
        flip(copy.server.data / table, SPECIAL)
        copy.server.start(timeout=Seconds(600))
        # Only what names the file has noticed this byte, and not something else.
        noticed = {"pg_amcheck": next((line for line in self.damage(name) if table in line), "")}
        if copy.backup:
            noticed[self.backups.verifier] = self.backups.refusal(copy.backup, copy.server.data.parent / "spare")
        return noticed

    def _unknown(self) -> Source:
        """A source that is lost, and of which nothing is known here: its backup tells the rest."""
        major = self.backups.major or find(self._postgres_bin).major
        return Source(major * 10000, self._database, "postgres", Bytes(0), Bytes(0), (), {}, is_known=False)

    def _needed(self, origin: Origin) -> Bytes:
        """What a copy from a stored backup takes. That the repository's list does not come says nothing of a backup."""
        try:
            return self.backups.size(origin)
        except TimedOut as error:
            raise Untried(error.message, hint=error.hint) from error

    def _refuse_without_room(self, needed: Bytes) -> None:
        free = shutil.disk_usage(self._copies).free
        if free < needed:
            raise Refused(
                f"a copy needs {show(needed, 'B')} in {self._copies}, {show(free, 'B')} are free",
                hint="free space there, or name another folder as `copies` in the target's table of the configuration",
            )

    def _restore(self, server: PostgresServer, source: Source, report: Callable[[str], None]) -> Fetched:
        """A base backup of the running target."""
        dsn, env = without_password(self._backup)
        moved = {old: server.data.parent / "tablespaces" / str(number) for number, old in enumerate(source.tablespaces)}
        for new in moved.values():
            new.mkdir(mode=0o700, parents=True)
        report(f"base backup of {show(source.size, 'B')}")
        try:
            server.base_backup(dsn, tablespaces=moved, env=env)
        except Failed as error:
            if "replication" not in error.message:
                raise
            raise PermissionMissing(
                error.message,
                hint="name a role that may replicate with `backup` in the configuration or --backup-dsn:"
                ' ALTER ROLE "…" REPLICATION; and a line `host replication …` for it in pg_hba.conf',
            ) from error
        report("verifying the backup against its manifest")
        server.verify_backup()
        return Fetched("", ("pg_verifybackup: intact",), tablespaces=tuple(moved.values()))

    def _start(self, server: PostgresServer, source: Source, fetched: Fetched, report: Callable[[str], None]) -> None:
        report("starting the copy")
        libraries = _libraries(server)
        (server.data / "standby.signal").unlink(missing_ok=True)
        (server.data / "recovery.signal").unlink(missing_ok=True)
        settings = {**(source.capped_settings() if source.is_known else _least(server)), **STANDALONE}
        settings |= fetched.settings
        if fetched.backup:
            settings |= {name: value for name, (value, since) in READ_THROUGH.items() if server.programs.major >= since}
        server.configure({**settings, "shared_preload_libraries": libraries}, HBA)
        if fetched.settings:
            (server.data / "recovery.signal").touch(mode=0o600)
        for path in (server.data, *fetched.tablespaces):
            server.programs.hand_over(path)
        # Crash recovery of a large, busy source replays all the WAL of the backup, or of the archive.
        server.start(timeout=self._longest if fetched.settings else Seconds(600))
        if fetched.settings:
            report("recovering: the copy replays the archived WAL")
            server.await_answer(self._longest)


def _least(server: PostgresServer) -> dict[str, str | int]:
    """What a recovery asks for, as the files have it: no setting may be lower than it was on the primary."""
    said = server.programs.run("pg_controldata", f"--pgdata={server.data}", cwd=server.data.parent)
    found = re.findall(r"^(max_\w+) setting:\s+(\d+)$", said, re.MULTILINE)
    return {name.replace("xacts", "transactions").replace("xact", "transaction"): value for name, value in found}


HBA = "local all all trust\n"  # the socket's folder is closed to everybody else


def _libraries(server: PostgresServer) -> str:
    """The preloaded libraries of the source that are here and do not act by themselves."""
    try:
        arguments = ["-D", str(server.data), "-C", "shared_preload_libraries"]
        named = server.programs.run("postgres", *arguments, cwd=server.data)
    except Failed:
        return ""  # its configuration lies outside its data directory or does not fit this machine
    wanted = [name.strip() for name in named.split(",") if name.strip()]
    return ",".join(name for name in wanted if name not in ACTS_BY_ITSELF and _is_here(server.programs, name))


def _is_here(programs: Programs, library: str) -> bool:
    stem = library.removeprefix("$libdir/")
    return any((folder / f"{stem}{end}").exists() for folder in programs.library_folders for end in (".so", ".dylib"))


def _after_start(database: Database) -> list[str]:
    """Check that the copy is a primary of its own; end what would hold up a build on it."""
    if database.server().is_standby:
        raise Failed("the copy did not leave recovery")
    prepared = database.query(PREPARED)
    for row in prepared:
        database.execute("ROLLBACK PREPARED %(gid)s", row)
    return ["recovered to a consistent state", *([f"{len(prepared)} prepared transactions ended"] if prepared else [])]


def flip(path: Path, at: int = 4096) -> None:
    """Change one byte of a file, in the middle of its first page."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0xFF]))


def _size(folder: Path) -> Bytes:
    return Bytes(sum(path.lstat().st_blocks * 512 for path in folder.rglob("*")))
