"""The cache beside those that people use, on one Redis: a hit through FastAPI, a hit of a function, misses of several
processes at once, and a Redis that hangs.

The peers are installed into an environment of their own below build/bench. Rounds alternate, so that whoever else is at
work on the machine meets all of them.
"""

import asyncio
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import report

HERE = Path(__file__).parent
PEERS = Path("build/bench/cache-peers")
NEEDS = (
    "fastapi",
    "uvicorn[standard]",
    "jinja2",
    "hiredis",
    "orjson",
    "cashews[redis]",
    "aiocache[redis]",
    "fastapi-cache2[redis]",
)
NAMES = ("cashews", "aiocache", "fastapi-cache2")
ROUNDS, SECONDS, CONNECTIONS = 5, 2.0, 32
PATIENCE_MS = 50.0  #: what a request may pay once


def run() -> None:
    with ExitStack() as stack:
        redis_port, redis = stack.enter_context(_redis())
        rows = _function(redis_port) + _misses(redis_port)
        python = _environment()
        ports = {name: 23_000 + number for number, name in enumerate(("none", "ours", *NAMES))}
        for name, port in ports.items():
            own = sys.executable if name in ("none", "ours") else str(python)
            stack.enter_context(_app(own, name, port, redis_port))
        rows = _hits(ports) + rows + _hung(ports, redis)
        report.write("cache", rows, _notes(python))


