"""The PostgreSQL servers behind the instances: where they live, and what is done to each alone.

Its own servers let the administrator in through a socket in a folder that is closed to everybody else, and anybody with
a password through loopback. An adopted one keeps its lab's roles and rules.
"""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection, encrypt_password

from aiprod_ops.adapters.local import processes
from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.adapters.local.programs import Programs
from aiprod_ops.errors import Failed
from aiprod_ops.lab import folder as folders
from aiprod_ops.lab import postgres
from aiprod_ops.lab.cloudsql.ledger import Backup, Instance, State
from aiprod_ops.lab.cloudsql.settings import flags
from aiprod_ops.units import Bytes, Seconds

HBA = """\
local all         all              trust
local replication all              trust
host  all         all 127.0.0.1/32 scram-sha-256
"""
#: As the lab's servers, in less memory, and without waiting for the disk: what was written survives a killed server,
#: not a power cut.
SERVING: dict[str, str | int] = {
    **postgres.SERVING,
    "shared_buffers": "32MB",
    "maintenance_work_mem": "64MB",
    "max_wal_size": "512MB",
    "wal_keep_size": "64MB",
    "min_wal_size": "32MB",
    "fsync": "off",
}
Rows = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers of an emulator's folder."""

    folder: Path
    programs: Programs

    def of(self, instance: Instance) -> PostgresServer:
        """The server of an instance."""
        paths = Path(instance.data), Path(instance.sockets)
        return PostgresServer(self.programs, *paths, instance.port, Path(instance.log))

    def home(self, name: str) -> Path:
        """The folder of an instance that is our own."""
        return self.folder / "instances" / name

    def create(self, instance: Instance) -> None:
        """Make an empty cluster and start it."""
        self.make_room(instance)
        server = self.of(instance)
        server.initdb("--wal-segsize=1")  # a segment is archived whole, however little it holds
        self.configure(instance)
        server.start()
        if instance.password:
            with self._session(instance) as session, session.cursor() as cursor:
                verifier = encrypt_password(instance.password, "postgres", session, "scram-sha-256")
                cursor.execute(sql.SQL("ALTER ROLE postgres PASSWORD {}").format(sql.Literal(verifier)))

    def copy(self, source: Instance, data: Path) -> None:
        """A base backup of a running server, with its manifest, into a folder that is not there yet."""
        data.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        into = PostgresServer(self.programs, data, Path(source.sockets), source.port, Path(source.log))
        server = self.of(source)
        passfile = Path(source.passfile) if source.passfile else None
        into.base_backup(server.dsn("aiprod_backup" if source.adopted else "postgres", "postgres", passfile=passfile))
        self.programs.hand_over(data)

    def take_in(self, instance: Instance, backup: Path) -> None:
        """Give an instance the files of a backup, in the place of what it has."""
        self.of(instance).stop("immediate")
        shutil.rmtree(instance.data, ignore_errors=True)
        self.make_room(instance)
        shutil.copytree(backup, instance.data, symlinks=True, ignore=shutil.ignore_patterns("postmaster.*"))
        Path(instance.data).chmod(0o700)

    def receive(self, instance: Instance, source: Instance) -> None:
        """Give an instance the files of a running server, in the place of what it has."""
        self.of(instance).stop("immediate")
        shutil.rmtree(instance.data, ignore_errors=True)
        self.make_room(instance)
        self.copy(source, Path(instance.data))

    def recover(self, instance: Instance, target: Mapping[str, str], timeout: Seconds = Seconds(3600)) -> None:
        """Start from a backup's files and recover up to a target, on a new timeline. Raises Failed."""
        self.configure(instance, also={"restore_command": "false", **target, "recovery_target_action": "promote"})
        self._signal(instance, "recovery.signal")
        server = self.of(instance)
        server.start(timeout=timeout)
        deadline = time.monotonic() + timeout
        while self.is_standby(instance):
            if time.monotonic() > deadline or not server.is_running():
                raise Failed(f"{instance.name} did not come to the end of its recovery; see {instance.log}")
            time.sleep(0.05)
        self.configure(instance)
        self.reload(instance)

    def configure(
        self, instance: Instance, upstream: Instance | None = None, also: Mapping[str, str | int] | None = None
    ) -> None:
        """Write an instance's configuration: as a primary, or as a replica of `upstream`."""
        wanted = dict(postgres.SERVING if instance.adopted else SERVING)
        wanted |= {} if instance.adopted else flags(instance.settings)
        wanted["archive_command"] = postgres.archive_command(Path(instance.archive))
        if upstream is not None:
            passfile = Path(upstream.passfile) if upstream.passfile else None
            user = "aiprod_backup" if upstream.adopted else "postgres"
            wanted["primary_conninfo"] = postgres.conninfo(self.of(upstream), user, instance.slot, passfile)
            wanted["primary_slot_name"] = instance.slot
        self.of(instance).configure({**wanted, **(also or {})}, postgres.PASSWORDS if instance.adopted else HBA)

    def follow(self, instance: Instance, upstream: Instance) -> None:
        """Make a server a replica of another: at once when it runs as one, else when it starts."""
        self.ask(upstream, CREATE_SLOT, {"slot": instance.slot})
        self.configure(instance, upstream)
        self._signal(instance, "standby.signal")
        if self.of(instance).is_running():
            self.reload(instance)
        else:
            self.of(instance).start(timeout=Seconds(600))

    def reload(self, instance: Instance) -> None:
        """Let a running server read its configuration again."""
        self.ask(instance, "SELECT pg_reload_conf()")

    def drop_slots(self, instance: Instance, only: str = "") -> None:
        """Drop replication slots that nobody uses: WAL is kept for no one."""
        self.ask(instance, DROP_SLOTS, {"only": only})

    def is_standby(self, instance: Instance) -> bool:
        """Whether a server is in recovery, as a replica or on its way out of a backup."""
        return bool(self.ask(instance, "SELECT pg_is_in_recovery()")[0][0])

    def follows(self, instance: Instance) -> bool:
        """Whether a server's files are a replica's, whether it runs or not."""
        return Path(instance.data, "standby.signal").exists()

    def ask(self, instance: Instance, query: str, values: Mapping[str, Any] | None = None) -> Rows:
        """Run one statement as the administrator. Raises Failed where nobody answers, or with the server's words."""
        with self._session(instance) as session, session.cursor() as cursor:
            try:
                cursor.execute(query, values)
                return cursor.fetchall() if cursor.description else []
            except psycopg2.Error as error:
                raise Failed(f"the server of {instance.name} says: {str(error).strip()}") from error

    def remove(self, instance: Instance) -> None:
        """Stop a server and remove all its files."""
        self.of(instance).stop("immediate")
        for place in (Path(instance.data), Path(instance.archive), self.home(instance.name)):
            shutil.rmtree(place, ignore_errors=True)
        Path(instance.log).unlink(missing_ok=True)

    def remove_backup(self, backup: Backup) -> None:
        """Remove a backup's files."""
        shutil.rmtree(backup.folder, ignore_errors=True)

    def remove_backups(self, instance: str) -> None:
        """Remove all backups' files of an instance."""
        shutil.rmtree(self.folder / "backups" / instance, ignore_errors=True)

    def renewed(self, instance: Instance) -> dict[str, Any]:
        """The fields of an instance that begins another history: an archive of its own. An old one of ours goes."""
        lineage = instance.lineage + 1
        home = self.home(instance.name)
        if Path(instance.archive).is_relative_to(home):
            shutil.rmtree(instance.archive, ignore_errors=True)
        return {"lineage": lineage, "archive": str(home / f"archive-{lineage}")}

    def archive_all(self, instance: Instance, timeout: Seconds = Seconds(60)) -> None:
        """Let a running server archive what it has written, and one commit more: a recovery has to see a commit after
        its target, or it fails ("recovery ended before configured recovery target was reached").
        """
        if not self.of(instance).is_running():
            return
        self.ask(instance, "SELECT pg_current_xact_id()")
        segment = str(self.ask(instance, "SELECT pg_walfile_name(pg_switch_wal())")[0][0])
        deadline = time.monotonic() + timeout
        while not Path(instance.archive, segment).exists():
            if time.monotonic() > deadline:
                raise Failed(f"{instance.name} has not archived {segment} after {timeout:.0f} s")
            time.sleep(0.05)

    def write_passwords(self, state: State) -> None:
        """Let libpq find the password of each instance's user postgres, in the file `pgpass` that only we can read."""
        found = state.instances.values()
        lines = [f"127.0.0.1:{each.port}:*:postgres:{each.password}\n" for each in found if each.password]
        folders.write(self.folder / "pgpass", "".join(lines), 0o600)

    def clear_leftovers(self, state: State, timeout: Seconds = Seconds(60)) -> None:
        """End programs of an emulator that was killed while they worked; servers stay.

        One that starts or stops a server is waited for: two at once would be in each other's way.
        """
        places = [self.folder, *(Path(each.data) for each in state.instances.values() if each.adopted)]
        deadline = time.monotonic() + timeout
        while found := [each for place in places for each in processes.below(place) if each.name != "postgres"]:
            for each in found:
                if each.name in ("pg_basebackup", "initdb", "pg_rewind") or time.monotonic() > deadline:
                    processes.end(each)
            time.sleep(0.05)

    def make_room(self, instance: Instance) -> None:
        """Make the folders of an instance, without its data directory."""
        Path(instance.data).parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        archive = Path(instance.archive)
        if not archive.exists():
            archive.mkdir(mode=0o700, parents=True)
            self.programs.hand_over(archive)

    def _signal(self, instance: Instance, name: str) -> None:
        for old in ("standby.signal", "recovery.signal"):
            Path(instance.data, old).unlink(missing_ok=True)
        Path(instance.data, name).touch(mode=0o600)
        self.programs.hand_over(Path(instance.data))

    def _session(self, instance: Instance) -> "_Session":
        return _Session(self.of(instance).dsn("postgres", "postgres"), instance.password or None)


class _Session:
    """A connection in autocommit mode, closed at the end."""

    def __init__(self, dsn: str, password: str | None) -> None:
        self._dsn, self._password = dsn, password

    def __enter__(self) -> connection:
        try:
            self._open = psycopg2.connect(self._dsn, password=self._password, connect_timeout=10)
        except psycopg2.OperationalError as error:
            raise Failed(f"the server of the instance does not answer: {str(error).strip()}") from error
        self._open.autocommit = True
        return self._open

    def __exit__(self, *_: object) -> None:
        self._open.close()


def size(folder: Path) -> Bytes:
    """What a folder takes on disk."""
    return Bytes(sum(path.lstat().st_blocks * 512 for path in folder.rglob("*")))


CREATE_SLOT = """
    SELECT pg_create_physical_replication_slot(%(slot)s, true)
    WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = %(slot)s)
"""
DROP_SLOTS = """
    SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
    WHERE NOT active AND slot_type = 'physical' AND (%(only)s = '' OR slot_name = %(only)s)
"""
