"""Jobs in a lab that a worker took and left, for drills."""

from collections.abc import Iterator
from contextlib import contextmanager

from aiprod_ops.engine.runbook import Lab
from aiprod_ops.service.ids import uuid7

JOBS = 3

_LOST = """
insert into jobs (id, user_id, status, priority, preset, language, prompt, attempts, worker, started_at, heartbeat_at,
                  created_at, updated_at)
select %(id)s, (select id from users order by id limit 1), 'processing', 'normal', 'quick_social', 'en', 'A rehearsal.',
       1, 'rehearsal', t.at, t.at, t.at, t.at
from (select now() - interval '1 day' as at) t
"""
_REMOVE = "delete from jobs where id = any(%(ids)s::uuid[])"
_FLUSH = "select pg_stat_force_next_flush()"  #: whoever compares what was written sees it now, and not seconds later


@contextmanager
def lost_jobs(lab: Lab, jobs: int = JOBS) -> Iterator[None]:
    """So many jobs whose worker was last heard of yesterday; they are removed at the end."""
    ids = [str(uuid7()) for _ in range(jobs)]
    with lab.connect("aiprod_app") as application:
        try:
            for each in ids:
                application.execute(_LOST, {"id": each})
            application.query(_FLUSH)
            yield
        finally:
            application.execute(_REMOVE, {"ids": ids})
