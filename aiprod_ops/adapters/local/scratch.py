"""An empty PostgreSQL server for a few seconds: in a temporary folder, on a socket, without durability.

Whoever made the folder holds a lock on it (flock(2)), which ends with the process however that ends: a folder that
can be locked is a leftover, for `sweep`.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiprod_ops.adapters.local import processes
from aiprod_ops.adapters.local.instance import PostgresServer, fits
from aiprod_ops.adapters.local.programs import Programs, reachable
from aiprod_ops.errors import ConfigurationError, Failed, TimedOut

PREFIX = "aiprod-scratch-"
PORT = 5432  #: only the name of a socket in a folder of the server's own
HBA = "local all all trust\n"  # the socket's folder is closed to everybody else

#: Small, silent, and nothing has to survive.
SETTINGS: dict[str, str | int] = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "wal_level": "minimal",
    "max_wal_senders": 0,
    "max_connections": 20,
    "shared_buffers": "16MB",
    "logging_collector": "off",
    "dynamic_shared_memory_type": "mmap",  # below the data directory, so that nothing outlives a kill
}


@contextmanager
def scratch(programs: Programs) -> Iterator[PostgresServer]:
    """The server, started; it is stopped and its folder (the parent of `data`) deleted however the context ends.

    Raises Failed or TimedOut when it does not come up, ConfigurationError when the temporary folder does not fit.
    """
    with _claimed() as folder:
        yield _started(programs, folder)


def _started(programs: Programs, folder: Path) -> PostgresServer:
    if not fits(folder / "s", PORT):
        raise ConfigurationError(f"the path {folder} is too long for a socket", hint="set TMPDIR to a shorter one")
    try:
        server = PostgresServer(reachable(programs, folder), folder / "data", folder / "s", PORT, folder / "server.log")
        server.initdb()
        server.configure(SETTINGS, HBA)
        server.start()
    except subprocess.TimeoutExpired as error:
        raise TimedOut(f"a scratch server in {folder} did not come up within {error.timeout:.0f} s") from error
    except OSError as error:
        raise _no_room(error) from error
    return server


def sweep() -> list[str]:
    """Stop and delete what a killed process left in the temporary folder; answers the names."""
    swept = []
    for folder in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
        with _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB) as is_ours:
            if is_ours:
                _discard(folder)
                swept.append(folder.name)
    return swept


@contextmanager
def _claimed() -> Iterator[Path]:
    """A new folder, locked, and open to the user that the server may have to run as."""
    while True:
        try:
            folder = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
        except OSError as error:
            raise _no_room(error) from error
        with _locked(folder, fcntl.LOCK_EX) as is_ours:
            if not is_ours:
                continue  # between its making and its lock another process swept it
            try:
                folder.chmod(0o711)
                yield folder
            finally:
                _discard(folder)
            return


@contextmanager
def _locked(folder: Path, operation: int) -> Iterator[bool]:
    """Whether the folder is there, belongs to us, and is locked by this process alone, for as long as the context."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # gone, a link, or somebody else's
        yield False
        return
    try:
        yield os.fstat(descriptor).st_uid == os.geteuid() and _lock(descriptor, operation) and folder.is_dir()
    finally:
        os.close(descriptor)


def _lock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        return False
    return True


def _discard(folder: Path) -> None:
    processes.stop(folder)
    shutil.rmtree(folder)


def _no_room(error: OSError) -> Failed:
    return Failed(
        f"no scratch server in {tempfile.gettempdir()}: {error.strerror}", hint="set TMPDIR to another folder"
    )
