"""An answer from the cache, or computed once for all who want it at the same time, in this process and in others.

Nobody joins a computation that may have begun before an invalidation that he knows of: what is under way is known by
the key and by the versions of its tags. Where Redis does not answer, nobody can tell, and each computes for himself.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from aiprod_ops.service.caching import metrics
from aiprod_ops.service.caching.claims import LONGEST, Claim, Claims
from aiprod_ops.service.caching.connection import Command, Link
from aiprod_ops.service.caching.keys import Namespace, all_of
from aiprod_ops.service.caching.metrics import Result
from aiprod_ops.service.caching.turns import Turns
from aiprod_ops.service.caching.values import Entry, Lifetime, read, stored
from aiprod_ops.service.caching.wakeups import Wakeups, Woken
from aiprod_ops.units import Seconds

log = logging.getLogger(__name__)

T = TypeVar("T")

_SPARE = Seconds(0.02)  #: after a lease should have ended


@dataclass(frozen=True, slots=True)
class Computed(Generic[T]):
    """What was computed. `payload` is what is stored, None for nothing; `lifetime` is its own, if it has one. Only what
    `is_shared` is given to others who wait for it."""

    value: T
    payload: bytes | None = None
    lifetime: Lifetime | None = None
    is_shared: bool = True


@dataclass(frozen=True, slots=True)
class Wanted(Generic[T]):
    """An entry, what it belongs to, and how it is made: `compute` for who asks; `renew` beside an old one that is
    served; `decode` from a stored payload, ValueError or MsgspecError where it is not of this program. `shares_errors`
    says that an error of `compute` is everybody's who waits for it."""

    key: str
    tags: tuple[str, ...]
    lifetime: Lifetime
    compute: Callable[[], Awaitable[Computed[T]]]
    renew: Callable[[], Awaitable[Computed[T]]]
    decode: Callable[[bytes], T]
    shares_errors: bool = True


@dataclass(frozen=True, slots=True)
class Seen(Generic[T]):
    """What was found: the value, unless there is none that counts, and the versions of the tags, None of a missing
    one."""

    versions: tuple[bytes | None, ...]
    value: T | None = None
    is_found: bool = False
    is_fresh: bool = False


