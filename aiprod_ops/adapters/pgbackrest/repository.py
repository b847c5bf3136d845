"""Stored backups of a server of our own, kept by pgBackRest.

A restore checks every file against the backup's manifest; `pgbackrest verify` is not asked: it answers 0 after a
flipped byte (measured). It does not wait for the disk (`unsynced`): that is about half of its time, and nobody needs
the copy for longer than the machine runs. The WAL is fetched into the copy before its server starts: see the decision
*The WAL comes before the server*.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from aiprod_ops.adapters.local.instance import LONGEST, PostgresServer
from aiprod_ops.adapters.local.repository import Fetched, check_label, check_replayed, to_the_end
from aiprod_ops.adapters.pgbackrest import inventory as lists
from aiprod_ops.adapters.pgbackrest.control import refusal
from aiprod_ops.adapters.pgbackrest.fetching import Fetcher
from aiprod_ops.adapters.pgbackrest.inventory import Kept
from aiprod_ops.adapters.pgbackrest.program import Program
from aiprod_ops.adapters.pgbackrest.stanza import Stanza, check
from aiprod_ops.domain.backups import Arrangement, Backup, Origin, State
from aiprod_ops.errors import Failed, Held, PermissionMissing, Refused
from aiprod_ops.ports import Database
from aiprod_ops.units import Bytes, Seconds

PAUSE = Seconds(0.5)  #: between two looks at a backup that somebody else takes


class PgBackRest:
    """One stanza. `program` is pgbackrest as it is called; where backups are is its own configuration's matter."""

    verifier = "pgbackrest restore"

    def __init__(self, program: Program) -> None:
        self._program = program
        self._stanza = Stanza(program)

    @property
    def major(self) -> int | None:
        """As pgBackRest names its archives: 15-1."""
        kept = self._stanza.inventory().kept
        found = kept[-1].archive.partition("-")[0] if kept else ""
        return int(found) if found.isdigit() else None

    def listed(self) -> tuple[Backup, ...]:
        return self._stanza.listed()

    def arrangement(self) -> Arrangement:
        """The retention as pgBackRest itself reads its configuration; the WAL by the times at which it was stored."""
        number, duration = lists.keeps(self._stanza.option("expire"))
        good = [each for each in self._stanza.inventory().kept if each.backup.state is State.SUCCESSFUL]
        chains = [self._stanza.chain(each) for each in good]
        able = [each for each in chains if each.reaches] if chains and chains[-1].reaches else []
        return Arrangement(
            keeps=number,
            keeps_for=duration,
            recovers_from=able[0].kept.backup.taken if able else None,
            recovers_to=able[-1].reaches if able else None,
            last=able[-1].names[-1] if able else "",
            lacks=chains[-1].lacks if chains else "",
            key=good[-1].backup.key if good else "",
            automatic=False,
        )

    def take(self, label: str, report: Callable[[str], None] = lambda _: None) -> str:
        """Raises Refused where the label is none, Held where somebody else's backup does not end, Failed where pages of
        the server are damaged: such a backup is kept, and is none."""
        check_label(label)
        deadline = time.monotonic() + LONGEST
        while (done := self._labelled(label)) is None:
            if self._stanza.inventory().is_held:
                self._await_end(deadline, report)
            else:
                self._backup(label, report)
        if done.state is not State.SUCCESSFUL:
            raise Failed(f"the backup {done.id} was taken, but {done.said}", hint="aiprod-ops check verify-indexes")
        return done.id

    def _backup(self, label: str, report: Callable[[str], None]) -> None:
        self._refuse_foreign("backup")
        report(f"taking the backup {label}")
        annotation = f"--annotation={lists.LABEL}={label}"
        try:
            self._program.run("backup", "--type=full", annotation, timeout=LONGEST, logs=True)
        except Held:
            if not self._stanza.inventory().is_held:
                raise  # a lock that `info` does not see: of an expire, or of another user
            return
        if self._labelled(label) is None:
            raise Failed(f"pgbackrest backup ended well, and lists none with the annotation {lists.LABEL}={label}")

    def _labelled(self, label: str) -> Backup | None:
        return next((each for each in reversed(self.listed()) if each.label == label), None)

    def _await_end(self, deadline: float, report: Callable[[str], None]) -> None:
        report("waiting for a backup of somebody else to end")
        while self._stanza.inventory().is_held:
            if time.monotonic() > deadline:
                raise Held("another backup, or the removal of one, does not end", hint="pgbackrest info shows it")
            time.sleep(PAUSE)

    def check_writable(self) -> None:
        self._refuse_foreign("backup")

    def remove(self, backup: str) -> None:
        """Raises Refused for a name that is none of a backup, for one that others rest on, for one that is being taken,
        and for the only full one."""
        if lists.NAME.match(backup) is None:
            raise Refused(f"{backup!r} is not the name of a backup")
        listed = self.listed()
        chosen = next((each for each in listed if each.id == backup), None)
        if chosen is None:
            return
        if chosen.state is State.RUNNING:
            raise Refused(f"{backup} is being taken", hint="wait until it has ended: pgbackrest info shows it")
        if others := [each.id for each in listed if backup in each.rests_on]:
            raise Refused(f"{len(others)} backups rest on {backup}: {', '.join(others[:3])}", hint="remove them first")
        self._refuse_foreign("expire")
        self._program.run("expire", f"--set={backup}", timeout=LONGEST, logs=True)
        if any(each.id == backup for each in self.listed()):
            raise Failed(f"pgbackrest expire ended well, and {backup} is still there")

    def _refuse_foreign(self, command: str) -> None:
        """What root writes into somebody's repository locks its owner out: the server's next archive-push fails."""
        held = self._stanza.option(command)
        place = Path(held.get("repo-path", ""))
        is_here = held.get("repo-type", "posix") in ("posix", "cifs") and "repo-host" not in held
        if os.geteuid() != 0 or not is_here or not place.is_dir() or place.stat().st_uid == 0:
            return
        owner = place.owner()
        raise PermissionMissing(
            f"the repository {place} belongs to {owner}, who could not change any more what root writes there",
            hint=f"run this command as {owner}: sudo -u {owner} aiprod-ops …",
        )

    def size(self, origin: Origin) -> Bytes:
        """With the WAL that is fetched beside it."""
        chain = self._stanza.chain(self._stanza.chosen(origin))
        return Bytes((chain.kept.backup.size or 0) + len(chain.names) * chain.kept.segment)

    @contextmanager
    def holding(self, origin: Origin) -> Iterator[Origin]:
        """Chosen, not held: pgBackRest's locks keep two backups apart, and let an `expire` remove what a restore reads.
        So a restore that fails looks whether it is still there."""
        yield replace(origin, backup=self._stanza.chosen(origin).backup.id)

    def in_use(self, backup: str) -> str:  # noqa: ARG002
        return ""

    def fetch(self, origin: Origin, server: PostgresServer, report: Callable[[str], None]) -> Fetched:
        chosen = self._stanza.chosen(origin)
        try:
            return self._fetched(chosen, origin, server, report)
        except (Failed, Refused) as error:
            if chosen.backup.id in {each.backup.id for each in self._stanza.inventory().kept}:
                raise
            gone = f"{chosen.backup.id} was removed while it was restored, which tells nothing of it"
            raise Refused(f"{gone}: {error.message}", hint="prove another one") from error

    def _fetched(self, chosen: Kept, origin: Origin, server: PostgresServer, report: Callable[[str], None]) -> Fetched:
        chain = self._stanza.chain(chosen)
        check(chain, origin)
        fetcher = Fetcher(self._program, server)
        report(f"restoring {chain.kept.backup.id}, each file checked against its manifest")
        tablespaces = fetcher.restore(chain.kept)
        report(f"fetching {len(chain.names)} WAL segments, or as many as it takes")
        archive, names = fetcher.wal(chain, origin)
        checks = (
            "pgbackrest restore: every file is as its manifest says",
            f"{len(names)} WAL segments after it: none is missing, all are as they were stored and can be read",
        )
        settings = archive.recovery(origin, names)
        archived = names if to_the_end(settings) else ()
        return Fetched(chain.kept.backup.id, checks, settings, archived, origin.at, tablespaces)

    def reaches(self, segment: str) -> bool | None:
        good = [each for each in self._stanza.inventory().kept if each.backup.state is State.SUCCESSFUL]
        return self._stanza.comes_to(good[-1], segment) if good else None

    def refusal(self, backup: str, spare: Path) -> str:
        return refusal(self._program, self._stanza.chosen(Origin(backup)), spare)

    def check_recovered(self, fetched: Fetched, database: Database) -> list[str]:
        return check_replayed(database, fetched)
