"""What the command line costs before it does anything: `aiprod-ops --help` beside `python -c "import click"`."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import report

RUNS = 30


def run() -> None:
    ours = [str(Path(sys.executable).with_name("aiprod-ops")), "--help"]
    peer = [sys.executable, "-c", "import click"]
    for command in (ours, peer):
        _seconds(command)
    pairs = [(_seconds(ours), _seconds(peer)) for _ in range(RUNS)]
    mine, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    row = report.Row(
        "start", "s", statistics.median(mine), statistics.median(theirs), 'python -c "import click"',
        RUNS, report.spread(mine), limit=2.0,
    )  # fmt: skip
    report.write("cli_start", [row])


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started
