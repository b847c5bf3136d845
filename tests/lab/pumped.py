"""A worker's pump in a thread of this process, and receivers on the loopback that it sends to."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web

from aiprod_ops.adapters.aiohttp_sender import AiohttpSender
from aiprod_ops.lab import ports
from aiprod_ops.lab.fleet import Fleet
from aiprod_ops.service import database
from aiprod_ops.service.delivering.pump import Pump
from aiprod_ops.service.settings import Settings


@dataclass
class Receivers:
    """`answers` are the codes of paths, 204 for others; `got` are the ids that came, by path, in their order."""

    port: int
    answers: dict[str, int] = field(default_factory=dict)
    got: dict[str, list[str]] = field(default_factory=dict)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    async def receive(self, request: web.Request) -> web.Response:
        path = request.path.strip("/")
        self.got.setdefault(path, []).append(request.headers["webhook-id"])
        return web.Response(status=self.answers.get(path, 204))


@contextmanager
def pumped(fleet: Fleet) -> Iterator[Receivers]:
    """A pump on a lab's database, until the end of the context."""
    receivers, dsn = Receivers(ports.free(fleet.folder)[0]), fleet.dsn("aiprod_app")
    ready, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(dsn, receivers, ready, stop)), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield receivers
    finally:
        stop.set()
        thread.join(60)


async def _serve(dsn: str, receivers: Receivers, ready: threading.Event, stop: threading.Event) -> None:
    app = web.Application()
    app.router.add_post("/{path:.*}", receivers.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", receivers.port).start()
    engine = database.engine(Settings(dsn=dsn), application_name="a test")
    sender, ending = AiohttpSender(private=True), asyncio.Event()
    pump = asyncio.create_task(Pump(dsn, engine, sender).run(ending))
    ready.set()
    while not stop.is_set():
        await asyncio.sleep(0.05)
    ending.set()
    await pump
    await sender.close()
    await engine.dispose()
    await runner.cleanup()
