"""The cache of a service: values, answers of endpoints, and whole responses in Redis, and the origin where it fails.

A request pays at most 50 ms once for a Redis that is down, hung, slow, failing over or answering noise; after that the
origin answers without asking it, until it serves again. Nothing that was invalidated is served: what could not be
invalidated is, before Redis is read again; a server that has lost invalidations (started anew from an old file, or a
replica that took over) begins empty. The limit of that: another process, which still reads, does not know what this one
owes. There an entry ends with its time to live.

Invalidate after the change is committed, and compute from the primary: what a replica that lags says may be stored
after the invalidation.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any, ClassVar, Self, TypeVar
from weakref import WeakKeyDictionary

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from aiprod_ops.service.caching import keys, metrics
from aiprod_ops.service.caching.breaker import Delays
from aiprod_ops.service.caching.computing import Computations, Wanted
from aiprod_ops.service.caching.connection import FAILURES, Exchange, Link, Reply
from aiprod_ops.service.caching.endpoint import cached_endpoint as cached_endpoint
from aiprod_ops.service.caching.keys import Namespace
from aiprod_ops.service.caching.metrics import Counted, Result
from aiprod_ops.service.caching.owed import Owed
from aiprod_ops.service.caching.place import RedisPlace
from aiprod_ops.service.caching.values import Lifetime
from aiprod_ops.units import Seconds

T = TypeVar("T")

DEFAULT_TTL = Seconds(300)
SHORT_TTL = Seconds(60)
MEDIUM_TTL = Seconds(600)
LONG_TTL = Seconds(3600)

_VALUES = Counted.of("values")
_DELAYS = Delays()


class RedisCache:
    """One cache. Without arguments it is the process's own, as the environment says (REDIS_HOST, REDIS_PORT, REDIS_DB);
    each event loop has its own connections to it."""

    _shared: ClassVar["RedisCache | None"] = None

    place: RedisPlace
    names: Namespace
    _delays: Delays
    _owed: Owed
    _loops: "WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Link, Computations]]"

    def __new__(
        cls, place: RedisPlace | None = None, *, namespace: str = "aiprod:cache", delays: Delays = _DELAYS
    ) -> Self:
        is_shared = place is None and namespace == "aiprod:cache" and delays == _DELAYS
        if is_shared and isinstance(RedisCache._shared, cls):
            return RedisCache._shared
        cache = super().__new__(cls)
        cache.place = place or RedisPlace.of_environment()
        cache.names = Namespace(namespace)
        cache._delays = delays
        cache._owed = Owed(cache.names.tag(keys.EVERYTHING))
        cache._loops = WeakKeyDictionary()
        if is_shared:
            RedisCache._shared = cache
        return cache

    # Values

    async def get(self, key: str, default: Any = None) -> Any:
        """The value of a key; `default` where there is none, or Redis does not answer."""
        seen = await self._computations.look(keys.named(key), (), msgspec.msgpack.decode)
        _VALUES.tell(Result.BYPASS if seen is None else Result.HIT if seen.is_found else Result.MISS)
        return seen.value if seen is not None and seen.is_found else default

    async def set(self, key: str, value: Any, ttl: float = DEFAULT_TTL, tags: Sequence[str] = ()) -> bool:
        """Store a value for `ttl` seconds (10 % more or less); whether it was. What msgpack cannot hold is a TypeError.
        Where it was not stored, what was there before is not served any more either."""
        payload = msgspec.msgpack.encode(value)
        name = keys.named(key)
        if await self._computations.store(name, tags, payload, Lifetime(Seconds(ttl))):
            return True
        await self._remove([self.names.entry(name)])
        return False

    async def delete(self, key: str) -> bool:
        """Whether it is gone. If not, it is before Redis is read again."""
        return await self._remove([self.names.entry(keys.named(key))])

    # Invalidation

    async def invalidate(self, *tags: str) -> bool:
        """No entry of these tags is served any more, nor one whose computation has begun. The cost is that of one
        command, whatever has these tags. Whether Redis has confirmed it; if not, it has to before it is read again."""
        return await self._remove([self.names.tag(tag) for tag in tags])

    async def clear(self) -> bool:
        """The same for all that is in this cache."""
        return await self.invalidate(keys.EVERYTHING)

    async def _remove(self, names: Sequence[str]) -> bool:
        self._owed.add(names)
        taken = self._owed.taken()
        mine = {name: taken[name] for name in names if name in taken}
        link, computations = self._here
        replies = await computations.turns.run(("DEL", *names))
        is_done = replies is not None and isinstance(replies[0], int)
        if is_done:
            self._owed.paid(mine)
        elif replies is not None:
            link.fail(_wrong(replies[0]))
        metrics.invalidated("done" if is_done else "owed", len(names))
        return is_done

    # Answers

    async def answer(self, wanted: Wanted[T], counted: Counted) -> tuple[T, Result]:
        """From the cache, or computed: for `cached_endpoint` and `StoredResponses`."""
        value, result = await self._computations.answer(wanted)
        counted.tell(result)
        return value, result

    # Health

    def is_available(self) -> bool:
        """Whether Redis is asked. Where nobody in this event loop has asked yet, it is asked now, for 50 ms at most."""
        try:
            known = self._loops.get(asyncio.get_running_loop())
        except RuntimeError:
            known = None
        if known is not None and known[0].is_known:
            return known[0].breaker.is_closed
        patience = self._delays.patience
        client = redis.Redis(
            self.place.host, self.place.port, self.place.db, self.place.password or None,
            username=self.place.username or None, ssl=self.place.tls,
            socket_timeout=patience, socket_connect_timeout=patience, retry=Retry(NoBackoff(), 0),
        )  # fmt: skip
        try:
            return bool(client.ping())
        except FAILURES:
            return False
        finally:
            client.close()

    async def health(self) -> dict[str, Any]:
        """Whether Redis answers (`healthy`), or the origin does instead (`degraded`) and why; round trip in ms."""
        link, _ = self._here
        began = time.perf_counter()
        replies = await link.ask([("PING",)])
        took_ms = (time.perf_counter() - began) * 1000
        return {
            "status": "healthy" if replies == [b"PONG"] else "degraded",
            "server": str(self.place),
            "round_trip_ms": round(took_ms, 3) if replies else None,
            "why": link.breaker.why,
            "owed_invalidations": len(self._owed),
        }

    async def close(self) -> None:
        """Wait for what is being stored in this event loop, and disconnect."""
        known = self._loops.pop(asyncio.get_running_loop(), None)
        if known is not None:
            await known[1].close()

    # Of the running event loop

    @property
    def _computations(self) -> Computations:
        return self._here[1]

    @property
    def _here(self) -> tuple[Link, Computations]:
        loop = asyncio.get_running_loop()
        known = self._loops.get(loop)
        if known is None:
            link = Link(
                self.place,
                self._prove,
                self._delays,
                failed=metrics.failed,
                changed=metrics.changed,
                greet=self._greet,
            )
            known = self._loops[loop] = link, Computations(link, self.names, os.urandom(8).hex())
        return known

    async def _greet(self, exchange: Exchange) -> None:
        """A server that is not the one that this cache is of (it was started anew from an old file, or is a replica
        that has taken over) may lack invalidations: what it holds does not count. Which one it is, INFO tells."""
        info, known = await exchange([("INFO", "server"), ("GET", self.names.server)])
        lines = info.splitlines() if isinstance(info, bytes) else []
        now = next((line for line in lines if line.startswith(b"run_id:")), None)
        if now is not None and now != known:
            everything = self.names.tag(keys.EVERYTHING)
            reply, _ = await exchange([("DEL", everything), ("SET", self.names.server, now)])
            _check_deleted(reply)

    async def _prove(self, link: Link) -> None:
        """That it serves is proven by doing what is owed; if nothing is, by deleting nothing. A replica refuses that,
        and so does a server that must not write; one that is only full does not."""
        while True:
            taken = self._owed.taken()
            (reply,) = await link.exchange([("DEL", self.names.tag(""), *taken)])
            _check_deleted(reply)
            self._owed.paid(taken)
            if not self._owed:
                return


def _check_deleted(reply: Reply) -> None:
    if not isinstance(reply, int):
        raise _wrong(reply)


def _wrong(reply: Reply) -> Exception:
    return reply if isinstance(reply, Exception) else ValueError(f"{reply!r} as the answer to DEL")


async def cache_get(key: str, default: Any = None) -> Any:
    """The value of a key in the process's cache; `default` where there is none."""
    return await RedisCache().get(key, default)


async def cache_set(key: str, value: Any, ttl: float = DEFAULT_TTL, tags: Sequence[str] = ()) -> bool:
    """Store a value in the process's cache for `ttl` seconds; whether it was."""
    return await RedisCache().set(key, value, ttl, tags)


async def cache_delete(key: str) -> bool:
    """Delete a value from the process's cache."""
    return await RedisCache().delete(key)


async def invalidate_job_cache(job_id: object) -> bool:
    """After a change of this job was committed: nothing of it that is cached is served any more."""
    return await RedisCache().invalidate(keys.job(job_id))


async def invalidate_user_cache(user_id: object) -> bool:
    """After a change of this user was committed: nothing of him that is cached is served any more."""
    return await RedisCache().invalidate(keys.user(user_id))


async def cache_health() -> dict[str, Any]:
    """How the process's cache is: `status` is healthy or degraded."""
    return await RedisCache().health()
