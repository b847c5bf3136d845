"""A bound on waiting that a busy event loop does not break: an answer that has come is taken, however late we look."""

import asyncio
from types import TracebackType
from typing import cast

from aiprod_ops.units import Seconds

#: Turns of the loop that an answer lying in the socket needs to reach its task: read, parsed, woken, and one to spare.
_TURNS = 4


class Patience:
    """`async with Patience(limit):` raises TimeoutError where the body waits longer than `limit`.

    asyncio.timeout alone fires when the loop comes back from a computation that took longer than the limit, although
    the answer is there: a server would be called dead because we were busy.
    """

    __slots__ = ("_before", "_handle", "_is_late", "_limit", "_task")

    def __init__(self, limit: Seconds) -> None:
        self._limit, self._is_late = limit, False

    async def __aenter__(self) -> None:
        task = cast("asyncio.Task[object]", asyncio.current_task())
        self._task, self._before = task, task.cancelling()
        self._handle: asyncio.Handle = task.get_loop().call_later(self._limit, self._late, _TURNS)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.cancel()
        # As asyncio.timeout does: if somebody else has cancelled the task, too, that counts.
        if self._is_late and self._task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _late(self, turns: int) -> None:
        if turns:
            self._handle = self._task.get_loop().call_soon(self._late, turns - 1)
        else:
            self._is_late = self._task.cancel()
