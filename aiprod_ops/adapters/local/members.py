"""The servers of a cluster on this machine: what the files and processes of each tell, and sessions with them.

A server is fenced when nothing of it lives and its files make it a standby: whoever starts it gets one.
"""

import errno
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from psycopg2.extensions import parse_dsn

from aiprod_ops.adapters.local import control_file, processes
from aiprod_ops.adapters.local.adding import SIGNAL, alter
from aiprod_ops.adapters.local.control_file import ControlFile
from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.adapters.local.wal_files import WalFiles
from aiprod_ops.errors import Failed, OpsError, TimedOut, Unreachable
from aiprod_ops.ports import Database, Place, Rows
from aiprod_ops.units import Seconds

IS_STANDBY = "select pg_is_in_recovery() as is_standby /* aiprod-ops */"
_OWN = ("postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf")  #: a rewind takes the source's
PAUSE = 0.005  #: seconds between two looks while nobody can write


@dataclass(frozen=True)
class Member:
    """One server of the cluster. `admin` is a superuser's DSN that leads to it alone; `upstream` is what a standby
    needs beside host and port to stream from it (user, passfile). Its slot and application name are its own name."""

    name: str
    server: PostgresServer
    admin: str
    upstream: str

    @property
    def place(self) -> Place:
        """As its admin's DSN has it."""
        where = parse_dsn(self.admin)
        return Place(where.get("host", ""), int(where.get("port", 5432)))

    # Its processes

    @property
    def living(self) -> list[int]:
        """Every process of it: its backends may outlive their postmaster, and acknowledge."""
        return [each.pid for each in processes.below(self.server.data)]

    def fence(self, patience: Seconds) -> None:
        """Stop a primary: its standbys get all that it wrote, and its last record. Raises Failed where it does not end
        in time, or anything of it lives on; then it is as it was, or stopping."""
        self.mark()
        if (pid := self.server.pid) is not None and self.server.is_running():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)  # a fast shutdown. Source: PostgreSQL manual, "Shutting Down the Server"
        deadline = time.monotonic() + patience
        while self.server.is_running() or self.living:
            if time.monotonic() > deadline:
                raise Failed(f"{self.name} has not stopped after {patience:g} s")
            time.sleep(PAUSE)

    def kill(self, *, marks: bool = True) -> None:
        """End a primary that may be frozen or half dead: its postmaster and every process of it, with SIGKILL."""
        if marks and self.server.data.is_dir():
            with _read_only():  # nobody can start it, then
                self.mark()
        processes.end_below(self.server.data)
        with _read_only():
            self._forget_processes()

    def start(self) -> None:
        """As its mark says: a standby or a primary. Raises Failed with the server's own words."""
        if not self.living:
            self._forget_processes()
        self.server.start()

    def _forget_processes(self) -> None:
        """The number that they left may be a zombie's that nobody reaps, or another process's by now: no server would
        start here."""
        (self.server.data / "postmaster.pid").unlink(missing_ok=True)
        (self.server.sockets / f".s.PGSQL.{self.server.port}.lock").unlink(missing_ok=True)

    # Its files

    @property
    def is_marked(self) -> bool:
        """Whether it would start as a standby. A promotion takes the mark away before it lets anybody write."""
        return os.path.exists(self.server.data / SIGNAL)  # noqa: PTH110 - also where we may not look: then it is not

    def mark(self) -> None:
        """Whoever starts it gets a standby."""
        (self.server.data / SIGNAL).touch(mode=0o600)
        self.server.programs.hand_over(self.server.data / SIGNAL)

    def unmark(self) -> None:
        """Whoever starts it gets a primary."""
        (self.server.data / SIGNAL).unlink(missing_ok=True)

    def configure(self, settings: Mapping[str, str]) -> None:
        """What `ALTER SYSTEM` would write, while it is stopped."""
        path = self.server.data / "postgresql.auto.conf"
        alter(path, settings)
        self.server.programs.hand_over(path)

    def beside(self, what: str) -> Path:
        """A folder beside its data directory, of this cluster's own making."""
        return self.server.data.with_name(f"{self.server.data.name}.{what}")

    def aside(self, new: str) -> Path:
        """Where its files go that a copy replaces; those of before stay."""
        names = (f"before-{new}", *(f"before-{new}-{n}" for n in range(2, 1000)))
        return next(place for place in map(self.beside, names) if not place.exists())

    def keep_conf(self) -> None:
        """Its configuration, beside: what rewinds or copies it brings the other's, and may be killed. What was kept
        before and not put back is the right one."""
        kept, staging = self.beside("conf"), self.beside("conf.part")
        if kept.exists():
            return
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(mode=0o700)
        self.copy_conf(staging)
        staging.rename(kept)

    def restore_conf(self) -> None:
        """Put it into its place."""
        self.copy_conf(self.server.data)
        self.forget_conf()

    def copy_conf(self, place: Path) -> None:
        """Into a copy that is not there yet; as it was before a rewind that was interrupted."""
        source = self.beside("conf") if self.was_interrupted else self.server.data
        for name in _OWN:
            if (source / name).exists():
                shutil.copy2(source / name, place)

    def forget_conf(self) -> None:
        shutil.rmtree(self.beside("conf"), ignore_errors=True)

    @property
    def was_interrupted(self) -> bool:
        """Whether a rewind of it was begun and has not ended."""
        return self.beside("conf").exists()

    @property
    def was_made(self) -> bool:
        """Whether it has files at all."""
        return os.path.exists(self.server.data / "PG_VERSION")  # noqa: PTH110

    @property
    def control(self) -> ControlFile | None:
        """None where it is damaged or not there."""
        try:
            return control_file.read(self.server)
        except (OpsError, OSError):
            return None

    @property
    def was_primary(self) -> bool:
        """As its control file says; where that cannot be read, by the mark of a standby."""
        control = self.control
        return control.is_primary if control else not self.is_marked

    @property
    def last_checkpoint(self) -> str:
        """Where the last checkpoint is of one that was shut down cleanly as a primary; '' for any other."""
        control = self.control
        return control.checkpoint if control and control.state == "shut down" else ""

    @property
    def stands_still(self) -> bool:
        """Whether, stopped, it may have nothing that others lack: it was shut down cleanly, or is a standby."""
        return self.control is not None and (bool(self.last_checkpoint) or not self.was_primary)

    @property
    def wal(self) -> WalFiles:
        return WalFiles(self.server)


