"""Jobs: submit, look, list, change, cancel, download. Somebody else's job is not there."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import Field
from sqlalchemy import RowMapping, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import RedirectResponse

from aiprod_ops.domain.jobs import ENDED, Job, Status, advance
from aiprod_ops.service.http import etags
from aiprod_ops.service.http.credentials import Caller
from aiprod_ops.service.http.etags import IfMatch
from aiprod_ops.service.http.fields import Id
from aiprod_ops.service.http.pagination import Listing, PageRequest
from aiprod_ops.service.http.problems import Problem
from aiprod_ops.service.http.requests import JobsCaller, OwnedRoute, TheService, Transaction
from aiprod_ops.service.ids import uuid7
from aiprod_ops.service.limiting.jobs import JobsRefused, admit
from aiprod_ops.service.operations.submissions import AnySubmission, JobChange
from aiprod_ops.service.operations.views import (
    STORED_PRIORITIES,
    JobView,
    Page,
    PipelineView,
    PresetName,
    ResultView,
    StatusName,
)
from aiprod_ops.service.tables import jobs, pipeline_jobs, results
from aiprod_ops.service.webhooks import emit_webhook_event

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=OwnedRoute)


class JobsPage(PageRequest):
    """Which jobs, and which part of their list."""

    status: StatusName | None = Field(None, description="Only jobs with this status.")
    preset: PresetName | None = Field(None, description="Only jobs of this preset.")


@router.post("", status_code=201)
async def submit_job(
    job: AnySubmission, caller: JobsCaller, transaction: Transaction, service: TheService, response: Response
) -> JobView:
    """Submit a job. It is queued; look at it until it has ended, then download the result."""
    if caller.tier in service.tiers:
        try:
            await admit(transaction, caller.user_id, service.tiers[caller.tier], 1, datetime.now(UTC))
        except JobsRefused as error:
            after = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
            raise Problem(error.code, error.detail, headers=after) from error
    given = job.model_dump()
    given["priority"] = STORED_PRIORITIES.get(job.priority, job.priority)
    given["title"] = job.title or ""
    new = insert(jobs).values(id=str(uuid7()), user_id=caller.user_id, status=Status.QUEUED.value, **given)
    row = (await transaction.execute(new.returning(jobs))).mappings().one()
    response.headers["Location"] = f"/api/v1/jobs/{row['id']}"
    view = JobView.of(row)
    await emit_webhook_event(transaction, caller.user_id, "job.created", view)
    return view


@router.get("")
async def list_jobs(
    page: Annotated[JobsPage, Query()], caller: JobsCaller, transaction: Transaction, service: TheService
) -> Page[JobView]:
    """Your jobs, newest first."""
    query = select(jobs).where(jobs.c.user_id == caller.user_id)
    filters = {"status": page.status, "preset": page.preset}
    for name, value in filters.items():
        if value is not None:
            query = query.where(jobs.c[name] == value)
    listing = Listing(await service.cursor_secret(transaction), caller.user_id, "jobs", filters)
    rows, cursor = await listing.part(transaction, query, jobs.c.id, page)
    return Page(items=[JobView.of(row) for row in rows], next_cursor=cursor)


@router.get("/{job_id}")
async def get_job(job_id: Id, caller: JobsCaller, transaction: Transaction) -> JobView:
    """One of your jobs."""
    return JobView.of(await owned(transaction, caller, job_id))


@router.patch("/{job_id}")
async def change_job(
    job_id: Id, change: JobChange, caller: JobsCaller, transaction: Transaction, if_match: IfMatch = None
) -> JobView:
    """Change a job's title, or its priority while it waits."""
    row = await owned(transaction, caller, job_id, locks=True)
    etags.require(if_match, JobView.of(row))
    values: dict[str, Any] = {} if change.title is None else {"title": change.title}
    if change.priority is not None:
        if row["status"] != Status.QUEUED:
            raise Problem("JOB_STATE_CONFLICT", f"The job is {row['status']}: only a queued one changes its priority.")
        values["priority"] = STORED_PRIORITIES.get(change.priority, change.priority)
    return JobView.of(await _changed(transaction, job_id, values) if values else row)


@router.post("/{job_id}/cancel")
async def cancel_job(job_id: Id, caller: JobsCaller, transaction: Transaction, if_match: IfMatch = None) -> JobView:
    """Cancel a job that has not ended."""
    row = await owned(transaction, caller, job_id, locks=True)
    etags.require(if_match, JobView.of(row))
    now = datetime.now(UTC)
    after = advance(Job(Status(row["status"]), row["progress"], row["attempts"]), Status.CANCELLED, now)
    return JobView.of(await _changed(transaction, job_id, {"status": after.status.value, "completed_at": now}))


@router.get("/{job_id}/result")
async def get_job_result(job_id: Id, caller: JobsCaller, transaction: Transaction) -> ResultView:
    """The result of a completed job."""
    return ResultView(**await _result(transaction, await owned(transaction, caller, job_id)))


@router.get("/{job_id}/download", status_code=307, response_class=RedirectResponse)
async def download_job(job_id: Id, caller: JobsCaller, transaction: Transaction) -> RedirectResponse:
    """Go to the video of a completed job."""
    result = await _result(transaction, await owned(transaction, caller, job_id))
    return RedirectResponse(result["video_url"], headers={"Cache-Control": "no-store"})


@router.get("/{job_id}/pipelines")
async def list_job_pipelines(job_id: Id, caller: JobsCaller, transaction: Transaction) -> list[PipelineView]:
    """The stages of a job, in their order: a few at the most."""
    await owned(transaction, caller, job_id)
    query = select(pipeline_jobs).where(pipeline_jobs.c.job_id == job_id).order_by(pipeline_jobs.c.id)
    return [PipelineView(**row) for row in (await transaction.execute(query)).mappings()]


async def owned(transaction: AsyncConnection, caller: Caller, job_id: str, *, locks: bool = False) -> RowMapping:
    """The row of a job of the caller's; raises Problem NOT_FOUND, whether there is none or it is somebody else's."""
    query = select(jobs).where(jobs.c.id == job_id, jobs.c.user_id == caller.user_id)
    row = (await transaction.execute(query.with_for_update() if locks else query)).mappings().one_or_none()
    if row is None:
        raise Problem("NOT_FOUND", "You have no job with this id.")
    return row


async def _changed(transaction: AsyncConnection, job_id: str, values: Mapping[str, Any]) -> RowMapping:
    change = update(jobs).where(jobs.c.id == job_id).values(updated_at=datetime.now(UTC), **values)
    row: RowMapping = (await transaction.execute(change.returning(jobs))).mappings().one()
    return row


async def _result(transaction: AsyncConnection, job: RowMapping) -> RowMapping:
    query = select(results).where(results.c.job_id == job["id"]).order_by(results.c.id.desc()).limit(1)
    row = (await transaction.execute(query)).mappings().one_or_none() if job["status"] == Status.COMPLETED else None
    if row is None:
        state = "it has ended without a result" if job["status"] in ENDED else "it has not ended"
        raise Problem("JOB_NOT_COMPLETED", f"The job is {job['status']}: {state}.")
    return row
