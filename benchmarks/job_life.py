"""What indexes cost: WAL bytes of one job's life, and the share of updates that stay HOT.

Lives overlap as they do in a service: a job is begun, touched and completed while others are created. Full page images
of the first change after a checkpoint are part of the figure: an index that scatters its entries pays for them.
"""

import random
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import UUID

import psycopg2

from aiprod_ops.lab import data
from aiprod_ops.lab.workload import Literals
from benchmarks.api_statements import WRITES

LIVES = 1000
#: Jobs created meanwhile, at one a second: picked within 2 s, touched after 10, completed after half a minute.
_LAG = {"begin a job": 2, "touch a job": 10, "complete a job": 30}
_FIGURES = """
select pg_current_wal_insert_lsn() - '0/0'::pg_lsn as wal, sum(n_tup_upd) as updates, sum(n_tup_hot_upd) as hot
from pg_stat_user_tables where relname in ('jobs', 'pipeline_jobs')
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """WAL bytes of one life, and the share of updates that touched no index."""

    wal: float
    hot: float


def measure(dsn: str, scale: data.Scale, lives: int = LIVES) -> Cost:
    """Run some lives on a disposable database; the same ones every time."""
    texts = {call.name: _placeholders(call.text) for call in WRITES}
    before = _figures(dsn)
    with closing(psycopg2.connect(dsn)) as session, session.cursor() as cursor:
        session.autocommit = True
        cursor.execute("set synchronous_commit = off")
        cursor.execute("checkpoint")
        _live(cursor, texts, Literals(scale, seed=7), lives)
    after = _figures(dsn)
    wal, updates, hot = (float(now - then) for now, then in zip(after, before, strict=True))
    return Cost(wal / lives, hot / updates)


def _figures(dsn: str) -> tuple[Any, ...]:
    """In a session of its own: one that ended has told all its figures."""
    with closing(psycopg2.connect(dsn)) as session, session.cursor() as cursor:
        cursor.execute(_FIGURES)
        return tuple(cursor.fetchone() or ())


def _placeholders(text: str) -> str:
    for number in range(9, 0, -1):
        text = text.replace(f"${number}", f"%(p{number})s")
    return text


def _live(cursor: Any, texts: dict[str, str], literals: Literals, lives: int) -> None:
    chance = random.Random(11)
    jobs = [{**literals.new_job(), "id": _uuid(chance)} for _ in range(lives)]
    stages = [_uuid(chance) for _ in jobs]
    for now in range(lives + max(_LAG.values())):
        if now < lives:
            job = jobs[now]
            names = ("id", "user", "status", "priority", "preset", "language", "prompt")
            _run(cursor, texts["insert a job"], *({**job, "status": "queued"}[name] for name in names))
            stage = data.STAGES[now % 5]
            _run(
                cursor, texts["insert a stage"], stages[now], job["id"], "queued", stage, f"worker-{now % 24:02d}", "{}"
            )
        _later(cursor, texts, jobs, stages, now, chance)


def _later(
    cursor: Any, texts: dict[str, str], jobs: list[dict[str, Any]], stages: list[str], now: int, chance: random.Random
) -> None:
    begun, touched, done = (now - lag for lag in _LAG.values())
    if 0 <= begun < len(jobs):
        _run(cursor, texts["begin a job"], "processing", jobs[begun]["id"])
        _run(cursor, texts["move a stage"], "processing", stages[begun])
    if 0 <= touched < len(jobs):
        _run(cursor, texts["touch a job"], jobs[touched]["id"])
    if 0 <= done < len(jobs):
        job = jobs[done]["id"]
        _run(cursor, texts["move a stage"], "completed", stages[done])
        _run(cursor, texts["insert a result"], _uuid(chance), job, "https://v", "https://t", 30, 9_000_000, 0.8)
        _run(cursor, texts["complete a job"], "completed", job)


def _run(cursor: Any, text: str, *values: object) -> None:
    cursor.execute(text, {f"p{number}": value for number, value in enumerate(values, 1)})


def _uuid(chance: random.Random) -> str:
    """Of version 7, at the right end of the primary key, as the service makes them."""
    return str(UUID(int=data.uuid(4_000_000_000 + next(_SECONDS), chance.getrandbits(15), 6)))


_SECONDS = count()
