"""What a repository of stored backups offers to a restore on this machine, and what all of them look at."""

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.domain import wal
from aiprod_ops.domain.backups import Backup, Origin
from aiprod_ops.errors import Failed, Refused
from aiprod_ops.ports import Backups, Database
from aiprod_ops.units import Bytes


@dataclass(frozen=True, slots=True)
class Fetched:
    """A stored backup in the data directory of a copy: its id, the checks it passed, and what makes it recover."""

    backup: str
    checks: tuple[str, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    archived: tuple[str, ...] = ()  #: WAL segments that have to be replayed
    at: datetime | None = None  #: and a moment that may not be passed
    tablespaces: tuple[Path, ...] = ()  #: where they are now
    lacks: str = ""  #: why no WAL takes it further than its own end, although some was to be kept


class Repository(Backups, Protocol):
    """Backups that can be fetched to this machine."""

    @property
    def verifier(self) -> str:
        """What refuses a damaged one."""

    @property
    def major(self) -> int | None:
        """The major version of PostgreSQL that the newest is of; None where there is none, or it does not tell."""

    def holding(self, origin: Origin) -> AbstractContextManager[Origin]:
        """Choose a backup, and keep it and its WAL from being removed by us as long as the context lasts; answers the
        origin with its id. Raises what `fetch` does."""

    def fetch(self, origin: Origin, server: PostgresServer, report: Callable[[str], None]) -> Fetched:
        """Fill the copy's empty data directory. Raises Refused where there is no such backup, Failed where it is
        damaged."""

    def check_recovered(self, fetched: Fetched, database: Database) -> list[str]:
        """What is known of the recovery once the copy answers. Raises Failed where it ended too early."""

    def size(self, origin: Origin) -> Bytes:
        """What the restored data directory takes."""

    def refusal(self, backup: str, spare: Path) -> str:
        """Damage a spare of a stored backup, made in a folder that is not there yet, and answer in what words it is
        refused; '' where it is not, or for another reason."""


def check_label(label: str) -> None:
    """Raises Refused where it is no part of a file's name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", label):
        raise Refused(f"{label!r} is not a label for a backup: letters, digits, '.', '_' and '-' only")


EARLIER = "ask for a later moment, or leave --backup out"


def after(backup: Backup, at: datetime) -> str:
    """That a backup is from after the moment that is asked for: no WAL leads back."""
    return f"{backup.id} ended at {backup.taken:%Y-%m-%d %H:%M:%S} UTC, {at.isoformat(' ', 'seconds')} was asked for"


def to_the_end(settings: Mapping[str, str]) -> bool:
    """Whether a copy with these settings reads all the WAL that it is given."""
    return not any(name.startswith("recovery_target_") and name != "recovery_target_action" for name in settings)


def check_reach(origin: Origin, reaches: datetime | None) -> None:
    """Raises Refused where a moment lies after all that is archived."""
    if (at := origin.at) is not None and (reaches is None or at > reaches):
        where = f"reaches {reaches:%Y-%m-%d %H:%M:%S} UTC" if reaches else "has nothing after the backup"
        raise Refused(
            f"the WAL archive {where}; {at.isoformat(' ', 'seconds')} was asked for",
            hint="ask for an earlier moment; or, after another transaction, archive it: SELECT pg_switch_wal()",
        )


#: The last two stay as they were when the recovery ended. Source: PostgreSQL manual, "Recovery Control Functions".
REPLAYED = """
    SELECT pg_last_wal_replay_lsn() - '0/0'::pg_lsn AS replayed, pg_last_xact_replay_timestamp() AS reached,
           pg_size_bytes(current_setting('wal_segment_size')) AS segment /* aiprod-ops */
"""


def check_replayed(database: Database, fetched: Fetched) -> list[str]:
    """What to say of how far a recovery came. Raises Failed where that is not as far as it should, or further: it takes
    the first record that it cannot read for the end of the WAL, and says nothing."""
    if not fetched.archived and fetched.at is None:
        return []
    [row] = database.query(REPLAYED)
    said = []
    if fetched.archived:
        said.append(_to_the_end(fetched.archived[-1], int(row["replayed"] or 0), int(row["segment"])))
    if fetched.at is not None:
        said.append(_to_the_moment(fetched.at, row["reached"]))
    return said


def _to_the_end(last: str, replayed: int, segment: int) -> str:
    begins = wal.number(last, segment) * segment
    if replayed <= begins:  # every segment has a record: equal is the end of the one before
        raise Failed(
            f"recovery ended before the last WAL segment, {last}: {begins - replayed:,} bytes before it, and all of it "
            "is lost"
        )
    return f"replayed to the end of the archive, {last}"


def _to_the_moment(at: datetime, reached: datetime | None) -> str:
    """That a recovery ended before the moment is an error of PostgreSQL's own, or that of the last segment."""
    asked = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f} UTC"
    if reached is None:
        return f"recovered to {asked}: no transaction ended between the backup and then"
    last = f"{reached.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f} UTC"
    if reached > at:
        raise Failed(f"recovery went too far, to a transaction that ended at {last}; {asked} was asked for")
    return f"recovered to {asked}: the last transaction until then ended at {last}"
