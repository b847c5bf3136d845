"""Pipeline jobs: one for each stage of a job's work."""

from fastapi import APIRouter
from sqlalchemy import select

from aiprod_ops.service.http.fields import Id
from aiprod_ops.service.http.problems import Problem
from aiprod_ops.service.http.requests import JobsCaller, OwnedRoute, Transaction
from aiprod_ops.service.operations.views import PipelineView
from aiprod_ops.service.tables import jobs, pipeline_jobs

router = APIRouter(prefix="/pipelines", tags=["pipelines"], route_class=OwnedRoute)


@router.get("/{pipeline_id}")
async def get_pipeline(pipeline_id: Id, caller: JobsCaller, transaction: Transaction) -> PipelineView:
    """One stage of one of your jobs. Those of a job: `GET /jobs/{job_id}/pipelines`."""
    query = select(pipeline_jobs).join(jobs, jobs.c.id == pipeline_jobs.c.job_id)
    query = query.where(pipeline_jobs.c.id == pipeline_id, jobs.c.user_id == caller.user_id)
    row = (await transaction.execute(query)).mappings().one_or_none()
    if row is None:
        raise Problem("NOT_FOUND", "You have no pipeline with this id.")
    return PipelineView(**row)
