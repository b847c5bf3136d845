"""The one folder that a lab lives in: what is where, who may change it, and how it disappears."""

import contextlib
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiprod_ops import config
from aiprod_ops.adapters.local import processes
from aiprod_ops.errors import Held, Refused

MARKER = "aiprod-lab.json"
LOCK = "lock"


def default() -> Path:
    """Below the state folder. Root's is where any user can enter, because the server may have to run as another one."""
    return config.default_state(os.environ, is_root=os.geteuid() == 0) / "lab"


def create(folder: Path) -> None:
    """Make an empty lab folder, or accept what is left of one. Raises Refused for a folder of somebody else."""
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    refuse_foreign(folder)


def refuse_foreign(folder: Path) -> None:
    """Raises Refused for a folder that holds somebody else's files; nothing is written there, not even a lock."""
    if folder.is_dir() and not is_lab(folder) and any(path.name != LOCK for path in folder.iterdir()):
        raise Refused(f"{folder} holds other files and is not a lab", hint="name an empty folder with --folder DIR")


def is_lab(folder: Path) -> bool:
    """Whether a lab was begun there."""
    return (folder / MARKER).is_file()


def read(folder: Path) -> dict[str, Any]:
    """What the marker says: `state` is building or ready; the rest is the fleet's. Empty where there is none."""
    try:
        marker: dict[str, Any] = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return marker


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file atomically; nobody reads half of it, and it never has a wider mode."""
    temporary = path.with_name(f".{path.name}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


def mark(folder: Path, marker: dict[str, Any]) -> None:
    """Write the marker."""
    write(folder / MARKER, json.dumps(marker, indent=2) + "\n")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only one who changes this lab. Raises Held, naming the other; the lock ends with its process."""
    while True:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 40).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            message = f"another `lab` command (pid {holder}) is at work in {folder}"
            raise Held(message, hint="wait for it to end") from None
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == (folder / LOCK).stat().st_ino:
                break
        os.close(descriptor)  # `down` removed the file between our open and our lock
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def remove(folder: Path) -> list[str]:
    """Stop what runs below a lab's folder and delete it; answers what was stopped and removed, in words.

    Idempotent: what a killed `down` left is removed by the next one. Raises Refused where it is not a lab.
    """
    folder = folder.resolve()
    if not folder.exists():
        return []
    if not is_lab(folder) and any(path.name != LOCK for path in folder.iterdir()):
        raise Refused(f"{folder} is not a lab (there is no {MARKER} in it): nothing was removed")
    with locked(folder):
        done = clear(folder)
        (folder / LOCK).unlink()
    folder.rmdir()
    return [*done, f"removed {folder}"]


def clear(folder: Path) -> list[str]:
    """Stop what runs below a lab's folder and empty it, but for the lock that the caller holds."""
    done = [f"stopped {name}" for name in processes.stop(folder)]
    _release_shared_memory(folder)
    _unmount(folder)
    # The marker goes last: a removal that is killed half way can be repeated.
    for path in sorted(folder.iterdir(), key=lambda path: path.name == MARKER):
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return done


def _release_shared_memory(folder: Path) -> None:
    """Free the shared memory of servers that were killed with -9: a few bytes each that would stay until a reboot."""
    if sys.platform != "linux":
        return
    import ctypes

    # A data directory is below the lab's folder, or the emulator's.
    for pidfile in (*folder.glob("*/postmaster.pid"), *folder.glob("cloudsql/instances/*/data/postmaster.pid")):
        lines = pidfile.read_text(encoding="utf-8").splitlines()
        # Line 7 is "key id". Source: PostgreSQL's miscadmin.h, LOCK_FILE_LINE_SHMEM_KEY.
        if len(lines) >= 7 and len(numbers := lines[6].split()) == 2 and tuple(numbers) in _unattached():
            ctypes.CDLL(None).shmctl(int(numbers[1]), 0, None)  # IPC_RMID


def _unattached() -> set[tuple[str, str]]:
    rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text(encoding="ascii").splitlines()[1:]]
    return {(row[0], row[1]) for row in rows if row[6] == "0"}


def _unmount(folder: Path) -> None:
    """Take away the small filesystems that a disk-full fault mounted."""
    if sys.platform != "linux":
        return
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    for place in mounts:
        if Path(place).is_relative_to(folder):
            processes.run(["umount", "--lazy", place], cwd=Path("/"))
