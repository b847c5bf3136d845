"""The end of a batch: told once, by whoever sees that no job of it is left."""

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from aiprod_ops.service.batching import storing
from aiprod_ops.service.operations.batch_views import BatchView
from aiprod_ops.service.tables import batches
from aiprod_ops.service.webhooks import emit_webhook_event

#: After the job's own transaction, in another: two last jobs that end at once see each other's end, at the latest here.
#: Not "not exists": that may be planned as a join with all that waits, where one probe of the index suffices.
_SETTLED = text("""
update batches set completed_at = clock_timestamp()
where id = any (cast(:ids as uuid[])) and completed_at is null
    and (select 1 from jobs where batch_id = batches.id and status = 'queued' limit 1) is null
    and (select 1 from jobs where batch_id = batches.id and status = 'processing' limit 1) is null
returning * /* aiprod-ops: batches whose jobs have all ended */
""").columns(**{column.name: column.type for column in batches.columns})
_OPEN = text("select id::text from batches where completed_at is null order by id limit 1000")


async def settle(transaction: AsyncConnection, batch_id: str) -> None:
    """Tell that a batch is completed, if it is."""
    await _settle(transaction, [batch_id])


async def settle_all(transaction: AsyncConnection) -> None:
    """The same for every open batch: the worker that ended its last job may have been killed before it told."""
    await _settle(transaction, list((await transaction.execute(_OPEN)).scalars()))


async def tell_batch(transaction: AsyncConnection, event: str, row: RowMapping) -> None:
    """One of the batch's events, with its counts as they are now."""
    counts = await storing.counts(transaction, [row["id"]])
    await emit_webhook_event(transaction, row["user_id"], event, BatchView.of(row, counts[row["id"]]))


async def _settle(transaction: AsyncConnection, ids: list[str]) -> None:
    for row in (await transaction.execute(_SETTLED, {"ids": ids})).mappings().all():
        await tell_batch(transaction, "batch.completed", row)
