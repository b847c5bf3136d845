"""Backups as a repository lists them. Whether one restores is for a restore to tell."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from aiprod_ops.units import Bytes, Seconds

#: Later than now by more than this is no moment that has come: some clock ran ahead, and the age of what it told is
#: unknown. Clocks that follow NTP differ by far less: one that is off by 0.128 s is set anew (RFC 5905, STEPT).
AHEAD = timedelta(minutes=1)


class State(StrEnum):
    """How far a backup has come."""

    RUNNING = "running"
    SUCCESSFUL = "successful"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup. `id` is the repository's own name for it; times are aware, UTC.

    `instance` is what it is of, where the repository knows: PostgreSQL's system identifier, or an instance's name.
    `rests_on` are the ids of those without which it cannot be restored. `label` is what it was called when it was
    taken, `said` why it failed.
    """

    id: str
    state: State
    started: datetime
    ended: datetime | None = None
    kind: str = "full"  #: full, differential, incremental
    size: Bytes | None = None
    instance: str = ""
    rests_on: tuple[str, ...] = ()
    location: str = ""
    key: str = ""  #: the customer's encryption key, or the cipher
    label: str = ""
    said: str = ""
    is_automatic: bool = False
    timeline: str = ""  #: of the server when it was begun, as its WAL segments are named; '' where nobody tells

    @property
    def taken(self) -> datetime:
        """What it restores to on its own: the state at its end. Always UTC: a day has 24 hours."""
        return (self.ended or self.started).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How a repository is set up to act by itself; what it does not tell is None.

    `recovers_from` and `recovers_to` bound the moments that can be restored to (point-in-time recovery); `lacks` says
    why none after the newest backup can, although WAL is to be kept. `last` is the WAL segment with which they end,
    where the repository shows it. A key of '' says that there is none.
    """

    keeps: int | None = None  #: so many backups, then the oldest is thrown away
    keeps_for: Seconds | None = None
    recovers_from: datetime | None = None
    recovers_to: datetime | None = None
    lacks: str = ""
    last: str = ""
    is_protected: bool | None = None  #: against deletion of the instance
    region: str = ""
    locations: tuple[str, ...] = ()
    key: str | None = None
    automatic: bool | None = None  #: the platform takes backups by itself
    room: Bytes | None = None  #: free where backups are stored


@dataclass(frozen=True)
class Origin:
    """What a copy is restored from: a backup by its id ('' for the newest), and the moment it is taken forward to.

    The moment is a time or an LSN; without one it is taken as far as the WAL that was kept beside it reaches.
    """

    backup: str = ""
    at: datetime | None = None
    lsn: str = ""

    @property
    def is_newest(self) -> bool:
        """Whether it is the newest backup, taken forward to no moment of the past."""
        return not self.backup and self.at is None


def successful(backups: Iterable[Backup]) -> list[Backup]:
    """Those that ended well, oldest first."""
    return sorted((each for each in backups if each.state is State.SUCCESSFUL), key=lambda each: (each.taken, each.id))


def whole(backups: Iterable[Backup]) -> list[Backup]:
    """Those that ended well with all that they rest on, oldest first: an increment without its base restores nothing.

    >>> from datetime import UTC
    >>> noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> [each.id for each in whole([Backup("1", State.SUCCESSFUL, noon, rests_on=("0",))])]
    []
    """
    by_id = {each.id: each for each in backups}
    good = {each.id for each in by_id.values() if each.state is State.SUCCESSFUL}
    return [each for each in successful(by_id.values()) if with_bases([each.id], by_id) <= good]


def with_bases(ids: Iterable[str], by_id: Mapping[str, Backup]) -> set[str]:
    """These, and all that they rest on, listed or not."""
    found: set[str] = set()
    waiting = list(ids)
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += by_id[each].rests_on if each in by_id else ()
    return found


def of_instance(backups: Iterable[Backup], instance: str) -> list[Backup]:
    """Those that are not known to be of another instance."""
    return [each for each in backups if not (instance and each.instance and each.instance != instance)]


def is_ahead(at: datetime, now: datetime) -> bool:
    """Whether a time is one that has not come yet."""
    return at > now + AHEAD


def ahead(backups: Iterable[Backup], now: datetime) -> list[Backup]:
    """Those that say that they began or ended in the future: nobody knows how old they are."""
    return [each for each in backups if is_ahead(max(each.started, each.taken), now)]
