"""What is answered: the representations of jobs, results, pipelines, users and keys."""

from datetime import datetime
from typing import Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import RowMapping

from aiprod_ops.domain.problems import BY_CODE
from aiprod_ops.service.operations.submissions import PriorityName

StatusName = Literal["queued", "processing", "completed", "failed", "cancelled"]
PresetName = Literal["quick_social", "brand_campaign", "premium_spot"]
LanguageName = Literal["en", "fr", "es", "de", "it", "pt", "ja", "zh", "ko"]
TierName = Literal["free", "pro", "enterprise", "premium"]
Scope = Literal["jobs", "webhooks", "admin"]

#: The first version of the schema calls the second priority otherwise than the API.
STORED_PRIORITIES = {"medium": "normal"}
_SHOWN_PRIORITIES = {stored: shown for shown, stored in STORED_PRIORITIES.items()}


class View(BaseModel):
    """A representation."""

    model_config = ConfigDict(frozen=True)


class Failure(View):
    """Why a job failed: a code of the catalogue, and what was seen."""

    code: str
    message: str


class JobLinks(View):
    """Where to go from a job. `download` is there when it is completed."""

    self: str
    pipelines: str
    result: str | None
    download: str | None


class JobView(View):
    """A job. `progress` is in percent; `attempts` counts how often it was taken by a worker."""

    id: str
    status: StatusName
    preset: PresetName
    priority: PriorityName
    language: LanguageName
    title: str
    prompt: str
    duration_seconds: int
    aspect_ratio: str
    reference_urls: list[str]
    progress: int = Field(ge=0, le=100)
    attempts: int
    failure: Failure | None
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    batch_id: str | None
    links: JobLinks

    @classmethod
    def of(cls, row: RowMapping) -> Self:
        """From a row of `jobs`."""
        here, is_completed = f"/api/v1/jobs/{row['id']}", row["status"] == "completed"
        plain = {name: row[name] for name in cls.model_fields if name in row}
        return cls(
            **{
                **plain,
                "priority": _SHOWN_PRIORITIES.get(row["priority"], row["priority"]),
                "progress": 100 if is_completed else row["progress"],
                "failure": _failure(row),
                "links": JobLinks(
                    self=here,
                    pipelines=f"{here}/pipelines",
                    result=f"{here}/result" if is_completed else None,
                    download=f"{here}/download" if is_completed else None,
                ),
            }
        )


def _failure(row: RowMapping) -> Failure | None:
    if row["status"] != "failed":
        return None
    code = row["error_code"] if row["error_code"] in BY_CODE else "PROCESSING_ERROR"
    return Failure(code=code, message=row["error"] or BY_CODE[code].cause)


class ResultView(View):
    """What a completed job made."""

    id: str
    job_id: str
    video_url: str
    thumbnail_url: str
    duration_seconds: int
    size_bytes: int
    quality_score: float
    created_at: datetime


class PipelineView(View):
    """One stage of a job's work."""

    id: str
    job_id: str
    status: StatusName
    stage: str
    created_at: datetime
    updated_at: datetime


class UserView(View):
    """A user."""

    id: str
    email: str
    name: str
    tier: TierName
    created_at: datetime


class KeyView(View):
    """An API key without its secret: what is stored of it cannot be turned back. `prefix` is how it begins."""

    id: str
    label: str
    prefix: str | None
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class NewKeyView(KeyView):
    """A key that was just made. `key` is told once: a repeated request is answered with null there."""

    key: str | None


Item = TypeVar("Item")


class Page(View, Generic[Item]):
    """A part of a list, newest first. `next_cursor` leads to the next part; null at the end."""

    items: list[Item]
    next_cursor: str | None
