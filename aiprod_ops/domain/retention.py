"""Which stored backups the retention asks for, and which may go.

Decided from the list alone, for one moment: the same list and moment give the same answer, on any machine.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from aiprod_ops.domain.backups import Backup, State, successful, whole, with_bases
from aiprod_ops.units import Seconds


@dataclass(frozen=True, slots=True)
class Retention:
    """How long backups are kept: the last of each day, of each ISO week, and of each month, in UTC. However old,
    `least` of the newest stay."""

    daily: Seconds
    weekly: Seconds
    monthly: Seconds
    least: int = 1


def _day(at: datetime) -> tuple[int, ...]:
    return at.year, at.month, at.day


def _week(at: datetime) -> tuple[int, ...]:
    """An ISO week: the first of a year may begin in the year before."""
    return tuple(at.isocalendar()[:2])


def _month(at: datetime) -> tuple[int, ...]:
    return at.year, at.month


def kept(backups: Sequence[Backup], retention: Retention, now: datetime) -> set[str]:
    """Ids that the retention asks for, with what these rest on; all of those that are there.

    >>> from datetime import UTC
    >>> noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> two = [Backup(str(n), State.SUCCESSFUL, noon - timedelta(hours=n)) for n in (1, 2)]
    >>> sorted(kept(two, Retention(Seconds(86400), Seconds(0), Seconds(0)), noon))
    ['1']
    """
    # The last that can be restored as it is listed, and the last at all: what it misses may only be hidden today.
    wanted = _asked(whole(backups), retention, now) | _asked(successful(backups), retention, now)
    by_id = {each.id: each for each in backups}
    return with_bases(wanted.keys(), by_id) & by_id.keys()


def _asked(good: Sequence[Backup], retention: Retention, now: datetime) -> dict[str, str]:
    """The newest, however old, and the last of each period; of some that are in order. Each with the reason."""
    found: dict[str, str] = {}
    for length, period, name in (
        (retention.monthly, _month, "month"),
        (retention.weekly, _week, "week"),
        (retention.daily, _day, "day"),
    ):
        within = [each for each in good if now - each.taken <= timedelta(seconds=length)]
        found |= {each.id: f"the last of its {name}" for each in {period(each.taken): each for each in within}.values()}
    return found | {each.id: "among the newest, which stay" for each in good[-max(retention.least, 1) :]}


def prunable(backups: Sequence[Backup], retention: Retention, now: datetime, verified: Iterable[str]) -> list[Backup]:
    """Those that nothing asks for any more: dependent ones before what they rest on, else oldest first.

    Never what the retention asks for; never the newest that a test has restored; nothing that is being taken, and no
    failure before a success follows it; nothing that one of these rests on. And nothing at all where there is no
    backup that could be restored: then nobody knows what may still be of use. `backups` are of one instance.
    """
    good, known = whole(backups), set(verified)
    if not good:
        return []
    by_id = {each.id: each for each in backups}
    asked = kept(backups, retention, now) | {each.id for each in [each for each in good if each.id in known][-1:]}
    stays = {each.id for each in backups if each.id in asked or not _is_over(each, good[-1], known)}
    stays = with_bases(stays, by_id)
    depth = {each.id: len(with_bases([each.id], by_id)) for each in backups}
    going = [each for each in backups if each.id not in stays]
    return sorted(going, key=lambda each: (-depth[each.id], each.started, each.id))


def staying(
    backups: Sequence[Backup], retention: Retention, now: datetime, verified: Iterable[str]
) -> dict[str, list[str]]:
    """Those that are not prunable, by the reason; the oldest first."""
    known = set(verified)
    going = {each.id for each in prunable(backups, retention, now, known)}
    asked = _asked(successful(backups), retention, now) | _asked(whole(backups), retention, now)
    tested = {each.id for each in [each for each in whole(backups) if each.id in known][-1:]}
    found: dict[str, list[str]] = {}
    for each in sorted(backups, key=lambda each: each.started):
        if each.id not in going:
            why = "others rest on it" if each.state is State.SUCCESSFUL else f"{each.state}, and no success follows"
            why = "the newest that a test has restored" if each.id in tested else why
            found.setdefault(asked.get(each.id, why), []).append(each.id)
    return found


def _is_over(backup: Backup, newest: Backup, verified: set[str]) -> bool:
    """Whether it may be judged at all. One that is called failed and was restored once is a riddle, not waste."""
    if backup.state is State.FAILED:
        return backup.started < newest.started and backup.id not in verified
    return backup.state is State.SUCCESSFUL
