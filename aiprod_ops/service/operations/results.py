"""Results of completed jobs."""

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import select, true

from aiprod_ops.service.http.fields import Id
from aiprod_ops.service.http.pagination import Listing, PageRequest
from aiprod_ops.service.http.problems import Problem
from aiprod_ops.service.http.requests import JobsCaller, OwnedRoute, TheService, Transaction
from aiprod_ops.service.operations.views import Page, ResultView
from aiprod_ops.service.tables import jobs, results

router = APIRouter(prefix="/results", tags=["results"], route_class=OwnedRoute)


@router.get("")
async def list_results(
    page: Annotated[PageRequest, Query()], caller: JobsCaller, transaction: Transaction, service: TheService
) -> Page[ResultView]:
    """The results of your jobs, of the newest job first."""
    # By the job's id, and one after the other: in the order of results, those of everybody would have to be looked at.
    newest = (
        select(results).where(results.c.job_id == jobs.c.id).order_by(results.c.id.desc()).limit(1).lateral("newest")
    )
    query = select(newest).select_from(jobs).join(newest, true()).where(jobs.c.user_id == caller.user_id)
    listing = Listing(await service.cursor_secret(transaction), caller.user_id, "results", {})
    rows, cursor = await listing.part(transaction, query, jobs.c.id, page, named="job_id")
    return Page(items=[ResultView(**row) for row in rows], next_cursor=cursor)


@router.get("/{result_id}")
async def get_result(result_id: Id, caller: JobsCaller, transaction: Transaction) -> ResultView:
    """One of your results."""
    query = select(results).join(jobs, jobs.c.id == results.c.job_id)
    query = query.where(results.c.id == result_id, jobs.c.user_id == caller.user_id)
    row = (await transaction.execute(query)).mappings().one_or_none()
    if row is None:
        raise Problem("NOT_FOUND", "You have no result with this id.")
    return ResultView(**row)
