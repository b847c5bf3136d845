"""Decisions in Redis: those of one turn of the event loop in one round trip, by the server's clock.

While a round trip is under way, what is asked meanwhile gathers, and goes with the next. So one connection is enough,
and no more than one round trip can wait for a Redis that hangs. Who waits when it fails is decided locally, and so is
everybody from then on, at once, until the breaker's probe was answered.
"""

import asyncio
import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import msgspec
from redis.exceptions import NoScriptError

from aiprod_ops.domain.quotas import SLOTS, Decision, Quota, Standing
from aiprod_ops.service.caching.breaker import Delays
from aiprod_ops.service.caching.connection import FAILURES, Command, Exchange, Link, Reply
from aiprod_ops.service.caching.place import RedisPlace
from aiprod_ops.service.limiting import metrics
from aiprod_ops.service.limiting.local import LocalLimits
from aiprod_ops.units import Seconds

MOST_TOGETHER = 500  #: requests in one round trip: Redis serves nobody else meanwhile, about 5 ms
_SCRIPT = resources.files(__package__).joinpath("sliding.lua").read_bytes()
_DIGEST = hashlib.sha1(_SCRIPT, usedforsecurity=False).hexdigest()  #: EVALSHA's name of it
_LOAD: Command = ("SCRIPT", "LOAD", _SCRIPT)
_MOST_COST = 2**53  #: Lua counts in doubles
_PROBE = (Quota("probe", 2**31, Seconds(60)),)
_DELAYS = Delays()
_RUN_ID = re.compile(rb"run_id:(\w+)")


class _Answer(msgspec.Struct, array_like=True):
    now_ms: int
    decisions: list[list[list[bool | int]]]


@dataclass(frozen=True, slots=True)
class _Asked:
    caller: str
    quotas: tuple[Quota, ...]
    cost: int
    answer: "asyncio.Future[Decision] | None" = None


