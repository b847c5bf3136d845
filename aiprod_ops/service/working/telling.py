"""Events of jobs and batches, in the transaction of the change that they tell: both are there, or neither."""

from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from aiprod_ops.service.operations.views import JobView


async def tell_job(transaction: AsyncConnection, event: str, row: RowMapping) -> None:
    """One of the job's events, with the job as it is in the row."""
    await tell(transaction, str(row["user_id"]), event, JobView.of(row).model_dump(mode="json"))


async def tell(transaction: AsyncConnection, user_id: str, event: str, data: dict[str, Any]) -> None:
    """An event for whoever listens to it."""
