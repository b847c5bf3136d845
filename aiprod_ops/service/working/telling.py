"""Events of jobs, in the transaction of the change that they tell: both are there, or neither."""

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from aiprod_ops.service.operations.views import JobView
from aiprod_ops.service.webhooks import emit_webhook_event


async def tell_job(transaction: AsyncConnection, event: str, row: RowMapping) -> None:
    """One of the job's events, with the job as it is in the row."""
    await emit_webhook_event(transaction, row["user_id"], event, JobView.of(row))
