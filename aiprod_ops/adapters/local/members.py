"""The servers of a cluster on this machine: what the files and processes of each tell, and sessions with them.

A server is fenced when nothing of it lives and its files make it a standby: whoever starts it gets one.
"""

import errno
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from psycopg2.extensions import parse_dsn

from aiprod_ops.adapters.local import processes
from aiprod_ops.adapters.local.adding import SIGNAL, alter
from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.domain.replication import NOT_LOWER
from aiprod_ops.errors import Failed, OpsError, TimedOut, Unreachable
from aiprod_ops.ports import Database, Place, Rows
from aiprod_ops.units import Seconds

IS_STANDBY = "select pg_is_in_recovery() as is_standby /* aiprod-ops */"
_OWN = ("postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf")  #: a rewind takes the source's
#: How pg_controldata names what a standby may not have lower.
_NEEDS = {name: name for name in NOT_LOWER} | {
    "max_prepared_transactions": "max_prepared_xacts", "max_locks_per_transaction": "max_locks_per_xact",
}  # fmt: skip
_ENOUGH = 8192  #: bytes before a position that are compared: a page
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
        deadline = time.monotonic() + 10
        while living := self.living:
            for pid in living:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise Failed(f"processes of {self.name} do not end, even when killed: {', '.join(map(str, living))}")
            time.sleep(PAUSE)
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
    def is_shut_down(self) -> bool:
        """Whether it ended as a server should, as a primary or as a standby."""
        state = re.search(r"^Database cluster state:\s+(.+)$", self._control(), re.MULTILINE)
        return state is not None and state[1] in ("shut down", "shut down in recovery")

    @property
    def was_made(self) -> bool:
        """Whether it has files at all."""
        return os.path.exists(self.server.data / "PG_VERSION")  # noqa: PTH110

    @property
    def was_primary(self) -> bool:
        """As its control file says; where that cannot be read, by the mark of a standby."""
        try:
            said = self._control()
        except (OpsError, OSError):
            return not self.is_marked
        state = r"^Database cluster state:\s+(in production|shut down|shutting down|in crash recovery)$"
        return re.search(state, said, re.MULTILINE) is not None

    @property
    def needs(self) -> Mapping[str, int]:
        """What a standby may not have lower, by the name of the setting: the primary's, as their WAL told. {} where its
        control file cannot be read."""
        try:
            said = self._control()
        except (OpsError, OSError):
            return {}
        found = {name: re.search(rf"^{words} setting:\s+(\d+)$", said, re.MULTILINE) for name, words in _NEEDS.items()}
        return {name: int(value[1]) for name, value in found.items() if value}

    @property
    def last_checkpoint(self) -> str:
        """Where the last checkpoint is of one that was shut down cleanly as a primary; '' for any other."""
        said = self._control()
        found = re.search(r"^Latest checkpoint location:\s+(\S+)$", said, re.MULTILINE)
        is_clean = re.search(r"^Database cluster state:\s+shut down$", said, re.MULTILINE)
        return found[1] if found and is_clean else ""

    @property
    def stands_still(self) -> bool:
        """Whether, stopped, it may have nothing that others lack: it was shut down cleanly, or is a standby."""
        try:
            return bool(self.last_checkpoint) or not self.was_primary
        except OpsError:  # its files are damaged, or not there
            return False

    @property
    def written(self) -> int | None:
        """How far its WAL goes, as a server that is frozen or dead has left it, in bytes since 0/0; None where nobody
        can tell."""
        try:
            said = self._control()
            begins = re.search(r"^Latest checkpoint's REDO location:\s+(\S+)$", said, re.MULTILINE)
            timeline = re.search(r"^Latest checkpoint's TimeLineID:\s+(\d+)$", said, re.MULTILINE)
            if begins is None or timeline is None:
                return None
            newest, start = self._newest_timeline(int(timeline[1]), begins[1])
            place = (f"--path={self.server.data / 'pg_wal'}", f"--timeline={newest}", f"--start={start}")
            self.server.programs.run("pg_waldump", "--quiet", *place, cwd=self.server.data.parent)
        except Failed as error:  # it always ends with what it found instead of a record
            ends = re.findall(r"at ([0-9A-F]+)/([0-9A-F]+)", error.told)
            return max((int(high, 16) << 32) + int(low, 16) for high, low in ends) if ends else None
        except (OpsError, OSError):
            return None
        return None

    def _newest_timeline(self, checkpointed: int, start: str) -> tuple[int, str]:
        """The timeline that it wrote last, and where in it to begin: one that was promoted a moment ago has its last
        checkpoint on the timeline before."""
        newest = max((int(each.name[:8], 16) for each in self.segments), default=checkpointed)
        if newest <= checkpointed:
            return checkpointed, start
        lines = (self.server.data / "pg_wal" / f"{newest:08X}.history").read_text().split("\n")
        forks = [line.split()[1] for line in lines if line[:1].isdigit()]
        return newest, forks[-1] if forks else start

    def beyond(self, other: "Member", end: int) -> list[Path]:
        """Its segments from where another branched off its timeline until `end` (bytes since 0/0), and the histories of
        its own; none where the other did not, or this one has nothing after that."""
        fork = self._fork(other)
        if fork is None or end <= fork:
            return []
        own, size = self.timeline, self._segment_size
        per = 2**32 // size
        first, last = fork // size, (end - 1) // size
        names = {f"{own}{number // per:08X}{number % per:08X}" for number in range(first, last + 1)}
        histories = [path for path in (self.server.data / "pg_wal").glob("*.history") if path.name[:8] <= own]
        return sorted([each for each in self.segments if each.name in names] + histories)

    def _fork(self, other: "Member") -> int | None:
        """Where another branched off the timeline of this one, in bytes since 0/0; None where it did not."""
        place = other.server.data / "pg_wal" / f"{other.timeline}.history"
        try:
            lines = place.read_text().split("\n")
            forks = {int(line.split()[0]): line.split()[1] for line in lines if line[:1].isdigit()}
            high, _, low = forks[int(self.timeline, 16)].partition("/")
        except (OSError, KeyError, ValueError):
            return None
        return (int(high, 16) << 32) + int(low, 16)

    def cut(self, other: "Member") -> None:
        """Take away what it has received and not replayed after another branched off: it would be replayed first."""
        fork, size = self._fork(other), self._segment_size
        if fork is None:
            return
        per, own = 2**32 // size, self.timeline
        last = f"{own}{fork // size // per:08X}{fork // size % per:08X}"
        for each in self.segments:
            if each.name[:8] == own and each.name > last:
                each.unlink()
            elif each.name == last:
                with each.open("r+b") as file:
                    file.seek(fork % size)
                    file.write(bytes(size - fork % size))

    def unlike(self, other: "Member", position: int) -> str:
        """What shows that its WAL before a position is not that of another, although the numbers of their timelines
        are the same; '' where nothing does. Where the end is the same, all before it is: each record tells where the
        one before begins, and holds transactions' ids and times."""
        timeline = self.timeline
        if not timeline or timeline != other.timeline:
            return ""
        histories = [each.server.data / "pg_wal" / f"{timeline}.history" for each in (self, other)]
        try:
            if len({path.read_bytes() for path in histories if path.exists()}) > 1:
                return f"its timeline {int(timeline, 16)} began elsewhere than the other's of this number"
            size = self._segment_size
            number = (position - 1) // size
            name = f"{timeline}{number // (2**32 // size):08X}{number % (2**32 // size):08X}"
            begin, end = max(number * size, position - _ENOUGH) - number * size, position - number * size
            ends = [_piece(each.server.data / "pg_wal" / name, begin, end) for each in (self, other)]
        except (OSError, OpsError, ValueError):  # recycled by one of them, or not to be read: nothing is known
            return ""
        return "" if len(set(ends)) == 1 else "its WAL is not the other's: it was written while it was no standby"

    @property
    def _segment_size(self) -> int:
        """Of its WAL; PostgreSQL's default where its control file is damaged."""
        try:
            found = re.search(r"^Bytes per WAL segment:\s+(\d+)$", self._control(), re.MULTILINE)
        except (OpsError, OSError):
            found = None
        return int(found[1]) if found else 16 * 1024**2

    @property
    def timeline(self) -> str:
        """The newest that it has WAL of, in the eight digits of its files' names; '' where it has none."""
        return max((path.name[:8] for path in self.segments), default="")

    @property
    def segments(self) -> list[Path]:
        """Its WAL; the first eight digits of a name are the timeline."""
        found = (self.server.data / "pg_wal").glob("*")
        return [each for each in found if re.fullmatch(r"[0-9A-F]{24}", each.name)]

    def _control(self) -> str:
        place = self.server.data
        return self.server.programs.run("pg_controldata", f"--pgdata={place}", cwd=place.parent)


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

    def conninfo(self, name: str, upstream: str) -> str:
        """How a member streams from another."""
        host, port = parse_dsn(self[upstream].admin).get("host", ""), self[upstream].server.port
        return f"host={_quoted(host)} port={port} {self[name].upstream} application_name={name}".strip()


def _piece(path: Path, begin: int, end: int) -> bytes:
    with path.open("rb") as file:
        file.seek(begin)
        return file.read(end - begin)


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
