"""A store in a folder of the local file system."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiprod_ops.errors import ConfigurationError, Held

_LEASE_BYTES = 512


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


class FolderStore:
    """Plans, journals and evidence below one folder; files are 0600, folders 0700.

    What is put or appended has reached the disk when the call returns (fsync of the file, and of its folder when a
    name is new). Locks are flock(2) on local disk: they end with the process.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, name: str) -> bytes | None:
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None

    def put(self, name: str, data: bytes) -> None:
        replace_file(self._parent(name), data, 0o600)

    def append(self, name: str, data: bytes) -> None:
        path = self._parent(name)
        is_new = not path.exists()
        before = 0 if is_new else path.stat().st_size
        try:
            _write(path, data, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        except OSError:
            if path.exists():  # a torn line would otherwise run into the next record
                os.truncate(path, before)
            raise
        if is_new:
            _sync_folder(path.parent)

    def truncate(self, name: str, size: int) -> None:
        os.truncate(self.root / name, size)

    def remove(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    def names(self, prefix: str) -> list[str]:
        base = self.root / prefix
        walked = os.walk(base, onerror=_unless_gone)  # rglob takes a folder that is closed to us for an empty one
        found = (Path(folder, name) for folder, _, files in walked for name in files if not name.startswith("."))
        return sorted(str(path.relative_to(self.root)) for path in found if path.is_file())

    def where(self, name: str) -> str:
        return str(self.root / name)

    @contextmanager
    def lock(self, name: str, holder: str, *, wait: bool = False) -> Iterator[int]:
        path = self._parent(f"leases/{name}.json")
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Held(_holder(path), hint="wait for it, or look at it: aiprod-ops runs list") from error
            token = _token(path) + 1
            # One write of constant length: a crash leaves the old line or the new one, never no token at all.
            data = json.dumps({"token": token, "pid": os.getpid(), "holder": holder[:300]}).encode()
            os.pwrite(handle, data.ljust(_LEASE_BYTES), 0)
            os.fsync(handle)
            yield token
        finally:
            os.close(handle)

    def is_locked(self, name: str) -> bool:
        try:
            with (self.root / f"leases/{name}.json").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def _parent(self, name: str) -> Path:
        path = self.root / name
        try:
            _make_private(path.parent)
        except PermissionError as error:
            raise ConfigurationError(
                f"cannot write below {self.root}: {error.strerror}",
                hint='set `state = "…"` in the configuration to a folder of yours',
            ) from error
        return path


def replace_file(path: Path, data: bytes, mode: int) -> None:
    """Let a file have this content and mode; whoever reads it sees the old one or the new one, also after a crash."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _write(temporary, data, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _make_private(folder: Path) -> None:
    """`mkdir(parents=True)` gives its mode to the last folder only."""
    if not folder.is_dir():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _write(path: Path, data: bytes, flags: int, mode: int = 0o600) -> None:
    handle = os.open(path, flags, 0o600)
    try:
        if mode != 0o600:
            os.fchmod(handle, mode)  # whatever the umask
        while data:
            data = data[os.write(handle, data) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _token(path: Path) -> int:
    try:
        return int(json.loads(path.read_bytes())["token"])
    except (ValueError, KeyError, TypeError):
        return 0


def _holder(path: Path) -> str:
    try:
        seen = json.loads(path.read_bytes())
        return f"held by {seen['holder']} (process {seen['pid']})"
    except (ValueError, KeyError, TypeError):
        return f"held by another process ({path})"
