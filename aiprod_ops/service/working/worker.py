"""A worker: claims jobs, has them rendered, beats, does periodic work, and drains when it is to end.

Everything it knows is in PostgreSQL: killed at any moment, it leaves rows whose lease ends, and others take over.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from sqlalchemy import RowMapping
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from aiprod_ops.domain.attempts import quarters
from aiprod_ops.service.cache import invalidate_job_cache, invalidate_user_cache
from aiprod_ops.service.http import problems
from aiprod_ops.service.working import claims, endings
from aiprod_ops.service.working.attempt import Attempt, rendered
from aiprod_ops.service.working.batches import settle
from aiprod_ops.service.working.endings import Terms
from aiprod_ops.service.working.periodic import Work, run_due
from aiprod_ops.service.working.rendering import Renderer, RenderingFailed
from aiprod_ops.service.working.settings import WorkSettings
from aiprod_ops.service.working.telling import tell_job

log = logging.getLogger(__name__)
ENDINGS = 3  #: written at a time: whatever ends at once, the beat, claims and periodic work find a connection


class Beside(Protocol):
    """What a worker runs beside the jobs, until `stop` is set."""

    async def run(self, stop: asyncio.Event) -> None: ...


class Worker:
    """One process. `works` is periodic work beside the worker's own; `beside` runs along."""

    def __init__(
        self,
        engine: AsyncEngine,
        renderer: Renderer,
        terms: Terms,
        settings: WorkSettings,
        *,
        works: Sequence[Work] = (),
        beside: Sequence[Beside] = (),
    ) -> None:
        self._engine, self._renderer, self._terms, self._settings = engine, renderer, terms, settings
        self._works, self._beside = works, beside
        self._attempts: dict[str, Attempt] = {}
        self._steady_since = time.monotonic()
        self._endings = asyncio.Semaphore(ENDINGS)
        self.wake = asyncio.Event()

    @property
    def is_steady(self) -> bool:
        """Whether the database has answered for a whole lease. After it was away nobody was heard of: whoever judged
        the others at once would take over from all who are alive. One that has just begun does not know."""
        return time.monotonic() - self._steady_since > self._settings.lease

    @property
    def in_work(self) -> int:
        """Jobs that it holds now."""
        return len(self._attempts)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then drain."""
        log.info("worker %s: %d jobs at a time", self._settings.name, self._settings.concurrency)
        along = [asyncio.create_task(each.run(stop)) for each in self._beside]
        tasks = [
            asyncio.create_task(self._again(self._settings.beat, self._beat)),
            asyncio.create_task(self._again(self._settings.look, self._run_periodic)),
            *along,
        ]
        waking = asyncio.create_task(self._wake_when(stop))
        try:
            while not stop.is_set():
                if not await self._claim():
                    await self._rest()
                for task in tasks:
                    if task.done() and not stop.is_set():
                        task.result()  # raises: a worker that does not beat, or does not deliver, must end
            await self._drain()
            await asyncio.gather(*along)
        finally:
            for task in (*tasks, waking):
                task.cancel()
            await asyncio.gather(*tasks, waking, return_exceptions=True)

    async def _wake_when(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self.wake.set()

    async def _rest(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.look):
                await self.wake.wait()
        self.wake.clear()

    async def _again(self, every: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(every)
            with self._patience():
                await work()

    async def _claim(self) -> bool:
        """Take what there is room for; whether there may be more at once."""
        room = self._settings.concurrency - len(self._attempts)
        rows: Sequence[RowMapping] = ()
        if room > 0:
            with self._patience():
                async with self._engine.begin() as transaction:
                    rows = await claims.claim(transaction, self._settings.name, room, self._terms.tiers)
                    for row in rows:
                        await tell_job(transaction, "job.started", row)
        for row in rows:
            attempt = Attempt(row)
            self._attempts[attempt.job_id] = attempt
            attempt.task = asyncio.create_task(self._work(attempt))
        await self._forget(rows)
        return len(rows) == room > 0 and len(self._attempts) < self._settings.concurrency

    async def _work(self, attempt: Attempt) -> None:
        row = attempt.row
        try:
            try:
                made = await rendered(self._renderer, attempt.order(), attempt.report, self._settings.longest)
            except RenderingFailed as failure:
                code, message = failure.code, failure.message
                log.warning("job %s, attempt %d: %s: %s", attempt.job_id, row["attempts"], code, message)
                await self._end(attempt, lambda t: endings.fail(t, row, code, message, self._terms))
            else:
                await self._end(attempt, lambda t: endings.complete(t, row, made, self._terms))
        except DBAPIError as error:  # others try it again when its lease has ended
            log.error("job %s cannot be ended: %s", attempt.job_id, type(error).__name__, exc_info=error)
        finally:
            self._attempts.pop(attempt.job_id, None)
            self.wake.set()

    async def _end(self, attempt: Attempt, end: Callable[[AsyncConnection], Awaitable[RowMapping | None]]) -> None:
        """What came of an attempt is kept until the database has it."""
        attempt.is_ending, is_told, row = True, False, None
        while not is_told:
            with self._patience():
                async with self._endings, self._engine.begin() as transaction:
                    row = await end(transaction)
                is_told = True
            if not is_told:
                await asyncio.sleep(self._settings.look)
        if row is None:
            log.warning("job %s is another's: what attempt %d made is left", attempt.job_id, attempt.row["attempts"])
            return
        await self._forget([row])
        if row["batch_id"] is not None and row["completed_at"] is not None:
            with self._patience():  # otherwise periodic work settles it
                async with self._endings, self._engine.begin() as transaction:
                    await settle(transaction, str(row["batch_id"]))

    async def _beat(self) -> None:
        # With those that are ending: what was rendered waits for the database, and nobody is to render it again.
        attempts = dict(self._attempts)
        async with self._engine.begin() as transaction:
            rows = await claims.beat(transaction, self._settings.name, [each.held for each in attempts.values()])
            moved = [row for row in rows if row["progress"] > attempts[str(row["id"])].told]
            for row in moved:
                if quarters(attempts[str(row["id"])].told, row["progress"]) is not None:
                    await tell_job(transaction, "job.progress", row)
        for row in moved:
            attempts[str(row["id"])].told = row["progress"]
        await self._forget(moved)
        for job_id in attempts.keys() - {str(row["id"]) for row in rows}:
            # One whose rendering ended meanwhile sees by itself that the job is not its own.
            if (task := attempts[job_id].task) is not None and not attempts[job_id].is_ending:
                log.info("job %s is not ours any more: cancelled, or taken over", job_id)
                task.cancel()

    async def _run_periodic(self) -> None:
        rescue = Work("take over from lost workers", self._settings.look, self._rescue)
        await run_due(self._engine, [*self._works, *([rescue] if self.is_steady else [])])

    async def _rescue(self, transaction: AsyncConnection) -> Callable[[], Awaitable[None]]:
        ended = []
        for held in await claims.lost(transaction, self._settings.lease):
            who = f"worker {held['worker']}" if held["worker"] else "whoever had it in work"
            message = f"{who} was lost in attempt {held['attempts']}"
            log.warning("job %s: %s", held["id"], message)
            ended.append(await endings.fail(transaction, held, "RENDERING_ERROR", message, self._terms, waits=False))
        if ended:
            await transaction.execute(claims.WAKE)

        async def after() -> None:
            await self._forget([row for row in ended if row is not None])

        return after

    async def _drain(self) -> None:
        tasks = [each.task for each in self._attempts.values() if each.task is not None]
        if tasks:
            log.info("worker ends: %d jobs may go on for %g s", len(tasks), self._settings.drain)
            await asyncio.wait(tasks, timeout=self._settings.drain)
        left = [each for each in self._attempts.values() if each.task is not None]
        for attempt in left:
            if attempt.task is not None and not attempt.is_ending:
                attempt.task.cancel()
        await asyncio.gather(*(each.task for each in left if each.task is not None), return_exceptions=True)
        if left:
            async with self._engine.begin() as transaction:
                await claims.give_back(transaction, self._settings.name, [each.job_id for each in left])
            await self._forget([each.row for each in left])

    async def _forget(self, rows: Sequence[RowMapping]) -> None:
        """After the commit: no cached answer shows these jobs as they were."""
        for row in rows:
            await invalidate_job_cache(row["id"])
        for user_id in {row["user_id"] for row in rows}:
            await invalidate_user_cache(user_id)

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """While the database is away nothing is lost: it is tried again, and what is in work stays so."""
        try:
            yield
        except (DBAPIError, PoolTimeout, OSError) as error:
            if not problems.is_unavailable(error):
                raise
            self._steady_since = time.monotonic()
            log.warning("the database does not answer: %s: %s", type(error).__name__, str(error).partition("\n")[0])
