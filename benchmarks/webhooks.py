"""Webhooks delivered a second beside the engines that people use, in one run: the same signed POST of 1 KB to a local
nginx, and a durable record of it. Ours has attempt rows, fairness and the guard against private addresses on. And how
late an event comes, alone, and beside an endpoint that is slow.

The peers are installed into an environment of their own below build/bench. Rounds alternate.
"""

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import report
from benchmarks.webhook_rows import Rows, nginx, rows

PEERS = Path("build/bench/webhook-peers")
SCRIPT = Path(__file__).with_name("webhook_peers.py")
NEEDS = (
    "procrastinate==3.10.0", "dramatiq[redis]>=1.17", "aiohttp>=3.12", "psycopg[binary,pool]>=3.2", "urllib3>=2",
    "uvloop",
)  # fmt: skip
ROUNDS = 3
OURS, COUNTS = 10_000, {"bare": 15_000, "procrastinate": 1_500, "dramatiq": 4_000}
LOW = 100  #: events, one after another
SLOW_SECONDS, SLOW_EVENTS, ENDPOINTS = 1.0, 2_000, 50


def run() -> None:
    with ExitStack() as stack:
        python, url, redis = _environment(), stack.enter_context(nginx()), stack.enter_context(_redis())
        database = stack.enter_context(rows())
        with database_of_peers(database) as theirs:
            found = _rates(database, python, url, theirs, redis)
        shapes = _shapes(database, url)
        late, mixed = _lateness(database, url)
    report.write("webhooks", [*_speed_rows(found), *shapes, late, mixed], _notes(found))


