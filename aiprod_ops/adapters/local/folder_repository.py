"""Stored backups in a folder of this machine: base backups with their manifests, and the WAL archive beside them.

The archive is the folder that the server's archive_command fills. Source: PostgreSQL manual, "Continuous Archiving and
Point-in-Time Recovery".
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiprod_ops.adapters.local import processes
from aiprod_ops.adapters.local.archive import Archive
from aiprod_ops.adapters.local.base_backups import (
    GOING,
    MAKER,
    NAME,
    ODD,
    PART,
    READ,
    STAMP,
    first_segment,
    has_checksums,
    is_being_taken,
    locked,
    major_of,
    read,
    version_of,
)
from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.adapters.local.programs import Programs, fitting
from aiprod_ops.adapters.local.repository import (
    EARLIER,
    Fetched,
    after,
    check_label,
    check_reach,
    check_replayed,
    to_the_end,
)
from aiprod_ops.adapters.local.unprivileged import Way
from aiprod_ops.domain.backups import Arrangement, Backup, Origin, State, successful
from aiprod_ops.errors import Failed, Held, Refused
from aiprod_ops.ports import Database
from aiprod_ops.units import Bytes

_IN_USE = "is being restored by a test: it can be removed when that has ended, see aiprod-ops runs list"
_ON_ITS_WAY = timedelta(seconds=5)  #: so long may the last WAL of a backup take into the archive


class FolderRepository:
    """Base backups below a folder. `backup` is a DSN that may replicate, without a password; `env` carries it."""

    verifier = "pg_verifybackup"

    def __init__(
        self, programs: Programs, folder: Path, archive: Path | None, backup: str, env: Mapping[str, str] | None = None
    ) -> None:
        self._programs, self._folder, self._backup, self._env = programs, folder, backup, env
        self._archive = Archive(archive, programs) if archive else None

    @property
    def major(self) -> int | None:
        return version_of(self._folder)

    def listed(self) -> tuple[Backup, ...]:
        if not self._folder.is_dir():
            return ()
        found = [read(path, self._programs) for path in sorted(self._folder.iterdir()) if path.is_dir()]
        return tuple(each for each in found if each is not None)

    def arrangement(self) -> Arrangement:
        good, room = successful(self.listed()), self._room()
        if (archive := self._archive) is None or not good:
            return Arrangement(automatic=False, room=room)
        onward = [(each, archive.onward(*self._wal_of(each.id))) for each in good]
        able = [(each, names) for each, names in onward if names] if onward[-1][1] else []
        return Arrangement(
            automatic=False,
            recovers_from=able[0][0].taken if able else None,
            recovers_to=max(able[-1][0].taken, archive.moment(able[-1][1])) if able else None,
            last=able[-1][1][-1] if able else "",
            lacks=self._lacks(good[-1]),
            room=room,
        )

    def _room(self) -> Bytes:
        """Free where the folder is, or will be."""
        there = next(path for path in (self._folder, *self._folder.parents) if path.is_dir())
        return Bytes(shutil.disk_usage(there).free)

    def reaches(self, segment: str) -> bool | None:
        return None if self._archive is None else self._archive.comes_to(segment)

    def take(self, label: str, report: Callable[[str], None] = lambda _: None) -> str:
        """Raises Refused where the label is none."""
        check_label(label)
        for each in self.listed():
            if each.label == label and each.state is State.SUCCESSFUL:
                return each.id
            if each.label == label and each.state is State.FAILED and each.id.endswith(PART):
                self._set_aside(each.id)
                self._sweep()
        name = f"{datetime.now(UTC):{STAMP}}-{label}"
        part = self._folder / f"{name}{PART}"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.mkdir(mode=0o700)
        except OSError as error:
            raise Failed(f"no backup can be written to {self._folder}: {error.strerror}") from error
        server = PostgresServer(self._programs, part / "data", part, 5432, part / "log")
        try:
            (part / MAKER).touch()
            with locked(part / MAKER, fcntl.LOCK_EX):
                report(f"taking the backup {name}")
                self._base_backup(server)
                report("verifying it against its manifest")
                self._stored(server.data).verify_backup()
                (part / "data").rename(self._folder / name)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return name

    def _stored(self, path: Path) -> PostgresServer:
        """A stored backup, read by programs of its own version: others do not understand its WAL."""
        major = major_of(path)
        programs = self._programs if major is None or major == self._programs.major else fitting(major, None)
        return PostgresServer(programs, path, path, 5432, path / "log")

    def _base_backup(self, server: PostgresServer) -> None:
        """Tablespaces would be written to where they are on the server: on this machine that is outside of the folder,
        and where the server runs it is its own."""
        try:
            server.base_backup(self._backup, env=self._env, sync=True)
        except Failed as error:
            if "exists but is not empty" not in error.message:
                raise
            raise Refused(f"{_SPACES}: {error.message}", hint=_SPACES_HINT) from error
        _refuse_tablespaces(server.data)

    def remove(self, backup: str) -> None:
        """With the WAL that no backup needs any more. Raises Refused for a name that is none of a backup."""
        if NAME.match(backup.removesuffix(PART)) is None:
            raise Refused(f"{backup!r} is not the name of a backup")
        if is_being_taken(self._folder / backup):
            raise Refused(f"{backup} is being taken", hint="wait until it has ended")
        try:
            with locked(self._folder / backup / READ, fcntl.LOCK_EX | fcntl.LOCK_NB):
                self._set_aside(backup)
        except BlockingIOError as error:
            raise Held(f"{backup} {_IN_USE}") from error
        except ODD:
            self._set_aside(backup)  # nobody restores what has none
        self._sweep()
        left = successful(self.listed())
        if self._archive is not None and left:
            self._archive.clean([first_segment(self._folder / each.id) for each in left])

    def check_writable(self) -> None:
        """What root writes here nobody else has to change."""

    def in_use(self, backup: str) -> str:
        try:
            with locked(self._folder / backup / READ, fcntl.LOCK_EX | fcntl.LOCK_NB):
                return ""
        except BlockingIOError:
            return f"{backup} {_IN_USE}"
        except OSError:
            return ""

    def _set_aside(self, backup: str) -> None:
        path = self._folder / backup
        if path.is_dir():
            processes.stop(path)  # what a killed maker left behind writes on
            # From here on it is no backup any more, however far the removal comes.
            path.rename(self._folder / f"{backup}{GOING}")

    def _sweep(self) -> None:
        for each in self._folder.glob(f"*{GOING}"):  # also of those whose removal was killed
            shutil.rmtree(each.resolve(), ignore_errors=True)
            if each.is_symlink():
                each.unlink()

    def size(self, origin: Origin) -> Bytes:
        return self._chosen(origin).size or Bytes(0)

    @contextmanager
    def holding(self, origin: Origin) -> Iterator[Origin]:
        """Others may be removed meanwhile: the WAL that this one needs stays as long as it is there."""
        chosen = self._chosen(origin)
        label = self._folder / chosen.id / READ
        with ExitStack() as held:
            try:
                held.enter_context(locked(label, fcntl.LOCK_SH))
                label.stat()
            except FileNotFoundError as error:
                raise Refused(f"{chosen.id} was removed just now", hint="aiprod-ops check backups") from error
            yield replace(origin, backup=chosen.id)

    def fetch(self, origin: Origin, server: PostgresServer, report: Callable[[str], None]) -> Fetched:
        chosen = self._chosen(origin)
        source = self._folder / chosen.id
        unsummed = "pg_verifybackup: as many files, as large; its manifest has no checksums"
        checks = ["pg_verifybackup: intact" if has_checksums(source) else unsummed]
        segments = self._following(chosen, origin)
        _refuse_tablespaces(source)
        report(f"restoring {chosen.id}, verifying it against its manifest")
        stored = self._stored(source)
        work: list[Callable[[], None]] = [lambda: _copy(source, server.data), stored.verify_backup]
        if (archive := self._archive) is not None and segments:
            work.append(lambda: archive.verify(segments))
        processes.in_parallel(*work)
        if segments:
            checks.append(f"{len(segments)} WAL segments beside it: none is missing, all can be read")
        settings = self._readable(archive, server, segments).recovery(origin, segments) if archive else {}
        archived = segments if to_the_end(settings) else ()
        return Fetched(chosen.id, tuple(checks), settings, archived, at=origin.at, lacks=self._lacks(chosen))

    def refusal(self, backup: str, spare: Path) -> str:
        """All files but one are links to the stored ones: nothing is written to these."""
        source = self._folder / self._chosen(Origin(backup)).id
        _copy(source, spare, _link, without="")
        victim = max(
            (path for path in (spare / "base").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
        )
        content = victim.read_bytes()
        victim.unlink()
        victim.write_bytes(content[:4096] + bytes([content[4096] ^ 0xFF]) + content[4097:])
        try:
            self._stored(spare).verify_backup()
        except Failed as error:
            return error.message if str(victim.relative_to(spare)) in error.message else ""
        finally:
            shutil.rmtree(spare)
        return ""

    @staticmethod
    def _readable(archive: Archive, server: PostgresServer, segments: Sequence[str]) -> Archive:
        """The archive itself; in the copy's folder where its server may not read it: it runs as nobody, or as a root
        without power over what is another's."""
        if server.programs.way is Way.DIRECT or (server.programs.way is Way.NAMESPACE and archive.is_open(segments)):
            return archive
        place = server.data.parent / "wal"
        copied = archive.copied(place, segments)
        server.programs.hand_over(place)
        return copied

    def _following(self, chosen: Backup, origin: Origin) -> tuple[str, ...]:
        """Raises Refused where the moment lies after all that is archived."""
        if self._archive is None:
            if origin.at is not None or origin.lsn:
                raise Refused(
                    "there is no WAL archive, so a backup restores to its own end only",
                    hint="name the folder that archive_command fills as `archive` in the target's configuration",
                )
            return ()
        first, own = self._wal_of(chosen.id)
        segments = self._archive.following(first, own)
        if origin.at is not None:  # looking for it takes time
            check_reach(origin, max(chosen.taken, self._archive.moment(segments)) if segments else None)
        return segments

    def _wal_of(self, backup: str) -> tuple[str, list[str]]:
        """The first segment that it needs, and those in it: what was written while it was taken is part of it."""
        path = self._folder / backup
        return first_segment(path), [each.name for each in (path / "pg_wal").glob("*")]

    def _lacks(self, backup: Backup) -> str:
        """Why the archive does not lead on from a backup; '' where there is to be none."""
        is_new = abs(datetime.now(UTC) - backup.taken) < _ON_ITS_WAY
        return self._archive.lacks(*self._wal_of(backup.id), is_new=is_new) if self._archive else ""

    def check_recovered(self, fetched: Fetched, database: Database) -> list[str]:
        return check_replayed(database, fetched)

    def _chosen(self, origin: Origin) -> Backup:
        listed = self.listed()
        good = successful(listed)
        if origin.backup:
            found = next((each for each in listed if each.id == origin.backup), None)
            if found is None:
                known = ", ".join(each.id for each in good[-3:]) or "none"
                raise Refused(f"there is no backup {origin.backup} in {self._folder}", hint=f"the newest are: {known}")
            if found.state is State.RUNNING:
                raise Refused(f"{origin.backup} is being taken", hint="wait until it has ended")
            if found.state is State.FAILED:
                raise Failed(f"the backup {origin.backup} cannot be restored: {found.said}")
            if origin.at is not None and not self._is_from_before(found, origin.at):
                raise Refused(after(found, origin.at), hint=EARLIER)
            return found
        able = (each for each in reversed(good) if origin.at is None or self._is_from_before(each, origin.at))
        if (newest := next(able, None)) is None:
            when = f" from before {origin.at.isoformat(' ', 'seconds')}" if origin.at else ""
            first = min((each.taken for each in good), default=None)
            ended = f"the oldest ended at {first:%Y-%m-%d %H:%M:%S} UTC: ask for a later moment" if first else ""
            why = f"; {told[-1].id}: {told[-1].said}" if (told := [each for each in listed if each.said]) else ""
            raise Refused(
                f"there is no backup{when} in {self._folder}{'' if when else why}",
                hint=ended or "take one: aiprod-ops plan take-backup",
            )
        return newest

    def _is_from_before(self, backup: Backup, at: datetime) -> bool:
        """Whether no transaction that is part of it ended after a moment: by its time, which may be that of its
        beginning, and by its own WAL."""
        own = Archive(self._folder / backup.id / "pg_wal", self._programs)
        try:
            return backup.taken <= at and not own.goes_past(at, own.segments())
        except Failed:
            return True  # it is damaged, and the one that is wanted: the restore says so


