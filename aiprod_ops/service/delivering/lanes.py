"""Endpoints that want their deliveries one after another, or only so many a second: one worker has such a lane at a
time.

What is leased of a lane waits here for its turn. In an ordered one nothing is sent after one that will be sent again.
What did not have its turn within LONGEST is given back, and leased anew: the URL and the secrets are those of the
lease, and an owner who changes them does so for a reason.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from aiprod_ops.domain.webhooks import State
from aiprod_ops.service.delivering.leases import Due
from aiprod_ops.service.delivering.outcomes import Outcome
from aiprod_ops.units import Seconds

LONGEST = Seconds(2)  #: from the lease until a delivery has its turn
Send = Callable[[Due], Awaitable[Outcome | None]]


class Lanes:
    """Those of one worker. `send` answers None for a delivery that is not this worker's any more."""

    def __init__(self, send: Send, give_back: Callable[[list[Due]], None]) -> None:
        self._send, self._give_back = send, give_back
        self._free_at: dict[str, float] = {}
        self.held: set[str] = set()  #: endpoints

    async def run(self, endpoint_id: str, dues: Sequence[Due]) -> None:
        """Send the first deliveries of a lane."""
        self.held.add(endpoint_id)
        left, until = list(dues), _now() + LONGEST
        try:
            if left[0].ordered:
                while left:
                    if not await self._turn(left[0], until):
                        break
                    outcome = await self._send(left.pop(0))
                    if outcome is None or outcome.state is State.PENDING:
                        break
            else:
                room = asyncio.Semaphore(left[0].in_flight)
                async with asyncio.TaskGroup() as group:
                    while left:
                        await room.acquire()
                        if not await self._turn(left[0], until):
                            break
                        group.create_task(self._one(left.pop(0), room))
        finally:
            self.held.discard(endpoint_id)
            if left:
                self._give_back(left)

    async def _one(self, due: Due, room: asyncio.Semaphore) -> None:
        try:
            await self._send(due)
        finally:
            room.release()

    async def _turn(self, due: Due, until: float) -> bool:
        """Wait until the endpoint's rate lets another one through: evenly, without a burst. False where that is too
        late for this lease."""
        if due.per_second is None:
            return _now() < until
        now = _now()
        at = max(now, self._free_at.get(due.endpoint_id, 0.0))
        if at > until:
            return False
        self._free_at[due.endpoint_id] = at + 1 / due.per_second
        if len(self._free_at) > 10_000:
            self._free_at = {name: free for name, free in self._free_at.items() if free > now}
        await asyncio.sleep(at - now)
        return True


def _now() -> float:
    return asyncio.get_running_loop().time()