class Computations:
    """Of one process, in one event loop, on one link."""

    def __init__(self, link: Link, names: Namespace, process: str) -> None:
        self.turns = Turns(link)
        self.names = names
        self.wakeups = Wakeups(link, names.channel(process))
        self._link = link
        self._claims = Claims(link, self.turns, names, self.wakeups.channel)
        self._flights: dict[tuple[str, tuple[bytes | None, ...]], asyncio.Task[Computed[Any]]] = {}
        self._renewed: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def answer(self, wanted: Wanted[T]) -> tuple[T, Result]:
        """The value, and where it comes from. Raises what `compute` raises."""
        began = time.monotonic()
        seen = await self.look(wanted.key, wanted.tags, wanted.decode)
        if seen is None:
            return (await wanted.compute()).value, Result.BYPASS
        if seen.is_found:
            if not seen.is_fresh and wanted.key not in self._renewed:
                self._renewed.add(wanted.key)
                self._keep(self._renew(wanted))
            return seen.value, Result.HIT if seen.is_fresh else Result.STALE  # type: ignore[return-value]
        return await self._joined(wanted, seen.versions, began), Result.MISS

    async def look(self, key: str, tags: Sequence[str], decode: Callable[[bytes], T]) -> Seen[T] | None:
        """What is stored; None where Redis does not answer. An entry that has other tags costs a second round trip."""
        asked = all_of(tags)
        entry_name = self.names.entry(key)
        replies = await self.turns.read((entry_name, *map(self.names.tag, asked)))
        if replies is None:
            return None
        entry = read(replies[0], key)
        versions = tuple(each if isinstance(each, bytes) else None for each in replies[1:])
        if entry is not None and entry.tags != asked and not tags:
            replies = await self.turns.read((entry_name, *map(self.names.tag, entry.tags)))
            if replies is None:
                return None
            asked, again = entry.tags, read(replies[0], key)
            entry = again if again and again.tags == asked else None
            current = tuple(replies[1:])
        else:
            current = versions
        if entry is None or entry.tags != asked or entry.versions != current:
            return Seen(versions)
        try:
            value = decode(entry.payload)
        except (ValueError, TypeError, msgspec.MsgspecError):
            return Seen(versions)
        return Seen(versions, value, True, time.time() < entry.fresh_until)

    async def store(self, key: str, tags: Sequence[str], payload: bytes, lifetime: Lifetime) -> bool:
        """A value that nobody computed here, under the versions that its tags have now; whether it was stored."""
        asked = all_of(tags)
        claim = await self._claims.claim(key, asked, _life(lifetime), self._patience)
        return claim is not None and await self._claims.end(
            claim, self._stores(key, asked, claim.versions, payload, lifetime), Woken.STORED
        )

    # Joining

    async def _joined(self, wanted: Wanted[T], versions: tuple[bytes | None, ...], began: float) -> T:
        flight = self._flights.get((wanted.key, versions))
        is_own = flight is None
        if flight is None:
            flight = self._keep(self._lead(wanted, versions, began))
            self._flights[wanted.key, versions] = flight
        await asyncio.wait({flight})  # who is cancelled leaves it to the others
        error = None if flight.cancelled() else flight.exception()
        if not flight.cancelled() and (is_own or (wanted.shares_errors if error else flight.result().is_shared)):
            result: Computed[T] = flight.result()
            return result.value
        return (await wanted.compute()).value

    async def _lead(self, wanted: Wanted[T], versions: tuple[bytes | None, ...], began: float) -> Computed[T]:
        known = (wanted.key, versions)
        flight = self._flights[known]
        try:
            while True:
                expected = self.wakeups.expect(wanted.key)
                try:
                    left = Seconds(self._patience - (time.monotonic() - began))
                    claim = await self._claims.claim(wanted.key, all_of(wanted.tags), _life(wanted.lifetime), left)
                    # Before it begins to compute: who sees later that a version is gone must not find it.
                    self._leave(known, flight)
                    if claim is None:
                        return await wanted.compute()
                    known = (wanted.key, claim.versions)
                    self._flights.setdefault(known, flight)
                    if claim.is_ours:
                        return await self._compute(claim, wanted, wanted.compute)
                    found = await self._awaited(claim, wanted, expected)
                finally:
                    self.wakeups.forget(wanted.key, expected)
                if found is not None:
                    return found
                began = time.monotonic()
        finally:
            self._leave(known, flight)

    async def _awaited(self, claim: Claim, wanted: Wanted[T], expected: "asyncio.Future[Woken]") -> Computed[T] | None:
        """What another process has computed; None if the claim has to be tried again."""
        if not self.wakeups.is_listening:
            await self.wakeups.listen()
            return None
        why = await self.wakeups.wait(wanted.key, expected, Seconds(claim.left + _SPARE))
        if why is Woken.FAILED:
            return await wanted.compute()
        seen = await self.look(wanted.key, wanted.tags, wanted.decode)
        return Computed(seen.value) if seen is not None and seen.is_found else None  # type: ignore[arg-type]

    def _leave(self, known: tuple[str, tuple[bytes | None, ...]], flight: "asyncio.Task[Any]") -> None:
        if self._flights.get(known) is flight:
            del self._flights[known]

    # Computing

    async def _compute(
        self, claim: Claim, wanted: Wanted[T], compute: Callable[[], Awaitable[Computed[T]]]
    ) -> Computed[T]:
        """By ourselves, for all. Nobody waits until it is stored."""
        began = time.monotonic()
        holding = self._keep(self._claims.hold(claim))
        computed: Computed[T] | None = None
        try:
            computed = await compute()
        finally:
            holding.cancel()
            took = time.monotonic() - began
            self._keep(self._end(claim, wanted, computed if took < LONGEST else None))
        return computed

    async def _end(self, claim: Claim, wanted: Wanted[T], computed: Computed[T] | None) -> None:
        payload = computed.payload if computed else None
        if computed is None or payload is None:
            metrics.stored("unfit")
            await self._claims.end(claim, (), Woken.FAILED)
            return
        lifetime = computed.lifetime or wanted.lifetime
        stores = self._stores(wanted.key, all_of(wanted.tags), claim.versions, payload, lifetime)
        # Who waits elsewhere finds nothing where it was not stored, and computes.
        metrics.stored("stored" if await self._claims.end(claim, stores, Woken.STORED) else "lost")

    def _stores(
        self, key: str, tags: tuple[str, ...], versions: tuple[bytes, ...], payload: bytes, lifetime: Lifetime
    ) -> tuple[Command, ...]:
        fresh = lifetime.drawn()
        entry = Entry(key, time.time() + fresh, tags, versions, payload)
        lasts_ms = max(1, int((fresh + lifetime.stale) * 1000))
        return (("SET", self.names.entry(key), stored(entry), "PX", lasts_ms),)

    async def _renew(self, wanted: Wanted[T]) -> None:
        """Beside an old value that is being served; another process may be at it."""
        try:
            tags = all_of(wanted.tags)
            claim = await self._claims.claim(wanted.key, tags, _life(wanted.lifetime), self._patience)
            if claim is not None and claim.is_ours:
                await self._compute(claim, wanted, wanted.renew)
        finally:
            self._renewed.discard(wanted.key)

    @property
    def _patience(self) -> Seconds:
        return self._link.breaker.delays.patience

    # Tasks

    def _keep(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, asyncio.CancelledError):
            log.debug("a computation failed", exc_info=error)

    async def close(self) -> None:
        """Wait for what is under way, then disconnect."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        await self.turns.close()
        await self.wakeups.close()
        await self._link.close()


def _life(lifetime: Lifetime) -> Seconds:
    """How long a version is kept: longer than any entry that was computed under it."""
    return Seconds(2 * (lifetime.fresh + lifetime.stale) + 2 * LONGEST)
