"""The end of a batch: told once, by whoever sees that no job of it is left."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

#: A transaction of its own, after the job's: two last jobs that end at once see each other's end, at the latest here.
_SETTLED = text("""
update batches set completed_at = clock_timestamp()
where id = any (cast(:ids as uuid[])) and completed_at is null
    and not exists (select from jobs where batch_id = batches.id and status = 'queued')
    and not exists (select from jobs where batch_id = batches.id and status = 'processing')
returning * /* aiprod-ops: batches whose jobs have all ended */
""")
_OPEN = text("select id::text from batches where completed_at is null order by id limit 1000")


async def settle(transaction: AsyncConnection, batch_id: str) -> None:
    """Tell that a batch is completed, if it is."""
    await _settle(transaction, [batch_id])


async def settle_all(transaction: AsyncConnection) -> None:
    """The same for every open batch: the worker that ended its last job may have been killed before it told."""
    await _settle(transaction, list((await transaction.execute(_OPEN)).scalars()))


async def _settle(transaction: AsyncConnection, ids: list[str]) -> None:
    await transaction.execute(_SETTLED, {"ids": ids})
