"""What the tests of the emulator share: one that runs here, the adapter and Google's client on it, and SQL."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httplib2
import psutil
import psycopg2
from googleapiclient.discovery import build

from aiprod_ops.adapters.clock import SystemClock
from aiprod_ops.adapters.cloudsql import waiting
from aiprod_ops.adapters.cloudsql.admin import CloudSqlAdmin
from aiprod_ops.adapters.cloudsql.requests import NewInstance, Settings
from aiprod_ops.adapters.cloudsql.values import Operation
from aiprod_ops.lab.cloudsql import discovery
from aiprod_ops.lab.cloudsql.emulator import PROJECT, Emulator, Options
from aiprod_ops.units import Seconds

PASSWORD = "of-the-root"
PLUS = Settings(tier="db-perf-optimized-N-2", edition="ENTERPRISE_PLUS", backups_enabled=True, point_in_time=True)
QUICK = Options(operation_time=Seconds(0.05))


@dataclass(frozen=True)
class Bench:
    """An emulator at a URL, here or in another process."""

    url: str

    @property
    def admin(self) -> CloudSqlAdmin:
        return CloudSqlAdmin(PROJECT, endpoint=self.url, timeout=Seconds(10), reads=0)

    def wait(self, operation: Operation, timeout: float = 60) -> Operation:
        return waiting.wait(self.admin, operation.name, SystemClock(), timeout=Seconds(timeout), pause=Seconds(0.03))

    def make(self, name: str, settings: Settings = PLUS, **more: Any) -> None:
        """Make an instance and wait for it."""
        self.wait(self.admin.insert(NewInstance(name, root_password=PASSWORD, settings=settings, **more)))

    def sql(self, instance: str, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement on an instance, as one who only knows what the API tells."""
        found = self.admin.instance(instance)
        session = psycopg2.connect(
            host=found.host, port=found.port, user="postgres", password=PASSWORD, dbname="postgres", connect_timeout=5
        )
        try:
            session.autocommit = True
            with session.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            session.close()

    def rows(self, instance: str) -> list[int]:
        return [row for (row,) in self.sql(instance, "SELECT n FROM rows ORDER BY n")]

    def lab(self) -> Any:
        """What the emulator tells outside Google's names."""
        with urllib.request.urlopen(f"{self.url}/lab", timeout=5) as answer:
            return json.load(answer)

    def pid(self, instance: str) -> int | None:
        return next(each["pid"] for each in self.lab()["instances"] if each["name"] == instance)


class Checked(httplib2.Http):  # type: ignore[misc]
    """An ordinary transport that holds every answer against the discovery document, and keeps them."""

    def __init__(self) -> None:
        super().__init__(timeout=10)
        self.seen: list[tuple[str, int]] = []

    def request(self, uri: str, method: str = "GET", **named: Any) -> Any:
        response, content = super().request(uri, method, **named)
        self.close()
        found = discovery.load().find(method, urlsplit(uri).path)
        assert found is not None
        self.seen.append((found[0].id, response.status))
        if response.status == 200:
            assert discovery.load().response_flaws(found[0], json.loads(content)) == []
        return response, content


def google(url: str, http: Any) -> Any:
    """Google's client, unmodified."""
    options = {"api_endpoint": f"{url}/"}
    return build("sqladmin", "v1", http=http, client_options=options, cache_discovery=False)


@contextmanager
def here(folder: Path, options: Options = QUICK) -> Iterator[tuple[Emulator, Bench]]:
    """An emulator in this process; nothing lives on below its folder."""
    with Emulator(folder, options) as emulator:
        yield emulator, Bench(emulator.url)
    gone(folder)


@contextmanager
def apart(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], Bench]]:
    """An emulator as a command of its own."""
    command = [sys.executable, "-m", "aiprod_ops", "lab", "cloudsql", "--folder", str(folder), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/")
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "emulated at http://127.0.0.1:" in line, line + process.stdout.read()
        yield process, Bench(line.split()[-1])
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def living_below(folder: Path) -> list[str]:
    """Every process with its working directory there."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and Path(process.cwd()).is_relative_to(folder):
                found.append(f"{process.pid} {process.name()}")
    return found


def gone(folder: Path) -> None:
    """Nothing lives below a folder any more; a postmaster ends a moment after it took its pid file away."""
    until(lambda: living_below(folder) == [], 5)


def until(condition: Any, seconds: float = 20) -> Any:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found
