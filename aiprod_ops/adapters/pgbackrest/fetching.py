"""A backup and its WAL, brought from the repository into the folder of a copy."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiprod_ops.adapters.local import processes
from aiprod_ops.adapters.local.archive import Archive
from aiprod_ops.adapters.local.instance import LONGEST, PostgresServer
from aiprod_ops.adapters.pgbackrest.inventory import Kept, Stored
from aiprod_ops.adapters.pgbackrest.program import Program
from aiprod_ops.adapters.pgbackrest.stanza import Chain
from aiprod_ops.domain.backups import Origin
from aiprod_ops.errors import Failed
from aiprod_ops.units import Seconds

FETCHERS = 2  #: segments fetched side by side
AHEAD = 8  #: segments fetched at a time, where they are looked through for a moment

#: A restore of ours is complete and stays below the copy, whatever the configuration says of the server's own restores.
_WHOLE = (
    "--type=none",
    "--no-delta",
    "--no-link-all",
    *(f"--reset-{option}" for option in ("link-map", "tablespace-map", "db-include", "db-exclude", "recovery-option")),
)
_HERE = "--reset-pg1-host"  #: the server may live elsewhere, the copy does not


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Into the copy whose server this is."""

    program: Program
    server: PostgresServer

    @property
    def _folder(self) -> Path:
        return self.server.data.parent

    def restore(self, kept: Kept) -> tuple[Path, ...]:
        """Fill the data directory; answers where the tablespaces are. Raises Failed where a file is not as the manifest
        says."""
        data, spaces = self.server.data, self._folder / "tablespaces"
        data.mkdir(mode=0o700)
        options = [f"--set={kept.backup.id}", f"--repo={kept.repository}", f"--pg1-path={data}", _HERE, *_WHOLE]
        self.program.run(
            "restore", *options, f"--tablespace-map-all={spaces}", cwd=self._folder, timeout=LONGEST,
            reads=f"the backup {kept.backup.id}", lasts=False,
        )  # fmt: skip
        made = [place for place in (data, spaces) if place.is_dir()]
        if os.geteuid() == 0:
            _own(made)
        return tuple(made[1:])

    def wal(self, chain: Chain, origin: Origin) -> tuple[Archive, tuple[str, ...]]:
        """The segments after the backup, checked, in a folder of the copy: all, or as far as the origin asks for it.

        pgBackRest asks the data directory of which server it is, so it has to be restored before.
        """
        folder = self._folder / "wal"
        folder.mkdir(mode=0o711)
        archive = Archive(folder, self.server.programs)
        stored = {each.name: each for each in chain.stored}
        self._get(chain.kept, [each for each in chain.stored if not each.checksum], folder)
        fetched = 0
        while fetched < len(chain.names):
            batch = chain.names[fetched : _until(chain, origin, fetched)]
            self._side_by_side(chain.kept, [stored[name] for name in batch], folder)
            fetched += len(batch)
            if origin.at is not None and archive.goes_past(origin.at, batch):
                break
        names = archive.following(chain.kept.first)
        archive.verify(names)
        self.server.programs.hand_over(folder)
        return archive, names

    def _side_by_side(self, kept: Kept, stored: Sequence[Stored], folder: Path) -> None:
        def share(number: int) -> Callable[[], None]:
            return lambda: self._get(kept, stored[number::FETCHERS], folder)

        processes.in_parallel(*map(share, range(FETCHERS)))

    def _get(self, kept: Kept, stored: Sequence[Stored], folder: Path) -> None:
        options = [f"--repo={kept.repository}", f"--pg1-path={self.server.data}", _HERE, "--no-archive-async"]
        for each in stored:
            place = folder / each.name
            self.program.run(
                "archive-get", *options, each.name, str(place), cwd=folder, timeout=Seconds(600),
                reads=f"the WAL segment {each.name}",
            )  # fmt: skip
            if each.checksum and _sha1(place) != each.checksum:
                raise Failed(f"the WAL segment {each.name} is damaged: it has not the checksum it was stored with")


def _until(chain: Chain, origin: Origin, fetched: int) -> int:
    """How many segments to have after the next step: the first that was stored after the moment may end it."""
    if (at := origin.at) is None:
        return len(chain.names)
    stored = {each.name: each.at for each in chain.stored}
    return max(fetched + AHEAD, sum(stored[name] <= at for name in chain.names) + 1)


def _own(places: Sequence[Path]) -> None:
    """pgBackRest as root gives each file to the user it had on the server; the copy's server runs as another."""
    for place in places:
        for folder, folders, files in os.walk(place):
            for path in (folder, *(os.path.join(folder, name) for name in (*folders, *files))):  # noqa: PTH118 - many
                os.lchown(path, os.geteuid(), os.getegid())


def _sha1(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()
