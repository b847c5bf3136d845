"""Outcomes are written as many at a time as came while the last ones were written; none is let go before it is."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace

import psycopg
from sqlalchemy.ext.asyncio import AsyncEngine

from aiprod_ops.domain.webhooks import State, WhyDisabled, why_disabled
from aiprod_ops.service import webhooks
from aiprod_ops.service.delivering.leases import Connection
from aiprod_ops.service.delivering.metrics import DeliveryMetrics
from aiprod_ops.service.delivering.outcomes import Outcome, write

log = logging.getLogger(__name__)
_AT_ONCE = 1000


class Writing:
    """The outcomes of one worker. `written` is told which deliveries are out of its hands. `engine` is for what the API
    has in common with it: an endpoint that is disabled or enabled, and its owner told."""

    def __init__(
        self, name: str, engine: AsyncEngine, metrics: DeliveryMetrics, written: Callable[[list[Outcome]], None]
    ) -> None:
        self._name, self._engine, self._metrics, self._written = name, engine, metrics, written
        self._waiting: list[Outcome] = []
        self._some, self._is_last = asyncio.Event(), False

    def add(self, outcome: Outcome) -> None:
        self._waiting.append(outcome)
        self._some.set()

    def finish(self) -> None:
        """No more will come."""
        self._is_last = True
        self._some.set()

    async def write(self, connection: Connection) -> None:
        """Write what comes until the last is written."""
        while self._waiting or not self._is_last:
            if not self._waiting:
                await self._some.wait()
                self._some.clear()
                continue
            batch = self._waiting[:_AT_ONCE]
            self._metrics.unwritten.set(len(self._waiting))
            await self._enable([each for each in batch if each.due.is_probe and each.state is State.DELIVERED])
            failures = await self._write(connection, batch)
            del self._waiting[: len(batch)]
            self._metrics.unwritten.set(len(self._waiting))
            self._written(batch)
            await self._disable(batch, failures)

    async def _write(self, connection: Connection, batch: list[Outcome]) -> dict[str, int]:
        try:
            return await write(connection, self._name, batch, time.monotonic())
        except (psycopg.DataError, psycopg.IntegrityError):
            # Whatever it is that a table does not take: what one customer's server says must not end the deliveries of
            # all. It came of an answer, and nothing else of an outcome is a stranger's.
            log.exception("outcomes of %d deliveries are written without what was answered", len(batch))
            plain = [replace(each, exchange=each.exchange.without_answer()) for each in batch]
            return await write(connection, self._name, plain, time.monotonic())

    async def _enable(self, probes: list[Outcome]) -> None:
        """Before the probe is written as delivered: a worker that is killed between leaves one that probes again."""
        for each in probes:
            async with self._engine.begin() as transaction:
                is_enabled = await webhooks.enable(transaction, each.due.endpoint_id)
            if is_enabled:
                self._metrics.enabled.inc()
                log.info("an endpoint took its probe, and is enabled", extra={"endpoint_id": each.due.endpoint_id})

    async def _disable(self, batch: list[Outcome], failures: dict[str, int]) -> None:
        """If this is lost, the endpoint's next delivery that fails does it."""
        whys: dict[str, WhyDisabled] = {}
        for each in batch:
            failed = failures.get(each.due.endpoint_id, 0)
            if each.state is State.FAILED and failed and (why := why_disabled(each.answer, failed)):
                whys[each.due.endpoint_id] = why
        for endpoint_id, why in whys.items():
            async with self._engine.begin() as transaction:
                is_disabled = await webhooks.disable(transaction, endpoint_id, why)
            if is_disabled:
                self._metrics.disabled.inc()
                log.warning("an endpoint is disabled: %s", why.value, extra={"endpoint_id": endpoint_id})