class Limiter:
    """Of one event loop; `close` it. `processes` is how many share the limits. `namespace` begins each key; one
    caller's requests share a key, which goes away by itself.
    """

    def __init__(
        self, place: RedisPlace, *, processes: int, namespace: str = "aiprod", delays: Delays = _DELAYS
    ) -> None:
        self._namespace = namespace
        self._local = LocalLimits(processes)
        self._link = Link(
            place, self._probe, delays, greet=self._greet, failed=lambda _: None, changed=metrics.changed
        )  # fmt: skip
        self._memory: tuple[Reply, bytes] | None = None  #: a value that lives as long as what Redis knows; its process
        self._waiting: list[_Asked] = []
        self._sending: asyncio.Task[None] | None = None

    @property
    def is_local(self) -> bool:
        """Whether Redis failed, and has not answered since."""
        return not self._link.breaker.is_closed

    async def decide(self, caller: str, quotas: Sequence[Quota], cost: int = 1) -> Decision:
        """Take `cost` of all quotas of a caller, or of none; 0 only looks. Never raises what is Redis' fault."""
        if not quotas or not 0 <= cost <= _MOST_COST:
            raise ValueError(f"a cost of {cost} on {len(quotas)} quotas, expected 0 to 2^53, and one quota or more")
        if self.is_local:
            return self._local.decide(caller, quotas, cost)
        answer: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Asked(caller, tuple(quotas), cost, answer))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send(), name="aiprod-ops limits")
        return await answer

    async def close(self) -> None:
        """Give up what is under way: who waits is answered locally."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait({self._sending})
        self._give_up([])  # of a task that had not begun
        await self._link.close()

    async def _send(self) -> None:
        """Until nobody waits."""
        batch: list[_Asked] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
                decisions = await self._decided(batch)
                if decisions is None:
                    break
                for asked, decision in zip(batch, decisions, strict=True):
                    self._local.hear(asked.caller, decision)
                    _settle(asked, decision)
                batch = []
        finally:
            self._give_up(batch)

    def _give_up(self, batch: Sequence[_Asked]) -> None:
        """Answer locally who waits, and this batch."""
        left, self._waiting, self._sending = [*batch, *self._waiting], [], None
        for asked in left:
            _settle(asked, self._local.decide(asked.caller, asked.quotas, asked.cost))

    async def _decided(self, batch: Sequence[_Asked]) -> list[Decision] | None:
        """In the order of the batch; None where Redis fails."""
        groups = _groups(batch)
        command = self._command(groups)
        replies = await self._link.ask([command])
        if replies is not None and isinstance(replies[0], NoScriptError):
            replies = await self._link.ask([_LOAD, command])
        if replies is None:
            return None
        try:
            return _read(groups, replies[-1])
        except FAILURES as error:
            self._link.fail(error)
            return None

    def _command(self, groups: "_Groups") -> Command:
        keys, asked = [], []
        policies: dict[int, tuple[int, str, list[int], list[int]]] = {}
        for (caller, policy), of_caller in groups.items():
            quotas = of_caller[0][1].quotas
            if policy not in policies:
                slots, limits = [each.slot_ms for each in quotas], [each.limit for each in quotas]
                # The lengths are part of the key: what was counted in other windows means nothing.
                prefix = f"{self._namespace}:limits:{'-'.join(map(str, slots))}:"
                policies[policy] = (len(policies) + 1, prefix, slots, limits)
            number, prefix, *_ = policies[policy]
            keys.append(prefix + caller)
            asked.append((number, [each.cost for _, each in of_caller], self._local.owed(caller, quotas)))
        arguments = (SLOTS, [each[2:] for each in policies.values()], asked)
        return ("EVALSHA", _DIGEST, len(keys), *keys, msgspec.msgpack.encode(arguments))

    async def _greet(self, exchange: Exchange) -> None:
        """Notice that Redis was started anew without what it knew. A replica that took over has it: the value is there;
        where only the value was evicted, the process is the same."""
        name = f"{self._namespace}:limits:memory"
        fresh = secrets.token_hex(16)
        _, value, said = await exchange([("SET", name, fresh, "NX"), ("GET", name), ("INFO", "server")])
        if not isinstance(value, bytes):
            return
        process = _RUN_ID.search(said) if isinstance(said, bytes) else None
        found = (value, process[1] if process else b"")
        if self._memory is not None and value != self._memory[0] and (not process or found[1] != self._memory[1]):
            self._local.lost()
        self._memory = found

    async def _probe(self, link: Link) -> None:
        """By a decision, since that writes: a full server, or a replica, is not taken for a good one."""
        groups = _groups([_Asked("", _PROBE, 1)])
        _read(groups, (await link.exchange([_LOAD, self._command(groups)]))[-1])


#: Requests with their places in the batch, by caller and policy: what one asks at once is read and written once. A
#: policy is told by where its quotas are in memory, since comparing them would cost as much as the rest.
_Groups = dict[tuple[str, int], list[tuple[int, _Asked]]]


def _groups(batch: Sequence[_Asked]) -> _Groups:
    groups: _Groups = {}
    for number, asked in enumerate(batch):
        groups.setdefault((asked.caller, id(asked.quotas)), []).append((number, asked))
    return groups


def _read(groups: _Groups, reply: Reply) -> list[Decision]:
    """What Redis decided, in the order of the batch; raises the error that it answers, or what noise leads to."""
    if isinstance(reply, Exception):
        raise reply
    if not isinstance(reply, bytes):
        raise TypeError(f"Redis decides {type(reply).__name__}, expected bytes")
    answer = msgspec.msgpack.decode(reply, type=_Answer)
    found: dict[int, Decision] = {}
    for of_caller, rows in zip(groups.values(), answer.decisions, strict=True):
        for (number, asked), row in zip(of_caller, rows, strict=True):
            found[number] = _decision(asked, row)
    return [found[number] for number in range(len(found))]


def _decision(asked: _Asked, row: list[bool | int]) -> Decision:
    is_allowed, wait_ms, *rest = row
    if not isinstance(is_allowed, bool):
        raise TypeError(f"Redis decides {is_allowed!r}, expected true or false")
    pairs = zip(asked.quotas, rest[::2], rest[1::2], strict=True)
    standings = tuple(Standing(quota, remaining, more_ms) for quota, remaining, more_ms in pairs)
    return Decision(is_allowed, asked.cost, standings, None if wait_ms < 0 else wait_ms)


def _settle(asked: _Asked, decision: Decision) -> None:
    if asked.answer is not None and not asked.answer.done():  # else its request was given up
        asked.answer.set_result(decision)
