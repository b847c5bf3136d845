"""The WAL of a server as its files have it: how far it goes, where another's branched off, whether two are the same.

Positions are bytes since 0/0; a timeline is the eight digits that its files begin with.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from aiprod_ops.adapters.local import control_file
from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.errors import Failed, OpsError

_SEGMENT = 16 * 1024**2  #: bytes of WAL in a file, unless initdb was told otherwise
_ENOUGH = 8192  #: bytes before a position that are compared: a page


@dataclass(frozen=True)
class WalFiles:
    """Below `pg_wal` of one server. What cannot be read is not there."""

    server: PostgresServer

    @property
    def folder(self) -> Path:
        return self.server.data / "pg_wal"

    @property
    def segments(self) -> list[Path]:
        return [each for each in self.folder.glob("*") if re.fullmatch(r"[0-9A-F]{24}", each.name)]

    @property
    def timeline(self) -> str:
        """The newest; '' where there is none."""
        return max((path.name[:8] for path in self.segments), default="")

    @property
    def end(self) -> int | None:
        """How far it goes, as a server that is frozen or dead has left it; None where nobody can tell."""
        try:
            control = control_file.read(self.server)
            newest, start = int(self.timeline or "0", 16), control.redo
            if newest <= control.timeline:
                newest = control.timeline
            else:  # promoted a moment ago: its last checkpoint is on the timeline before
                start = next(reversed(self._forks(self.folder / f"{newest:08X}.history").values()), start)
            place = (f"--path={self.folder}", f"--timeline={newest}", f"--start={start}")
            self.server.programs.run("pg_waldump", "--quiet", *place, cwd=self.server.data.parent)
        except Failed as error:  # it always ends with what it found instead of a record
            ends = re.findall(r"at ([0-9A-F]+/[0-9A-F]+)", error.told)
            return max(map(_position, ends), default=None)
        except (OpsError, OSError):
            return None
        return None

    def fork(self, other: "WalFiles") -> int | None:
        """Where another branched off the timeline of this one; None where it did not."""
        try:
            return _position(self._forks(other.folder / f"{other.timeline}.history")[int(self.timeline, 16)])
        except (OSError, KeyError, ValueError):
            return None

    def beyond(self, other: "WalFiles", end: int) -> list[Path]:
        """Segments from where another branched off until `end`, and the histories up to here; none where it did not, or
        this one has nothing after that."""
        fork = self.fork(other)
        if fork is None or end <= fork:
            return []
        first, last = self._name(fork), self._name(end - 1)
        histories = [path for path in self.folder.glob("*.history") if path.name[:8] <= self.timeline]
        return sorted([each for each in self.segments if first <= each.name <= last] + histories)

    def cut(self, other: "WalFiles") -> None:
        """Take away what comes after another branched off: received and not replayed, it would be replayed first."""
        fork = self.fork(other)
        if fork is None:
            return
        own, last, offset = self.timeline, self._name(fork), fork % self._segment_bytes
        for each in self.segments:
            if each.name == last:
                with each.open("r+b") as file:
                    file.seek(offset)
                    file.write(bytes(self._segment_bytes - offset))
            elif each.name[:8] == own and each.name > last:
                each.unlink()

    def unlike(self, other: "WalFiles", position: int) -> str:
        """What shows that it is not the other's before a position, although the numbers of their timelines are the
        same; '' where nothing does. Where the end is the same, all before it is: each record tells where the one before
        begins, and holds transactions' ids and times."""
        timeline = self.timeline
        if not timeline or timeline != other.timeline:
            return ""
        both = (self, other)
        histories = [each.folder / f"{timeline}.history" for each in both]
        begin = max((position - 1) // self._segment_bytes * self._segment_bytes, position - _ENOUGH)
        try:
            if len({path.read_bytes() for path in histories if path.exists()}) > 1:
                return f"its timeline {int(timeline, 16)} began elsewhere than the other's of this number"
            ends = {each.read(begin, position) for each in both}
        except OSError:  # recycled by one of them, or not to be read: nothing is known
            return ""
        return "" if len(ends) == 1 else "its WAL is not the other's: it was written while it was no standby"

    def read(self, begin: int, end: int) -> bytes:
        """Bytes of one segment of the newest timeline. Raises OSError where it is not there."""
        with (self.folder / self._name(begin)).open("rb") as file:
            file.seek(begin % self._segment_bytes)
            return file.read(end - begin)

    def _name(self, position: int) -> str:
        number, in_a_log = position // self._segment_bytes, 2**32 // self._segment_bytes
        return f"{self.timeline}{number // in_a_log:08X}{number % in_a_log:08X}"

    @property
    def _segment_bytes(self) -> int:
        """Size of its files: each is made whole. A look at a cluster asks for it often: no program is called."""
        sizes = []
        for path in self.segments:
            with suppress(OSError):  # recycled meanwhile
                sizes.append(path.stat().st_size)
        return max(sizes, default=0) or _SEGMENT

    @staticmethod
    def _forks(history: Path) -> dict[int, str]:
        """Where each timeline of a history ended, oldest first. Raises OSError."""
        lines = [line.split() for line in history.read_text().split("\n") if line[:1].isdigit()]
        return {int(line[0]): line[1] for line in lines}


def _position(lsn: str) -> int:
    """
    >>> _position("1/A0")
    4294967456
    """
    high, _, low = lsn.partition("/")
    return (int(high, 16) << 32) + int(low, 16)
