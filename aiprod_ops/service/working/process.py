"""The worker as a process: what it is made of, the signals that end it, what Prometheus is told."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace

from prometheus_client import CollectorRegistry, Gauge, start_http_server
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from aiprod_ops.ports import Sender
from aiprod_ops.service import around, database, webhook_history
from aiprod_ops.service.cache import RedisCache
from aiprod_ops.service.delivering.metrics import DeliveryMetrics
from aiprod_ops.service.delivering.pump import Pump
from aiprod_ops.service.limiting.promised import prices, tiers
from aiprod_ops.service.settings import Settings
from aiprod_ops.service.working import wakeup
from aiprod_ops.service.working.batches import settle_all
from aiprod_ops.service.working.endings import Terms
from aiprod_ops.service.working.periodic import Work
from aiprod_ops.service.working.rendering import Renderer
from aiprod_ops.service.working.settings import WorkSettings
from aiprod_ops.service.working.worker import ENDINGS, Worker
from aiprod_ops.units import Seconds, seconds

SETTLING = Work("settle batches", Seconds(5), settle_all)
CONNECTIONS = ENDINGS + 4  #: the beat, claims, periodic work; and an endpoint that is disabled


async def run(
    settings: Settings,
    work: WorkSettings,
    renderer: Renderer,
    send: Callable[[], Sender] | None,
    *,
    metrics_port: int | None = None,
) -> None:
    """Work until SIGTERM or SIGINT, then drain. `send` makes what webhooks are sent with; without it none are."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    promises = around.promises_of(settings.service)
    terms = Terms(tiers(promises), prices(promises), work.most_attempts)
    registry = CollectorRegistry()
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(_engine(settings))
        stack.push_async_callback(RedisCache().close)
        beside = []
        if send is not None:
            sender = send()
            stack.push_async_callback(sender.close)
            beside.append(Pump(settings.dsn, engine, sender, metrics=DeliveryMetrics(registry)))
        works = (SETTLING, _sweeping(seconds(promises.get("webhooks.history"))))
        worker = Worker(engine, renderer, terms, work, works=works, beside=beside)
        stack.enter_context(_metrics(worker, registry, metrics_port))
        await stack.enter_async_context(_woken(settings.dsn, worker.wake))
        await worker.run(stop)


def _sweeping(kept: Seconds) -> Work:
    async def sweep(transaction: AsyncConnection) -> None:
        await webhook_history.sweep(transaction, kept)

    return Work("sweep webhooks", Seconds(5), sweep)


@asynccontextmanager
async def _engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    made = database.engine(replace(settings, connections=CONNECTIONS), application_name="aiprod-ops worker")
    try:
        yield made
    finally:
        await made.dispose()


@asynccontextmanager
async def _woken(dsn: str, wake: asyncio.Event) -> AsyncIterator[None]:
    task = asyncio.create_task(wakeup.listen(dsn, wake))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextmanager
def _metrics(worker: Worker, registry: CollectorRegistry, port: int | None) -> Iterator[None]:
    Gauge("aiprod_worker_jobs", "Jobs in work here.", registry=registry).set_function(lambda: worker.in_work)
    steady = Gauge("aiprod_worker_steady", "1 where the database has answered for a whole lease.", registry=registry)
    steady.set_function(lambda: worker.is_steady)
    if port is None:
        yield
        return
    server, thread = start_http_server(port, "127.0.0.1", registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
