"""One stanza, read: its backups, its WAL, its configuration, and which backup leads to a moment."""

from dataclasses import dataclass, replace
from datetime import datetime

from aiprod_ops.adapters.local.repository import EARLIER, after, check_reach
from aiprod_ops.adapters.pgbackrest import inventory as lists
from aiprod_ops.adapters.pgbackrest.inventory import Inventory, Kept, Stored
from aiprod_ops.adapters.pgbackrest.program import Program
from aiprod_ops.domain import wal
from aiprod_ops.domain.backups import Backup, Origin, State
from aiprod_ops.errors import Failed, Refused


@dataclass(frozen=True, slots=True)
class Chain:
    """A backup, and the WAL with which it is taken forward: `names` from its first segment on, as they follow one
    another; `stored` is all that the archive has."""

    kept: Kept
    stored: tuple[Stored, ...]
    names: tuple[str, ...]
    lacks: str  #: why it does not lead to a consistent state, or not to the end

    @property
    def reaches(self) -> datetime | None:
        """When the last segment was stored; None where something is missing before."""
        return None if self.lacks else next(each.at for each in self.stored if each.name == self.names[-1])


class Stanza:
    """What pgBackRest knows of one server. Nothing is remembered: each call looks again."""

    def __init__(self, program: Program) -> None:
        self._program = program

    @property
    def name(self) -> str:
        return self._program.stanza

    def inventory(self) -> Inventory:
        return lists.inventory(self._program.json("info"), self.name)

    def listed(self) -> tuple[Backup, ...]:
        known = self.inventory()
        complete = [self._explained(each) for each in known.kept]
        begun = [
            backup
            for number in known.repositories
            for backup in lists.unfinished(
                self._program.json("repo-ls", f"--repo={number}", f"backup/{self.name}"), known
            )
        ]
        return tuple(sorted([*complete, *begun], key=lambda each: (each.started, each.id)))

    def _explained(self, each: Kept) -> Backup:
        """One in which pages were damaged, with the files: `info` names them for a single set only."""
        if each.backup.state is not State.FAILED:
            return each.backup
        options = [f"--set={each.backup.id}", f"--repo={each.repository}"]
        files = lists.damaged_files(self._program.json("info", *options))
        return replace(each.backup, said=f"{each.backup.said}: {files}" if files else each.backup.said)

    def chosen(self, origin: Origin) -> Kept:
        """The one that is named, or the newest from before the moment. Raises Refused where there is none."""
        known = self.inventory().kept
        newest = ", ".join(each.backup.id for each in known[-3:]) or "none"
        if origin.backup:
            found = [each for each in known if each.backup.id == origin.backup]
            if not found:
                raise Refused(f"there is no backup {origin.backup} of {self.name}", hint=f"the newest are: {newest}")
            if origin.at is not None and found[0].backup.taken > origin.at:
                raise Refused(after(found[0].backup, origin.at), hint=EARLIER)
            return found[0]
        good = [each for each in known if each.backup.state is State.SUCCESSFUL]
        able = [each for each in good if origin.at is None or each.backup.taken <= origin.at]
        if not able:
            when = f" from before {origin.at.isoformat(' ', 'seconds')}" if origin.at else ""
            first = min((each.backup.taken for each in good), default=None)
            ended = f"the oldest ended at {first:%Y-%m-%d %H:%M:%S} UTC: ask for a later moment" if first else ""
            raise Refused(
                f"there is no backup{when} of {self.name}", hint=ended or "take one: aiprod-ops plan take-backup"
            )
        return able[-1]

    def chain(self, kept: Kept) -> Chain:
        """Looked up in the repository itself: `info` tells the first and the last segment, and no hole between."""
        stored = self._stored(kept)
        line = wal.line((each.name for each in stored), kept.first, kept.segment)
        return Chain(kept, stored, line.names, _lacking(kept, line))

    def comes_to(self, kept: Kept, segment: str) -> bool:
        """Whether the archive of a backup has a segment, or one that comes after it in its history."""
        names = [each.name for each in self._stored(kept)]
        segments = [name for name in names if wal.is_segment(name)]
        newer = {name[:8] for name in segments if name[:8] > segment[:8]}
        left = {each: wal.branches(self._history(kept, each)) for each in newer if f"{each}.history" in names}
        return wal.comes_to(segments, segment, left, kept.segment)

    def _history(self, kept: Kept, timeline: str) -> str:
        return self._program.run("repo-get", f"--repo={kept.repository}", f"{self._archive(kept)}/{timeline}.history")

    def _stored(self, kept: Kept) -> tuple[Stored, ...]:
        listed = self._program.json("repo-ls", "--recurse", f"--repo={kept.repository}", self._archive(kept))
        return lists.stored_wal(listed)

    def _archive(self, kept: Kept) -> str:
        return f"archive/{self.name}/{kept.archive}"

    def option(self, command: str) -> dict[str, str]:
        """The options that hold for a command."""
        return lists.options(self._program.run("help", command))


def _lacking(kept: Kept, line: wal.Line) -> str:
    def at(name: str) -> int:
        return wal.number(name, kept.segment)

    if not line.names or at(line.names[0]) != at(kept.first):
        return f"the archive lacks the WAL segment {kept.first}, with which {kept.backup.id} begins"
    if line.gap:
        return f"the archive lacks the WAL segment after {line.gap}, which {kept.backup.id} needs to be taken forward"
    if at(line.names[-1]) < at(kept.last):
        return f"the archive ends with {line.names[-1]}; {kept.backup.id} needs the WAL up to {kept.last}"
    return ""


def check(chain: Chain, origin: Origin) -> None:
    """Raises Failed where WAL is missing, Refused where the moment lies after all that is archived."""
    if chain.lacks:
        raise Failed(
            chain.lacks, hint="is it still in the server's pg_wal? What was written after it is lost otherwise"
        )
    check_reach(origin, chain.reaches)
