"""Delivers webhooks and nothing else, until it is told to end: `python -m aiprod_ops.lab.pump DSN [pycurl]`.

For tests and benchmarks on one machine: endpoints may be http and private.
"""

import asyncio
import logging
import signal
import sys

import uvloop

from aiprod_ops.ports import Sender
from aiprod_ops.service import database
from aiprod_ops.service.delivering.pump import Pump
from aiprod_ops.service.settings import Settings


async def deliver(dsn: str, kind: str = "aiohttp") -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    sender, engine = made(kind), database.engine(Settings(dsn=dsn, connections=2))
    try:
        await Pump(dsn, engine, sender).run(stop)
    finally:
        await sender.close()
        await engine.dispose()


def made(kind: str) -> Sender:
    """A sender that reaches the lab's own servers."""
    if kind == "pycurl":
        from aiprod_ops.adapters.pycurl_sender import PycurlSender

        return PycurlSender(private=True)
    from aiprod_ops.adapters.aiohttp_sender import AiohttpSender

    return AiohttpSender(private=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    uvloop.run(deliver(*sys.argv[1:]))
