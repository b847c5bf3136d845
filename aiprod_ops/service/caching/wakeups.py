"""Who waits for another process's computation is woken: one channel a process, on a connection of its own.

No message may be lost, or somebody waits for nothing. So a process listens before it says that it waits, and who
waits is looked after: the lease of who computes ends, and so does the wait where the server falls silent.
"""

import asyncio
import math
from collections.abc import Awaitable
from contextlib import suppress
from enum import Enum

from redis.asyncio.connection import Connection

from aiprod_ops.service.caching.connection import FAILURES, Link, connection
from aiprod_ops.service.caching.patience import Patience
from aiprod_ops.units import Seconds

_WATCH = Seconds(0.02)  #: between two looks whether the server still answers, while somebody waits


class Woken(Enum):
    """Why a wait has ended."""

    STORED = b"s"  #: the value is there
    FAILED = b"f"  #: it was computed and cannot be shared
    LEFT = b"l"  #: nobody will tell: ask again


class Wakeups:
    """Of one process, in one event loop."""

    def __init__(self, link: Link, channel: str) -> None:
        self.channel = channel
        self._link = link
        self._waiting: dict[str, list[asyncio.Future[Woken]]] = {}
        self._connection: Connection | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_listening(self) -> bool:
        return self._connection is not None

    async def listen(self) -> bool:
        """Subscribe; whether it was confirmed."""
        fresh = connection(self._link.place)
        try:
            async with Patience(self._link.breaker.delays.patience):
                await fresh.connect()  # type: ignore[no-untyped-call]
                await fresh.send_command("SUBSCRIBE", self.channel)
                confirmed = await fresh.read_response()
        except FAILURES as error:
            await fresh.disconnect(nowait=True)
            self._link.fail(error)
            return False
        if not isinstance(confirmed, list) or confirmed[0] != b"subscribe":
            await fresh.disconnect(nowait=True)
            self._link.fail(ValueError(f"{confirmed!r} as the answer to SUBSCRIBE"))
            return False
        if self._connection is not None:  # another was faster
            await fresh.disconnect(nowait=True)
            return True
        self._connection = fresh
        self._keep(self._hear(fresh))
        return True

    async def _hear(self, heard: Connection) -> None:
        with suppress(*FAILURES):
            while True:
                message = await heard.read_response(timeout=math.inf)
                _, _, told = message
                self._wake(told[1:].decode(), Woken(told[:1]))
        await heard.disconnect(nowait=True)
        self._connection = None
        self.wake_all()

    def expect(self, key: str) -> "asyncio.Future[Woken]":
        """What will be told of a key from now on. To be given to `wait` or `forget`."""
        waiter: asyncio.Future[Woken] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(waiter)
        return waiter

    async def wait(self, key: str, waiter: "asyncio.Future[Woken]", longest: Seconds) -> Woken:
        """Until it is told, or `longest` is over."""
        if len(self._tasks) < 2:
            self._keep(self._watch())
        try:
            await asyncio.wait({waiter}, timeout=longest)
            return waiter.result() if waiter.done() else Woken.LEFT
        finally:
            self.forget(key, waiter)

    def forget(self, key: str, waiter: "asyncio.Future[Woken]") -> None:
        waiters = self._waiting.get(key, [])
        if waiter in waiters:
            waiters.remove(waiter)
        if not waiters:
            self._waiting.pop(key, None)

    def wake_all(self) -> None:
        """Nothing will be told: the connection is lost, or the server is left alone."""
        for key in list(self._waiting):
            self._wake(key, Woken.LEFT)

    def _wake(self, key: str, why: Woken) -> None:
        for waiter in self._waiting.pop(key, []):
            if not waiter.done():
                waiter.set_result(why)

    async def _watch(self) -> None:
        """A server that falls silent tells nobody: it is asked as long as somebody waits."""
        while self._waiting:
            if await self._link.ask([("PING",)]) is None:
                self.wake_all()
            await asyncio.sleep(_WATCH)

    def _keep(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)

    async def close(self) -> None:
        """Listen no longer."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)
            self._connection = None