class Members(dict[str, Member]):
    """All of a cluster, by name. `connect` opens a session that may write, with a DSN."""

    def __init__(self, members: Mapping[str, Member], connect: Callable[[str], Database]) -> None:
        super().__init__(members)
        self._connect = connect

    @contextmanager
    def session(self, name: str) -> Iterator[Database]:
        """A session of a superuser."""
        session = self._connect(self[name].admin)
        try:
            yield session
        finally:
            session.close()

    def ask(self, name: str, sql: str, values: Mapping[str, object] | None = None) -> Rows:
        """One statement in a session of its own."""
        with self.session(name) as session:
            return session.query(sql, values or {})

    def is_standby(self, name: str) -> bool | None:
        """Whether a member is in recovery; None where it does not answer."""
        try:
            return bool(self.ask(name, IS_STANDBY)[0]["is_standby"])
        except (Unreachable, Failed, TimedOut):
            return None

    @property
    def standbys(self) -> list[str]:
        """Those that answer."""
        return [name for name in self if self.is_standby(name)]

    # What files tell, of members and of others: of those nothing

    def is_down(self, name: str) -> bool:
        return not self[name].living

    def needs(self, name: str) -> Mapping[str, int]:
        control = self[name].control if name in self else None
        return control.needs if control else {}

    def unlike(self, name: str, primary: str, position: int) -> str:
        if name not in self or primary not in self:
            return ""
        return self[name].wal.unlike(self[primary].wal, position)

    def conninfo(self, name: str, upstream: str) -> str:
        """How a member streams from another."""
        host, port = parse_dsn(self[upstream].admin).get("host", ""), self[upstream].server.port
        return f"host={_quoted(host)} port={port} {self[name].upstream} application_name={name}".strip()


@contextmanager
def _read_only() -> Iterator[None]:
    """What cannot be written because its disk is read-only by now is left as it is."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EROFS:
            raise


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