def _rates(database: Rows, python: Path, url: str, theirs: str, redis: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for workers in (1, 2):
            for kind in ("aiohttp", "pycurl"):
                rate = _ours(database, url, kind, workers, 100, OURS // 100)
                found.setdefault(f"{kind} {workers}", []).append(rate)
            for kind in ("procrastinate", "dramatiq"):
                found.setdefault(f"{kind} {workers}", []).append(_peer(python, kind, url, workers, theirs, redis))
        found.setdefault("bare", []).append(_peer(python, "bare", url, 1, theirs, redis))
    return found


def _ours(database: Rows, url: str, kind: str, workers: int, endpoints: int, events: int) -> float:
    database.clear()
    database.endpoints("all", endpoints, url)
    database.deliver("all", events)
    with _workers(database, kind, workers):
        database.wait()
    return database.rate()


def _peer(python: Path, kind: str, url: str, workers: int, dsn: str, redis: str) -> float:
    command = [str(python), str(SCRIPT), kind, url, str(COUNTS[kind]), str(workers), dsn, redis]
    return float(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def _speed_rows(found: dict[str, list[float]]) -> list[report.Row]:
    middle = {name: statistics.median(rates) for name, rates in found.items()}
    limits = {"procrastinate": 6.0, "dramatiq": 2.0, "bare": 1 / 3}
    return [
        report.Row(
            f"webhooks delivered, {workers} worker{'s' if workers > 1 else ''}, {kind}", "1/s",
            middle[f"{kind} {workers}"], middle[peer if peer == "bare" else f"{peer} {workers}"],
            "aiohttp alone, no record" if peer == "bare" else peer, ROUNDS, report.spread(found[f"{kind} {workers}"]),
            limit=limits[peer] if (kind, workers) == ("aiohttp", 1) else None, better="higher",
        )
        for workers in (1, 2) for kind in ("aiohttp", "pycurl") for peer in limits
    ]  # fmt: skip


def _shapes(database: Rows, url: str) -> list[report.Row]:
    many = [_ours(database, url, "aiohttp", 1, 4_000, 1) for _ in range(ROUNDS)]
    one = [_ours(database, url, "aiohttp", 1, 1, 4_000) for _ in range(ROUNDS)]
    what = "4,000 endpoints with one event each"
    return [
        report.Row(what, "1/s", statistics.median(many), statistics.median(one), "one endpoint with 4,000", ROUNDS,
                   report.spread(many), limit=1.0, better="higher")
    ]  # fmt: skip


def _lateness(database: Rows, url: str) -> tuple[report.Row, report.Row]:
    medians, alone, mixed = [], [], []
    for _ in range(ROUNDS):
        database.clear()
        database.endpoints("low", 1, url)
        with _workers(database, "aiohttp", 1):
            for _ in range(LOW):
                database.deliver("low")
                time.sleep(0.02)
            database.wait()
        medians.append(statistics.median(database.late_ms("low")))
        alone.append(_p99(database, url, is_slow=False))
        mixed.append(_p99(database, url, is_slow=True))
    return (
        report.Row("from an event's transaction to the endpoint's answer, one at a time, median", "ms",
                   statistics.median(medians), 20.0, "what is promised", ROUNDS, report.spread(medians), limit=1.0),
        report.Row(f"p99 of {ENDPOINTS} endpoints beside one that takes {SLOW_SECONDS:g} s, {SLOW_EVENTS:,} due", "ms",
                   statistics.median(mixed), statistics.median(alone), "without it", ROUNDS, report.spread(mixed),
                   limit=1.2),
    )  # fmt: skip


def _p99(database: Rows, url: str, *, is_slow: bool) -> float:
    database.clear()
    database.endpoints("others", ENDPOINTS, url)
    with _slow() as slow, _workers(database, "aiohttp", 1):
        if is_slow:
            database.endpoints("slow", 1, slow)
            database.deliver("slow", SLOW_EVENTS)
        for _ in range(60):
            database.deliver("others")
            time.sleep(0.1)
        time.sleep(1)
        late = database.late_ms("others")
    return late[round(len(late) * 0.99) - 1]


@contextmanager
def _workers(database: Rows, kind: str, count: int) -> Iterator[None]:
    command = [sys.executable, "-m", "aiprod_ops.lab.pump", database.dsn, kind]
    running = [subprocess.Popen(command) for _ in range(count)]
    try:
        if count:
            time.sleep(1.5)  # started
        yield
    finally:
        for each in running:
            each.terminate()
        for each in running:
            each.wait()


@contextmanager
def _slow() -> Iterator[str]:
    """A server that answers after a second."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    places: list[int] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
                await asyncio.sleep(SLOW_SECONDS)
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    async def serve() -> None:
        from aiprod_ops.lab import ports

        places.append(ports.free(Path(__file__))[0])
        async with await asyncio.start_server(answer, "127.0.0.1", places[0]):
            ready.set()
            await asyncio.Event().wait()

    def work() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(serve())

    def end() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield f"http://127.0.0.1:{places[0]}/"
    finally:
        loop.call_soon_threadsafe(end)
        thread.join(10)


@contextmanager
def database_of_peers(database: Rows) -> Iterator[str]:
    """A database of their own on the same server."""
    database.sql("CREATE DATABASE peers")
    yield database.admin.replace("/aiprod?", "/peers?")
    database.sql("DROP DATABASE peers WITH (FORCE)")


@contextmanager
def _redis() -> Iterator[str]:
    import os

    from aiprod_ops.lab import ports
    from aiprod_ops.lab.redis import RedisServer

    with tempfile.TemporaryDirectory(prefix="ops-", dir="/tmp") as name:
        folder = Path(name).resolve()
        server = RedisServer(folder / "redis", ports.free(folder)[0])
        server.start()
        try:
            yield f"redis://aiprod_actor:{server.passwords['aiprod_actor']}@127.0.0.1:{server.port}/0"
        finally:
            if (pid := server.pid) is not None:
                os.kill(pid, 15)


def _environment() -> Path:
    python = PEERS / "bin/python"
    if not (PEERS / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *NEEDS], check=True)
        (PEERS / "ready").touch()
    return python.absolute()


def _notes(found: dict[str, list[float]]) -> list[str]:
    told = ", ".join(f"{name} {statistics.median(rates):,.0f}" for name, rates in found.items())
    return [f"deliveries a second, kind and workers: {told}", f"{OURS:,} deliveries to 100 endpoints, fsync on"]
