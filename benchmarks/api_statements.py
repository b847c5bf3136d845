"""The statements of an AIPROD-like API and its workers, as clients that prepare send them, with calls a minute.

Literal limits stand in the text, as an ORM writes them; all else is a parameter. At 60 new jobs a minute.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from aiprod_ops.domain.statements import Statement
from aiprod_ops.units import Milliseconds

JOBS_A_MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Call:
    """One statement and how often it comes."""

    name: str
    text: str
    per_minute: float


READS: tuple[Call, ...] = (
    Call("worker pick",
         "SELECT id, user_id, prompt, preset FROM jobs WHERE status = $1 ORDER BY created_at LIMIT 10", 120),
    Call("worker pick by priority",
         "SELECT id, user_id, prompt FROM jobs WHERE status = $1 AND priority = $2 ORDER BY created_at LIMIT 10", 60),
    Call("jobs by status", "SELECT * FROM jobs WHERE status = $1 ORDER BY created_at DESC LIMIT 50", 30),
    Call("jobs of a user", "SELECT * FROM jobs WHERE user_id = $1 ORDER BY created_at DESC LIMIT 20", 300),
    Call("jobs of a user by status",
         "SELECT * FROM jobs WHERE user_id = $1 AND status = $2 ORDER BY created_at DESC LIMIT 20", 120),
    Call("next page of a user",
         "SELECT id, status, created_at, prompt FROM jobs WHERE user_id = $1 AND (created_at, id) < ($2, $3) "
         "ORDER BY created_at DESC, id DESC LIMIT 20", 60),
    Call("quota of a user", "SELECT count(*) FROM jobs WHERE user_id = $1 AND status = ANY($2)", 60),
    Call("count of a status", "SELECT count(*) FROM jobs WHERE status = $1", 6),
    Call("recent jobs", "SELECT * FROM jobs ORDER BY created_at DESC LIMIT 50", 30),
    Call("month by preset",
         "SELECT preset, count(*) FROM jobs WHERE created_at >= $1 AND created_at < $2 GROUP BY preset", 0.1),
    Call("errors since",
         "SELECT error, count(*) FROM jobs WHERE status = $1 AND created_at >= $2 GROUP BY error", 1),
    Call("stuck jobs", "SELECT id FROM jobs WHERE status = $1 AND updated_at < $2 ORDER BY updated_at LIMIT 100", 1),
    Call("prompts that begin with",
         "SELECT id, prompt FROM jobs WHERE prompt LIKE $1 ORDER BY created_at DESC LIMIT 20", 1),
    Call("results of a job",
         "SELECT id, video_url, duration_seconds, quality_score FROM results WHERE job_id = $1", 240),
    Call("videos of a user",
         "SELECT j.id, j.prompt, r.video_url FROM jobs j JOIN results r ON r.job_id = j.id "
         "WHERE j.user_id = $1 ORDER BY j.created_at DESC LIMIT 20", 60),
    Call("recent results",
         "SELECT id, job_id, video_url FROM results WHERE created_at >= $1 ORDER BY created_at DESC LIMIT 100", 10),
    Call("pipeline of a job",
         "SELECT stage, status, worker, created_at FROM pipeline_jobs WHERE job_id = $1 ORDER BY created_at", 120),
    Call("next stage",
         "SELECT id, job_id, parameters FROM pipeline_jobs WHERE status = $1 AND stage = $2 "
         "ORDER BY created_at LIMIT 5", 120),
    Call("a key", "SELECT id, user_id FROM api_keys WHERE key_hash = $1 AND revoked_at IS NULL", 600),
    Call("a user by email", "SELECT id, name, tier FROM users WHERE email = $1", 20),
)  # fmt: skip

#: The writes of one job's life, in their order.
WRITES: tuple[Call, ...] = (
    Call("insert a job",
         "INSERT INTO jobs (id, user_id, status, priority, preset, language, prompt) "
         "VALUES ($1, $2, $3, $4, $5, $6, $7)", JOBS_A_MINUTE),
    Call("insert a stage",
         "INSERT INTO pipeline_jobs (id, job_id, status, stage, worker, parameters) VALUES ($1, $2, $3, $4, $5, $6)",
         JOBS_A_MINUTE),
    Call("begin a job", "UPDATE jobs SET status = $1, attempts = attempts + 1, updated_at = now() WHERE id = $2",
         JOBS_A_MINUTE),
    Call("move a stage", "UPDATE pipeline_jobs SET status = $1, updated_at = now() WHERE id = $2", 2 * JOBS_A_MINUTE),
    Call("touch a job", "UPDATE jobs SET updated_at = now() WHERE id = $1", JOBS_A_MINUTE),
    Call("insert a result",
         "INSERT INTO results (id, job_id, video_url, thumbnail_url, duration_seconds, size_bytes, quality_score) "
         "VALUES ($1, $2, $3, $4, $5, $6, $7)", JOBS_A_MINUTE),
    Call("complete a job", "UPDATE jobs SET status = $1, updated_at = now(), completed_at = now() WHERE id = $2",
         JOBS_A_MINUTE),
)  # fmt: skip


def statements(means: dict[int, float], minutes: int = 60) -> list[Statement]:
    """The workload as pg_stat_statements would tell it after an hour, with mean milliseconds by query id.

    Query ids are positions in READS + WRITES, from 1. A write without a measured mean takes 0.1 ms.
    """
    return [_statement(number, call, means.get(number, 0.1), minutes) for number, call in enumerate(ALL, 1)]


def _statement(number: int, call: Call, mean: float, minutes: int) -> Statement:
    calls = max(1, round(call.per_minute * minutes))
    return Statement(number, call.text, calls, Milliseconds(mean * calls), Milliseconds(mean))


ALL: Sequence[Call] = (*READS, *WRITES)
