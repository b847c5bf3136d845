"""Workers as they run: `aiprod-ops worker` as processes beside the API of the tests."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from served_api import Api

RENDERER = "aiprod_ops.lab.rendering:Renderer"


class WorkerProcess:
    """One of them."""

    def __init__(self, api: Api, *words: str) -> None:
        self._log: Any = tempfile.TemporaryFile()  # noqa: SIM115
        env = {name: value for name, value in os.environ.items() if not name.startswith(("AIPROD", "REDIS", "PG"))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "aiprod_ops", "worker", "--renderer", RENDERER, *words],
            env={**env, "AIPROD_OPS_APP_DSN": api.dsn, "AIPROD_OPS_PRIVATE_WEBHOOKS": "1", **api.environment},
            stdout=self._log,
            stderr=self._log,
            cwd="/",
        )

    def said(self) -> str:
        """What it has logged."""
        self._log.seek(0)
        return bytes(self._log.read()).decode()

    def seen(self) -> str:
        """Its line in the process list."""
        return Path(f"/proc/{self.process.pid}/cmdline").read_text().replace("\0", " ")

    def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> str:
        """SIGTERM; answers what it has logged."""
        if self._log.closed:
            return ""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        said = self.said()
        self._log.close()
        assert code in (0, -signal.SIGKILL) or "terminated; nothing was changed" in said, said  # before it had begun
        return said


@contextmanager
def workers(api: Api, number: int = 1, *words: str) -> Iterator[list[WorkerProcess]]:
    """So many workers; those that were not killed have to end well."""
    made = [WorkerProcess(api, *words) for _ in range(number)]
    try:
        yield made
    finally:
        for each in made:
            each.stop()


def until(holds: Callable[[], object], what: str, within_s: float = 60) -> float:
    """Wait until it holds; answers the seconds that it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() < began + within_s, what
        time.sleep(0.05)
    return time.monotonic() - began
