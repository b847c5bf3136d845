"""Servers that take webhooks, well and badly: each behaviour is a path. They run in a thread of their own."""

import asyncio
import contextlib
import re
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiprod_ops.lab import ports

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
Answer = Callable[["Receiver", "Taken", Writer], Awaitable[None]]


@dataclass(frozen=True)
class Taken:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes
    is_left: Callable[[], bool]  #: the other side has gone

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """One server. `taken` are the requests in the order in which they came; `most_at_once` is by path."""

    port: int
    taken: list[Taken] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)  #: of a path, instead of 204
    at_once: Counter[str] = field(default_factory=Counter)
    most_at_once: Counter[str] = field(default_factory=Counter)
    sent_bytes: int = 0
    open: threading.Event = field(default_factory=threading.Event)  #: `/hang` answers when this is set

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def ids(self, path: str | None = None) -> Counter[str]:
        """How often each event came."""
        return Counter(each.id for each in list(self.taken) if path is None or each.path == path)

    async def serve(self, reader: Reader, writer: Writer) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError, ValueError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode("latin-1").strip().split("\r\n")
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                request = Taken(first.split()[1], headers, body, reader.at_eof)
                self.taken.append(request)
                self.at_once[request.path] += 1
                self.most_at_once[request.path] = max(self.most_at_once[request.path], self.at_once[request.path])
                try:
                    await ANSWERS.get(request.path.partition("?")[0], _plain)(self, request, writer)
                    await writer.drain()
                finally:
                    self.at_once[request.path] -= 1
        writer.close()


def head(status: int, length: int = 0, *more: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status} X", f"Content-Length: {length}", *more, "", "")).encode()


async def _plain(receiver: Receiver, request: Taken, writer: Writer) -> None:
    status = receiver.statuses.get(request.path, 204)
    if found := re.search(r"ms=(\d+)", request.path):
        await asyncio.sleep(int(found[1]) / 1000)
    writer.write(head(status) if status != 204 else b"HTTP/1.1 204 No Content\r\n\r\n")


async def _hang(receiver: Receiver, request: Taken, writer: Writer) -> None:
    while not receiver.open.is_set() and not request.is_left():
        await asyncio.sleep(0.05)
    writer.write(head(200))


async def _trickle(receiver: Receiver, request: Taken, writer: Writer) -> None:
    for byte in head(200):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.1)


async def _trickled_body(receiver: Receiver, request: Taken, writer: Writer) -> None:
    writer.write(head(200, 1000))
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.1)


async def _closes(receiver: Receiver, request: Taken, writer: Writer) -> None:
    writer.write(b"HTTP/1.1 20")
    await writer.drain()
    writer.close()


async def _short(receiver: Receiver, request: Taken, writer: Writer) -> None:
    writer.write(head(200, 100) + b"begun")
    await writer.drain()
    writer.close()


async def _gigabyte(receiver: Receiver, request: Taken, writer: Writer) -> None:
    writer.write(head(200, 10**9))
    for _ in range(10**9 // 65536):
        writer.write(b"g" * 65536)
        await writer.drain()
        receiver.sent_bytes += 65536


async def _moved(receiver: Receiver, request: Taken, writer: Writer) -> None:
    writer.write(head(301, 0, "Location: http://127.0.0.1:1/latest/meta-data/"))


async def _busy(receiver: Receiver, request: Taken, writer: Writer) -> None:
    is_first = receiver.ids(request.path)[request.id] == 1
    writer.write(head(429, 0, "Retry-After: 2") if is_first else head(200))


async def _paused(receiver: Receiver, request: Taken, writer: Writer) -> None:
    writer.write(head(429, 0, "Retry-After: 60"))


async def _gone(receiver: Receiver, request: Taken, writer: Writer) -> None:
    writer.write(head(410, 4) + b"gone")


async def _garbled(receiver: Receiver, request: Taken, writer: Writer) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")


ANSWERS: dict[str, Answer] = {
    "/hang": _hang, "/trickle": _trickle, "/trickled-body": _trickled_body, "/closes": _closes, "/short": _short,
    "/gigabyte": _gigabyte, "/moved": _moved, "/busy": _busy, "/paused": _paused, "/gone": _gone, "/garbled": _garbled,
}  # fmt: skip


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    """A receiver on a port of its own."""
    made, is_ready, loop = Receiver(port or ports.free(Path.cwd())[0]), threading.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        async with await asyncio.start_server(made.serve, "127.0.0.1", made.port, backlog=1024):
            is_ready.set()
            await asyncio.Event().wait()

    def end() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()

    def work() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(serve())
        loop.run_until_complete(asyncio.sleep(0.05))  # connections are closed a turn later

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert is_ready.wait(10)
    try:
        yield made
    finally:
        made.open.set()
        loop.call_soon_threadsafe(end)
        thread.join(10)
        loop.close()
