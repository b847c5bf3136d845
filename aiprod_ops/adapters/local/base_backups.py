"""One base backup in a folder, as pg_basebackup wrote it: what its name, its label and its manifest tell.

20261128T031500Z-LABEL/        complete by its name
20261128T031500Z-LABEL.part/   one that is being taken, or was when its maker died
"""

import fcntl
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiprod_ops.adapters.local.programs import Programs
from aiprod_ops.domain.backups import Backup, State
from aiprod_ops.errors import Failed, Untried
from aiprod_ops.units import Bytes

NAME = re.compile(r"(\d{8}T\d{6}Z)-([A-Za-z0-9._-]+)\Z")
PART, GOING = ".part", ".going"
MAKER = "maker"  #: beside the backup, locked by whoever takes it: the lock ends with the process
READ = "backup_label"  #: in a backup, locked by all that restore it: nothing has to be written for that
STAMP = "%Y%m%dT%H%M%SZ"


class Spoiled(Failed):
    """Something that every complete backup has is not in this one."""


#: Where a file should be is nothing, or something else.
ODD = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


def _named(path: Path) -> re.Match[str] | None:
    """The parts of its name; None for what is being removed, and for what is not ours."""
    return None if path.name.endswith(GOING) else NAME.match(path.name.removesuffix(PART))


def read(path: Path, programs: Programs) -> Backup | None:
    """As a repository lists it; None where it is no backup of ours. Raises Untried where it cannot be read now."""
    match = _named(path)
    if match is None:
        return None
    label = match[2]
    try:
        started = datetime.strptime(match[1], STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None  # no day of any calendar: not ours
    if path.suffix == PART:
        is_alive = is_being_taken(path)
        said = "" if is_alive else "whoever took it is no more"
        return Backup(path.name, State.RUNNING if is_alive else State.FAILED, started, label=label, said=said)
    try:
        ended, size, identifier = _complete(path, programs)
    except Spoiled as error:
        return Backup(path.name, State.FAILED, started, label=label, said=error.message)
    except OSError as error:  # a role or a disk of today's: no reason to call a good backup failed
        raise Untried(f"the backup {path} cannot be read: {error.strerror}") from error
    timeline = first_segment(path)[:8]
    return Backup(
        path.name, State.SUCCESSFUL, started, ended, size=size, instance=identifier, label=label, timeline=timeline
    )


def _complete(path: Path, programs: Programs) -> tuple[datetime, Bytes, str]:
    """When it ended, its size, and of which system it is. Raises Spoiled where no restore can begin with it."""
    first_segment(path)
    try:
        manifest = _manifest(path)
        size = Bytes(sum(int(each.get("Size", 0)) for each in manifest["Files"]))
        ended = _ended(path, manifest)
    except (*ODD, ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        raise Spoiled(f"its manifest cannot be read: {_words(error)}") from error
    try:
        (path / "global" / "pg_control").stat()
    except ODD as error:
        raise Spoiled("it has no global/pg_control") from error
    return ended, size, str(manifest.get("System-Identifier", "")) or _identifier(path, programs)


def _identifier(path: Path, programs: Programs) -> str:
    """Before PostgreSQL 17 the manifest does not tell of which system it is."""
    try:
        said = programs.run("pg_controldata", str(path), cwd=path.parent)
    except Failed as error:
        raise Spoiled(f"its global/pg_control cannot be read: {error.message}") from error
    found = re.search(r"Database system identifier:\s+(\d+)", said)
    return found[1] if found else ""


def _words(error: Exception) -> str:
    return str(error.strerror if isinstance(error, OSError) else error)


def first_segment(path: Path) -> str:
    """The first WAL segment that a backup needs. Source: the file backup_label, "START WAL LOCATION"."""
    try:
        text = (path / "backup_label").read_text(encoding="utf-8", errors="replace")
    except ODD as error:
        raise Spoiled("it has no backup_label") from error
    found = re.search(r"START WAL LOCATION: \S+ \(file ([0-9A-F]{24})\)", text)
    if found is None:
        raise Spoiled("its backup_label does not tell where its WAL begins")
    if "\nINCREMENTAL FROM LSN" in text:
        raise Spoiled("it is an increment, which pg_combinebackup makes a backup of")
    return found[1]


def _ended(path: Path, manifest: Mapping[str, Any]) -> datetime:
    """When it ended, by the server's clock: the manifest has the second in which the first file, backup_label, was
    sent, and is itself the last one.

    The files' own times are those of whoever wrote them, and a copy of the repository renews them, within its own
    duration: only how far these two are apart is taken from them, and the part of the second, where they are of it.
    Nothing in it was written later than that.
    Source: `sendFileWithContent` in basebackup.c; PostgreSQL manual, "Backup Manifest File Object".
    """
    times = {each.get("Path", ""): each["Last-Modified"] for each in manifest["Files"]}
    newest, second = (
        datetime.strptime(text, "%Y-%m-%d %H:%M:%S GMT").replace(tzinfo=UTC)
        for text in (max(times.values()), times["backup_label"])
    )
    first, last = ((path / name).stat().st_mtime for name in ("backup_label", "backup_manifest"))
    part = first - second.timestamp()
    took = (part if 0 <= part < 1 else 1.0) + max(0.0, last - first)
    return max(newest, second + timedelta(seconds=took))


def _manifest(path: Path) -> dict[str, Any]:
    content = json.loads((path / "backup_manifest").read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    if not content.get("Files"):
        raise ValueError("it lists no files")
    return content


def has_checksums(path: Path) -> bool:
    """Whether its manifest tells more of each file than name and size (`--manifest-checksums=NONE`)."""
    return all("Checksum" in each for each in _manifest(path)["Files"])


def version_of(folder: Path) -> int | None:
    """The major version of PostgreSQL that the newest backup in a folder is of; None where there is none."""
    found = sorted(path for path in folder.glob("*") if _named(path)) if folder.is_dir() else []
    return next((major for path in reversed(found) if (major := major_of(path)) is not None), None)


def major_of(path: Path) -> int | None:
    """Of one backup; None where it does not tell, which it does when it is verified."""
    try:
        return int((path / "PG_VERSION").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


@contextmanager
def locked(path: Path, how: int) -> Iterator[None]:
    """A file that is there, locked; alone only by who may write to it: NFS asks for that. Ends with the process."""
    with path.open("rb" if how & fcntl.LOCK_SH else "r+b") as file:
        fcntl.flock(file, how)
        yield


def is_being_taken(part: Path) -> bool:
    """Whether somebody is taking it."""
    try:
        with locked(part / MAKER, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False
