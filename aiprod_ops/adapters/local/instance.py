"""One PostgreSQL server on this machine: made, started, stopped and copied with PostgreSQL's own programs."""

import os
import signal
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from aiprod_ops.adapters.local import processes
from aiprod_ops.adapters.local.programs import Programs, complaint
from aiprod_ops.errors import Failed, TimedOut
from aiprod_ops.units import Seconds

LONGEST = Seconds(4 * 3600)  #: of a step that reads or writes a whole backup

#: Bytes without the final zero; macOS has the smaller limit (Linux: 107). Source: unix(7), unix(4).
SOCKET_PATH_LIMIT = 103

#: What a server's file says of it; a hot standby that answers is ready. Source: miscadmin.h, PM_STATUS_*.
_READY, _STANDBY = "ready", "standby"
_STOPS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """Where a server lives. Its working directory is `data`, so that it can be found when nobody remembers it.

    `log` takes what the server says before its own logging starts, and why it did not start.
    """

    programs: Programs
    data: Path
    sockets: Path
    port: int
    log: Path

    def initdb(self, *more: str) -> None:
        """Make an empty cluster, owned by `postgres`, with checksums, in C collation, UTF-8; `more` are options."""
        self.data.mkdir(mode=0o700)
        self.programs.hand_over(self.data)
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--data-checksums"]
        self.programs.run("initdb", f"--pgdata={self.data}", *options, *more, "--no-sync", cwd=self.data)

    def configure(self, settings: Mapping[str, str | int], hba: str) -> None:
        """Write the whole configuration: what is not named here has PostgreSQL's default."""
        own = {"port": self.port, "unix_socket_directories": str(self.sockets), "unix_socket_permissions": "0700"}
        lines = [f"{name} = {_quoted(str(value))}\n" for name, value in {**own, **settings}.items()]
        for name, text in (
            ("postgresql.conf", "".join(lines)),
            ("postgresql.auto.conf", ""),
            ("pg_hba.conf", hba),
            ("pg_ident.conf", ""),
        ):
            (self.data / name).write_text(text, encoding="utf-8")
            self.programs.hand_over(self.data / name)

    def start(self, timeout: Seconds = Seconds(60)) -> None:
        """Start and wait until it answers. Raises Failed with the server's own words."""
        self.sockets.mkdir(mode=0o700, exist_ok=True)
        self.programs.hand_over(self.sockets)
        self.log.touch(mode=0o600)
        self.programs.hand_over(self.log)
        before, left = self.log.stat().st_size, self.pid
        # pg_ctl itself looks ten times a second only.
        options = [f"--pgdata={self.data}", "--silent", f"--log={self.log}", "--wait", f"--timeout={timeout:.0f}"]
        try:
            self.programs.run(
                "pg_ctl", "start", *options, cwd=self.data, timeout=Seconds(timeout + 10),
                is_enough=lambda: self.pid != left and self._says in (_READY, _STANDBY) and self.is_running(),
            )  # fmt: skip
        except Failed as error:
            said = self.log.read_bytes()[before:].decode("utf-8", "replace")
            raise Failed(f"the server in {self.data} does not start: {complaint(said or error.message)}") from error
        if not self.is_running():  # pg_ctl says 0 of one that refuses its folder at once
            said = self.log.read_bytes()[before:].decode("utf-8", "replace")
            raise Failed(f"the server in {self.data} does not start: {complaint(said)}")

    def await_answer(self, timeout: Seconds) -> None:
        """Wait until sessions are let in. Raises Failed with its own words where it stops instead.

        pg_ctl takes a server that recovers for one that has started, also where it is no hot standby.
        """
        if not processes.wait_until(lambda: self._says == _READY or not self.is_running(), timeout):
            raise TimedOut(f"recovery has not ended after {timeout:.0f} s")
        if not self.is_running():
            said = complaint(self.log.read_text(encoding="utf-8", errors="replace"))
            raise Failed(f"the server in {self.data} ended while it recovered: {said}")

    def stop(self, mode: str = "fast", timeout: Seconds = Seconds(60)) -> None:
        """Stop, if it runs. `mode` is PostgreSQL's: smart, fast or immediate. Raises Failed where it goes on."""
        pid = self.pid
        if pid is None or not self.is_running():
            return
        with suppress(ProcessLookupError):
            os.kill(pid, _STOPS[mode])
        if not processes.wait_until(lambda: not self.is_running(), timeout):
            raise Failed(f"the server in {self.data} has not stopped after {timeout:.0f} s")

    @property
    def pid(self) -> int | None:
        """The postmaster's process, as its own file says; the process may be gone."""
        try:
            return int(self._file[0])
        except ValueError:
            return None

    @property
    def _says(self) -> str:
        """How far the server is, by its own file: the status that pg_ctl reads, too."""
        lines = self._file  # once: the server writes it anew at any time
        return lines[7].strip() if len(lines) > 7 else ""

    @property
    def _file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text(encoding="utf-8").split("\n")
        except FileNotFoundError:
            return [""]

    def is_running(self) -> bool:
        """Whether the process that the server's file names is this server: a number may have found a new owner."""
        pid = self.pid
        return pid is not None and _serves(pid, self.data)

    def dsn(self, user: str, database: str, *, passfile: Path | None = None) -> str:
        """A connection URI through the server's socket, or through loopback where the socket's path is too long."""
        host = str(self.sockets) if fits(self.sockets, self.port) else "127.0.0.1"
        query = {"host": host, "port": str(self.port)} | ({"passfile": str(passfile)} if passfile else {})
        return f"postgresql://{quote(user)}@/{quote(database)}?{urlencode(query, quote_via=quote, safe='/')}"

    def base_backup(
        self,
        dsn: str,
        *,
        tablespaces: Mapping[str, Path] | None = None,
        env: Mapping[str, str] | None = None,
        sync: bool = False,
    ) -> None:
        """Fill the empty data directory from a running server, with the WAL that makes it consistent.

        `dsn` must not hold a password (it would stand in the process list): `env` may hold PGPASSWORD. Each
        tablespace's old place maps to its new one; `sync` makes it last. Raises Failed.
        """
        pairs = (tablespaces or {}).items()
        moves = [f"--tablespace-mapping={_escaped(old)}={_escaped(str(new))}" for old, new in pairs]
        options = ["--wal-method=stream", "--checkpoint=fast", "--no-password", *moves]
        options += [] if sync else ["--no-sync"]
        where = self.data.parent
        self.programs.run(
            "pg_basebackup", f"--pgdata={self.data}", f"--dbname={dsn}", *options, cwd=where, env=env,
            timeout=LONGEST,
        )  # fmt: skip
        self.data.chmod(0o700)

    def verify_backup(self) -> None:
        """Compare the data directory with the backup's manifest and parse its WAL. Raises Failed."""
        self.programs.run("pg_verifybackup", str(self.data), cwd=self.data.parent, timeout=LONGEST)


def fits(sockets: Path, port: int) -> bool:
    """Whether the socket's path is short enough for the operating system."""
    return len(str(sockets / f".s.PGSQL.{port}").encode()) <= SOCKET_PATH_LIMIT


def socket_folder(preferred: Path, port: int) -> Path:
    """The preferred folder, or a new one in the temporary directory where its path would be too long for a socket."""
    return preferred if fits(preferred, port) else Path(tempfile.mkdtemp(prefix="aiprod-"))


def _serves(pid: int, data: Path) -> bool:
    """Whether a process is a server (or its postmaster's child) that lives in `data`."""
    proc = Path("/proc", str(pid), "cwd")
    if Path("/proc/self").exists():
        try:
            return proc.readlink() == data.resolve()
        except OSError:
            return False
    return any(process.pid == pid for process in processes.below(data))


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _escaped(path: str) -> str:
    return path.replace("=", "\\=")
