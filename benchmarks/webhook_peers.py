"""The same POST, signed, and a row that records it, by the engines that people use. Runs in an environment of its own:
`webhook_peers.py bare|procrastinate|dramatiq URL COUNT PROCESSES DSN REDIS` prints deliveries a second as JSON.

A rate is taken from the first record to the last one: how long a worker takes to start is left out.
"""

import asyncio
import base64
import hmac
import json
import multiprocessing
import sys
import threading
import time
from typing import Any

BODY = b"x" * 1000
KEY = b"k" * 32
TABLE = """
drop table if exists bench_records;
create table bench_records (id bigserial primary key, status int, at timestamptz not null default clock_timestamp())
"""
RECORD = "insert into bench_records (status) values (%s)"
RATE = "select (count(*) - 1) / extract(epoch from max(at) - min(at))::float8, count(*) from bench_records"
CONCURRENCY = 50


def headers(number: int) -> dict[str, str]:
    """As Standard Webhooks has it."""
    timestamp = int(time.time())
    digest = hmac.digest(KEY, f"msg_{number}.{timestamp}.".encode() + BODY, "sha256")
    return {
        "webhook-id": f"msg_{number}",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
        "Content-Type": "application/json",
    }


async def bare(url: str, count: int) -> float:
    """No queue and no record: how fast the client itself is."""
    import aiohttp

    numbers = iter(range(count))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def work() -> None:
            for number in numbers:
                async with session.post(url, data=BODY, headers=headers(number)) as response:
                    await response.read()

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
        return count / (time.perf_counter() - began)


async def procrastinate_work(url: str, dsn: str, count: int) -> None:
    """Defers `count` jobs, or works until none is left where it is 0."""
    import aiohttp
    import procrastinate
    from psycopg_pool import AsyncConnectionPool

    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn, max_size=10))
    async with (
        app.open_async(),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        AsyncConnectionPool(dsn, min_size=5, max_size=5, kwargs={"autocommit": True}) as pool,
    ):

        @app.task(name="deliver")  # type: ignore[untyped-decorator]
        async def deliver(number: int) -> None:
            async with session.post(url, data=BODY, headers=headers(number)) as response:
                await response.read()
            async with pool.connection() as connection:
                await connection.execute(RECORD, (response.status,))

        if count:
            await app.schema_manager.apply_schema_async()
            await deliver.batch_defer_async(*({"number": number} for number in range(count)))
        else:
            await app.run_worker_async(
                concurrency=CONCURRENCY, wait=False, delete_jobs="always", install_signal_handlers=False
            )


def dramatiq_work(url: str, dsn: str, redis: str, count: int) -> None:
    """Enqueues `count` messages, or works until none is left where it is 0."""
    import dramatiq
    import psycopg
    import urllib3
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=redis)
    dramatiq.set_broker(broker)
    own, pool = threading.local(), urllib3.PoolManager(maxsize=16)

    @dramatiq.actor(actor_name="deliver")  # type: ignore[untyped-decorator]
    def deliver(number: int) -> None:
        status = pool.request("POST", url, body=BODY, headers=headers(number)).status
        if not hasattr(own, "connection"):
            own.connection = psycopg.connect(dsn, autocommit=True)
        own.connection.execute(RECORD, (status,))

    if count:
        for number in range(count):
            deliver.send(number)
        return
    worker = dramatiq.Worker(broker, worker_threads=8)
    worker.start()
    broker.join("default")
    worker.join()
    worker.stop()


def _work(kind: str, url: str, dsn: str, redis: str, count: int) -> None:
    if kind == "procrastinate":
        _run(procrastinate_work(url, dsn, count))
    else:
        dramatiq_work(url, dsn, redis, count)


def _run(work: Any) -> Any:
    import uvloop

    return uvloop.run(work)


def main() -> None:
    kind, url, count, processes, dsn, redis = sys.argv[1:]
    if kind == "bare":
        print(json.dumps(_run(bare(url, int(count)))))
        return
    import psycopg

    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(TABLE)
        _work(kind, url, dsn, redis, int(count))
        made = [multiprocessing.Process(target=_work, args=(kind, url, dsn, redis, 0)) for _ in range(int(processes))]
        for each in made:
            each.start()
        for each in made:
            each.join()
        row = connection.execute(RATE).fetchone()
        if row is None or row[1] != int(count):
            sys.exit(f"{kind}: {row and row[1]} of {count} were delivered")
        connection.execute("drop table bench_records; drop schema public cascade; create schema public")
    print(json.dumps(row[0]))


if __name__ == "__main__":
    main()
