"""A bound on waiting that a busy event loop does not break: an answer that has come is taken, however late we look."""

import asyncio
from types import TracebackType

from aiprod_ops.units import Seconds

#: Turns of the loop that an answer lying in the socket needs to reach its task: read, parsed, woken, and one to spare.
_TURNS = 4


class Patience:
    """`async with Patience(limit):` raises TimeoutError where the body waits longer than `limit`.

    asyncio.timeout alone fires when the loop comes back from a computation that took longer than the limit, although
    the answer is there: a server would be called dead because we were busy.
    """

    __slots__ = ("_bound", "_handle", "_limit")

    def __init__(self, limit: Seconds) -> None:
        self._limit = limit

    async def __aenter__(self) -> None:
        self._bound = asyncio.timeout(None)
        await self._bound.__aenter__()
        self._handle: asyncio.Handle = asyncio.get_running_loop().call_later(self._limit, self._late, _TURNS)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.cancel()
        await self._bound.__aexit__(kind, error, trace)

    def _late(self, turns: int) -> None:
        loop = asyncio.get_running_loop()
        if turns:
            self._handle = loop.call_soon(self._late, turns - 1)
        else:
            self._bound.reschedule(loop.time())
