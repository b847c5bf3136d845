"""How an attempt ends: completed, failed, or tried again; each with all that belongs to it in one transaction.

Only the worker that holds the job ends it: where another has taken over, or the job was cancelled, nothing is changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping, insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiprod_ops.domain.attempts import after_failure
from aiprod_ops.domain.jobs import Job, Status, advance
from aiprod_ops.domain.tiers import Prices, Tier
from aiprod_ops.service.ids import uuid7
from aiprod_ops.service.tables import jobs, results
from aiprod_ops.service.usage import ledger
from aiprod_ops.service.usage.ledger import Usage
from aiprod_ops.service.working.rendering import Rendered
from aiprod_ops.service.working.telling import tell_job


@dataclass(frozen=True, slots=True)
class Terms:
    """By what jobs are paid, and how often they are tried."""

    tiers: Mapping[str, Tier]
    prices: Prices
    most_attempts: int


async def complete(transaction: AsyncConnection, held: RowMapping, made: Rendered, terms: Terms) -> RowMapping | None:
    """The job is completed: status, result, usage and event. None where it is not this worker's any more."""
    now = datetime.now(UTC)
    row = await _ended(transaction, held, {"status": Status.COMPLETED, "progress": 100, "completed_at": now})
    if row is None:
        return None
    result = {name: getattr(made, name) for name in made.__dataclass_fields__}
    await transaction.execute(insert(results).values(id=str(uuid7()), job_id=row["id"], created_at=now, **result))
    await tell_job(transaction, "job.completed", row)
    if (tier := terms.tiers.get(held["tier"])) is not None:
        entry = Usage(row["user_id"], row["id"], row["preset"], made.duration_seconds, now)
        await ledger.record(transaction, entry, tier, terms.prices)  # last: it locks the sum of the user's month
    return row


async def fail(
    transaction: AsyncConnection, held: RowMapping, code: str, message: str, terms: Terms, *, waits: bool = True
) -> RowMapping | None:
    """The attempt failed: the job is tried again, or has failed. None where it is not this worker's any more.

    It `waits` before it is tried again where the reason may take time to go away; a worker that was lost is none.
    """
    now, job = datetime.now(UTC), Job(Status.PROCESSING, held["progress"], held["attempts"])
    again = after_failure(code, held["attempts"], terms.most_attempts)
    after = advance(job, Status.QUEUED, now) if again else advance(job, Status.FAILED, now, failure=code)
    values: dict[str, Any] = {"status": after.status, "progress": after.progress}
    if again is not None and waits:
        values["due_at"] = now + timedelta(seconds=again.wait)
    if again is None:
        values |= {"error": message, "error_code": code, "completed_at": now}
    row = await _ended(transaction, held, values)
    if row is not None and again is None:
        await tell_job(transaction, "job.failed", row)
    return row


async def _ended(transaction: AsyncConnection, held: RowMapping, values: Mapping[str, Any]) -> RowMapping | None:
    change = (
        update(jobs)
        .where(
            jobs.c.id == held["id"],
            jobs.c.worker == held["worker"],
            jobs.c.attempts == held["attempts"],
            jobs.c.status == Status.PROCESSING,
        )
        .values(worker=None, updated_at=datetime.now(UTC), **values)
        .returning(jobs)
    )
    row: RowMapping | None = (await transaction.execute(change)).mappings().one_or_none()
    return row