def _hits(ports: dict[str, int]) -> list[report.Row]:
    rates: dict[str, list[float]] = {name: [] for name in ports}
    for _ in range(ROUNDS):
        for name, port in ports.items():
            command = [sys.executable, str(HERE / "http_load.py"), str(port), "/jobs/1", str(CONNECTIONS), str(SECONDS)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rates[name].append(json.loads(done.stdout)["per_second"])
    middle = {name: statistics.median(each) for name, each in rates.items()}
    best = max(middle[name] for name in NAMES)
    what, spread = "requests per second of a cached hit, 2 KB through FastAPI", report.spread(rates["ours"])
    rows = [report.Row(what, "1/s", middle["ours"], middle["none"], "not cached", ROUNDS, spread, 1.0, "higher")]
    for name in NAMES:
        limit = 2.0 if middle[name] == best else None
        rows.append(report.Row(what, "1/s", middle["ours"], middle[name], name, ROUNDS, spread, limit, "higher"))
    return rows


def _function(redis_port: int) -> list[report.Row]:
    ours, raw = asyncio.run(_function_times(redis_port))
    ratios = [mine / its for mine, its in zip(ours, raw, strict=True)]
    middle = statistics.median(raw)
    what = "function-cache hit of 2 KB, one after the other"
    mine = statistics.median(ratios) * middle
    return [report.Row(what, "µs", mine, middle, "redis-py GET", len(ours), report.spread(ratios), limit=1.3)]


async def _function_times(redis_port: int) -> tuple[list[float], list[float]]:
    """Of ours and of the bare client, µs a call, by rounds."""
    import redis.asyncio

    from aiprod_ops.service import RedisCache, RedisPlace, cached_endpoint

    cache = RedisCache(RedisPlace("127.0.0.1", redis_port))
    client = redis.asyncio.Redis(host="127.0.0.1", port=redis_port)

    @cached_endpoint(tags=("job:{job_id}",), cache=lambda: cache)
    async def job(job_id: str) -> dict[str, str]:
        return {"id": job_id, "text": "x" * 2000}

    await client.set("raw", b"x" * 2000)
    await job("1")
    await asyncio.sleep(0.1)
    times: tuple[list[float], list[float]] = ([], [])
    calls: tuple[Callable[[], Awaitable[object]], ...] = (lambda: job("1"), lambda: client.get("raw"))
    for _ in range(15):
        for found, call in zip(times, calls, strict=True):
            began = time.perf_counter()
            for _ in range(1000):
                await call()
            found.append((time.perf_counter() - began) * 1000)
    await client.aclose()
    await cache.close()
    return times


def _misses(redis_port: int) -> list[report.Row]:
    seconds, rounds = 0.5, 5
    command = [sys.executable, str(HERE / "cache_worker.py"), str(redis_port), "25", str(seconds)]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert all(each.stdout and each.stdout.readline() == "ready\n" for each in workers)
    computed, slowest = [], []
    for _ in range(rounds):
        for each in workers:
            print(file=each.stdin, flush=True)
        said = [json.loads(each.stdout.readline()) for each in workers if each.stdout]
        computed.append(sum(each["computed"] for each in said))
        slowest.append(max(each["seconds"] for each in said))
    for each in workers:
        each.communicate()
    middle, name = statistics.median(slowest), "the function's own time"
    what = "100 misses on 4 processes at once"
    return [
        report.Row(f"{what}: the slowest", "s", middle, seconds, name, rounds, report.spread(slowest), limit=1.3),
        report.Row(f"{what}: computations, at most", "", float(max(computed)), 1.0, "one", rounds, 0.0, limit=1.0),
    ]


def _hung(ports: dict[str, int], redis: "subprocess.Popen[bytes]") -> list[report.Row]:
    """Added to the origin's time, ms: the first request, and the median of those after it. A peer's is that of two."""
    plain = statistics.median(_timed_ms(ports["none"]) for _ in range(20))
    os.kill(redis.pid, signal.SIGSTOP)
    try:
        first = _timed_ms(ports["ours"]) - plain
        later = [_timed_ms(ports["ours"]) - plain for _ in range(100)]
        peers = {name: [_timed_ms(ports[name]) - plain for _ in range(2)] for name in NAMES}
    finally:
        os.kill(redis.pid, signal.SIGCONT)
    after, what = statistics.median(later), "added latency with Redis hung (SIGSTOP)"
    rows = [report.Row(f"{what}: the first request", "ms", first, PATIENCE_MS, "promised", 1, 0.0, limit=1.2)]
    rows += [report.Row(f"{what}: the first request", "ms", first, peers[each][0], each, 1, 0.0) for each in NAMES]
    return rows + [report.Row(f"{what}: later ones", "ms", after, peers[each][1], each, 100, 0.0) for each in NAMES]


def _timed_ms(port: int) -> float:
    """20 s for one that does not answer."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/jobs/1", headers={"x-api-key": "ada"})
    began = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            answer.read()
    except OSError:
        pass
    return (time.perf_counter() - began) * 1000


@contextmanager
def _redis() -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    from aiprod_ops.lab import ports
    from aiprod_ops.lab.redis import _program

    folder = Path(tempfile.mkdtemp(prefix="aiprod-bench-"))
    (port,) = ports.free(folder)
    command = [str(_program()), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        yield port, server
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder)


@contextmanager
def _app(python: str, name: str, port: int, redis_port: int) -> Iterator[None]:
    command = [python, str(HERE / "cache_app.py"), name, str(port), str(redis_port)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # peers tell of each time-out at length
    try:
        for _ in range(100):
            time.sleep(0.1)
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=5).close()
                break
            except OSError:
                if server.poll() is not None:
                    raise
        _timed_ms(port)
        yield
    finally:
        server.kill()
        server.wait()


def _environment() -> Path:
    """Of the peers, with what they need, made once."""
    python = (PEERS / "bin" / "python").absolute()
    if not (PEERS / "complete").exists():
        for command in (
            [sys.executable, "-m", "venv", str(PEERS)],
            [str(python), "-m", "pip", "install", "-q", *NEEDS],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True)
        (PEERS / "complete").touch()
    return python


def _notes(python: Path) -> Sequence[str]:
    listed = subprocess.run([str(python), "-m", "pip", "freeze"], check=True, capture_output=True, text=True).stdout
    wanted = ("cashews", "aiocache", "fastapi-cache2", "fastapi=", "redis=", "uvicorn")
    versions = ", ".join(line for line in listed.splitlines() if line.startswith(wanted))
    return [f"the peers' environment: {versions}", f"{CONNECTIONS} connections, {ROUNDS} rounds of {SECONDS:g} s each"]
