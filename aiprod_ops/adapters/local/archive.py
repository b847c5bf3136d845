"""A folder that archive_command fills with WAL segments: how far it reaches, whether it is whole, what nobody needs.

A segment's name is timeline, log and segment, 8 hexadecimal digits each; a log has 4 GB.
Source: PostgreSQL manual, "WAL Internals"; pg_archivecleanup; pg_waldump.
"""

import itertools
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from aiprod_ops.adapters.local.instance import LONGEST
from aiprod_ops.adapters.local.programs import Programs
from aiprod_ops.errors import Failed

_SEGMENT = re.compile(r"[0-9A-F]{24}\Z")
_LOG = 1 << 32  #: bytes


class Archive:
    """WAL segments in a folder, plain or of a size that a compile-time option chose."""

    def __init__(self, folder: Path, programs: Programs) -> None:
        self._folder, self._programs = folder, programs

    def segments(self) -> list[str]:
        """All of them, in the order of their names; what is being written has another name."""
        try:
            return sorted(path.name for path in self._folder.iterdir() if _SEGMENT.match(path.name))
        except OSError as error:
            raise Failed(f"the WAL archive {self._folder} cannot be read: {error.strerror}") from error

    def following(self, first: str) -> tuple[str, ...]:
        """Those from this one on, one for each number: of several timelines the newest. Raises Failed with the first
        that is missing between others."""
        newest = {self._number(name): name for name in self.segments() if name[8:] >= first[8:]}
        numbers = sorted(newest)
        for before, after in itertools.pairwise(numbers):
            if after != before + 1:
                raise Failed(
                    f"the WAL archive lacks the segment after {newest[before]}: the {len(numbers)} from "
                    f"{newest[numbers[0]]} on do not follow one another",
                    hint=f"look for it on the server: {self._folder}",
                )
        return tuple(newest[number] for number in numbers)

    def has(self, lsn: str) -> bool:
        """Whether the segment with this LSN is there: it comes when it is complete."""
        high, low = (int(part, 16) for part in lsn.split("/"))
        names = self.segments()
        return bool(names) and max(map(self._number, names)) >= (high * _LOG + low) // self._size()

    def reaches(self, first: str) -> datetime | None:
        """Until when all that was written can be restored from this segment on; None where nothing follows it."""
        try:
            names = self.following(first)
        except Failed:
            return None
        return datetime.fromtimestamp((self._folder / names[-1]).stat().st_mtime, UTC) if names else None

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
            arguments = ["--quiet", f"--path={self._folder}", each[0], each[-1]]
            try:
                self._programs.run("pg_waldump", *arguments, cwd=self._folder, timeout=LONGEST)
            except Failed as error:
                raise Failed(f"the WAL of the archive cannot be read: {error.message}") from error

    def check_replayed(self, replayed: int, names: Sequence[str]) -> None:
        """Raises Failed where recovery ended before the last segment: an LSN in bytes."""
        begins = self._number(names[-1]) * self._size()
        if replayed < begins:
            raise Failed(
                f"recovery ended {begins - replayed:,} bytes before the last WAL segment, {names[-1]}: "
                "what was written after that is lost"
            )

    def recovery(self) -> dict[str, str]:
        """Settings with which a server reads from here."""
        place = str(self._folder).replace('"', '\\"')
        return {"restore_command": f'cp "{place}/%f" "%p"', "recovery_target_action": "promote"}

    def clean(self, first: str) -> None:
        """Remove what lies before the first segment that is still needed."""
        self._programs.run("pg_archivecleanup", str(self._folder), first, cwd=self._folder, timeout=LONGEST)

    def _size(self) -> int:
        """Bytes of one segment: all but a damaged one have it."""
        sizes = [(self._folder / name).stat().st_size for name in self.segments()]
        return max(set(sizes), key=lambda size: (sizes.count(size), size)) if sizes else 1 << 24

    def _number(self, name: str) -> int:
        return int(name[8:16], 16) * (_LOG // self._size()) + int(name[16:], 16)
