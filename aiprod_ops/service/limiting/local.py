"""Limits of one process alone, for the time that Redis does not answer: never unlimited, never all refused.

Each process lets through its part of a limit, at least one. So all of them together keep the limit, or one request each
where there are more processes than the limit has requests. A caller who had used up a share of his limit when Redis was
last heard has used up that share of the part: a Redis that comes and goes gives no second helping.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
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
        self._spent: dict[str, dict[Quota, Spent]] = {}

    def hear(self, caller: str, decision: Decision) -> None:
        """What Redis decided of a caller."""
        _remember(self._heard, caller, (self._now_ms(), decision))

    def decide(self, caller: str, quotas: Sequence[Quota], cost: int) -> Decision:
        """Take `cost` of this process' part of all quotas, or of none.

        A cost above the part, but not above the quota, takes the whole part: else it would be refused for ever.
        """
        parts = [replace(each, limit=max(1, each.limit // self._processes)) for each in quotas]
        known = self._spent.get(caller, {})
        spent = [known.get(part, ()) for part in parts]
        if heard := self._heard.pop(caller, None):
            spent = [_used(*heard, quota, part, old) for quota, part, old in zip(quotas, parts, spent, strict=True)]
        fitting = min([cost, *(part.limit for part in parts)])
        decision, left = take(spent, parts, fitting, self._now_ms())
        _remember(self._spent, caller, dict(zip(parts, left, strict=True)))
        standings = tuple(replace(each, quota=quota) for each, quota in zip(decision.standings, quotas, strict=True))
        if any(cost > quota.limit for quota in quotas):
            return Decision(False, cost, standings, None, is_local=True)
        return Decision(decision.is_allowed, fitting, standings, decision.wait_ms, is_local=True)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _used(at_ms: int, heard: Decision, quota: Quota, part: Quota, spent: Spent) -> Spent:
    """What was spent of a part, and at least the share of it that Redis said was spent of the whole."""
    remaining = next((each.remaining for each in heard.standings if each.quota == quota), quota.limit)
    missing = part.limit - math.ceil(part.limit * remaining / quota.limit) - total(spent)
    return (*spent, (at_ms // part.slot_ms, missing)) if missing > 0 else spent


def _remember(known: dict[str, Value], caller: str, value: Value) -> None:
    known.pop(caller, None)
    known[caller] = value
    if len(known) > MOST_CALLERS:
        del known[next(iter(known))]
