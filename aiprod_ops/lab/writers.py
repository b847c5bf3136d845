"""Constant writers in processes of their own: what was acknowledged to each is written down outside the database.

One runs as `python -P -m aiprod_ops.lab.writers DSN NUMBER FILE END`, and ends when the file END is there.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import psycopg2

from aiprod_ops.errors import Failed
from aiprod_ops.lab import postgres
from aiprod_ops.lab.fleet import Fleet

TABLE = "aiprod_ops_writes"
_RETRY = 0.005  #: seconds between two attempts to find who takes writes
_STATEMENT = f"INSERT INTO {TABLE} (writer) VALUES (%s) RETURNING n"  # noqa: S608 - our own name


@dataclass(frozen=True)
class Writes:
    """What was acknowledged: by writer, the moment (seconds of the machine's monotonic clock) and the row's number."""

    by_writer: tuple[tuple[tuple[float, int], ...], ...]

    @property
    def moments(self) -> list[float]:
        """All of them, in their order."""
        return sorted(at for writer in self.by_writer for at, _ in writer)

    def lost(self, there: set[int]) -> list[tuple[float, int]]:
        """Those whose row is not there."""
        return sorted((at, n) for writer in self.by_writer for at, n in writer if n not in there)

    def stops(self) -> list[float]:
        """The longest time that each writer waited between two acknowledgements, in seconds."""
        return [max((b - a for (a, _), (b, _) in pairwise(writer)), default=0.0) for writer in self.by_writer]

    @property
    def longest_stop(self) -> float:
        return max(self.stops(), default=0.0)

    @property
    def median_stop(self) -> float:
        return median(self.stops() or [0.0])


@dataclass(frozen=True)
class Writers:
    """Writers at work; their files and the one that ends them."""

    files: tuple[Path, ...]
    children: tuple["subprocess.Popen[bytes]", ...]
    end: Path

    def writes(self) -> Writes:
        """What was acknowledged until now."""
        return Writes(tuple(tuple(_lines(file)) for file in self.files))

    def stop(self) -> Writes:
        """End them, and answer what was acknowledged. One that waits for a frozen server is killed."""
        self.end.touch()
        deadline = time.monotonic() + 10
        for child in self.children:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        return self.writes()


def _lines(file: Path) -> Iterator[tuple[float, int]]:
    for line in file.read_text().splitlines():
        with suppress(ValueError):  # of one that was killed the last line may be torn
            at, n = line.split()
            yield float(at), int(n)


@contextmanager
def writing(fleet: Fleet | None, folder: Path, count: int = 3, dsn: str = "") -> Iterator[Writers]:
    """Writers that follow whoever takes writes, or whom a DSN leads to. They write to a table of their own, which has
    to be there."""
    folder.mkdir(exist_ok=True, parents=True)
    end, files = folder / "end", tuple(folder / f"writer{n}" for n in range(count))
    for each in (end, *files):
        each.unlink(missing_ok=True)
    words = [sys.executable, "-P", "-m", "aiprod_ops.lab.writers", dsn or (following(fleet) if fleet else "")]
    children = tuple(subprocess.Popen([*words, str(n), str(file), str(end)]) for n, file in enumerate(files))
    writers = Writers(files, children, end)
    try:
        deadline = time.monotonic() + 30
        while not all(file.exists() and file.stat().st_size > 200 for file in files):
            if time.monotonic() > deadline:
                raise Failed("the writers do not write")
            time.sleep(0.02)
        yield writers
    finally:
        writers.stop()


def following(fleet: Fleet, places: str = "") -> str:
    """A DSN of whoever takes writes; `places` are hosts and ports as a DSN has them, else the servers' sockets."""
    servers = (fleet.primary, *fleet.replicas)
    hosts, ports = ",".join(str(each.sockets) for each in servers), ",".join(str(each.port) for each in servers)
    return (
        f"{places or f'host={hosts} port={ports}'} user=postgres dbname={postgres.DATABASE} passfile={fleet.passfile} "
        "target_session_attrs=read-write connect_timeout=2 application_name=aiprod-writer"
    )


def _write(dsn: str, number: str, file: Path, end: Path) -> None:
    session, parent = None, os.getppid()
    with file.open("w", buffering=1) as acknowledged:
        while not end.exists() and os.getppid() == parent:  # whoever began it may be killed
            try:
                if session is None:
                    session = psycopg2.connect(dsn)
                    session.autocommit = True
                with session.cursor() as cursor:
                    cursor.execute(_STATEMENT, (number,))
                    row = cursor.fetchone()
                acknowledged.write(f"{time.monotonic():.6f} {row[0] if row else 0}\n")
            except psycopg2.Error:
                if session is not None:
                    session.close()
                session = None
                time.sleep(_RETRY)


if __name__ == "__main__":
    _write(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
