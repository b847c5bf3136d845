"""Entries of the usage ledger, in the caller's transaction. Sums are exact: cost units are whole numbers."""

from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from aiprod_ops.domain.tiers import Prices, Tier, crossed, month_of
from aiprod_ops.service.webhooks import emit_webhook_event

_ENTRY = text("""
insert into usage (user_id, job_id, preset, seconds, cost_units, moment)
values (:user_id, :job_id, :preset, :seconds, :cost_units, :moment)
on conflict (job_id) do nothing returning id /* aiprod-ops: an entry of the usage ledger */
""")
#: The row is locked from here on: of two jobs that end at once, one sees the other's sum, and one reaches a warning.
_SUM = text("""
insert into usage_months (user_id, month, cost_units) values (:user_id, :month, :cost_units)
on conflict (user_id, month) do update set cost_units = usage_months.cost_units + excluded.cost_units
returning cost_units /* aiprod-ops: the sum of a user's month */
""")
_WARNING = text("""
insert into usage_warnings (user_id, month, percent, cost_units, monthly_cost_units)
values (:user_id, :month, :percent, :cost_units, :monthly_cost_units)
on conflict do nothing returning percent /* aiprod-ops: a warning, once a month */
""")
_COST = text("""
select cost_units from usage_months where user_id = :user_id and month = :month /* aiprod-ops: a month's cost */
""")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a job used. `moment` is when it ended, with a time zone."""

    user_id: str
    job_id: str
    preset: str
    seconds: int
    moment: datetime


@dataclass(frozen=True, slots=True)
class QuotaWarning:
    """A share of a month's cost units that a user has reached: an event that is sent once."""

    user_id: str
    month: date
    percent: int
    cost_units: int
    monthly_cost_units: int


async def record(connection: AsyncConnection, usage: Usage, tier: Tier, prices: Prices) -> tuple[QuotaWarning, ...]:
    """Enter what a job used, once: a job that is entered already adds nothing. Returns the warnings that are new.

    They stand in `usage_warnings` when the transaction is committed, and `quota.warning` is told to webhooks.
    """
    cost_units, month = prices.cost_units(usage.preset, usage.seconds), month_of(usage.moment)
    of_month = {"user_id": usage.user_id, "month": month}
    entry = {
        "user_id": usage.user_id, "job_id": usage.job_id, "preset": usage.preset, "seconds": usage.seconds,
        "cost_units": cost_units, "moment": usage.moment,
    }  # fmt: skip
    if (await connection.execute(_ENTRY, entry)).first() is None:
        return ()
    after = int((await connection.execute(_SUM, {**of_month, "cost_units": cost_units})).scalar_one())
    found = []
    for percent in crossed(after - cost_units, after, tier.monthly_cost_units):
        warning = QuotaWarning(usage.user_id, month, percent, after, tier.monthly_cost_units)
        row = {**of_month, "percent": percent, "cost_units": after, "monthly_cost_units": tier.monthly_cost_units}
        if (await connection.execute(_WARNING, row)).first() is not None:
            found.append(warning)
            told = {"month": month, **{name: row[name] for name in ("percent", "cost_units", "monthly_cost_units")}}
            await emit_webhook_event(connection, usage.user_id, "quota.warning", told)
    return tuple(found)


async def monthly_cost(connection: AsyncConnection, user_id: str, month: date) -> int:
    """Cost units of a user's month (UTC), whose first day is given."""
    found = await connection.execute(_COST, {"user_id": user_id, "month": month})
    return int(found.scalar_one_or_none() or 0)
