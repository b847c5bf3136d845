"""Backups as a repository lists them, what is promised of them, and which of them may go.

Everything here is decided from the list alone: whether a backup restores is for a restore to tell.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from aiprod_ops.domain.findings import Finding
from aiprod_ops.units import Bytes, Seconds, show


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

    @property
    def taken(self) -> datetime:
        """What it restores to on its own: the state at its end."""
        return self.ended or self.started


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How a repository is set up to act by itself; what it does not tell is None.

    `recovers_from` and `recovers_to` bound the moments that can be restored to (point-in-time recovery).
    """

    keeps: int | None = None  #: so many backups, then the oldest is thrown away
    keeps_for: Seconds | None = None
    recovers_from: datetime | None = None
    recovers_to: datetime | None = None
    is_protected: bool | None = None  #: against deletion of the instance
    region: str = ""
    locations: tuple[str, ...] = ()
    key: str = ""
    automatic: bool | None = None  #: the platform takes backups by itself


@dataclass(frozen=True)
class Origin:
    """What a copy is restored from: a backup by its id ('' for the newest), and the moment it is taken forward to.

    The moment is a time or an LSN; without one it is taken as far as the WAL that was kept beside it reaches.
    """

    backup: str = ""
    at: datetime | None = None
    lsn: str = ""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long backups are kept: the last of each day, of each ISO week, and of each month."""

    daily: Seconds
    weekly: Seconds
    monthly: Seconds


def successful(backups: Iterable[Backup]) -> list[Backup]:
    """Those that ended well, oldest first."""
    return sorted((each for each in backups if each.state is State.SUCCESSFUL), key=lambda each: (each.taken, each.id))


def kept(backups: Sequence[Backup], retention: Retention, now: datetime) -> set[str]:
    """Ids that the retention asks for, with what these rest on.

    >>> from datetime import UTC
    >>> noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> two = [Backup(str(n), State.SUCCESSFUL, noon - timedelta(hours=n)) for n in (1, 2)]
    >>> sorted(kept(two, Retention(Seconds(86400), Seconds(0), Seconds(0)), noon))
    ['1']
    """
    good = successful(backups)
    wanted = {good[-1].id} if good else set()
    periods = (
        (retention.daily, lambda at: (at.year, at.month, at.day)),
        (retention.weekly, lambda at: at.isocalendar()[:2]),
        (retention.monthly, lambda at: (at.year, at.month)),
    )
    for length, period in periods:
        within = [each for each in good if now - each.taken <= timedelta(seconds=length)]
        wanted |= {each.id for each in {period(each.taken): each for each in within}.values()}
    return _with_base(wanted, {each.id: each for each in backups})


def _with_base(wanted: Iterable[str], by_id: Mapping[str, Backup]) -> set[str]:
    found: set[str] = set()
    waiting = list(wanted)
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += by_id[each].rests_on if each in by_id else ()
    return found


def prunable(
    backups: Sequence[Backup], retention: Retention, now: datetime, verified: Iterable[str], *, least: int
) -> list[Backup]:
    """Those that nothing asks for any more, oldest first, dependent ones before what they rest on.

    Never one of the newest `least` successful ones, never the newest of the verified ones that are still there, nothing
    that is running, and nothing at all where no successful backup is left to keep.
    """
    good = successful(backups)
    if not good:
        return []
    by_id = {each.id: each for each in backups}
    known = set(verified)
    tested = [each.id for each in good if each.id in known][-1:]
    stays = kept(backups, retention, now) | _with_base([*tested, *(each.id for each in good[-least:])], by_id)
    going = [each for each in backups if each.id not in stays and _is_over(each, good[-1])]
    return sorted(going, key=lambda each: (-len(_with_base([each.id], by_id)), each.started, each.id))


def _is_over(backup: Backup, newest: Backup) -> bool:
    """Whether it may be judged at all: what runs may still become good; a failure is of use until a success follows."""
    return backup.state is State.SUCCESSFUL or (backup.state is State.FAILED and backup.started < newest.started)


@dataclass(frozen=True, slots=True)
class Promise:
    """What is promised of backups (`service.toml`, [backups])."""

    every: Seconds  #: between two that end well
    rpo: Seconds  #: so old may the newest moment be that can be restored to
    retention: Retention
    protected: bool  #: the instance itself may not be deletable
    elsewhere: bool  #: a copy in another region
    encrypted: bool  #: with a key of our own


#: A schedule is late when it missed one turn by half: clocks and queues shift, a missed run does not.
LATE = 1.5


def audit(
    backups: Sequence[Backup], arrangement: Arrangement, promise: Promise, instance: str, now: datetime
) -> Iterator[Finding]:
    """Whether the list and the arrangement keep the promise; what nobody tells is UNKNOWN."""
    good = successful(backups)
    yield _newest(good, promise, now)
    yield from _gaps(good, promise, now)
    yield from _failures(backups, good)
    yield _recoverable(good, arrangement, promise, now)
    yield from _strangers(good, instance)
    yield from _settings(good, arrangement, promise)


def _newest(good: Sequence[Backup], promise: Promise, now: datetime) -> Finding:
    if not good:
        return Finding("age of the newest backup", None, "s", note="no backup has ever ended well", id="newest")
    newest = good[-1]
    age = (now - newest.taken).total_seconds()
    note = f"{newest.id}, {newest.kind}, {show(newest.size, 'B') if newest.size else 'of unknown size'}"
    return Finding("age of the newest backup", age, "s", LATE * promise.every, 2 * promise.every, note, id="newest")


def _gaps(good: Sequence[Backup], promise: Promise, now: datetime) -> Iterator[Finding]:
    """Between two successful ones within the daily retention; the time since the newest is another finding."""
    since = now - timedelta(seconds=promise.retention.daily)
    recent = [each for each in good if each.taken >= since]
    wide = [
        (later.taken - earlier.taken, earlier, later)
        for earlier, later in itertools.pairwise(recent)
        if (later.taken - earlier.taken).total_seconds() >= LATE * promise.every
    ]
    if wide:
        length, earlier, later = max(wide, key=lambda each: each[0])
        note = f"{len(wide)} in all; the widest from {earlier.taken:%Y-%m-%d %H:%M} to {later.taken:%Y-%m-%d %H:%M}"
        limit = LATE * promise.every
        yield Finding("gap between backups", length.total_seconds(), "s", limit, None, note, id="gap")


def _failures(backups: Sequence[Backup], good: Sequence[Backup]) -> Iterator[Finding]:
    since = good[-1].started if good else None
    failed = [each for each in backups if each.state is State.FAILED and (since is None or each.started > since)]
    if failed:
        last = max(failed, key=lambda each: each.started)
        note = f"{last.id}: {last.said or 'it does not say why'}"
        yield Finding("failures since the last success", float(len(failed)), "", 1, 3, note, id="failed")


def _recoverable(good: Sequence[Backup], arrangement: Arrangement, promise: Promise, now: datetime) -> Finding:
    """The newest moment that can be restored to: the newest backup, or what the WAL kept beside it reaches."""
    moments = [each.taken for each in good[-1:]] + (
        [arrangement.recovers_to] if arrangement.recovers_to and good else []
    )
    if not moments:
        return Finding("age of the newest recoverable moment", None, "s", note="there is none", id="recoverable")
    age = (now - max(moments)).total_seconds()
    note = (
        "" if arrangement.recovers_to else "without point-in-time recovery: all since the newest backup would be lost"
    )
    return Finding(
        "age of the newest recoverable moment", max(0.0, age), "s", promise.rpo, 2 * promise.rpo, note, id="recoverable"
    )


def _strangers(good: Sequence[Backup], instance: str) -> Iterator[Finding]:
    others = [each for each in good if instance and each.instance and each.instance != instance]
    if others:
        note = f"{others[-1].id} is of {others[-1].instance}, this is {instance}"
        yield Finding("backups of another instance", float(len(others)), "", 1, 1, note, id="stranger")


def _settings(good: Sequence[Backup], arrangement: Arrangement, promise: Promise) -> Iterator[Finding]:
    days = promise.retention.daily / promise.every
    if arrangement.keeps is not None:
        note = f"the platform keeps {arrangement.keeps}, then throws the oldest away; {days:.0f} are promised"
        yield Finding(
            "backups short of the retention", max(0.0, days - arrangement.keeps), "", 1, None, note, id="retention"
        )
    if arrangement.keeps_for is not None and arrangement.keeps_for < promise.retention.daily:
        note = f"kept for {show(arrangement.keeps_for, 's')}, promised are {show(promise.retention.daily, 's')}"
        yield Finding("retention short of the promise", 1.0, "", 1, None, note, id="retention")
    asked = (
        ("protection", promise.protected, arrangement.is_protected, "deletion protection is off"),
        ("encryption", promise.encrypted, bool(arrangement.key or (good and good[-1].key)), "no key of our own"),
        ("elsewhere", promise.elsewhere, _is_elsewhere(good, arrangement), "no backup outside the instance's region"),
    )
    for name, is_promised, holds, note in asked:
        if is_promised:
            value = None if holds is None else float(not holds)
            yield Finding(name, value, "", 1, None, "" if holds else note if holds is not None else "not told", id=name)


def _is_elsewhere(good: Sequence[Backup], arrangement: Arrangement) -> bool | None:
    places = {*arrangement.locations, *(each.location for each in good[-1:] if each.location)}
    if not places or not arrangement.region:
        return None
    return any(not arrangement.region.startswith(place) for place in places)
