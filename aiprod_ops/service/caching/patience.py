"""A bound on waiting that a busy event loop does not break: an answer that has come is taken, however late we look."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiprod_ops.units import Seconds

#: Turns of the loop that an answer lying in the socket needs to reach its task: read, parsed, woken, and one to spare.
_TURNS = 4


@asynccontextmanager
async def patience(limit: Seconds) -> AsyncIterator[None]:
    """Raise TimeoutError in the body that waits longer than `limit`.

    asyncio.timeout alone fires when the loop comes back from a computation that took longer than the limit, although
    the answer is there: a server would be called dead because we were busy.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as bound:

        def late(turns: int) -> None:
            nonlocal handle
            if turns:
                handle = loop.call_soon(late, turns - 1)
            else:
                bound.reschedule(loop.time())

        handle: asyncio.Handle = loop.call_later(limit, late, _TURNS)
        try:
            yield
        finally:
            handle.cancel()
