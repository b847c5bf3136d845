"""The whole API: a job that is polled, answered from the cache and, by the same program without a Redis, from the
database. Keys are looked at and limits are counted both times. Rounds alternate.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import report

LOAD = Path(__file__).with_name("http_load.py")
ROUNDS, SECONDS, CONNECTIONS = 5, 2.0, 32
PORTS = {"cached": 23_010, "origin": 23_011}
NOBODY = "1"  #: a port where no Redis is
TIER = (
    "[tiers.premium]\nrequests_per_minute = 100000000\nrequests_per_day = 1000000000\nconcurrent_jobs = 100\n"
    "batch_size = 100\nmonthly_cost_units = 1000000\n"
)
JOB = b'{"preset": "quick_social", "prompt": "A ceramic coffee cup in morning light."}'


def run() -> None:
    with tempfile.TemporaryDirectory(prefix="ops-", dir="/tmp") as name, ExitStack() as stack:
        folder = Path(name).resolve()
        folder.chmod(0o711)
        lab = ("--folder", str(folder / "lab"))
        _command("lab", "up", *lab, "--rows", "10000", "--revision", "head", "--no-workload", "--no-cloudsql")
        stack.callback(_command, "lab", "down", *lab)
        config = ("--config", str(folder / "lab/aiprod-ops.toml"))
        key = _command("api-key", "bench@example.org", "--tier", "premium", *config).strip()
        (folder / "service.toml").write_text(TIER, encoding="utf-8")
        environment = {"AIPROD_OPS_SERVICE": str(folder / "service.toml")}
        dsn = _dsn(folder / "lab/aiprod-ops.toml")
        stack.enter_context(_served("cached", environment, *config))
        stack.enter_context(_served("origin", {**environment, "REDIS_PORT": NOBODY}, "--app-dsn", dsn))
        path = f"/api/v1/jobs/{_submitted(key)}"
        report.write("api", _rows(path, key), [f"{CONNECTIONS} connections, {ROUNDS} rounds of {SECONDS:g} s each"])


def _rows(path: str, key: str) -> list[report.Row]:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in PORTS}
    for _ in range(ROUNDS):
        for name, port in PORTS.items():
            command = [sys.executable, str(LOAD), str(port), path, str(CONNECTIONS), str(SECONDS), f"Bearer {key}"]
            found[name].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    rates, times = (
        {name: [each[figure] for each in rounds] for name, rounds in found.items()}
        for figure in ("per_second", "median_ms")
    )
    ours, peer = (statistics.median(rates[name]) for name in PORTS)
    mine, its = (statistics.median(times[name]) for name in PORTS)
    what, from_origin = "a polled job through the whole API", "from the database, without Redis"
    return [
        report.Row(f"{what}, requests per second", "1/s", ours, peer, from_origin, ROUNDS,
                   report.spread(rates["cached"]), 1.0, "higher"),
        report.Row(f"{what}, median", "ms", mine, its, from_origin, ROUNDS, report.spread(times["cached"]), limit=1.0),
    ]  # fmt: skip


def _command(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "aiprod_ops", *words], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def _dsn(config: Path) -> str:
    from aiprod_ops.config import load

    return load(str(config)).target("").dsn("app")


@contextmanager
def _served(name: str, environment: dict[str, str], *words: str) -> Iterator[None]:
    command = [sys.executable, "-m", "aiprod_ops", "serve", "--port", str(PORTS[name]), *words]
    server = subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            time.sleep(0.1)
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORTS[name]}/health/live", timeout=5).close()
                break
            except OSError:
                if server.poll() is not None:
                    raise
        yield
    finally:
        server.terminate()
        server.wait(30)


def _submitted(key: str) -> str:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{PORTS['cached']}/api/v1/jobs", JOB, headers)
    with urllib.request.urlopen(request) as answer:
        return str(json.load(answer)["id"])