_SPACES = "the server has tablespaces, which a folder of backups does not keep"
_SPACES_HINT = 'pgBackRest keeps them: backups = "pgbackrest:STANZA"'


def _refuse_tablespaces(data: Path) -> None:
    """A copy would write into those of the backup: its links lead there."""
    if any((data / "pg_tblspc").glob("*")):
        raise Refused(_SPACES, hint=_SPACES_HINT)


def _link(stored: str, spare: str) -> None:
    """A copy where the two are on different file systems, or on one without hard links."""
    try:
        os.link(stored, spare)
    except OSError:
        shutil.copy2(stored, spare)


def _own_wal(stored: Path, copied: Path) -> None:
    """`pg_basebackup --waldir` leaves a link: a copy's server would write into the stored WAL."""
    if copied.is_symlink():
        copied.unlink()
        shutil.copytree(stored.resolve(), copied)


def _copy(
    source: Path, target: Path, each: Callable[[str, str], object] = shutil.copy2, without: str = "backup_manifest"
) -> None:
    """All files of a backup; the manifest stays behind, a running server has none."""
    try:
        shutil.copytree(source, target, symlinks=True, copy_function=each, ignore=shutil.ignore_patterns(without))
        _own_wal(source / "pg_wal", target / "pg_wal")
    except shutil.Error as error:
        reasons = "; ".join(sorted({str(reason) for _, _, reason in error.args[0]})[:2])
        raise Failed(f"the backup cannot be copied to {target.parent}: {reasons}") from error
    except OSError as error:
        raise Failed(f"the backup cannot be copied to {target.parent}: {error.strerror}") from error
    target.chmod(0o700)
