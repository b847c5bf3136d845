"""Decisions in Redis: those of one turn of the event loop in one round trip, by the server's clock.

While a round trip is under way, what is asked meanwhile gathers, and goes with the next. So one connection is enough,
and no more than one round trip can wait for a Redis that hangs. Who waits when it fails is decided locally, and so is
everybody from then on, at once, until the breaker's probe was answered.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Self

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from aiprod_ops.domain.quotas import SLOTS, Decision, Quota, Standing
from aiprod_ops.service.caching.breaker import Breaker, Delays
from aiprod_ops.service.caching.patience import patience
from aiprod_ops.service.limiting.local import LocalLimits
from aiprod_ops.units import Seconds

MOST_TOGETHER = 500  #: requests in one round trip: Redis serves nobody else meanwhile, about 5 ms
#: No contact, an error for an answer, or noise, on which redis-py and our decoding fail with whatever comes of it.
FAILURES = (RedisError, OSError, EOFError, AttributeError, LookupError, TypeError, ValueError)
#: The probe writes: a full server, or a replica, is not taken for a good one.
_PROBE = (Quota("probe", 2**31, Seconds(60)),)
_DELAYS = Delays()


class _Answer(msgspec.Struct, array_like=True):
    now_ms: int
    decisions: list[list[list[bool | int]]]


@dataclass(frozen=True, slots=True)
class _Asked:
    caller: str
    quotas: tuple[Quota, ...]
    cost: int
    answer: "asyncio.Future[Decision]"


class Limiter:
    """Of one event loop; `aclose` it. `redis` answers bytes, and is this limiter's own. `processes` is how many share
    the limits. `namespace` begins each key; one caller's requests share a key, which goes away by itself.
    """

    def __init__(
        self, redis: Redis, *, processes: int = 1, namespace: str = "aiprod", delays: Delays = _DELAYS
    ) -> None:
        self._redis, self._namespace = redis, namespace
        self._local = LocalLimits(processes)
        self._breaker = Breaker(self._probe, FAILURES, delays)
        self._script = redis.register_script(resources.files(__package__).joinpath("sliding.lua").read_bytes())
        self._waiting: list[_Asked] = []
        self._sending: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, url: str, *, processes: int = 1, namespace: str = "aiprod") -> Self:
        """With a connection of its own."""
        return cls(Redis.from_url(url), processes=processes, namespace=namespace)

    @property
    def is_local(self) -> bool:
        """Whether Redis failed, and has not answered since."""
        return not self._breaker.is_closed

    async def decide(self, caller: str, quotas: Sequence[Quota], cost: int = 1) -> Decision:
        """Take `cost` of all quotas of a caller, or of none; 0 only looks. Never raises what is Redis' fault."""
        if cost < 0:
            raise ValueError(f"the cost of a request is {cost}, expected 0 or more")
        if self.is_local:
            return self._local.decide(caller, quotas, cost)
        asked = _Asked(caller, tuple(quotas), cost, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send(), name="aiprod-ops limits")
        return await asked.answer

    async def aclose(self) -> None:
        """Give up what is under way: who waits is answered locally."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait({self._sending})
        await self._breaker.close()
        await self._redis.aclose()

    async def _send(self) -> None:
        """Until nobody waits."""
        batch: list[_Asked] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
                decisions = await self._in_time(batch)
                if decisions is None:
                    break
                for asked, decision in zip(batch, decisions, strict=True):
                    self._local.hear(asked.caller, decision)
                    if not asked.answer.done():  # else its request was given up
                        asked.answer.set_result(decision)
        finally:
            left, self._waiting, self._sending = batch + self._waiting, [], None
            for asked in left:
                if not asked.answer.done():
                    asked.answer.set_result(self._local.decide(asked.caller, asked.quotas, asked.cost))

    async def _in_time(self, batch: Sequence[_Asked]) -> list[Decision] | None:
        try:
            async with patience(self._breaker.delays.patience):
                return await self._ask(batch)
        except FAILURES as error:
            self._breaker.trip(f"{type(error).__name__}: {error}")
            return None

    async def _ask(self, batch: Sequence[_Asked]) -> list[Decision]:
        """In the order of the batch; raises one of FAILURES."""
        groups: dict[tuple[str, tuple[Quota, ...]], list[int]] = {}
        for number, asked in enumerate(batch):
            groups.setdefault((asked.caller, asked.quotas), []).append(number)
        keys, arguments = [], [b"%d" % SLOTS]
        for (caller, quotas), numbers in groups.items():
            slots, limits = [each.slot_ms for each in quotas], [each.limit for each in quotas]
            # The lengths are part of the key: what was counted in other windows means nothing.
            keys.append(f"{self._namespace}:limits:{'-'.join(map(str, slots))}:{caller}")
            arguments.append(msgspec.msgpack.encode((slots, limits, [batch[each].cost for each in numbers])))
        answer = msgspec.msgpack.decode(await self._script(keys=keys, args=arguments), type=_Answer)
        found: list[tuple[int, Decision]] = []
        for numbers, rows in zip(groups.values(), answer.decisions, strict=True):
            found += [(each, _decision(batch[each], row)) for each, row in zip(numbers, rows, strict=True)]
        return [decision for _, decision in sorted(found, key=lambda each: each[0])]

    async def _probe(self) -> None:
        await self._ask([_Asked("", _PROBE, 1, asyncio.get_running_loop().create_future())])


def _decision(asked: _Asked, row: list[bool | int]) -> Decision:
    is_allowed, wait_ms, *rest = row
    if not isinstance(is_allowed, bool):
        raise TypeError(f"Redis decides {is_allowed!r}, expected true or false")
    pairs = zip(asked.quotas, rest[::2], rest[1::2], strict=True)
    standings = tuple(Standing(quota, remaining, more_ms) for quota, remaining, more_ms in pairs)
    return Decision(is_allowed, asked.cost, standings, None if wait_ms < 0 else wait_ms)
