"""Quotas over sliding windows: at most so many in any stretch of time. Pure: the time is given, in whole milliseconds.

A window is counted in slots. What falls into a slot counts until the slot's end is a whole window ago. So no sliding
window, wherever it begins, holds more than the limit; what it costs is that a window is up to one slot longer than it
says. `sliding.lua` is the same calculation where all processes meet, and a test compares the two.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from aiprod_ops.units import Seconds

SLOTS = 60  #: of a window: it is 1.7 % longer at the most

#: What was taken of one quota: (slot, count), oldest first. A slot is numbered by its beginning, in its own lengths.
Spent = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Quota:
    """At most `limit` in any `window`. The name is what clients see of it."""

    name: str
    limit: int
    window: Seconds

    def __post_init__(self) -> None:
        if self.limit < 1 or not 0.001 * SLOTS <= self.window < math.inf:
            raise ValueError(f"{self}: expected a limit from 1, and a window from {SLOTS} ms")

    @property
    def slot_ms(self) -> int:
        """Length of a slot.

        >>> Quota("minute", 10, Seconds(60)).slot_ms
        1000
        """
        return math.ceil(self.window * 1000 / SLOTS)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a caller stands with one quota. `more_ms` is the time until some of it comes back; 0 where all is there."""

    quota: Quota
    remaining: int
    more_ms: int


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a request may go on. What is refused is not counted. After `wait_ms` it is let through, if nothing else
    of the same caller is; None where it never is, since it costs more than the whole quota."""

    is_allowed: bool
    cost: int
    standings: tuple[Standing, ...]
    wait_ms: int | None = 0
    is_local: bool = False  #: decided by this process alone, on its part of the limits

    @property
    def retry_after(self) -> int | None:
        """Whole seconds, as HTTP wants them: never too early.

        >>> Decision(False, 1, (), 1001).retry_after
        2
        """
        return None if self.wait_ms is None else math.ceil(self.wait_ms / 1000)

    @property
    def violated(self) -> tuple[str, ...]:
        """Names of the quotas that have too little left."""
        return (
            () if self.is_allowed else tuple(each.quota.name for each in self.standings if each.remaining < self.cost)
        )


def take(
    spent: Sequence[Spent], quotas: Sequence[Quota], cost: int, now_ms: int, owed: Sequence[int] = ()
) -> tuple[Decision, tuple[Spent, ...]]:
    """Take `cost` of all quotas or of none. `spent` is of the same quotas, in their order; a cost of 0 only looks.

    `owed` was taken elsewhere: it counts before that, whether it fits or not.

    >>> two = (Quota("minute", 2, Seconds(60)),)
    >>> decision, spent = take([()], two, 2, 500)
    >>> decision.is_allowed, decision.standings[0].remaining, spent
    (True, 0, (((0, 2),),))
    >>> take(spent, two, 1, 60_999)[0].wait_ms, take(spent, two, 1, 61_000)[0].is_allowed
    (1, True)
    """
    kept = [_kept(old, quota, now_ms) for old, quota in zip(spent, quotas, strict=True)]
    for place, count in enumerate(owed):
        kept[place] = _added(kept[place], now_ms // quotas[place].slot_ms, count)
    waits = [_wait(old, quota, cost, now_ms) for old, quota in zip(kept, quotas, strict=True)]
    known = [wait for wait in waits if wait is not None]
    wait = max(known, default=0) if len(known) == len(waits) else None
    if wait == 0:
        kept = [_added(old, now_ms // quota.slot_ms, cost) for old, quota in zip(kept, quotas, strict=True)]
    standings = tuple(_standing(old, quota, now_ms) for old, quota in zip(kept, quotas, strict=True))
    return Decision(wait == 0, cost, standings, wait), tuple(kept)


def total(spent: Spent) -> int:
    """What was taken in all."""
    return sum(count for _, count in spent)


def _kept(spent: Spent, quota: Quota, now_ms: int) -> Spent:
    """Without what is over. A clock that was set back leaves slots of the future: they count as the present one."""
    current = now_ms // quota.slot_ms
    counts: dict[int, int] = {}
    for slot, count in spent:
        if slot >= current - SLOTS:
            counts[min(slot, current)] = counts.get(min(slot, current), 0) + count
    return tuple(counts.items())


def _wait(spent: Spent, quota: Quota, cost: int, now_ms: int) -> int | None:
    if cost > quota.limit:
        return None
    over = total(spent) + cost - quota.limit
    if cost == 0 or over <= 0:
        return 0
    for slot, count in spent:
        over -= count
        if over <= 0:
            return _gone(slot, quota, now_ms)
    raise AssertionError("unreachable: all that was taken makes room for a cost within the limit")


def _gone(slot: int, quota: Quota, now_ms: int) -> int:
    return (slot + SLOTS + 1) * quota.slot_ms - now_ms


def _added(spent: Spent, slot: int, cost: int) -> Spent:
    if cost == 0:
        return spent
    if spent and spent[-1][0] == slot:
        return (*spent[:-1], (slot, spent[-1][1] + cost))
    return (*spent, (slot, cost))


def _standing(spent: Spent, quota: Quota, now_ms: int) -> Standing:
    more = _gone(spent[0][0], quota, now_ms) if spent else 0
    return Standing(quota, max(0, quota.limit - total(spent)), more)
