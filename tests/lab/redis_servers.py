"""Redis servers for tests of what uses one, and what may happen to them. Real ones, with a password."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from aiprod_ops.lab import ports
from aiprod_ops.lab.redis import _program
from aiprod_ops.service import RedisPlace
from aiprod_ops.service.caching.breaker import Delays
from aiprod_ops.units import Seconds

PASSWORD = "of the tests"
#: For tests of what is served: on a busy machine a sound Redis may take more than 50 ms.
PATIENT = Delays(patience=Seconds(2))


class Server:
    """One server, on a port that it keeps."""

    def __init__(self, *options: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ops-redis-", dir="/tmp"))
        (self.port,) = ports.free(self.folder)
        self.options = options
        self.start()

    @property
    def place(self) -> RedisPlace:
        return RedisPlace("127.0.0.1", self.port, password=PASSWORD)

    @property
    def environment(self) -> dict[str, str]:
        """What leads a service to it."""
        return {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(self.port), "REDIS_PASSWORD": PASSWORD}

    def start(self) -> None:
        command = [_program(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--save", "", "--requirepass", PASSWORD, "--masterauth", PASSWORD, *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 10
        while self.ask("PING") != "+PONG":
            assert self.process.poll() is None, "Redis does not start"
            assert time.monotonic() < until, "Redis does not answer"
            time.sleep(0.02)

    def ask(self, *words: str) -> str:
        """The first line of the answer, by a connection of its own; '' of a server that is not there."""
        inline = " ".join(f'"{word}"' for word in words)
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
                client.sendall(f'AUTH "{PASSWORD}"\r\n{inline}\r\n'.encode())
                answer = b""
                while answer.count(b"\r\n") < 2 and (piece := client.recv(4096)):
                    answer += piece
        except OSError:
            return ""
        return answer.decode().splitlines()[1]

    def figure(self, section: str, name: str) -> int:
        """A number of INFO."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
            client.sendall(f'AUTH "{PASSWORD}"\r\nINFO {section}\r\nQUIT\r\n'.encode())
            answer = b""
            while piece := client.recv(4096):
                answer += piece
        found = next(line for line in answer.decode().splitlines() if line.startswith(f"{name}:"))
        return int(found.split(":")[1])

    def hang(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that awaits."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@asynccontextmanager
async def proxy(port: int, delay: float) -> AsyncIterator[int]:
    """A port that leads to another; each piece of an answer comes so many seconds late."""
    tasks: set[asyncio.Task[None]] = set()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wait: float) -> None:
        try:
            while piece := await reader.read(65536):
                await asyncio.sleep(wait)
                writer.write(piece)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        for ends in ((reader, far_writer, 0.0), (far_reader, writer, delay)):
            tasks.add(asyncio.create_task(pipe(*ends)))

    async with listening(serve) as own:
        yield own
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def listening(serve: Callable[..., Coroutine[Any, Any, None]]) -> AsyncIterator[int]:
    """A server of ours on a free port."""
    (port,) = ports.free(Path(tempfile.gettempdir()) / f"listening-{os.getpid()}")
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield port
    finally:
        server.close()
