"""Faults on demand, for drills and tests: each is real, and each is taken back when its context ends.

What cannot be taken back (a killed server) says how to go on.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import psutil
import psycopg2
from psycopg2 import sql

from aiprod_ops.adapters.local import processes
from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.errors import Failed, Refused
from aiprod_ops.lab import postgres
from aiprod_ops.lab.fleet import Fleet
from aiprod_ops.units import Bytes, Seconds


def kill_postmaster(server: PostgresServer) -> int:
    """Kill the postmaster with -9, wait until its children are gone, too, and answer its pid.

    `server.start()` recovers.
    """
    pid = _pid(server)
    os.kill(pid, signal.SIGKILL)
    _await(lambda: not processes.below(server.data), f"the children of {pid} live on")
    # Until its parent took note of its end, its number still looks alive to the server that starts next.
    _await(lambda: not psutil.pid_exists(pid), f"nobody takes note of the end of {pid}")
    return pid


@contextmanager
def frozen(server: PostgresServer) -> Iterator[None]:
    """Stop a server's processes in their tracks (SIGSTOP); it holds its connections and answers nothing."""
    _pid(server)
    pids = [process.pid for process in processes.below(server.data)]
    _signal(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(pids, signal.SIGCONT)


@contextmanager
def open_snapshot(fleet: Fleet, table: str = "users") -> Iterator[int]:
    """A session idle in a transaction that has read a table; a concurrent build waits for it. Gives its pid."""
    with postgres.session(fleet.dsn("aiprod_app")) as session, session.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute(sql.SQL("SELECT 1 FROM {} LIMIT 1").format(sql.Identifier(table)))
        yield session.info.backend_pid


@contextmanager
def locked(fleet: Fleet, table: str = "jobs", mode: str = "ACCESS EXCLUSIVE") -> Iterator[int]:
    """A session of the schema's owner that holds a lock on a table. Gives its pid."""
    with postgres.session(fleet.dsn("aiprod_actor")) as session, session.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(sql.SQL("LOCK TABLE {} IN {} MODE").format(sql.Identifier(table), sql.SQL(mode)))
        yield session.info.backend_pid


@contextmanager
def prepared_transaction(fleet: Fleet, name: str = "forgotten", table: str = "users") -> Iterator[None]:
    """A prepared transaction that nobody finishes: it holds a lock on a table, and concurrent builds wait for it."""
    with postgres.session(fleet.dsn("aiprod_app")) as session, session.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(sql.SQL("DELETE FROM {} WHERE false").format(sql.Identifier(table)))
        cursor.execute("PREPARE TRANSACTION %(name)s", {"name": name})
    try:
        yield
    finally:
        postgres.rows(fleet.dsn("aiprod_app"), "ROLLBACK PREPARED %(name)s", {"name": name})


def leave_invalid_index(fleet: Fleet, name: str, table: str, column: str) -> None:
    """Leave an INVALID index as a cancelled concurrent build does: it waits for a snapshot and is cancelled there."""
    build = sql.SQL("CREATE INDEX CONCURRENTLY {} ON {} ({})").format(*map(sql.Identifier, (name, table, column)))
    other = "results" if table != "results" else "users"
    with open_snapshot(fleet, other), postgres.session(fleet.dsn("aiprod_actor")) as session:
        builder = Thread(target=_run_until_cancelled, args=(session, build))
        builder.start()
        try:
            _await(lambda: _waits_for_snapshot(fleet, session.info.backend_pid), "the build does not get to its wait")
        finally:
            session.cancel()
            builder.join()
    validity = postgres.rows(fleet.dsn("aiprod_probe"), VALIDITY, {"name": name})
    if validity != [(False,)]:
        raise Failed(f"the cancelled build of {name} left {validity or 'nothing'} instead of an INVALID index")


VALIDITY = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%(name)s)"
PHASE = "SELECT 1 FROM pg_stat_progress_create_index WHERE pid = %(pid)s AND phase LIKE 'waiting for old snapshots'"


def _run_until_cancelled(session: psycopg2.extensions.connection, statement: sql.Composable) -> None:
    try:
        with session.cursor() as cursor:
            cursor.execute(statement)
    except psycopg2.errors.QueryCanceled:
        return


def _waits_for_snapshot(fleet: Fleet, pid: int) -> bool:
    return bool(postgres.rows(fleet.dsn("aiprod_probe"), PHASE, {"pid": pid}))


@contextmanager
def small_filesystem(place: Path, size: Bytes) -> Iterator[Path]:
    """Mount a filesystem of so many bytes on a folder, for what happens when it is full. Needs root, on Linux."""
    place.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={size},mode=0711", "tmpfs", str(place)]
    mounted = processes.run(["mount", *options], cwd=Path("/"))
    if mounted.returncode != 0:
        raise Refused(f"a small filesystem cannot be mounted here: {mounted.stderr.strip()}", hint="this needs root")
    try:
        yield place
    finally:
        processes.run(["umount", "--lazy", str(place)], cwd=Path("/"))


def _pid(server: PostgresServer) -> int:
    pid = server.pid
    if pid is None or not server.is_running():
        raise Refused(f"there is no server running in {server.data}")
    return pid


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue  # a backend that ended meanwhile


def _await(condition: Callable[[], bool], otherwise: str, timeout: Seconds = Seconds(30)) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"{otherwise} after {timeout:.0f} s")
        time.sleep(0.05)
