"""A Redis of a test's own, and what can happen to it."""

import os
import signal
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from command_line import until

from aiprod_ops.lab import ports
from aiprod_ops.lab.redis import RedisServer
from aiprod_ops.service.caching.place import RedisPlace


@dataclass(frozen=True)
class LoneRedis:
    """A server, and URLs that lead to it as the application and as the one who may do everything."""

    server: RedisServer

    @property
    def url(self) -> str:
        return self._url("aiprod_app")

    @property
    def actor_url(self) -> str:
        return self._url("aiprod_actor")

    @property
    def place(self) -> RedisPlace:
        password = self.server.passwords["aiprod_app"]
        return RedisPlace("127.0.0.1", self.server.port, username="aiprod_app", password=password)

    def _url(self, user: str) -> str:
        return f"redis://{user}:{self.server.passwords[user]}@127.0.0.1:{self.server.port}/0"

    def send(self, number: signal.Signals) -> None:
        pid = self.server.pid
        assert pid is not None
        os.kill(pid, number)

    @contextmanager
    def hung(self) -> Iterator[None]:
        self.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self.send(signal.SIGCONT)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        until(lambda: not self.server.is_running(), "Redis is still there")


@contextmanager
def lone_redis() -> Iterator[LoneRedis]:
    with tempfile.TemporaryDirectory(prefix="ops-", dir="/tmp") as name:
        folder = Path(name).resolve()
        made = LoneRedis(RedisServer(folder / "redis", ports.free(folder)[0]))
        made.server.start()
        try:
            yield made
        finally:
            if made.server.is_running():
                made.kill()


class _Noise(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while self.request.recv(65_536):
            self.request.sendall(self.server.noise)  # type: ignore[attr-defined]


@contextmanager
def noise(answer: bytes) -> Iterator[RedisPlace]:
    """The place of a server that answers everything with the same bytes."""
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    port = ports.free(Path(tempfile.gettempdir()) / answer.hex()[:16])[0]
    with socketserver.ThreadingTCPServer(("127.0.0.1", port), _Noise) as server:
        server.daemon_threads, server.noise = True, answer  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield RedisPlace("127.0.0.1", port)
        finally:
            server.shutdown()
            thread.join()
