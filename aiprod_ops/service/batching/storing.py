"""Batches in the database: made with all their jobs in one transaction, counted, cancelled, tried again."""

import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from tempfile import TemporaryFile
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiprod_ops.domain.batches import Counts
from aiprod_ops.domain.jobs import Status
from aiprod_ops.service.ids import uuid7
from aiprod_ops.service.tables import batches, jobs
from aiprod_ops.service.working.claims import WAKE
from aiprod_ops.units import Seconds

LONGEST = Seconds(300)  #: of a statement: one on 100,000 rows takes seconds
_PATIENCE = text(f"set local statement_timeout = {LONGEST * 1000:.0f}")
_COLUMNS = (
    "id", "user_id", "status", "batch_id", "batch_position", "priority", "preset", "language", "prompt", "title",
    "duration_seconds", "aspect_ratio", "reference_urls",
)  # fmt: skip
_COPY = f"copy jobs ({', '.join(_COLUMNS)}) from stdin"
_GIVEN = _COLUMNS[5:]
_PART = 1_000


async def create(
    transaction: AsyncConnection,
    user_id: str,
    rows: Iterable[Mapping[str, Any]],
    number: int,
    rejected: int = 0,
    errors: Sequence[Mapping[str, Any]] = (),
    retry_of: str | None = None,
) -> RowMapping:
    """A batch of so many jobs, which are copied as they are read: memory holds one."""
    batch_id = str(uuid7())
    await transaction.execute(_PATIENCE)
    new = insert(batches).values(
        id=batch_id, user_id=user_id, jobs=number, rejected=rejected, errors=list(errors), retry_of=retry_of
    )
    row: RowMapping = (await transaction.execute(new.returning(batches))).mappings().one()
    raw: Any = (await transaction.get_raw_connection()).driver_connection
    async with raw.cursor() as cursor, cursor.copy(_COPY) as copy:
        for position, (job_id, job) in enumerate(zip(_ids(), rows, strict=False), start=1):
            given = [job[name] for name in _GIVEN]
            await copy.write_row((job_id, user_id, Status.QUEUED.value, batch_id, position, *given))
    await transaction.execute(WAKE)
    return row


def _ids() -> Iterator[str]:
    """Ids that grow in the order of the items, also within a millisecond.

    Source: RFC 9562, section 6.2, "Monotonic Random": the last 32 bits count.
    """
    first = uuid7().int >> 32 << 32
    for number in range(2**32):
        yield str(UUID(int=first | number))


async def counts(transaction: AsyncConnection, batch_ids: Sequence[str]) -> dict[str, Counts]:
    """Of each of these batches: read from the index alone, so that no counter can drift from the jobs."""
    query = (
        select(jobs.c.batch_id, jobs.c.status, func.count())
        .where(jobs.c.batch_id.in_(batch_ids))
        .group_by(jobs.c.batch_id, jobs.c.status)
    )
    found: dict[str, dict[str, int]] = {batch_id: {} for batch_id in batch_ids}
    for batch_id, status, number in await transaction.execute(query):
        found[batch_id][status] = number
    return {batch_id: Counts(**by_status) for batch_id, by_status in found.items()}


async def cancel(transaction: AsyncConnection, batch_id: str) -> None:
    """Cancel what has not ended; workers stop what they are at."""
    await transaction.execute(_PATIENCE)
    now = func.clock_timestamp()
    ending = update(jobs).where(jobs.c.batch_id == batch_id, jobs.c.status.in_((Status.QUEUED, Status.PROCESSING)))
    await transaction.execute(ending.values(status=Status.CANCELLED, completed_at=now, updated_at=now))
    await transaction.execute(update(batches).where(batches.c.id == batch_id).values(cancelled_at=now))


async def parts(transaction: AsyncConnection, batch_id: str, status: Status) -> AsyncIterator[Sequence[RowMapping]]:
    """The jobs of a batch in a status, in their order, so many at a time."""
    after = 0
    while True:
        query = (
            select(jobs)
            .where(jobs.c.batch_id == batch_id, jobs.c.status == status, jobs.c.batch_position > after)
            .order_by(jobs.c.batch_position)
            .limit(_PART)
        )
        found = (await transaction.execute(query)).mappings().all()
        if not found:
            return
        yield found
        after = found[-1]["batch_position"]


async def failed_again(transaction: AsyncConnection, user_id: str, batch_id: str, number: int) -> RowMapping:
    """A new batch of the jobs that failed: what has ended stays as it is, its events and its download too."""
    with TemporaryFile() as file:
        async for rows in parts(transaction, batch_id, Status.FAILED):
            for row in rows:
                file.write(json.dumps({name: row[name] for name in _GIVEN}).encode() + b"\n")
        file.seek(0)
        return await create(transaction, user_id, (json.loads(line) for line in file), number, retry_of=batch_id)


async def retried_as(transaction: AsyncConnection, batch_id: str) -> str | None:
    """The batch in which the failed jobs of this one were tried again, but for one that was cancelled."""
    query = select(batches.c.id).where(batches.c.retry_of == batch_id, batches.c.cancelled_at.is_(None))
    found = (await transaction.execute(query)).scalar_one_or_none()
    return None if found is None else str(found)
