"""Whether the stored backups of an instance, and how their repository is set up, keep what is promised."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from aiprod_ops.domain.backups import Arrangement, Backup, State, ahead, is_ahead, of_instance, successful, whole
from aiprod_ops.domain.calendars import DAY
from aiprod_ops.domain.findings import Finding
from aiprod_ops.domain.retention import Retention
from aiprod_ops.units import Seconds, show


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
    backups: Sequence[Backup],
    arrangement: Arrangement,
    promise: Promise,
    instance: str,
    now: datetime,
    unkept: Seconds | None = None,
) -> Iterator[Finding]:
    """One finding for each promise; what nobody tells is UNKNOWN. `unkept` is how long ago at most the instance wrote
    what is not kept yet, where it tells: a quiet one writes nothing, and an archive that grows old lacks nothing.

    A list without one that could be restored is CRITICAL, not UNKNOWN: it was read, and it says so. A list that cannot
    be read is an error of whoever reads it. What belongs to another instance counts for nothing here, and what is from
    a time that has not come yet is never taken for fresh.
    """
    ours = of_instance(backups, instance)
    early = ahead(ours, now)
    good = [each for each in whole(ours) if each not in early]
    yield from _ahead(early, arrangement, now)
    if good:
        yield _newest(good[-1], promise, now)
        yield from _gaps(good, promise, now)
        yield _recoverable(good[-1], arrangement, promise, now, unkept)
        yield from _lacking(arrangement)
    else:
        note = "none that is stored could be restored" if successful(ours) else "none has ever ended well"
        note = "all that could be restored are from times that have not come yet" if whole(ours) else note
        yield Finding("without a backup", 1.0, "", crit=1, note=note, id="newest")
    yield from _failures(ours, good)
    yield from _baseless(ours)
    yield from _strangers(backups, ours, instance)
    yield from _window(arrangement)
    yield from _retained(arrangement, promise)
    yield from _asked(good, arrangement, promise)


def _ahead(early: Sequence[Backup], arrangement: Arrangement, now: datetime) -> Iterator[Finding]:
    """Whatever is measured from such a time on looks young for as long as the clock ran ahead."""
    told = [(each.id, max(each.started, each.taken)) for each in early]
    if arrangement.recovers_to and is_ahead(arrangement.recovers_to, now):
        told.append((f"the WAL that is kept, {arrangement.last}".removesuffix(", "), arrangement.recovers_to))
    if told:
        names = ", ".join(f"{name} ({at:%Y-%m-%d %H:%M:%S} UTC)" for name, at in told[-3:])
        note = f"{names}: a clock ran ahead, here ({now:%Y-%m-%d %H:%M:%S} UTC) or there, and no age is known of them"
        yield Finding("times that have not come yet", float(len(told)), "", crit=1, note=note, id="ahead")


def _newest(newest: Backup, promise: Promise, now: datetime) -> Finding:
    age = (now - newest.taken).total_seconds()
    note = f"{newest.id}, {newest.kind}, {show(newest.size, 'B') if newest.size else 'of unknown size'}"
    return Finding("age of the newest backup", age, "s", LATE * promise.every, 2 * promise.every, note, id="newest")


def _gaps(good: Sequence[Backup], promise: Promise, now: datetime) -> Iterator[Finding]:
    """Between two within the daily retention; the time since the newest is another finding.

    Of more than one a day only the last is kept: a gap shorter than a day and a half tells nothing.
    """
    since = now - timedelta(seconds=promise.retention.daily)
    limit = LATE * max(promise.every, DAY)
    pairs = itertools.pairwise(each for each in good if each.taken >= since)
    wide = [pair for pair in pairs if (pair[1].taken - pair[0].taken).total_seconds() >= limit]
    if wide:
        earlier, later = max(wide, key=lambda pair: pair[1].taken - pair[0].taken)
        length = (later.taken - earlier.taken).total_seconds()
        note = f"{len(wide)} in all; the widest from {earlier.taken:%Y-%m-%d %H:%M} to {later.taken:%Y-%m-%d %H:%M}"
        yield Finding("gap between backups", length, "s", limit, None, note, id="gap")


def _failures(ours: Sequence[Backup], good: Sequence[Backup]) -> Iterator[Finding]:
    failed = [each for each in ours if each.state is State.FAILED and (not good or each.started > good[-1].started)]
    if failed:
        last = max(failed, key=lambda each: each.started)
        note = f"{last.id}: {last.said or 'it does not say why'}"
        yield Finding("failures since the last success", float(len(failed)), "", 1, 3, note, id="failed")


def _baseless(ours: Sequence[Backup]) -> Iterator[Finding]:
    able = whole(ours)
    lost = [each for each in successful(ours) if each not in able]
    if lost:
        note = f"{lost[-1].id} rests on {', '.join(lost[-1].rests_on)}"
        yield Finding("backups whose base is gone", float(len(lost)), "", 1, 1, note, id="baseless")


def _strangers(backups: Sequence[Backup], ours: Sequence[Backup], instance: str) -> Iterator[Finding]:
    others = [each for each in successful(backups) if each not in ours]
    if others:
        note = f"{others[-1].id} is of {others[-1].instance}, this is {instance}"
        yield Finding("backups of another instance", float(len(others)), "", 1, 1, note, id="stranger")


def _recoverable(
    newest: Backup, arrangement: Arrangement, promise: Promise, now: datetime, unkept: Seconds | None
) -> Finding:
    """The newest moment that can be restored to: the newest backup, or what the WAL kept beside it reaches. Where that
    WAL is whole and the instance tells how old at most what it lacks is, it is as if it reached so far."""
    last = arrangement.recovers_to
    moments = [newest.taken, *([last] if last else [])]
    age = max(0.0, (now - max(each for each in moments if not is_ahead(each, now))).total_seconds())
    note = "" if last else "without point-in-time recovery: all since the newest backup would be lost"
    if last and unkept is not None and unkept < age:
        note = (
            f"all whole segments are kept, and archive_timeout closes the next; they end at {last:%Y-%m-%d %H:%M} UTC"
        )
        age = unkept
    return Finding(
        "age of the newest recoverable moment", age, "s", promise.rpo, 2 * promise.rpo, note, id="recoverable"
    )


def _lacking(arrangement: Arrangement) -> Iterator[Finding]:
    """Whoever names an archive counts on it, however young the newest backup is."""
    if arrangement.lacks:
        yield Finding("point-in-time recovery is broken", 1.0, "", crit=1, note=arrangement.lacks, id="archive")


def _window(arrangement: Arrangement) -> Iterator[Finding]:
    """How much of the past can be restored to the moment; nothing is promised of it."""
    first, last = arrangement.recovers_from, arrangement.recovers_to
    if first and last:
        length = max(0.0, (last - first).total_seconds())
        yield Finding("moments to recover to", length, "s", note=f"since {first:%Y-%m-%d %H:%M} UTC", id="window")


def _retained(arrangement: Arrangement, promise: Promise) -> Iterator[Finding]:
    """What the platform throws away by itself, before the retention that is promised is over."""
    days = promise.retention.daily / promise.every
    if arrangement.keeps is not None:
        note = f"the platform keeps {arrangement.keeps}, then throws the oldest away; {days:.0f} are promised"
        short = max(0.0, days - arrangement.keeps)
        yield Finding("backups short of the retention", short, "", 1, None, note if short else "", id="retention")
    if arrangement.keeps_for is not None:
        short = max(0.0, promise.retention.daily - arrangement.keeps_for)
        kept, promised = show(arrangement.keeps_for, "s"), show(promise.retention.daily, "s")
        note = f"the platform keeps each for {kept}, promised are {promised}" if short else ""
        yield Finding("time short of the retention", short, "s", 1, None, note, id="retention-time")
    if arrangement.automatic and arrangement.keeps is None and arrangement.keeps_for is None:
        note = "the platform takes backups by itself, and does not tell how many it keeps"
        yield Finding("backups short of the retention", None, note=note, id="retention")


def _asked(good: Sequence[Backup], arrangement: Arrangement, promise: Promise) -> Iterator[Finding]:
    """Only what is promised is asked for."""
    asked = (
        ("deletion protection is off", promise.protected, arrangement.is_protected, "protection"),
        ("no key of our own", promise.encrypted, _is_encrypted(good, arrangement), "encryption"),
        ("no backup outside the instance's region", promise.elsewhere, _is_elsewhere(good, arrangement), "elsewhere"),
    )
    for metric, is_promised, holds, name in asked:
        if is_promised:
            value = None if holds is None else float(not holds)
            yield Finding(metric, value, "", 1, None, "the platform does not tell" if holds is None else "", id=name)


def _is_encrypted(good: Sequence[Backup], arrangement: Arrangement) -> bool | None:
    if arrangement.key or any(each.key for each in good[-1:]):
        return True
    return None if arrangement.key is None else False


def _is_elsewhere(good: Sequence[Backup], arrangement: Arrangement) -> bool | None:
    """A multi-region ("eu") is elsewhere, too: it holds more than one region. A zone of the region is not."""
    places = {*arrangement.locations, *(each.location for each in good[-1:])} - {""}
    if not places or not arrangement.region:
        return None
    here = arrangement.region
    return any(place != here and not place.startswith(f"{here}-") for place in places)
