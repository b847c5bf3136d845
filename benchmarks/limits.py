"""Limits: decisions per second beside the library `limits`, and the worst window of eight processes over its limit.

The clocks of the eight are a second apart where there is libfaketime (Debian's package, or `build/tools`, where
`scripts/test-servers` unpacks it); moments are of the one clock that it leaves alone.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import report

ROUNDS = 5
SECONDS = 2.0
TASKS, USERS = 64, 64  # redis-py, under `limits`, has a hundred connections at the most
PROCESSES = 8
LIMIT, WINDOW_S = 600, 3
ENVIRONMENT = Path("build/bench/limits")
NEEDS = ("limits==5.8.0", "redis[hiredis]>=8,<9")
CLIENTS = Path(__file__).with_name("limit_clients.py")
STRATEGIES = {"moving": "moving window", "sliding": "sliding window counter", "fixed": "fixed window"}


def run() -> None:
    from aiprod_ops.lab import ports
    from aiprod_ops.lab.redis import RedisServer

    _install()
    with tempfile.TemporaryDirectory(prefix="ops-", dir="/tmp") as name:
        folder = Path(name).resolve()
        server = RedisServer(folder / "redis", ports.free(folder)[0])
        server.start()
        try:
            place = {
                "REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(server.port), "REDIS_USERNAME": "aiprod_actor",
                "REDIS_PASSWORD": server.passwords["aiprod_actor"],
            }  # fmt: skip
            rows = [*_speeds(place), *_hung(place, server.pid or 0), *_windows(place)]
        finally:
            if (pid := server.pid) is not None:
                os.kill(pid, 15)
    skew = f"clocks of {PROCESSES} processes a second apart" if _faketime() else "no libfaketime: clocks are the same"
    report.write("limits", rows, [f"{TASKS} requests at a time of {USERS} users, {SECONDS:g} s each; {skew}"])


def _speeds(place: Mapping[str, str]) -> list[report.Row]:
    names = ("ours", "ours 2", *STRATEGIES)
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name in names:
            kind, quotas = name.split()[0], "2" if name.endswith("2") else "1"
            found[name].append(_client(kind, place, "speed", str(SECONDS), str(TASKS), str(USERS), quotas))
    return [
        report.Row(
            f"decisions of {'two quotas' if mine == 'ours 2' else 'one quota'}", "1/s", statistics.median(found[mine]),
            statistics.median(found[kind]), f"limits, {name}, one quota", ROUNDS, report.spread(found[mine]),
            limit=3.0 if mine == "ours" else None, better="higher",
        )
        for mine in ("ours", "ours 2") for kind, name in STRATEGIES.items()
    ]  # fmt: skip


def _hung(place: Mapping[str, str], pid: int) -> list[report.Row]:
    """What requests pay while the server is stopped; the second figure beside a decision of a server that runs."""
    one = [_client("ours", place, "speed", "1", "1", "1", "2") for _ in range(ROUNDS)]
    found = [_measured("ours", place, "hung", str(pid)) for _ in range(ROUNDS)]
    first, later = ([each[number] for each in found] for number in (0, 1))
    promised = "50 ms, and the loop's turns"
    return [
        report.Row("the first decision while Redis hangs", "s", statistics.median(first), 0.05, promised, ROUNDS,
                   report.spread(first), limit=1.2),
        report.Row("each one after it", "s", statistics.median(later), 1 / statistics.median(one),
                   "a decision when Redis answers", ROUNDS, report.spread(later), limit=1.0),
    ]  # fmt: skip


def _windows(place: Mapping[str, str]) -> list[report.Row]:
    worst = {kind: _worst(kind, place) for kind in ("ours", *STRATEGIES)}
    most = "most in any window, of what is allowed"
    ours = report.Row(most, "", worst["ours"], 1.0, "the limit", 1, 0.0, limit=1.05)
    return [
        ours, *(report.Row(most, "", worst["ours"], worst[kind], f"limits, {name}", 1, 0.0)
                for kind, name in STRATEGIES.items()),
    ]  # fmt: skip


def _worst(kind: str, place: Mapping[str, str]) -> float:
    """The most that eight processes got through in any window, by the limit."""
    begin = str(time.monotonic() + 3)
    # A second window begins while the first is full, wherever a fixed one has its border.
    arguments = _command(kind, "hammer", begin, str(WINDOW_S * 3.5), str(LIMIT), str(WINDOW_S))
    running = [
        subprocess.Popen(arguments, stdout=subprocess.PIPE, env={**os.environ, **place, **_skewed(number)})
        for number in range(PROCESSES)
    ]
    moments = sorted(moment for each in running for moment in json.loads(each.communicate(timeout=120)[0]))
    most, first = 0, 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - WINDOW_S:
            first += 1
        most = max(most, last - first + 1)
    return most / LIMIT


def _client(kind: str, place: Mapping[str, str], *arguments: str) -> float:
    return float(_measured(kind, place, *arguments))


def _measured(kind: str, place: Mapping[str, str], *arguments: str) -> Any:
    done = subprocess.run(_command(kind, *arguments), check=True, stdout=subprocess.PIPE, env={**os.environ, **place})
    return json.loads(done.stdout)


def _command(kind: str, *arguments: str) -> list[str]:
    python = sys.executable if kind == "ours" else str(ENVIRONMENT / "bin/python")
    return [python, "-P", str(CLIENTS), kind, *arguments]  # -P: this folder has another `limits`


def _skewed(number: int) -> dict[str, str]:
    library = _faketime()
    if library is None:
        return {}
    return {
        "LD_PRELOAD": str(library), "FAKETIME": f"+{number}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1",
    }  # fmt: skip


def _faketime() -> Path | None:
    roots = (Path("build/tools").resolve(), Path("/"))
    return next((file for root in roots for file in root.glob("usr/lib/*/faketime/libfaketime.so.1")), None)


def _install() -> None:
    if (ENVIRONMENT / "bin/limits-ready").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
    pip = [str(ENVIRONMENT / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, *NEEDS], check=True)
    (ENVIRONMENT / "bin/limits-ready").touch()
