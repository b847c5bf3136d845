"""The statements that AIPROD's API and workers send, with literals as users would cause them.

Runs in the background as `python -P -m aiprod_ops.lab.workload FOLDER DSN JOBS`, on one connection. After each
statement it thinks for twice as long as the statement took, so it uses a part of one core whatever the indexes are.
It writes `workload.json` each second, connects again when the server went away, and ends when its folder is gone.
"""

import contextlib
import json
import os
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import psycopg2
from psycopg2.extensions import connection

from aiprod_ops.lab import data
from aiprod_ops.lab import folder as folders
from aiprod_ops.service.ids import uuid7
from aiprod_ops.units import Seconds

MOVES = ("processing", "completed", "failed")
STATUSES, STATUS_WEIGHTS = data.STATUSES, (30, 25, 25, 15, 5)  #: what people and workers ask for, not what there is


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of statement: its text, how often it comes, and where its values are from."""

    name: str
    text: str
    weight: int
    values: Callable[["Literals"], dict[str, Any]]


class Literals:
    """Values for the statements, skewed as their users are."""

    def __init__(self, scale: data.Scale, seed: int) -> None:
        self.random = Random(seed)
        self._scale = scale
        self._weights = data.user_weights(scale.users)

    def user(self) -> str:
        return data.pick_user(self.random, self._weights)

    def status(self) -> str:
        return self.random.choices(STATUSES, weights=STATUS_WEIGHTS)[0]

    def job(self) -> str:
        """Recent jobs are asked for more often."""
        age = min(self.random.expovariate(8.0), 1.0)
        return data.job_id(self._scale, min(self._scale.jobs - 1, int(self._scale.jobs * (1 - age))))

    def since(self, *hours: int) -> datetime:
        return datetime.now(UTC) - timedelta(hours=self.random.choice(hours))

    def new_job(self) -> dict[str, Any]:
        random = self.random
        return {
            "id": str(uuid7()),
            "user": self.user(),
            "priority": random.choices(data.PRIORITIES, weights=(15, 65, 15, 5))[0],
            "preset": random.choice(data.PRESETS),
            "language": random.choice(data.LANGUAGES),
            "prompt": f"A 30 second spot, version {random.randint(1, 99)}: warm and calm, one continuous dolly shot.",
        }


SHAPES = (
    Shape(
        "jobs by status",
        "SELECT * FROM jobs WHERE status = %(status)s ORDER BY created_at DESC LIMIT 50",
        6,
        lambda literals: {"status": literals.status()},
    ),
    Shape(
        "worker pick",
        "SELECT id, user_id, prompt, preset FROM jobs WHERE status = 'queued' ORDER BY created_at LIMIT 10",
        8,
        lambda _: {},
    ),
    Shape(
        "jobs of a user",
        "SELECT * FROM jobs WHERE user_id = %(user)s ORDER BY created_at DESC LIMIT 20",
        8,
        lambda literals: {"user": literals.user()},
    ),
    Shape(
        "jobs of a user by status",
        "SELECT * FROM jobs WHERE user_id = %(user)s AND status = %(status)s ORDER BY created_at DESC LIMIT 20",
        6,
        lambda literals: {"user": literals.user(), "status": literals.status()},
    ),
    Shape(
        "count by status",
        "SELECT status, count(*) FROM jobs WHERE created_at >= %(since)s GROUP BY status",
        3,
        lambda literals: {"since": literals.since(1, 6, 24, 24 * 7)},
    ),
    Shape("recent jobs", "SELECT * FROM jobs ORDER BY created_at DESC LIMIT 50", 5, lambda _: {}),
    Shape(
        "results of a job",
        "SELECT id, video_url, thumbnail_url, duration_seconds, quality_score FROM results WHERE job_id = %(job)s",
        8,
        lambda literals: {"job": literals.job()},
    ),
    Shape(
        "recent results",
        "SELECT id, job_id, video_url, size_bytes FROM results WHERE created_at >= %(since)s "
        "ORDER BY created_at DESC LIMIT 100",
        2,
        lambda literals: {"since": literals.since(1, 24)},
    ),
    Shape(
        "pipelines by status",
        "SELECT id, job_id, stage, worker, created_at FROM pipeline_jobs WHERE status = %(status)s "
        "ORDER BY created_at DESC LIMIT 50",
        1,
        lambda literals: {"status": literals.status()},
    ),
    Shape(
        "recent pipelines",
        "SELECT id, job_id, status, stage FROM pipeline_jobs ORDER BY created_at DESC LIMIT 50",
        2,
        lambda _: {},
    ),
    Shape(
        "insert a job",
        "INSERT INTO jobs (id, user_id, status, priority, preset, language, prompt) VALUES "
        "(%(id)s, %(user)s, 'queued', %(priority)s, %(preset)s, %(language)s, %(prompt)s)",
        3,
        Literals.new_job,
    ),
    Shape(
        "move a status",
        "UPDATE jobs SET status = %(status)s, updated_at = now() WHERE id = %(job)s",
        2,
        lambda literals: {"status": literals.random.choice(MOVES), "job": literals.job()},
    ),
)


@dataclass
class Figures:
    """Durations of the calls of the last seconds, by shape."""

    window: Seconds = Seconds(10)
    calls: deque[tuple[float, str, float]] = field(default_factory=deque)
    errors: int = 0

    def add(self, name: str, duration_ms: float) -> None:
        self.calls.append((time.monotonic(), name, duration_ms))

    def summary(self) -> dict[str, Any]:
        """Calls, mean and 95th percentile in milliseconds by shape, over the window."""
        oldest = time.monotonic() - self.window
        while self.calls and self.calls[0][0] < oldest:
            self.calls.popleft()
        shapes = {}
        for shape in SHAPES:
            durations = sorted(duration for _, name, duration in self.calls if name == shape.name)
            if durations:
                p95 = durations[min(len(durations) - 1, int(len(durations) * 0.95))]
                mean = sum(durations) / len(durations)
                shapes[shape.name] = {"calls": len(durations), "mean_ms": round(mean, 2), "p95_ms": round(p95, 2)}
        return {"window_s": self.window, "at": datetime.now(UTC).isoformat(), "errors": self.errors, "shapes": shapes}


def call(session: connection, shape: Shape, literals: Literals) -> float:
    """Run one statement, its values as literals in the text; answers milliseconds."""
    started = time.perf_counter()
    with session.cursor() as cursor:
        cursor.execute(shape.text, shape.values(literals))
        if cursor.description:
            cursor.fetchall()
    return (time.perf_counter() - started) * 1000


def run(dsn: str, scale: data.Scale, rounds: int, *, seed: int = 1) -> Figures:
    """Run each shape `rounds` times, without a pause, in the foreground."""
    literals, figures = Literals(scale, seed), Figures(window=Seconds(float("inf")))
    session = _connect(dsn)
    try:
        for _ in range(rounds):
            for shape in SHAPES:
                figures.add(shape.name, call(session, shape, literals))
    finally:
        session.close()
    return figures


def _connect(dsn: str) -> connection:
    session = psycopg2.connect(dsn, application_name="aiprod-api")
    session.autocommit = True
    return session


def serve(folder: Path, dsn: str, scale: data.Scale) -> None:
    """Run until the folder is gone: each shape twice without a pause, so that all have figures soon, then by weight."""
    literals, figures = Literals(scale, seed=os.getpid()), Figures()
    weights = [shape.weight for shape in SHAPES]
    session: connection | None = None
    written, first = 0.0, [*SHAPES, *SHAPES]
    while folders.is_lab(folder):
        pause = 1.0
        try:
            session = session or _connect(dsn)
            is_first = bool(first)
            shape = first.pop() if is_first else literals.random.choices(SHAPES, weights=weights)[0]
            duration_ms = call(session, shape, literals)
            figures.add(shape.name, duration_ms)
            pause = 0.01 if is_first else max(0.01, duration_ms / 500)
        except psycopg2.Error:
            # The server went away, or a drill made this statement fail: that is part of its life.
            figures.errors += 1
            if session is not None and session.closed:
                session = None
        if time.monotonic() - written >= 1:
            written = time.monotonic()
            _write(folder, figures)
        time.sleep(pause)


def _write(folder: Path, figures: Figures) -> None:
    # `lab down` may be removing the folder: the loop sees that next.
    with contextlib.suppress(FileNotFoundError):
        folders.write(folder / "workload.json", json.dumps(figures.summary()) + "\n")


def main(arguments: list[str]) -> None:
    """Go to the background, where nobody waits for us, and serve."""
    folder, dsn, jobs, until = arguments
    if os.fork():
        return
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    log = os.open(Path(folder, "workload.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for old, new in ((0, nowhere), (1, log), (2, log)):
        os.dup2(new, old)
    try:
        serve(Path(folder), dsn, data.Scale(int(jobs), datetime.fromisoformat(until)))
    except OSError:
        traceback.print_exc()


if __name__ == "__main__":
    main(sys.argv[1:])
