"""What is answered of a batch: its counts, its progress, and what was rejected."""

from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import Field
from sqlalchemy import RowMapping

from aiprod_ops.domain.batches import Counts, eta
from aiprod_ops.service.operations.submissions import MODELS
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
    percentage of its jobs that have ended; `eta` is told while it works, from what it has done so far. `retry_of` is
    the batch whose failed jobs these are.
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
    retry_of: str | None
    progress: int = Field(ge=0, le=100)
    eta: datetime | None
    created_at: datetime
    completed_at: datetime | None
    links: BatchLinks

    @classmethod
    def of(cls, row: RowMapping, counts: Counts) -> Self:
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
            retry_of=None if row["retry_of"] is None else str(row["retry_of"]),
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


_ITEM = {
    "oneOf": [{"$ref": f"#/components/schemas/{model.__name__}"} for model in MODELS.values()],
    "discriminator": {
        "propertyName": "preset",
        "mapping": {name: f"#/components/schemas/{model.__name__}" for name, model in MODELS.items()},
    },
}
#: What a batch is submitted with: FastAPI cannot read it from the operation, which takes the body piece by piece.
BODY: dict[str, Any] = {
    "required": True,
    "description": "A JSON array; one JSON object a line; or a form with one file, which is one of these.",
    "content": {
        "application/json": {"schema": {"type": "array", "minItems": 1, "items": _ITEM}},
        "application/x-ndjson": {"schema": {"type": "string", "description": "One job a line."}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["items"],
                "properties": {"items": {"type": "string", "contentMediaType": "application/x-ndjson"}},
            }
        },
    },
}
