"""What it costs to know that a backup restores: the whole verified restore beside a plain one of the same data.

Whole is `aiprod-ops prove test-backup` as a process: restored, started, every file, page, b-tree and row looked at, the
source's rows summed up beside it (on this machine: in production that is another one's work), evidence sealed. Plain is
pg_basebackup and a start, and a copy of the stored files and a start. By turns. What is to last is written to the disk,
as pg_basebackup does by itself; a disposable copy is not.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.fleet import lab

ROWS = [int(rows) for rows in os.environ.get("BACKUP_TEST_ROWS", "250000,1200000,6000000").split(",")]
ROUNDS = 3
LIMIT = 1.5


def run() -> None:
    rows: list[report.Row] = []
    per_gb: list[tuple[float, float]] = []
    for jobs in ROWS:
        size, took = _measured(jobs)
        per_gb.append((size, statistics.median(took["whole"]) / size))
        what = f"whole verified restore of {size:.2f} GB"
        for peer, limit in (("pg_basebackup and start", LIMIT), ("copy of the stored files and start", None)):
            ours, theirs = statistics.median(took["whole"]), statistics.median(took[peer])
            rows.append(report.Row(what, "s", ours, theirs, peer, ROUNDS, report.spread(took["whole"]), limit=limit))
    (small, first), (large, last) = per_gb[0], per_gb[-1]
    rows.append(report.Row(f"seconds a GB at {large:.1f} GB", "s/GB", last, first, f"at {small:.1f} GB", ROUNDS, 0.0))
    report.write("backup_test", rows)


def _measured(jobs: int) -> tuple[float, dict[str, list[float]]]:
    """Size in GB, and the seconds of each way, by turns."""
    took: dict[str, list[float]] = {
        "whole": [],
        "pg_basebackup and start": [],
        "copy of the stored files and start": [],
    }
    with lab(jobs, workload=False) as made:
        env = {"PGPASSFILE": str(made.passfile)}
        stored = made.folder / "backups" / made.repository.take("bench")
        size = sum(path.stat().st_size for path in stored.rglob("*") if path.is_file()) / 1e9
        for _ in range(ROUNDS):
            took["whole"].append(_whole())
            for name, fill in (("pg_basebackup and start", None), ("copy of the stored files and start", stored)):
                took[name].append(_plain(made, fill, env))
    return size, took


def _whole() -> float:
    command = [str(Path(sys.executable).with_name("aiprod-ops")), "prove", "test-backup", "--wait", "0", "-o", "json"]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    took = time.perf_counter() - started
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    (damaged,) = [each for each in json.loads(done.stdout)["findings"] if each["metric"].startswith("damaged")]
    assert damaged["value"] == 0
    return took


def _plain(made: object, stored: Path | None, env: dict[str, str]) -> float:
    from aiprod_ops.adapters.local.instance import PostgresServer
    from aiprod_ops.adapters.local.platform import STANDALONE

    fleet: Any = made
    folder = fleet.folder / "copies" / "plain"
    folder.mkdir(mode=0o711)
    server = PostgresServer(fleet.programs, folder / "data", folder / "s", 5432, folder / "log")
    started = time.perf_counter()
    if stored is None:
        server.base_backup(fleet.dsn("aiprod_backup"), env=env, sync=True)  # as it does by itself
    else:
        shutil.copytree(stored, server.data)
        server.data.chmod(0o700)
        subprocess.run(["sync", "--file-system", str(server.data)], check=True)
    server.configure(STANDALONE, "local all all trust\n")
    fleet.programs.hand_over(server.data)
    server.start()
    took = time.perf_counter() - started
    server.stop("immediate")
    shutil.rmtree(folder)
    return took
