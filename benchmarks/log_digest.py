"""`aiprod-ops digest` beside pgBadger on the same log: speed, peak memory, and whether both count the same.

`LOG_DIGEST_MB` makes it smaller than 500 MB for trying. pgBadger comes from Debian's package.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import log_lines, report

SIZE_MB = int(os.environ.get("LOG_DIGEST_MB", "500"))
RUNS = 3
TOP = 20
MOST_MB = 128
#: MB/s that were asked for.
ASKED = {"jsonlog": 150, "stderr": 40}


@dataclass(frozen=True)
class Measured:
    """One process: wall and processor time, its peak resident memory in MB, and what it said."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    said: dict[str, Any]


def run() -> None:
    _install()
    rows: list[report.Row] = []
    notes = [f"logs of {SIZE_MB} MB, the same calls in both formats; 2 GB is 4 times 500 MB through a pipe"]
    with tempfile.TemporaryDirectory(prefix="aiprod-bench-") as name:
        folder = Path(name)
        for kind in ASKED:
            log = folder / f"{kind}.log"
            log_lines.write(log, SIZE_MB * 1_000_000, kind)
            rows += _kind(kind, log, folder, notes)
            log.unlink()
    report.write("log_digest", rows, notes)


def _kind(kind: str, log: Path, folder: Path, notes: list[str]) -> list[report.Row]:
    size = log.stat().st_size / 1_000_000
    _ours(log)
    ours = [_ours(log) for _ in range(RUNS)]
    peer = _pgbadger(kind, log, folder)
    notes.append(_compare(kind, ours[0].said, peer.said))
    speeds = [size / each.seconds for each in ours]
    speed, peak = statistics.median(speeds), max(each.peak_mb for each in ours)
    by_cpu = size / statistics.median(each.cpu_seconds for each in ours)  # whoever else is at work on the machine
    small, large = _ours(log, SIZE_MB / 5), _ours(log, SIZE_MB * 4)

    def row(what: str, unit: str, value: float, beside: float, name: str, **more: Any) -> report.Row:
        return report.Row(f"{kind}: {what}", unit, value, beside, name, RUNS, report.spread(speeds), **more)

    return [
        row("speed", "MB/s", speed, size / peer.seconds, "pgBadger", limit=10.0, better="higher"),
        row(
            "for each second of the processor",
            "MB",
            by_cpu,
            size / peer.cpu_seconds,
            "pgBadger",
            limit=10.0,
            better="higher",
        ),
        row(
            "for each second of the processor",
            "MB",
            by_cpu,
            ASKED[kind],
            "what was asked for",
            limit=1.0,
            better="higher",
        ),
        row("peak memory", "MB", peak, peer.peak_mb, "pgBadger"),
        row("peak memory", "MB", peak, MOST_MB, "what was asked for", limit=1.0),
        row("peak memory at 2 GB", "MB", large.peak_mb, small.peak_mb, "ours at 100 MB", limit=1.1),
    ]


def _install() -> None:
    if shutil.which("pgbadger") is None:
        if not shutil.which("apt-get") or os.geteuid():
            sys.exit("pgbadger is not installed: apt-get install pgbadger")
        subprocess.run(["apt-get", "install", "-y", "-qq", "pgbadger"], check=True, stdout=subprocess.DEVNULL)


def _ours(log: Path, megabytes: float | None = None) -> Measured:
    """Our digest of a log; with `megabytes`, of so much of it (again and again) through a pipe."""
    command = [str(Path(sys.executable).with_name("aiprod-ops")), "digest", "-o", "json", "--top", "1000"]
    if megabytes is None:
        return _measured([*command, str(log)])
    feed = f"while cat '{log}'; do :; done 2>/dev/null | head -c {int(megabytes * 1_000_000)}"
    with subprocess.Popen(["sh", "-c", feed], stdout=subprocess.PIPE) as source:
        return _measured([*command, "-"], source.stdout)


def _pgbadger(kind: str, log: Path, folder: Path) -> Measured:
    out = folder / "pgbadger.json"
    options = ["-q", "-j", "1", "-f", kind, "-p", log_lines.PREFIX, "-x", "json", "-o", str(out)]
    measured = _measured(["pgbadger", *options, str(log)])
    return replace(measured, said=json.loads(out.read_text()))


def _measured(command: list[str], stdin: Any = None) -> Measured:
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(command, stdin=stdin, stdout=out)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        if child.returncode:
            sys.exit(f"{' '.join(command)} ended with {child.returncode}")
        out.seek(0)
        said = out.read()
    return Measured(
        seconds,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss / 1024,
        json.loads(said) if said.startswith("{") else {},
    )


def _compare(kind: str, ours: dict[str, Any], peer: dict[str, Any]) -> str:
    """Totals and the top 20 have to be equal; stops where they are not."""
    theirs = [shape for of_one in peer["normalyzed_info"].values() for shape in of_one.values()]
    ranked = sorted(((int(each["count"]), float(each["duration"])) for each in theirs), key=lambda one: -one[1])
    mine = [(row["calls"], row["total"]) for row in ours["rows"]]
    pairs = [((ours["calls"], ours["total"]), (sum(c for c, _ in ranked), sum(ms for _, ms in ranked)))]
    pairs += zip(mine[:TOP], ranked[:TOP], strict=True)
    for (calls, total), (their_calls, their_total) in pairs:
        if calls != their_calls or abs(total - their_total) > 1e-6 * total:
            sys.exit(f"{kind}: {calls} calls, {total} ms; pgBadger: {their_calls} calls, {their_total} ms")
    return f"{kind}: {ours['calls']:,} calls, {ours['total'] / 1000:,.0f} s, and the top {TOP}: as pgBadger has them"
