"""A worker's part in delivering webhooks: takes what is due, sends it, writes what came of it.

It is woken by a notice when deliveries are committed, by the moment when the next one is due, and when outcomes are
written, since that makes room. Now and then it looks without all that: for the deliveries of workers that were killed.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable
from itertools import groupby
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from aiprod_ops.domain.exchanges import Exchange, NoAnswer
from aiprod_ops.ports import Sender
from aiprod_ops.service.delivering.attempts import attempt, outcome_of
from aiprod_ops.service.delivering.connection import kept, wake_at_notices
from aiprod_ops.service.delivering.hand import Hand
from aiprod_ops.service.delivering.lanes import Lanes
from aiprod_ops.service.delivering.leases import Connection, Due, Leases
from aiprod_ops.service.delivering.metrics import DeliveryMetrics
from aiprod_ops.service.delivering.outcomes import Outcome
from aiprod_ops.service.delivering.settings import DeliverySettings
from aiprod_ops.service.delivering.writing import Writing
from aiprod_ops.units import Milliseconds, Seconds

log = logging.getLogger(__name__)
_BUSY = Seconds(0.05)  #: after something was taken: so long at the most until it looks what is due next
_A_TURN = 16  #: requests


class Pump:
    """`run` it beside whatever else a worker does. It has four sessions with the database at `dsn`, and uses `engine`
    when an endpoint is disabled or enabled, which is rare. The sender is its caller's to close."""

    def __init__(
        self,
        dsn: str,
        engine: AsyncEngine,
        sender: Sender,
        settings: DeliverySettings | None = None,
        metrics: DeliveryMetrics | None = None,
    ) -> None:
        self._dsn, self._sender = dsn, sender
        self._settings = settings or DeliverySettings()
        self.metrics = metrics or DeliveryMetrics()
        self.wake = asyncio.Event()
        self.hand = Hand(self._settings.slots)
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing = Writing(self._settings.name, engine, self.metrics, self._written)
        self._lanes = Lanes(self._send, self._give_back)
        self._returning, self._is_ending = asyncio.Event(), False

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop`; then end what is under way, and let others have the rest."""
        stopping = asyncio.create_task(stop.wait())
        taking = [
            asyncio.create_task(self._kept("leases", self._lease, durable=False)),
            asyncio.create_task(wake_at_notices(self._dsn, self.wake)),
        ]
        holding = [
            asyncio.create_task(self._kept("renewals", self._renew, durable=False)),
            asyncio.create_task(self._kept("outcomes", self._writing.write)),
        ]
        try:
            await asyncio.wait((stopping, *taking, *holding), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            await _cancelled(taking)
            await self._drain(holding)

    async def _drain(self, holding: list[asyncio.Task[None]]) -> None:
        self._is_ending = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._settings.drain)
        await _cancelled(self._tasks)
        self._writing.finish()
        self._returning.set()
        if len(self.hand) or self.hand.returning:  # else there is nothing to tell a database that may be away
            await asyncio.wait(holding, timeout=self._settings.drain)
        await _cancelled(holding)

    def _kept(self, purpose: str, use: Any, *, durable: bool = True) -> Coroutine[Any, Any, None]:
        return kept(self._dsn, purpose, use, self.metrics.broken.inc, durable=durable)

    async def _lease(self, connection: Connection) -> None:
        settings, clock = self._settings, time.monotonic
        leases = Leases(connection, settings.name, settings.lease, settings.lane)
        probe_at = clock()
        while not self._is_ending:
            self.wake.clear()
            began, wait = clock(), _BUSY
            if self.hand.room > 0:
                dues, lanes = await self._taken(leases)
                if not dues:
                    wait = min(settings.look, await leases.next_in() or settings.look)
                    dues, lanes = await self._taken(leases)  # what became due while nobody looked
                new = self.hand.take(dues)
                if lanes:
                    self._start_lanes(await leases.of_lanes(lanes, self.hand.allowance))
                if began >= probe_at:
                    new += self.hand.take(await leases.probes(self.hand.allowance.room))
                    probe_at = began + settings.probing
                self._task(self._start(new))
            else:
                wait = settings.look
            await _until(self.wake, Seconds(max(0.001, wait - (clock() - began))))

    async def _taken(self, leases: Leases) -> tuple[list[Due], list[str]]:
        return await leases.take(self.hand.allowance, self._lanes.held)

    async def _start(self, dues: list[Due]) -> None:
        """A few in each of the loop's turns: if all began together, they would end together, and nothing be sent while
        that is written and more is taken."""
        for number, due in enumerate(dues):
            self.metrics.late.observe(max(0.0, due.late))
            self._task(self._one(due))
            if number % _A_TURN == _A_TURN - 1:
                await asyncio.sleep(0)
        self.metrics.in_hand.set(len(self.hand))

    def _start_lanes(self, dues: list[Due]) -> None:
        for endpoint_id, each in groupby(self.hand.take(dues), key=lambda due: due.endpoint_id):
            self._task(self._lanes.run(endpoint_id, list(each)))

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _one(self, due: Due) -> None:
        await self._send(due)

    async def _send(self, due: Due) -> Outcome | None:
        """Send a delivery, and have written what came of it; None where it is not to be sent from here any more."""
        if self._is_ending or not self.hand.may_send(due):
            self._give_back([due])
            return None
        try:
            outcome = await attempt(self._sender, due)
        except asyncio.CancelledError:
            self._give_back([due])
            raise
        except Exception:  # a mistake of ours with one delivery must not end those of all others
            log.exception("an attempt broke", extra={"delivery_id": due.id})
            outcome = outcome_of(due, Exchange(Milliseconds(0), error=NoAnswer.GARBLED))
        self.hand.answered(due.endpoint_id, outcome.answer.is_delivered, outcome.asked_pause)
        self._writing.add(outcome)
        return outcome

    def _written(self, outcomes: list[Outcome]) -> None:
        self.hand.release(each.due.id for each in outcomes)
        for each in outcomes:
            exchange = each.exchange
            self.metrics.attempted(exchange.status, exchange.error, exchange.milliseconds, each.state)
        self.metrics.in_hand.set(len(self.hand))
        self.wake.set()

    def _give_back(self, dues: Iterable[Due]) -> None:
        self.hand.give_back(dues)
        self._returning.set()

    async def _renew(self, connection: Connection) -> None:
        settings = self._settings
        leases = Leases(connection, settings.name, settings.lease, settings.lane)
        while not self._is_ending or self.hand.returning or len(self.hand):
            if returning := list(self.hand.returning):
                await leases.give_back(returning)
                del self.hand.returning[: len(returning)]
            if long_held := self.hand.long_held(settings.beat):
                lost = self.hand.keep(long_held, await leases.renew(long_held))
                self.metrics.lost.inc(lost)
            self._returning.clear()
            if not self.hand.returning:
                await _until(self._returning, Seconds(settings.beat / 4))


async def _until(event: asyncio.Event, seconds: Seconds) -> None:
    try:
        async with asyncio.timeout(seconds):  # `wait_for` of Python 3.11 may swallow a cancellation
            await event.wait()
    except TimeoutError:
        return


async def _cancelled(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel these, and raise what one of them had ended with."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    for ended in await asyncio.gather(*ending, return_exceptions=True):
        if isinstance(ended, BaseException) and not isinstance(ended, asyncio.CancelledError):
            raise ended
