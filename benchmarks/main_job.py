"""The whole main job on the default data, split by phase: each phase as its part of the whole."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.fleet import lab

ROWS = 1_000_000


def run() -> None:
    from aiprod_ops.lab import workload

    seconds: dict[str, float] = {}
    started = time.perf_counter()
    with lab(ROWS, workload=False) as made:
        seconds["lab up"] = time.perf_counter() - started
        workload.run(made.dsn("aiprod_app"), made.scale, rounds=3)
        seconds["check"], _ = _timed("check", {2})
        seconds["plan"], plan = _timed("plan", {0})
        seconds["prove"], proof = _timed("prove", {0, 10}, "--plan", plan["digest"])  # 10: proven in part
        seconds["run"], _ = _timed("run", {0}, "--apply", proof["proves"])
        seconds["check again"], _ = _timed("check", {0, 1, 2})
    whole = sum(seconds.values())
    rows = [report.Row(name, "s", value, whole, "the whole job", 1, 0.0) for name, value in seconds.items()]
    copy = float(proof["copy"]["seconds"])
    rows.append(report.Row("prove: restore the copy", "s", copy, seconds["prove"], "prove", 1, 0.0))
    report.write("main_job", rows, [_gain(proof)])


def _timed(verb: str, expected: set[int], *arguments: str) -> tuple[float, dict[str, Any]]:
    command = [str(Path(sys.executable).with_name("aiprod-ops")), verb, "add-missing-index", *arguments, "-o", "json"]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    elapsed = time.perf_counter() - started
    if done.returncode not in expected:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}, expected {expected}\n{done.stdout}{done.stderr}")
    return elapsed, json.loads(done.stdout)


def _gain(proof: dict[str, Any]) -> str:
    """The slowest statements before, and the least they gained."""
    slow = [c for c in proof["comparisons"] if c["unit"] == "ms" and c["before"]["median"] >= 50]
    least = min(slow, key=lambda each: float(each["gain"]))
    worst = f"{least['gain']:.1f} × ({least['what'][:60]})"
    return f"of {len(slow)} cases of 50 ms or more, the one that gained least: {worst}"
