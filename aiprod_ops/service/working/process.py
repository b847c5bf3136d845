"""The worker as a process: what it is made of, the signals that end it, what Prometheus is told."""

import asyncio
import signal
from dataclasses import replace

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from aiprod_ops.service import around, database
from aiprod_ops.service.cache import RedisCache
from aiprod_ops.service.limiting.promised import prices, tiers
from aiprod_ops.service.settings import Settings
from aiprod_ops.service.working import wakeup
from aiprod_ops.service.working.batches import settle_all
from aiprod_ops.service.working.endings import Terms
from aiprod_ops.service.working.periodic import Work
from aiprod_ops.service.working.rendering import Renderer
from aiprod_ops.service.working.settings import WorkSettings
from aiprod_ops.service.working.worker import Worker
from aiprod_ops.units import Seconds

SETTLING = Work("settle batches", Seconds(5), settle_all)
#: A worker's transactions take milliseconds; one that is stopped in the midst must not keep others from picking.
STATEMENT = Seconds(1)


async def run(settings: Settings, work: WorkSettings, renderer: Renderer, *, metrics_port: int | None = None) -> None:
    """Work until SIGTERM or SIGINT, then drain."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    promises = around.promises_of(settings.service)
    terms = Terms(tiers(promises), prices(promises), work.most_attempts)
    engine = database.engine(replace(settings, connections=4), application_name="aiprod-ops worker")
    worker = Worker(engine, renderer, terms, work, works=(SETTLING,))
    server = _metrics(worker, metrics_port) if metrics_port is not None else None
    waking = asyncio.create_task(wakeup.listen(settings.dsn, worker.wake))
    try:
        await worker.run(stop)
    finally:
        waking.cancel()
        await asyncio.gather(waking, return_exceptions=True)
        if server is not None:
            server[0].shutdown()
        await RedisCache().close()
        await engine.dispose()


def _metrics(worker: Worker, port: int):  # type: ignore[no-untyped-def]
    registry = CollectorRegistry()
    in_work = Gauge("aiprod_worker_jobs", "Jobs in work here.", registry=registry)
    in_work.set_function(lambda: worker.in_work)
    steady = Gauge("aiprod_worker_steady", "1 where it has beaten for a whole lease.", registry=registry)
    steady.set_function(lambda: worker.is_steady)
    return start_http_server(port, "127.0.0.1", registry)
