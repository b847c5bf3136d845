"""What is answered of a batch: its counts, its progress, and what was rejected."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import Field

from aiprod_ops.domain.batches import Counts, eta
from aiprod_ops.service.operations.views import View

BatchStatus = Literal["processing", "completed", "cancelled"]


class BatchLinks(View):
    """Where to go from a batch. `download` is there when it has ended."""

    self: str
    jobs: str
    download: str | None


class BatchError(View):
    """What is wrong with an item. `item` counts from 1: the line of JSON lines without its empty ones."""

    item: int
    field: str
    rule: str
    message: str
    fix: str


class BatchView(View):
    """A batch. `jobs` were accepted, `rejected` items were not: `errors` has the first of them. `progress` is the
    percentage of its jobs that have ended; `eta` is told while it works, from what it has done so far.
    """

    id: str
    status: BatchStatus
    jobs: int
    queued: int
    processing: int
    completed: int
    failed: int
    cancelled: int
    rejected: int
    errors: list[BatchError]
    progress: int = Field(ge=0, le=100)
    eta: datetime | None
    created_at: datetime
    completed_at: datetime | None
    links: BatchLinks

    @classmethod
    def of(cls, row: Mapping[str, Any], counts: Counts) -> Self:
        """From a row of `batches`, and the counts of its jobs."""
        here, has_ended = f"/api/v1/batches/{row['id']}", row["completed_at"] is not None
        ended: BatchStatus = "cancelled" if row["cancelled_at"] is not None else "completed"
        return cls(
            id=str(row["id"]),
            status=ended if has_ended else "processing",
            jobs=row["jobs"],
            queued=counts.queued,
            processing=counts.processing,
            completed=counts.completed,
            failed=counts.failed,
            cancelled=counts.cancelled,
            rejected=row["rejected"],
            errors=[BatchError(**each) for each in row["errors"]],
            progress=counts.progress,
            eta=eta(counts, row["created_at"], datetime.now(UTC)),
            created_at=row["created_at"],
            completed_at=row["completed_at"],
            links=BatchLinks(
                self=here,
                jobs=f"/api/v1/jobs?batch_id={row['id']}",
                download=f"{here}/download" if has_ended else None,
            ),
        )
