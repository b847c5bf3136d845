"""Decisions in Redis: those of one turn of the event loop in one round trip, by the server's clock.

While a round trip is under way, what is asked meanwhile gathers, and goes with the next. So one connection is enough,
and no more than one round trip can be waiting for a Redis that hangs. Who waits when it fails is decided locally, and
from then on everybody is, at once, until a probe beside the requests was answered.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Self

import msgspec
from redis.asyncio import Redis

from aiprod_ops.domain.quotas import SLOTS, Decision, Quota, Standing
from aiprod_ops.service.limiting.local import LocalLimits
from aiprod_ops.units import Seconds

log = logging.getLogger(__name__)

PATIENCE = Seconds(0.05)  #: so long Redis may take for one answer. Source: the issue's "at most 50 ms once"
FIRST_PROBE, LAST_PROBE = Seconds(0.1), Seconds(5)  #: between probes of a Redis that failed: doubled from first to last
MOST_TOGETHER = 500  #: requests in one round trip: Redis serves nobody else meanwhile, about 2 ms
_SPARE_TURNS = 5  #: of the loop, for an answer that had come when a busy process found its time was over
_PROBE = (Quota("probe", 2**31, Seconds(60)),)


class _Answer(msgspec.Struct, array_like=True):
    now_ms: int
    decisions: list[list[list[bool | int]]]


@dataclass(frozen=True, slots=True)
class _Asked:
    caller: str
    quotas: tuple[Quota, ...]
    cost: int
    answer: asyncio.Future[Decision]


class Limiter:
    """Of one event loop; `aclose` it. `redis` answers bytes. `processes` is how many share the limits.

    `namespace` begins each key; one user's requests share a key, which goes away by itself.
    """

    def __init__(
        self, redis: Redis, *, processes: int = 1, namespace: str = "aiprod", patience: Seconds = PATIENCE
    ) -> None:
        self._redis, self._namespace, self._patience = redis, namespace, patience
        self._local = LocalLimits(processes)
        self._script = redis.register_script(resources.files(__package__).joinpath("sliding.lua").read_bytes())
        self._waiting: list[_Asked] = []
        self._sending: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, url: str, *, processes: int = 1, namespace: str = "aiprod") -> Self:
        """With a connection of its own."""
        return cls(Redis.from_url(url, max_connections=2), processes=processes, namespace=namespace)

    @property
    def is_local(self) -> bool:
        """Whether Redis failed, and has not answered since."""
        return self._probing is not None

    async def decide(self, caller: str, quotas: Sequence[Quota], cost: int = 1) -> Decision:
        """Take `cost` of all quotas of a caller, or of none; 0 only looks. Never raises what is Redis' fault."""
        if cost < 0:
            raise ValueError(f"the cost of a request is {cost}, expected 0 or more")
        if self.is_local:
            return self._local.decide(caller, quotas, cost)
        asked = _Asked(caller, tuple(quotas), cost, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())
        return await asked.answer

    async def aclose(self) -> None:
        """Give up what is under way: who waits is answered locally."""
        for task in filter(None, (self._sending, self._probing)):
            task.cancel()
            await asyncio.wait({task})
        self._settle(self._waiting)
        await self._redis.aclose()

    async def _send(self) -> None:
        batch: list[_Asked] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
                decisions = await self._within_patience(batch)
                if decisions is None:
                    self._fail()
                    batch, self._waiting = batch + self._waiting, []
                self._settle(batch, decisions)
        finally:
            self._settle(batch)
            self._sending = None

    def _settle(self, batch: Sequence[_Asked], decisions: Sequence[Decision] | None = None) -> None:
        """Answer who has not been answered; without decisions, locally."""
        for number, asked in enumerate(batch):
            if decisions is not None:
                self._local.hear(asked.caller, decisions[number])
            if not asked.answer.done():
                asked.answer.set_result(
                    decisions[number] if decisions else self._local.decide(asked.caller, asked.quotas, asked.cost)
                )

    async def _within_patience(self, batch: Sequence[_Asked]) -> list[Decision] | None:
        """What Redis says; None where it fails in any way, be it garbage that the client library stumbles over."""
        asking = asyncio.create_task(self._ask(batch))
        try:
            await asyncio.wait({asking}, timeout=self._patience)
            for _ in range(_SPARE_TURNS):
                if not asking.done():
                    await asyncio.sleep(0)
        finally:
            asking.cancel()
        if not asking.done():
            asking.add_done_callback(_look_away)
            why: object = f"no answer within {self._patience * 1000:.0f} ms"
        elif asking.cancelled() or (why := asking.exception()) is None:
            return None if asking.cancelled() else asking.result()
        if not self.is_local:
            log.warning("Redis does not decide limits, each process does: %s: %s", type(why).__name__, why)
        return None

    async def _ask(self, batch: Sequence[_Asked]) -> list[Decision]:
        groups: dict[tuple[str, tuple[Quota, ...]], list[int]] = {}
        for number, asked in enumerate(batch):
            groups.setdefault((asked.caller, asked.quotas), []).append(number)
        keys, arguments = [], [b"%d" % SLOTS]
        for (caller, quotas), numbers in groups.items():
            keys.append(self._key(caller, quotas))
            costs = [batch[number].cost for number in numbers]
            arguments.append(
                msgspec.msgpack.encode([[each.slot_ms for each in quotas], [each.limit for each in quotas], costs])
            )
        answer = msgspec.msgpack.decode(await self._script(keys=keys, args=arguments), type=_Answer)
        found: dict[int, Decision] = {}
        for numbers, rows in zip(groups.values(), answer.decisions, strict=True):
            for number, row in zip(numbers, rows, strict=True):
                found[number] = _decision(batch[number], row)
        return [found[number] for number in range(len(batch))]

    def _key(self, caller: str, quotas: Sequence[Quota]) -> str:
        """The windows are part of it: what was counted in others means nothing."""
        return f"{self._namespace}:limits:{'-'.join(str(each.slot_ms) for each in quotas)}:{caller}"

    def _fail(self) -> None:
        if self._probing is None:
            self._probing = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        """Until Redis decides again: it has to write, so that a full one, or a replica, is not taken for a good one."""
        pause = FIRST_PROBE
        while True:
            await asyncio.sleep(pause)
            probe = _Asked("", _PROBE, 1, asyncio.get_running_loop().create_future())
            if await self._within_patience([probe]) is not None:
                break
            pause = min(Seconds(pause * 2), LAST_PROBE)
        self._probing = None
        log.info("Redis decides limits again")


def _decision(asked: _Asked, row: list[bool | int]) -> Decision:
    is_allowed, wait_ms, *rest = row
    if not isinstance(is_allowed, bool) or len(rest) != 2 * len(asked.quotas):
        raise ValueError(f"{row} is no decision on {len(asked.quotas)} quotas")
    standings = tuple(
        Standing(quota, remaining, more)
        for quota, remaining, more in zip(asked.quotas, rest[::2], rest[1::2], strict=True)
    )
    return Decision(is_allowed, asked.cost, standings, None if wait_ms < 0 else wait_ms)


def _look_away(task: asyncio.Task[list[Decision]]) -> None:
    """What it ends with is of no interest any more; asyncio would complain about an exception that nobody saw."""
    if not task.cancelled():
        task.exception()
