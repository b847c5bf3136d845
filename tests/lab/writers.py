"""Constant writers in processes of their own: what was acknowledged to them is written down outside the database."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from aiprod_ops.lab import postgres
from aiprod_ops.lab.fleet import Fleet

_WRITER = """
import sys, time, psycopg2
dsn, number, path, end = sys.argv[1:]
session = None
with open(path, "w", buffering=1) as acknowledged:
    while not __import__("os").path.exists(end):
        try:
            if session is None:
                session = psycopg2.connect(dsn)
                session.autocommit = True
            with session.cursor() as cursor:
                cursor.execute("INSERT INTO written (writer) VALUES (%s) RETURNING n", (number,))
                n = cursor.fetchone()[0]
            acknowledged.write(f"{time.monotonic():.6f} {n}\\n")
        except psycopg2.Error:
            if session is not None:
                session.close()
            session = None
            time.sleep(0.005)
"""


@dataclass(frozen=True)
class Writers:
    """Files of what was acknowledged."""

    files: tuple[Path, ...]

    def acknowledged(self) -> list[list[tuple[float, int]]]:
        """By writer: when, and which row."""
        read = ([line.split() for line in file.read_text().splitlines()] for file in self.files)
        return [[(float(at), int(n)) for at, n in (each for each in lines if len(each) == 2)] for lines in read]

    def lost(self, there: set[int]) -> list[int]:
        return sorted(n for writer in self.acknowledged() for _, n in writer if n not in there)

    def longest_stop(self) -> float:
        """Seconds that the worst writer waited between two acknowledgements."""
        times = [[at for at, _ in writer] for writer in self.acknowledged()]
        return max(b - a for each in times for a, b in pairwise(each))


@contextmanager
def writing(fleet: Fleet, folder: Path, count: int = 3, places: str = "") -> Iterator[Writers]:
    """Writers that follow whoever takes writes, until the context ends. `places` are hosts and ports, as a DSN has
    them; else the servers' sockets."""
    folder.mkdir(exist_ok=True)
    servers = (fleet.primary, *fleet.replicas)
    hosts, ports = ",".join(str(each.sockets) for each in servers), ",".join(str(each.port) for each in servers)
    dsn = (
        f"{places or f'host={hosts} port={ports}'} user=postgres dbname={postgres.DATABASE} passfile={fleet.passfile} "
        "target_session_attrs=read-write connect_timeout=2"
    )
    end, files = folder / "end", tuple(folder / f"writer{n}" for n in range(count))
    end.unlink(missing_ok=True)
    children = [
        subprocess.Popen([sys.executable, "-c", _WRITER, dsn, str(n), str(file), str(end)])
        for n, file in enumerate(files)
    ]
    try:
        deadline = time.monotonic() + 20
        while not all(file.exists() and file.stat().st_size > 100 for file in files):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield Writers(files)
        time.sleep(0.3)
    finally:
        end.touch()
        for child in children:
            child.wait(20)
