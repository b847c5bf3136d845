"""Redis, asked through redis-py's connections: many commands in one round trip, bounded, behind a breaker.

Not through redis-py's client: its bookkeeping costs a command as much as the round trip does, and its own retries and
time-outs would add to ours.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any
from weakref import WeakSet

from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import InvalidResponse, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError

from aiprod_ops.service.caching.breaker import Breaker, Delays, told
from aiprod_ops.service.caching.patience import Patience
from aiprod_ops.service.caching.place import RedisPlace

#: redis-py's parser and handshake fail on noise with whatever comes of it.
_NOISE = (InvalidResponse, AttributeError, LookupError, TypeError, ValueError)
#: What says that a server does not serve: no contact, an error that is no answer, or noise.
FAILURES = (RedisError, OSError, EOFError, *_NOISE)

Command = tuple[str | bytes | int | float, ...]
Reply = bytes | int | str | list[Any] | ResponseError | None
Exchange = Callable[[Sequence[Command]], Awaitable[list[Reply]]]


def connection(place: RedisPlace) -> Connection:
    """Without time-outs and retries of its own (who asks has a bound for all of it), and with no command more than
    needed before the first."""
    return (SSLConnection if place.tls else Connection)(
        host=place.host,
        port=place.port,
        db=place.db,
        username=place.username or None,
        password=place.password or None,
        protocol=2,
        driver_info=None,
        socket_timeout=None,
        socket_connect_timeout=None,
        retry=Retry(NoBackoff(), 0),
    )


class Link:
    """One server, in one event loop, with a pool of connections. `probe` proves in the background that the server
    serves again, by `exchange`; `greet` is the first to use each connection. Both raise one of FAILURES where it does
    not serve. `failed` is told the kind of each failure, `changed` whether the server is asked."""

    def __init__(
        self,
        place: RedisPlace,
        probe: Callable[["Link"], Awaitable[None]],
        delays: Delays,
        *,
        greet: Callable[[Exchange], Awaitable[None]] | None = None,
        failed: Callable[[str], None],
        changed: Callable[[bool], None] | None = None,
    ) -> None:
        self.place, self.failed, self._greet = place, failed, greet
        self.is_known = False  #: it was asked, whatever came of it
        self._idle: list[Connection] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        _LINKS.add(self)

        async def probed() -> None:
            # By a fresh connection: after a failover the name leads elsewhere, and the old ones still answer.
            await self._disconnect()
            await probe(self)

        self.breaker = Breaker(probed, FAILURES, delays, changed)

    async def ask(self, commands: Sequence[Command]) -> list[Reply] | None:
        """The reply of each command, errors among them; None where the server is left alone or did not answer in
        time. Never raises for what the server does."""
        if not self.breaker.is_closed:
            return None
        self.is_known, self._loop = True, asyncio.get_running_loop()
        try:
            async with Patience(self.breaker.delays.patience):
                return await self.exchange(commands)
        except FAILURES as error:
            self.fail(error)
            return None

    def fail(self, error: Exception) -> None:
        """Leave the server alone: what it did proves that it does not serve. Where it does not answer, so does whoever
        else asks it from this event loop: a request that uses several waits for it once."""
        kind = kind_of(error)
        self.failed(kind)
        self.breaker.trip(told(error))
        if kind in ("timeout", "connection"):
            for other in tuple(_LINKS):
                if other.place == self.place and other._loop is self._loop:
                    other.breaker.trip(told(error))

    async def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        """The same without bound and breaker; raises one of FAILURES."""
        used = await self._connected()
        replies = await _exchange(used, commands)
        self._idle.append(used)
        return replies

    async def _connected(self) -> Connection:
        """One that lives and owes nothing: a server that was started anew has closed those of before."""
        while self._idle:
            used = self._idle.pop()
            if used.is_connected and not await used.can_read():
                return used
            await used.disconnect(nowait=True)
        fresh = connection(self.place)
        try:
            await fresh.connect()  # type: ignore[no-untyped-call]
            if self._greet is not None:
                await self._greet(partial(_exchange, fresh))
        except BaseException:
            await fresh.disconnect(nowait=True)
            raise
        return fresh

    async def _disconnect(self) -> None:
        while self._idle:
            await self._idle.pop().disconnect(nowait=True)

    async def close(self) -> None:
        """End the probing, and disconnect."""
        await self.breaker.close()
        await self._disconnect()


_LINKS: "WeakSet[Link]" = WeakSet()


async def _exchange(used: Connection, commands: Sequence[Command]) -> list[Reply]:
    try:
        await used.send_packed_command(used.pack_commands(commands), check_health=False)
        replies: list[Reply] = []
        for _ in commands:
            try:
                replies.append(await used.read_response())
            except ResponseError as error:
                replies.append(error)
    except BaseException:
        await used.disconnect(nowait=True)  # what it still owes must never be taken for another's answer
        raise
    return replies


def kind_of(error: Exception) -> str:
    """For metrics: full, readonly, refused (an error as answer), timeout, garbage or connection. A script wraps the
    error of the command that failed in it.

    >>> kind_of(OutOfMemoryError("…")), kind_of(ResponseError("Error running script: -READONLY You can't write …"))
    ('full', 'readonly')
    >>> kind_of(ResponseError("MISCONF …")), kind_of(KeyError("proto"))
    ('refused', 'garbage')
    """
    if isinstance(error, ResponseError):
        text = str(error)
        if isinstance(error, OutOfMemoryError) or "OOM command not allowed" in text:
            return "full"
        return "readonly" if isinstance(error, ReadOnlyError) or "-READONLY" in text else "refused"
    if isinstance(error, TimeoutError):
        return "timeout"
    return "garbage" if isinstance(error, _NOISE) else "connection"
