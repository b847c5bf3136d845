"""A folder with WAL segments: how far it reaches, whether it is whole, what nobody needs.

Source: PostgreSQL manual, "Continuous Archiving and Point-in-Time Recovery"; pg_archivecleanup; pg_waldump.
"""

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiprod_ops.adapters.local.instance import LONGEST
from aiprod_ops.adapters.local.programs import Programs
from aiprod_ops.domain import wal
from aiprod_ops.domain.backups import Origin
from aiprod_ops.errors import ConfigurationError, Failed, TimedOut, Untried

#: So far apart may the times of two transactions lie whose ends stand in the WAL the other way round.
_JITTER = timedelta(minutes=1)
_ENDED = re.compile(r"desc: (?:COMMIT|ABORT)(?:_PREPARED \d+:)? (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) UTC")

#: So many segments are read at most to see what time it was. A server commits more often than once in 128 MB, but for
#: bulk loads; pg_waldump reads one of 16 MB in some 50 ms.
LOOKED_AT = 8


class Archive:
    """WAL segments in a folder, plain or of a size that a compile-time option chose."""

    def __init__(self, folder: Path, programs: Programs) -> None:
        self._folder, self._programs = folder, programs

    def segments(self) -> list[str]:
        """All of them, in the order of their names; what is being written has another name."""
        try:
            return sorted(path.name for path in self._folder.iterdir() if wal.is_segment(path.name))
        except OSError as error:
            raise Untried(f"the WAL archive {self._folder} cannot be read: {error.strerror}") from error

    def following(self, first: str, own: Iterable[str] = ()) -> tuple[str, ...]:
        """Those from this one on, one for each number: of several timelines the newest. `own` are the ones that the
        backup itself holds. Raises Failed with the first that is missing."""
        here = self.segments()
        found = wal.line({*here, *own}, first, self._size())
        if found.names and self._number(found.names[0]) != self._number(first):
            raise Failed(f"the WAL archive begins with {found.names[0]}; the backup needs it from {first} on")
        if found.gap:
            raise Failed(
                f"the WAL archive lacks the segment after {found.gap}: the {len(found.names)} from {found.names[0]} on "
                "do not follow one another",
                hint=f"look for it on the server: {self._folder}",
            )
        known = set(here)
        return tuple(name for name in found.names if name in known)

    def comes_to(self, segment: str) -> bool:
        """Whether a segment is there, or one that comes after it in its history: each comes when it is complete."""
        names = self.segments()
        newer = {name[:8] for name in names if name[:8] > segment[:8]}
        left = {timeline: wal.branches(self._history(timeline)) for timeline in newer}
        return wal.comes_to(names, segment, left, self._size())

    def _history(self, timeline: str) -> str:
        """What the archive has of a timeline's history; '' where it has none."""
        try:
            return (self._folder / f"{timeline}.history").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise Failed(f"the WAL archive {self._folder} cannot be read: {error.strerror}") from error

    def onward(self, first: str, own: Iterable[str] = ()) -> tuple[str, ...]:
        """Those that follow; none where one is missing among them."""
        try:
            return self.following(first, own)
        except Failed:
            return ()

    def moment(self, names: Sequence[str]) -> datetime:
        """When the last transaction ended in these segments, by the server's clock: until then all that was committed
        can be restored. A file's time is renewed by a copy of the archive, and tells where its transactions do not: the
        last few have none, or cannot be read."""
        for name in reversed(names[-LOOKED_AT:]):
            with suppress(Failed, TimedOut, ConfigurationError):
                if ended := self._ended(name):
                    return max(ended)
        return datetime.fromtimestamp((self._folder / names[-1]).stat().st_mtime, UTC)

    def lacks(self, first: str, own: Iterable[str], *, is_new: bool) -> str:
        """Why nothing leads on from the backup that needs this segment; '' where something does, or where the WAL of a
        new backup may be on its way."""
        try:
            if self.following(first, own):
                return ""
        except Failed as error:
            return error.message
        if not self.segments():
            return "nothing is archived"
        return "" if is_new else f"nothing is archived from {first} on"

    def verify(self, names: Sequence[str]) -> None:
        """Read every record of these segments. Raises Failed where one is damaged, or shorter than it should be."""
        size = self._size()
        short = [name for name in names if (self._folder / name).stat().st_size != size]
        if short:
            raise Failed(
                f"the WAL segment {short[0]} has {(self._folder / short[0]).stat().st_size:,} bytes of {size:,}"
            )
        runs: dict[str, list[str]] = {}
        for name in names:
            runs.setdefault(name[:8], []).append(name)
        for each in runs.values():
            try:
                self._dump("--quiet", each[0], each[-1])
            except Failed as error:
                raise Failed(f"the WAL of the archive cannot be read: {error.message}") from error

    def goes_past(self, at: datetime, names: Sequence[str]) -> bool:
        """Whether a transaction ended after this moment in these segments. Recovery that is told to stop at a moment
        fails where nothing comes after it, although the state at that moment is just the end of the WAL."""
        for name in reversed(names):
            ended = self._ended(name)
            if any(each > at for each in ended):
                return True
            if ended and max(ended) < at - _JITTER:
                return False
        return False

    def _ended(self, name: str) -> list[datetime]:
        said = self._dump("--rmgr=Transaction", name, name, env={"TZ": "UTC"})
        return [datetime.fromisoformat(match[1]).replace(tzinfo=UTC) for match in _ENDED.finditer(said)]

    def _dump(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        options = [f"--path={self._folder}", *arguments]
        return self._programs.run("pg_waldump", *options, cwd=self._folder, env=env, timeout=LONGEST)

    def recovery(self, origin: Origin, names: Sequence[str]) -> dict[str, str]:
        """Settings with which a server reads these segments from here: to their end, or to a moment before it.

        It answers nobody before it is there: a hot standby would look like a server that has started, and would stop
        where the source has lowered its max_connections since.
        """
        place = str(self._folder).replace('"', '\\"')
        settings = {
            "restore_command": f'cp "{place}/%f" "%p"',
            "recovery_target_action": "promote",
            "hot_standby": "off",
        }
        if origin.at is not None and self.goes_past(origin.at, names):
            settings["recovery_target_time"] = origin.at.isoformat()
        if origin.lsn:
            settings["recovery_target_lsn"] = origin.lsn
        return settings

    def is_open(self, names: Sequence[str]) -> bool:
        """Whether everybody may read these segments, or they are ours."""
        stats = [path.stat() for path in (self._folder, *(self._folder / name for name in names))]
        return all(each.st_uid == os.geteuid() or each.st_mode & 0o004 for each in stats)

    def copied(self, folder: Path, names: Sequence[str]) -> "Archive":
        """These segments, with the histories of all timelines, in another folder."""
        try:
            folder.mkdir(mode=0o711)
            for path in (*self._folder.glob("*.history"), *(self._folder / name for name in names)):
                shutil.copyfile(path, folder / path.name)
        except OSError as error:
            raise Failed(f"the WAL cannot be copied to {folder}: {error.strerror}") from error
        return Archive(folder, self._programs)

    def clean(self, needed: Iterable[str]) -> None:
        """Remove what lies before the first of the segments that are still needed. By number: pg_archivecleanup looks
        at nothing else, and after a failover a newer timeline begins before an older one has ended."""
        first = min(needed, key=self._number)
        self._programs.run("pg_archivecleanup", str(self._folder), first, cwd=self._folder, timeout=LONGEST)

    def _size(self) -> int:
        """Bytes of one segment: all but a damaged one have it."""
        sizes = [(self._folder / name).stat().st_size for name in self.segments()]
        return max(set(sizes), key=lambda size: (sizes.count(size), size)) if sizes else wal.USUAL

    def _number(self, name: str) -> int:
        return wal.number(name, self._size())
