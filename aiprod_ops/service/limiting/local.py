"""Limits of one process alone, for the time that Redis does not answer: never unlimited, never all refused.

Each process lets through its part of a limit, at least one. So all of them together keep the limit, or one request each
where there are more processes than the limit has requests. A caller who had used up a share of his limit when Redis was
last heard has used up that share of the part; and Redis is told what was let through without it when it is back.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

from aiprod_ops.domain.quotas import Decision, Quota, Spent, take, total

Value = TypeVar("Value")

MOST_CALLERS = 10_000  #: remembered; of more, those not seen for longest are forgotten: memory stays bounded


class LocalLimits:
    """Of one process among `processes`. `clock` is in seconds and never goes back."""

    def __init__(self, processes: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        if processes < 1:
            raise ValueError(f"{processes} processes share the limits, expected 1 or more")
        self._processes, self._clock = processes, clock
        self._heard: dict[str, tuple[int, Decision]] = {}
        self._granted: dict[str, dict[Quota, Spent]] = {}  #: what Redis does not know of
        self._lost_ms = -1  #: when Redis was found to have lost what it knew

    def hear(self, caller: str, decision: Decision) -> None:
        """What Redis decided of a caller, when it was told what it is owed."""
        self._granted.pop(caller, None)
        _remember(self._heard, caller, (self._now_ms(), decision))

    def lost(self) -> None:
        """Redis knows no more what it said of anybody: this process' share of that is owed to it."""
        self._lost_ms = self._now_ms()

    def _recall(self, caller: str) -> None:
        at_ms, heard = self._heard.get(caller, (self._lost_ms, None))
        if heard is None or at_ms >= self._lost_ms:
            return
        del self._heard[caller]
        quotas = tuple(each.quota for each in heard.standings)
        parts = _parts(quotas, self._processes)
        used = [_used(at_ms, heard, quota, part) for quota, part in zip(quotas, parts, strict=True)]
        spent = [(*before, *since) for before, since in zip(used, self._granted_of(caller, parts), strict=True)]
        _remember(self._granted, caller, dict(zip(parts, spent, strict=True)))

    def owed(self, caller: str, quotas: Sequence[Quota]) -> tuple[int, ...]:
        """What was let through of each quota and Redis does not know, as far as it still counts; () for nothing."""
        self._recall(caller)
        if caller not in self._granted:
            return ()
        parts = _parts(tuple(quotas), self._processes)
        _, left = take(self._granted_of(caller, parts), parts, 0, self._now_ms())
        return tuple(map(total, left))

    def decide(self, caller: str, quotas: Sequence[Quota], cost: int) -> Decision:
        """Take `cost` of this process' part of all quotas, or of none.

        A cost above the part, but not above the quota, takes the whole part: else it would be refused for ever.
        """
        parts, now_ms = _parts(tuple(quotas), self._processes), self._now_ms()
        granted = self._granted_of(caller, parts)
        spent = granted
        if heard := self._heard.get(caller):
            used = [_used(*heard, quota, part) for quota, part in zip(quotas, parts, strict=True)]
            spent = [(*before, *since) for before, since in zip(used, granted, strict=True)]
        fitting = min([cost, *(part.limit for part in parts)])
        decision, _ = take(spent, parts, fitting, now_ms)
        standings = tuple(replace(each, quota=quota) for each, quota in zip(decision.standings, quotas, strict=True))
        if any(cost > quota.limit for quota in quotas):
            return Decision(False, cost, standings, None, is_local=True)
        if decision.is_allowed:
            _, granted_now = take(granted, parts, 0, now_ms, [cost] * len(parts))
            _remember(self._granted, caller, dict(zip(parts, granted_now, strict=True)))
        return Decision(decision.is_allowed, fitting, standings, decision.wait_ms, is_local=True)

    def _granted_of(self, caller: str, parts: Sequence[Quota]) -> list[Spent]:
        granted = self._granted.get(caller, {})
        return [granted.get(part, ()) for part in parts]

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


@lru_cache(maxsize=100)
def _parts(quotas: tuple[Quota, ...], processes: int) -> tuple[Quota, ...]:
    return tuple(replace(each, limit=max(1, each.limit // processes)) for each in quotas)


def _used(at_ms: int, heard: Decision, quota: Quota, part: Quota) -> Spent:
    """The share of a part that Redis, when it was heard, said was used of the whole."""
    remaining = next((each.remaining for each in heard.standings if each.quota == quota), quota.limit)
    used = part.limit - math.ceil(part.limit * remaining / quota.limit)
    return ((at_ms // part.slot_ms, used),) if used else ()


def _remember(known: dict[str, Value], caller: str, value: Value) -> None:
    known.pop(caller, None)
    known[caller] = value
    if len(known) > MOST_CALLERS:
        del known[next(iter(known))]
