"""Webhooks on a PostgreSQL of their own, and pumps that deliver them: in this process, or in ones that can be
killed."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from served_api import Api

from aiprod_ops.adapters.aiohttp_sender import AiohttpSender
from aiprod_ops.domain.exchanges import TimeLimits
from aiprod_ops.ports import Sender
from aiprod_ops.service import database
from aiprod_ops.service.delivering.pump import Pump
from aiprod_ops.service.delivering.settings import DeliverySettings
from aiprod_ops.service.ids import uuid7
from aiprod_ops.service.settings import Settings
from aiprod_ops.service.webhooks import emit_webhook_event
from aiprod_ops.units import Seconds

KEY = b"k" * 32
SHORT = TimeLimits(connect=Seconds(1), read=Seconds(1.5), whole=Seconds(3))
QUICK: dict[str, Any] = {"beat": Seconds(0.5), "lease": Seconds(2), "look": Seconds(0.5), "probing": Seconds(0.2)}


@dataclass
class Webhooks:
    """The rows of one database."""

    api: Api
    user: str = ""
    _made: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        [(self.user,)] = self.api.sql(
            "INSERT INTO users (id, email, name, tier, created_at) "
            "VALUES (gen_random_uuid(), 'h@example.org', 'h', 'pro', now()) RETURNING id::text"
        )

    def clear(self) -> None:
        self.api.sql("TRUNCATE webhook_endpoints, webhook_events, webhook_deliveries CASCADE")

    def endpoint(self, url: str, *, with_secret: bool = True, events: str = "{}", **columns: object) -> str:
        made = str(uuid7())
        names = "".join(f", {name}" for name in columns)
        places = "".join(f", %({name})s" for name in columns)
        self.api.sql(
            f"INSERT INTO webhook_endpoints (id, user_id, url, events{names}) "
            f"VALUES (%(id)s, %(user)s, %(url)s, %(events)s{places})",
            {"id": made, "user": self.user, "url": url, "events": events, **columns},
        )
        if with_secret:
            self.api.sql(
                "INSERT INTO webhook_secrets (id, endpoint_id, secret) VALUES (%(id)s, %(endpoint)s, %(key)s)",
                {"id": str(uuid7()), "endpoint": made, "key": KEY},
            )
        return made

    def deliver(self, endpoint: str, count: int = 1, attempts: int = 0) -> None:
        """So many events for one endpoint, each in the order of the numbers in its payload, and a notice."""
        self.api.sql(
            """
            WITH numbered AS (SELECT n, gen_random_uuid() AS event FROM generate_series(1, %(count)s) n),
            events AS (INSERT INTO webhook_events (id, user_id, type, payload)
              SELECT event, %(user)s::uuid, 'job.completed', convert_to('{"n": ' || n || '}', 'UTF8') FROM numbered
              RETURNING id)
            INSERT INTO webhook_deliveries (id, event_id, endpoint_id, attempts, due_at, created_at)
            SELECT gen_random_uuid(), event, %(endpoint)s::uuid, %(attempts)s, now() + n * interval '1 microsecond',
                   now() + n * interval '1 microsecond'
            FROM numbered JOIN events ON events.id = numbered.event
            """,
            {"count": count, "user": self.user, "endpoint": endpoint, "attempts": attempts},
        )
        self.api.sql("NOTIFY aiprod_webhooks")

    def emit(self, count: int = 1) -> list[str]:
        """So many events by way of the API's own outbox, each in a transaction of its own."""

        async def run() -> list[str]:
            engine = database.engine(Settings(dsn=self.api.dsn, connections=1))
            found = []
            for number in range(count):
                async with engine.begin() as transaction:
                    found.append(await emit_webhook_event(transaction, self.user, "job.completed", {"n": number}) or "")
            await engine.dispose()
            return found

        return asyncio.run(run())

    def states(self, endpoint: str | None = None) -> dict[str, int]:
        chosen = "WHERE endpoint_id = %(endpoint)s" if endpoint else ""
        query = f"SELECT state, count(*) FROM webhook_deliveries {chosen} GROUP BY 1"
        return dict(self.api.sql(query, {"endpoint": endpoint}))

    def attempts(self, endpoint: str) -> list[tuple[Any, ...]]:
        return self.api.sql(
            "SELECT a.status, a.error, d.state, d.attempts, extract(epoch FROM d.due_at - a.began_at)::float8 "
            "FROM webhook_attempts a JOIN webhook_deliveries d ON d.id = a.delivery_id "
            "WHERE d.endpoint_id = %(endpoint)s ORDER BY a.began_at",
            {"endpoint": endpoint},
        )

    def row(self, endpoint: str) -> tuple[Any, ...]:
        query = "SELECT state, why_disabled, failures_in_a_row FROM webhook_endpoints WHERE id = %(id)s"
        return self.api.sql(query, {"id": endpoint})[0]

    def leased(self) -> int:
        return int(self.api.sql("SELECT count(*) FROM webhook_deliveries WHERE lease_until IS NOT NULL")[0][0])


def wait_until(holds: Callable[[], object], seconds: float = 30, what: str = "") -> float:
    """Answers how long it took; generous, since other work goes on beside."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, f"not within {seconds} s {what}"
        time.sleep(0.02)
    return time.monotonic() - began


def reaching_the_lab() -> Sender:
    return AiohttpSender(SHORT, private=True)


@contextmanager
def pumping(api: Api, make: Callable[[], Sender] = reaching_the_lab, **settings: Any) -> Iterator[Pump]:
    """A pump in a thread; it has drained when the context ends."""
    started, made, failed = threading.Event(), [], []
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        sender, engine = make(), database.engine(Settings(dsn=api.dsn, connections=2))
        stop = asyncio.Event()
        made.append(Pump(api.dsn, engine, sender, DeliverySettings(**QUICK | settings)))
        loops.append((asyncio.get_running_loop(), stop))
        started.set()
        try:
            await made[0].run(stop)
        finally:
            await sender.close()
            await engine.dispose()

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:  # noqa: BLE001  # told where the context ends
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert started.wait(10), failed
    try:
        yield made[0]
    finally:
        if thread.is_alive():
            loop, stop = loops[0]
            loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        assert not thread.is_alive(), "it does not end"
        assert not failed, failed


def process(api: Api) -> "subprocess.Popen[bytes]":
    """A worker that delivers, with the default settings."""
    return subprocess.Popen([sys.executable, "-m", "aiprod_ops.lab.pump", api.dsn])
