"""What a user's jobs cost: the sum of a month beside what the tier allows, and the entries that it is made of."""

from datetime import UTC, date, datetime, time
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiprod_ops.domain.tiers import Tier, month_after, month_of
from aiprod_ops.service.http.fields import Id
from aiprod_ops.service.http.pagination import Listing, PageRequest
from aiprod_ops.service.http.problems import Problem
from aiprod_ops.service.http.requests import AdminCaller, JobsCaller, OwnedRoute, TheService, Transaction
from aiprod_ops.service.operations.views import Page, PresetName, View
from aiprod_ops.service.tables import usage, usage_months, usage_warnings, users

router = APIRouter(tags=["usage"], route_class=OwnedRoute)
Month = Annotated[str, StringConstraints(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$")]
_WHICH = "A month (UTC), such as 2026-11; the present one where it is missing."


class UsageWarning(View):
    """A share of the month's cost units that was reached."""

    percent: int
    reached_at: datetime


class MonthlyUsage(View):
    """Cost units of a month (UTC). `monthly_cost_units` is what the tier allows today; null where it has no limits."""

    user_id: str
    month: str
    cost_units: int
    monthly_cost_units: int | None
    warnings: list[UsageWarning]


class UsageEntry(View):
    """What one job cost; `moment` is when it ended."""

    job_id: str
    preset: PresetName
    seconds: int
    cost_units: int
    moment: datetime


class UsageQuery(BaseModel):
    """Which month."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    month: Month | None = Field(None, description=_WHICH)


class UsagePage(PageRequest):
    """Which month, and which part of its entries."""

    month: Month | None = Field(None, description=_WHICH)


@router.get("/usage")
async def get_usage(
    asked: Annotated[UsageQuery, Query()], caller: JobsCaller, transaction: Transaction, service: TheService
) -> MonthlyUsage:
    """What your jobs cost in a month, beside what your tier allows."""
    return await _usage(transaction, caller.user_id, _first_day(asked.month), service.tiers.get(caller.tier))


@router.get("/usage/entries")
async def list_usage(
    page: Annotated[UsagePage, Query()], caller: JobsCaller, transaction: Transaction, service: TheService
) -> Page[UsageEntry]:
    """The jobs of a month and what each cost, the one submitted last first."""
    first = _first_day(page.month)
    since, until = (datetime.combine(day, time(), UTC) for day in (first, month_after(first)))
    query = select(usage).where(usage.c.user_id == caller.user_id, usage.c.moment >= since, usage.c.moment < until)
    listing = Listing(await service.cursor_secret(transaction), caller.user_id, "usage", {"month": f"{first:%Y-%m}"})
    rows, cursor = await listing.part(transaction, query, usage.c.job_id, page, named="job_id")
    return Page(items=[UsageEntry(**row) for row in rows], next_cursor=cursor)


@router.get("/users/{user_id}/usage")
async def get_usage_of_user(
    user_id: Id,
    asked: Annotated[UsageQuery, Query()],
    _: AdminCaller,
    transaction: Transaction,
    service: TheService,
) -> MonthlyUsage:
    """What any user's jobs cost in a month. Needs the scope `admin`."""
    tier = (await transaction.execute(select(users.c.tier).where(users.c.id == user_id))).scalar_one_or_none()
    if tier is None:
        raise Problem("NOT_FOUND", "There is no user with this id.")
    return await _usage(transaction, user_id, _first_day(asked.month), service.tiers.get(tier))


async def _usage(transaction: AsyncConnection, user_id: str, month: date, tier: Tier | None) -> MonthlyUsage:
    of_month = (usage_months.c.user_id == user_id, usage_months.c.month == month)
    spent = (await transaction.execute(select(usage_months.c.cost_units).where(*of_month))).scalar_one_or_none()
    query = select(usage_warnings.c.percent, usage_warnings.c.created_at.label("reached_at"))
    query = query.where(usage_warnings.c.user_id == user_id, usage_warnings.c.month == month)
    warnings = (await transaction.execute(query.order_by(usage_warnings.c.percent))).mappings()
    return MonthlyUsage(
        user_id=user_id,
        month=f"{month:%Y-%m}",
        cost_units=int(spent or 0),
        monthly_cost_units=None if tier is None else tier.monthly_cost_units,
        warnings=[UsageWarning(**row) for row in warnings],
    )


def _first_day(month: str | None) -> date:
    return month_of(datetime.now(UTC)) if month is None else date.fromisoformat(f"{month}-01")
